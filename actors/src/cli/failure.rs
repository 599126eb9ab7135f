//! Why a verb did not do its work: one line for people, one exit code for scripts.

use std::{fmt, process::ExitCode};

use crate::server::config::ConfigError;

/// The exit codes of every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed at run time.
    Failed,
    /// Wrong usage or configuration: nothing was started, nothing changed.
    Usage,
    /// Nobody answers, no quorum, no leader: surely *not applied*.
    NotApplied,
    /// It was sent, and nobody said what became of it.
    Unknown,
    /// Leadership was lost (`elect`).
    Lost,
}

/// What became of what a verb was to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never reached a journal; or the verb changes nothing.
    NotApplied,
    /// It may have been applied, in part or as a whole.
    Unknown,
    /// It was applied, and something else failed.
    Applied,
}

/// `WHAT: WHY; TRY`, how to exit, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    fate: Fate,
    text: String,
}

impl Failure {
    /// Wrong usage or configuration.
    pub(crate) fn usage(what: impl fmt::Display, why: impl fmt::Display, hint: &str) -> Self {
        Self::new(Exit::Usage, what, why, hint)
    }

    /// It failed at run time, and nobody knows what became of it: see [`Failure::with`].
    pub(crate) fn failed(what: impl fmt::Display, why: impl fmt::Display, hint: &str) -> Self {
        Self::new(Exit::Failed, what, why, hint)
    }

    pub(crate) fn new(
        exit: Exit,
        what: impl fmt::Display,
        why: impl fmt::Display,
        hint: &str,
    ) -> Self {
        // One line whatever the parts hold: scripts read it by the line.
        let text = format!("{what}: {why}; {hint}");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fate = match exit {
            Exit::Usage | Exit::NotApplied => Fate::NotApplied,
            // *Not applied* is said only where that is known.
            Exit::Failed | Exit::Unknown | Exit::Lost => Fate::Unknown,
        };
        Self { exit, fate, text }
    }

    /// The same failure, of which more is known.
    #[must_use]
    pub(crate) fn with(self, fate: Fate) -> Self {
        Self { fate, ..self }
    }

    /// The word of the outcome, in JSON.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self.fate {
            Fate::NotApplied => "not_applied",
            Fate::Unknown => "unknown",
            Fate::Applied => "applied",
        }
    }
}

/// For people.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotApplied => "not applied",
            Self::Unknown => "outcome unknown",
            Self::Applied => "applied",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::Usage, fate: Fate::NotApplied, text: error.to_string() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::NotApplied => Self::from(3),
            Exit::Unknown => Self::from(4),
            Exit::Lost => Self::from(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::failed("a.toml", "first\n  second", "try again");
        assert_eq!(failure.to_string(), "a.toml: first second; try again");
        // What became of it is known only where somebody says so.
        assert_eq!(failure.outcome(), "unknown");
        assert_eq!(failure.with(Fate::Applied).outcome(), "applied");
        assert_eq!(Failure::usage("x", "y", "z").outcome(), "not_applied");
        assert_eq!(Failure::new(Exit::NotApplied, "x", "y", "z").outcome(), "not_applied");
        assert_eq!(Failure::new(Exit::Unknown, "x", "y", "z").outcome(), "unknown");
    }
}
