//! Reads one TOML file key by key, so that every error names the file, the key and what to write.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use toml::{Table, Value};

use super::units;
use crate::replicated::distance;

/// Why a file (or what overrides it) is refused. Nothing was started, nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}; {hint}")]
pub struct ConfigError {
    place: String,
    why: String,
    hint: String,
}

impl ConfigError {
    /// An error at `place` (a file, variable or flag): `why` it is refused, and what to try.
    pub fn new(place: impl fmt::Display, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { place: place.to_string(), why: one_line(why.into()), hint: one_line(hint.into()) }
    }
}

/// The sections of a file and the keys each may have; the top level is the section `""`.
pub(crate) type Keys = &'static [(&'static str, &'static [&'static str])];

/// A file as read, and the values that stand in for some of its keys.
#[derive(Debug)]
pub(crate) struct Source {
    file: PathBuf,
    keys: Keys,
    overrides: Overrides,
}

/// Values from the environment and from flags, by key path (`listen.http`).
#[derive(Debug, Clone, Default)]
pub struct Overrides(BTreeMap<String, Override>);

#[derive(Debug, Clone)]
struct Override {
    /// The variable or flag, for errors.
    from: String,
    value: String,
}

impl Overrides {
    /// Lets `value`, given by `from` (a variable or flag), stand for the key at `path`.
    pub fn set(&mut self, path: &str, from: &str, value: &str) {
        let one = Override { from: from.to_owned(), value: value.to_owned() };
        self.0.insert(path.to_owned(), one);
    }
}

impl Source {
    /// Reads and parses `file`.
    pub(crate) fn open(
        file: &Path,
        keys: Keys,
        overrides: Overrides,
    ) -> Result<(Self, Table), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            ConfigError::new(
                file.display(),
                format!("cannot be read: {e}"),
                "name an existing file",
            )
        })?;
        let table = text.parse::<Table>().map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let place = format!("{}:{line}", file.display());
            let what = e.span().and_then(|span| text.get(span)).unwrap_or_default().trim();
            // The parser shows the place below its message, for which one line has no room.
            match e.message() {
                "duplicate key" => {
                    let why = format!("no TOML: `{what}` is there twice");
                    ConfigError::new(place, why, "keep one of the two")
                }
                why => ConfigError::new(place, format!("no TOML: {why}"), "correct that line"),
            }
        })?;
        Ok((Self { file: file.to_owned(), keys, overrides }, table))
    }

    /// The file's top level, with every key of every section known.
    pub(crate) fn top(&self, table: Table) -> Result<Section<'_>, ConfigError> {
        Section::new(self, "", String::new(), table)
    }

    pub(crate) fn error(&self, why: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        ConfigError::new(self.file.display(), why, hint)
    }

    /// Where relative paths in the file start from.
    pub(crate) fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        }
    }
}

/// One table of the file. Opening it refuses keys that nobody knows.
#[derive(Debug)]
pub(crate) struct Section<'s> {
    source: &'s Source,
    /// As the list of keys has it: `peers`.
    name: &'static str,
    /// As errors show it: `peers[2]`.
    shown: String,
    table: Table,
}

