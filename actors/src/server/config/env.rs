//! What the environment says about a node file.

use super::{ConfigError, KEYS, Overrides};
use crate::replicated::distance;

impl Overrides {
    /// What `SYNOD_…` variables say about a node file; others are left alone.
    ///
    /// # Errors
    /// Names a variable that looks like a key of a section and is none.
    pub fn from_env(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut overrides = Self::default();
        for (variable, value) in variables.filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
            match env_names().find(|(name, _)| *name == variable) {
                Some((_, path)) => overrides.set(&path, &variable, &value),
                None => refuse_misspelt(&variable)?,
            }
        }
        Ok(overrides)
    }
}

/// The variables, each with the key path it stands for.
fn env_names() -> impl Iterator<Item = (String, String)> {
    let sections = KEYS.iter().filter(|(section, _)| !LISTS.contains(section));
    let all = sections.flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
    let one = |(section, key): (&str, &str)| match (section, key) {
        ("", "data_dir") => Some(("SYNOD_DATA_DIR".to_owned(), key.to_owned())),
        ("", _) => None,
        ("log", "filter") => Some(("SYNOD_LOG".to_owned(), "log.filter".to_owned())),
        (section, key) => {
            let name = format!("{ENV_PREFIX}{section}_{key}").to_ascii_uppercase();
            Some((name, format!("{section}.{key}")))
        }
    };
    all.filter_map(one)
}

/// A variable that begins like a section's was meant for us: say so rather than ignore it.
fn refuse_misspelt(variable: &str) -> Result<(), ConfigError> {
    let rest = variable.strip_prefix(ENV_PREFIX).unwrap_or_default().to_ascii_lowercase();
    let ours = KEYS.iter().any(|(section, _)| {
        !section.is_empty() && rest.strip_prefix(section).is_some_and(|key| key.starts_with('_'))
    });
    if !ours {
        return Ok(());
    }
    let near = env_names().min_by_key(|(name, _)| distance(name, variable));
    let hint = near.map_or_else(String::new, |(name, _)| format!("the nearest is {name}"));
    Err(ConfigError::new(variable, "no key of a node file", hint))
}

/// Sections of which there are many: no variable could say which is meant.
const LISTS: [&str; 2] = ["peers", "services"];

/// What all our variables begin with.
const ENV_PREFIX: &str = "SYNOD_";
