//! What `elect` and its watchdog say to each other: one line each.

use std::fmt;

use synod_runtime::world::Instant;

/// From `elect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The lease was renewed: nobody else leads before this moment of CLOCK_BOOTTIME.
    Until(Instant),
    /// The program is to end in order.
    End,
    /// The lease is over.
    Kill,
}

/// From the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The program could not be started; nothing runs.
    NotStarted(String),
    /// The program was asked to end, since the lease was not renewed in time.
    Ending,
    /// The program and whatever it started are gone; the exit code.
    Gone(u8),
}

impl Order {
    pub(super) fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("until", nanos)) => Some(Self::Until(Instant::from_nanos(nanos.parse().ok()?))),
            None if line == "end" => Some(Self::End),
            None if line == "kill" => Some(Self::Kill),
            _ => None,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(until) => write!(f, "until {}", until.as_nanos()),
            Self::End => f.write_str("end"),
            Self::Kill => f.write_str("kill"),
        }
    }
}

impl Report {
    pub(super) fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("not-started", why)) => Some(Self::NotStarted(why.to_owned())),
            Some(("gone", code)) => Some(Self::Gone(code.parse().ok()?)),
            None if line == "ending" => Some(Self::Ending),
            _ => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // One line, whatever the reason holds.
            Self::NotStarted(why) => write!(f, "not-started {}", why.replace('\n', " ")),
            Self::Ending => f.write_str("ending"),
            Self::Gone(code) => write!(f, "gone {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        for order in [Order::Until(Instant::from_nanos(7)), Order::End, Order::Kill] {
            assert_eq!(Order::read(&order.to_string()), Some(order));
        }
        for report in [Report::NotStarted("no such file".into()), Report::Ending, Report::Gone(143)]
        {
            assert_eq!(Report::read(&report.to_string()), Some(report));
        }
        for line in ["", "until", "until x", "end now"] {
            assert_eq!(Order::read(line), None);
        }
        for line in ["gone", "gone 256", "going"] {
            assert_eq!(Report::read(line), None);
        }
    }
}