impl<'s> Section<'s> {
    fn new(
        source: &'s Source,
        name: &str,
        shown: String,
        table: Table,
    ) -> Result<Self, ConfigError> {
        let (name, known) = source
            .keys
            .iter()
            .find(|(section, _)| *section == name)
            .expect("the program only opens sections it lists");
        if let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) {
            let path = join(&shown, unknown);
            let near = nearest(source.keys, name, unknown);
            let hint = format!("the nearest known key is `{near}`");
            return Err(source.error(format!("unknown key `{path}`"), hint));
        }
        Ok(Self { source, name, shown, table })
    }

    /// The table `[key]`, empty when the file has none.
    pub(crate) fn section(&self, key: &'static str) -> Result<Self, ConfigError> {
        let table = match self.table.get(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table.clone(),
            Some(other) => return Err(self.wrong_type(key, other, &format!("a table [{key}]"))),
        };
        Self::new(self.source, key, join(&self.shown, key), table)
    }

    /// The tables `[[key]]`, in the file's order.
    pub(crate) fn list(&self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        let want = format!("a list of tables [[{key}]]");
        let items = match self.table.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(self.wrong_type(key, other, &want)),
        };
        let open = |(index, item): (usize, &Value)| match item.as_table() {
            Some(table) => {
                let shown = format!("{}[{index}]", join(&self.shown, key));
                Self::new(self.source, key, shown, table.clone())
            }
            None => Err(self.wrong_type(key, item, &want)),
        };
        items.iter().enumerate().map(open).collect()
    }

    /// The tables `[[key]]`, or the one table `[key]`.
    pub(crate) fn one_or_list(&self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        match self.table.get(key) {
            Some(Value::Table(_)) => Ok(vec![self.section(key)?]),
            Some(_) | None => self.list(key),
        }
    }

    /// A text made into a `T`; `None` when the key is absent.
    pub(crate) fn parse<T, E: fmt::Display>(
        &self,
        key: &'static str,
        want: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((place, text)) = self.text(key, want)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|e| {
            // Our parsers say what is wrong, and after a semicolon what to write.
            let said = e.to_string();
            let (why, hint) = said.split_once("; ").unwrap_or((&said, "correct it"));
            ConfigError::new(place, why, hint)
        })
    }

    /// Like [`Section::parse`], for a key that must be there.
    pub(crate) fn need<T: FromStr<Err: fmt::Display>>(
        &self,
        key: &'static str,
        want: &str,
    ) -> Result<T, ConfigError> {
        self.parse(key, want, T::from_str)?.ok_or_else(|| self.missing(key, want))
    }

    /// A duration, or `default`. Never zero: no timer of ours may spin.
    pub(crate) fn duration(
        &self,
        key: &'static str,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        let parse = |text: &str| match units::duration(text) {
            Ok(Duration::ZERO) => Err(format!("{text:?} is no time at all; write at least 1ms")),
            other => other,
        };
        Ok(self.parse(key, "a duration such as \"150ms\"", parse)?.unwrap_or(default))
    }

    /// A size in bytes between `range`'s ends, or `default`.
    pub(crate) fn size(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let parse = |text: &str| match units::size(text) {
            Ok(size) if !range.contains(&size) => {
                Err(format!("{text} is out of range; use {}B to {}B", range.start(), range.end()))
            }
            other => other,
        };
        Ok(self.parse(key, "a size such as \"64KiB\"", parse)?.unwrap_or(default))
    }

    /// A whole number between `range`'s ends, or `default`.
    pub(crate) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32, ConfigError> {
        let hint = format!("use a whole number from {} to {}", range.start(), range.end());
        let (place, number) = match (self.overriding(key), self.table.get(key)) {
            (Some(one), _) => (one.from.clone(), one.value.parse().ok()),
            (None, Some(Value::Integer(number))) => (self.place(key), Some(*number)),
            (None, Some(other)) => return Err(self.wrong_type(key, other, "a whole number")),
            (None, None) => return Ok(default),
        };
        let number = number.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        number.ok_or_else(|| ConfigError::new(place, "out of range", hint))
    }

    /// `true` or `false`; absent is `false`.
    pub(crate) fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        if let Some(one) = self.overriding(key) {
            let wrong = |_| ConfigError::new(&one.from, "no truth value", "use true or false");
            return one.value.parse().map_err(wrong);
        }
        match self.table.get(key) {
            None => Ok(false),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(key, other, "true or false")),
        }
    }

    /// A list of texts, empty when absent. An override separates them by commas.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        if let Some(one) = self.overriding(key) {
            let words = one.value.split(',').map(str::trim).filter(|word| !word.is_empty());
            return Ok(words.map(str::to_owned).collect());
        }
        let want = "a list of texts such as [\"c\"]";
        match self.table.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let text = |item: &Value| match item.as_str() {
                    Some(text) => Ok(text.to_owned()),
                    None => Err(self.wrong_type(key, item, want)),
                };
                items.iter().map(text).collect()
            }
            Some(other) => Err(self.wrong_type(key, other, want)),
        }
    }

    /// Like [`Section::texts`]; one text is a list of one.
    pub(crate) fn one_or_more(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        match self.bare(key) {
            Some(one) => Ok(vec![one.to_owned()]),
            None => self.texts(key),
        }
    }

    /// A text of the file that stands there alone, in no list.
    pub(crate) fn bare(&self, key: &'static str) -> Option<&str> {
        self.table.get(key).filter(|_| self.overriding(key).is_none())?.as_str()
    }

    /// A path, relative ones starting at the file's folder.
    pub(crate) fn path(&self, key: &'static str) -> Result<PathBuf, ConfigError> {
        let want = "a path";
        let (_, text) = self.text(key, want)?.ok_or_else(|| self.missing(key, want))?;
        // What a variable or flag says is relative to where the person stands, as everywhere.
        let from_here = self.overriding(key).is_some();
        Ok(if from_here { PathBuf::from(text) } else { self.source.folder().join(text) })
    }

    /// A list of paths, relative ones starting at the file's folder; empty when absent.
    pub(crate) fn paths(&self, key: &'static str) -> Result<Vec<PathBuf>, ConfigError> {
        // What a variable or flag says is relative to where the person stands, as everywhere.
        let folder = match self.overriding(key) {
            Some(_) => Path::new(""),
            None => self.source.folder(),
        };
        Ok(self.texts(key)?.into_iter().map(|path| folder.join(path)).collect())
    }

    /// Whether the file has this key.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// An error that names this file and `key`.
    pub(crate) fn refuse(
        &self,
        key: &'static str,
        why: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        ConfigError::new(self.place(key), why, hint)
    }

    fn text(&self, key: &'static str, want: &str) -> Result<Option<(String, String)>, ConfigError> {
        if let Some(one) = self.overriding(key) {
            return Ok(Some((one.from.clone(), one.value.clone())));
        }
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some((self.place(key), text.clone()))),
            Some(other) => Err(self.wrong_type(key, other, want)),
        }
    }

    fn overriding(&self, key: &str) -> Option<&Override> {
        self.source.overrides.0.get(&join(self.name, key))
    }

    /// Where the value of `key` came from: the override when there is one, else file and key.
    fn place(&self, key: &str) -> String {
        match self.overriding(key) {
            Some(one) => one.from.clone(),
            None => format!("{}: `{}`", self.source.file.display(), join(&self.shown, key)),
        }
    }

    fn missing(&self, key: &'static str, want: &str) -> ConfigError {
        let why = format!("missing key `{}`", join(&self.shown, key));
        self.source.error(why, format!("give it {want}"))
    }

    fn wrong_type(&self, key: &str, got: &Value, want: &str) -> ConfigError {
        let article = if got.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
        let why = format!("wrong type: {article} {}", got.type_str());
        ConfigError::new(self.place(key), why, format!("give it {want}"))
    }
}

/// The known key that `unknown`, found in `section`, most likely means, with its section when it
/// is another one.
fn nearest(keys: Keys, section: &str, unknown: &str) -> String {
    let all = keys.iter().flat_map(|(other, known)| known.iter().map(move |key| (*other, *key)));
    let near = all.min_by_key(|(other, key)| {
        // A key of this section wins over an equally near one of another.
        2 * distance(unknown, key) + usize::from(*other != section)
    });
    let (other, key) = near.expect("the list of keys is not empty");
    if other == section { key.to_owned() } else { join(other, key) }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Errors are one line, whatever a library's text held.
fn one_line(text: String) -> String {
    if text.contains('\n') { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_prefers_the_section_at_hand_and_names_another() {
        let keys: Keys = &[("", &["cluster", "listen"]), ("listen", &["http", "quic"])];
        assert_eq!(nearest(keys, "", "clustr"), "cluster");
        assert_eq!(nearest(keys, "", "http"), "listen.http");
        assert_eq!(nearest(keys, "listen", "quick"), "quic");
    }
}
