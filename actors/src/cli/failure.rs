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

/// `WHAT: WHY; TRY`, and how to exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    /// Wrong usage or configuration.
    pub(crate) fn usage(what: impl fmt::Display, why: impl fmt::Display, hint: &str) -> Self {
        Self::new(Exit::Usage, what, why, hint)
    }

    /// It failed at run time.
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
        Self { exit, text: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    /// The word of the outcome, where one is known.
    pub(crate) const fn outcome(&self) -> Option<&'static str> {
        match self.exit {
            Exit::NotApplied => Some("not_applied"),
            Exit::Unknown => Some("unknown"),
            Exit::Failed | Exit::Usage | Exit::Lost => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::Usage, text: error.to_string() }
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
        assert_eq!(failure.outcome(), None);
        assert_eq!(Failure::new(Exit::Unknown, "x", "y", "z").outcome(), Some("unknown"));
    }
}
