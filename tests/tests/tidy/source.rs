//! The repository's files, and Rust text without its comments and literals.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A text file of the repository.
pub(crate) struct Source {
    /// From the top of the repository, with `/` between.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// The same lines; in Rust files without comments, texts and characters.
    pub(crate) code: String,
    /// The first line of the tests inside the file, else one beyond its end. All of a test file is
    /// tests.
    tests_from: usize,
}

impl Source {
    /// Every text file, sorted by path: not what builds, editors or version control put here.
    pub(crate) fn all() -> Vec<Self> {
        let top = top();
        let mut paths = Vec::new();
        collect(&top, &mut paths);
        paths.sort();
        paths.iter().filter_map(|path| Self::read(&top, path)).collect()
    }

    fn read(top: &Path, path: &Path) -> Option<Self> {
        // What is no text is not ours to read.
        let text = fs::read_to_string(path).ok()?;
        let path = path.strip_prefix(top).expect("found below it").to_str()?.to_owned();
        Some(Self::new(path, text))
    }

    pub(crate) fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { code_of(&text) } else { text.clone() };
        let tests_from = if is_test_file(&path) {
            1
        } else {
            let inside = code.lines().position(|line| line.trim() == "#[cfg(test)]");
            // A `#[cfg(test)]` on one item somewhere above is followed by more code, the tests of
            // a file are its end.
            let module = |at: &usize| code.lines().skip(at + 1).any(|l| l.starts_with("mod tests"));
            inside.filter(module).map_or(usize::MAX, |at| at + 1)
        };
        Self { path, text, code, tests_from }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Code that is no test: line number and line.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code).take_while(|(number, _)| *number < self.tests_from)
    }

    /// All code: line number and line.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code)
    }

    /// All text: line number and line.
    pub(crate) fn text_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.text)
    }

    /// The first names behind `prefix::`, such as `a` and `b` of `prefix::{a::x, b}`, in code that
    /// is no test: line number and name.
    pub(crate) fn names_behind(&self, prefix: &str) -> Vec<(usize, String)> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices(prefix) {
            let line = 1 + self.code[..at].matches('\n').count();
            let before = self.code[..at].chars().next_back();
            let Some(rest) = self.code[at + prefix.len()..].strip_prefix("::") else { continue };
            if line >= self.tests_from || before.is_some_and(is_name) {
                continue;
            }
            names.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        names
    }
}

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package is a folder of the repository").to_owned()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).expect("a readable folder");
    for entry in entries.map(|entry| entry.expect("a readable entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().expect("a name in plain letters");
        let ours = !name.starts_with('.') || OURS_HIDDEN.contains(&name);
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() && ours && name != "target" {
            collect(&path, paths);
        } else if kind.is_file() && ours && name != "Cargo.lock" {
            paths.push(path);
        }
    }
}

fn is_test_file(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| matches!(part, "tests" | "tests.rs" | "testing.rs" | "benches"))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![rest.chars().take_while(|c| is_name(*c)).collect()];
    };
    let (mut depth, mut names, mut name) = (1, Vec::new(), String::new());
    for c in group.chars() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 1 && is_name(c) {
            name.push(c);
            continue;
        }
        // Whatever follows a path's first part is skipped until the next comma.
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(std::mem::take(&mut name));
        } else if !c.is_whitespace() && !name.ends_with(':') {
            name.push(':');
        }
        if depth == 0 {
            break;
        }
    }
    let first = |name: String| name.split(':').next().unwrap_or_default().to_owned();
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// Blanks comments, texts and characters, keeping every line where it is.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skipped_len(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Bytes of the comment or literal that `rest` begins with, 0 when it begins with code.
fn skipped_len(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('r') && !before.is_some_and(is_name) {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = 2 + hashes;
            return rest[from..].find(&end).map_or(rest.len(), |at| from + at + end.len());
        }
    }
    match rest.chars().next() {
        Some('"') => quoted_len(rest, '"'),
        // A lifetime has no closing quote right behind it.
        Some('\'') if rest[1..].starts_with('\\') => quoted_len(rest, '\''),
        Some('\'') => {
            let mut chars = rest[1..].char_indices();
            let _letter = chars.next();
            chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| 1 + at + 1)
        }
        _ => 0,
    }
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = true; // The opening quote does not end it.
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Hidden names that belong to the repository.
const OURS_HIDDEN: [&str; 6] =
    [".cargo", ".ci", ".config", ".clippy.toml", ".gitignore", ".rustfmt.toml"];
