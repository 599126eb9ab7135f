//! The port to outside programs: started under a guard that ends them in time, whatever becomes of
//! the node.

use std::{fmt, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use synod_runtime::{identity::NodeName, world::Instant};

use crate::{election::message::Epoch, management::message::StopSignal};

/// Starts programs. The real form has a watchdog process for each; a simulated one plays them.
pub trait Programs: Send + Sync + 'static {
    /// Starts one. It ends in time when its lease is not extended, and with its [`Ward`].
    ///
    /// # Errors
    /// Why it cannot be started; nothing runs.
    fn start(&self, launch: Launch) -> io::Result<Box<dyn Ward>>;

    /// Whether there is such a program here, so that a service that cannot run is refused.
    ///
    /// # Errors
    /// What is wrong.
    fn find(&self, command: &[String]) -> Result<(), String> {
        let _there = command;
        Ok(())
    }

    /// Runs a short command to its end; whether that was 0, in time.
    fn ask(&self, question: Question) -> LocalBoxFuture<'static, bool>;

    /// Runs a command to its end: what it wrote, at most
    /// [`CHECKPOINT_BYTES_MAX`](crate::management::message::CHECKPOINT_BYTES_MAX) bytes.
    fn export(&self, question: Question) -> Passed<Vec<u8>>;

    /// Runs a command that reads `state`, to its end.
    fn import(&self, question: Question, state: Bytes) -> Passed<()>;

    /// Runs a command to its end and keeps what it wrote, however large, on this machine's disk. By
    /// default nothing can.
    fn spool(&self, haul: Haul) -> Passed<Box<dyn Spool>> {
        let why = format!("{:?} cannot be run here", haul.question.command);
        Box::pin(std::future::ready(Err(why)))
    }

    /// Starts a command that reads a state of any size, piece by piece. By default nothing can.
    ///
    /// # Errors
    /// Why it cannot be started; nothing runs.
    fn feed(&self, question: Question) -> Result<Box<dyn Feed>, String> {
        Err(format!("{:?} cannot be run here", question.command))
    }
}

/// A command whose output is kept, within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haul {
    /// The command.
    pub question: Question,
    /// Where what it writes is kept; whatever is there is overwritten. The name is gone again at
    /// once, so that nothing is left whatever happens.
    pub file: PathBuf,
    /// More than so many bytes are refused.
    pub bytes_max: u64,
}

/// What a command wrote. Gone when dropped.
pub trait Spool: Send + Sync {
    /// Its bytes.
    fn len(&self) -> u64;

    /// Whether it wrote nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The SHA-256 of all of it, in hexadecimal.
    fn digest(&self) -> &str;

    /// The bytes from `offset`: `most`, or what there is until the end.
    fn read(&self, offset: u64, most: usize) -> Passed<Bytes>;
}

/// A command that reads. Dropped before it was finished, it is killed, and whatever it started.
pub trait Feed {
    /// Gives it the next piece; waits until that is taken.
    fn put(&mut self, piece: Bytes) -> Fed<'_>;

    /// Tells it that this was all, and waits until it has come to a good end.
    fn finish(&mut self) -> Fed<'_>;
}

/// Whether a piece was taken; else why not.
pub type Fed<'a> = LocalBoxFuture<'a, Result<(), String>>;

/// What came of a command that passes a state on; else why not.
pub type Passed<T> = LocalBoxFuture<'static, Result<T, String>>;

/// A program that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// What it is told in its environment.
    pub station: Station,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The whole lease it runs under.
    pub lease: Duration,
    /// It must be gone by then, by the node's clock, unless the lease is extended.
    pub until: Instant,
    /// What asks it to end.
    pub stop_signal: StopSignal,
    /// How long it has then.
    pub stop_within: Duration,
}

/// A short command, of which it is asked whether it came to a good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What it is told in its environment.
    pub station: Station,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// No end by then is a bad one.
    pub within: Duration,
}

/// For what, where and in which epoch a program runs: `SYNOD_SERVICE`, `SYNOD_NODE` and
/// `SYNOD_EPOCH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// The service.
    pub service: String,
    /// This node.
    pub node: NodeName,
    /// The epoch of its role.
    pub epoch: Epoch,
}

/// A program that runs. Dropped, it is ended.
pub trait Ward {
    /// Tells its guard something. One that is gone hears nothing; its end is a report.
    fn tell(&mut self, order: Order) -> LocalBoxFuture<'_, ()>;

    /// What its guard says next; `None` when that ended without a word. May be dropped and called
    /// again.
    fn next(&mut self) -> LocalBoxFuture<'_, Option<Report>>;
}

/// To the guard of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The lease was renewed: nobody else leads before this moment of CLOCK_BOOTTIME.
    Until(Instant),
    /// The program is to end in order.
    End,
    /// The lease is over.
    Kill,
}

/// From the guard of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The program could not be started; nothing runs.
    NotStarted(String),
    /// The program was asked to end, since the lease was not renewed in time.
    Ending,
    /// The program and whatever it started are gone; the exit code.
    Gone(u8),
}

impl Order {
    /// Reads what [`Display`](fmt::Display) wrote.
    pub fn read(line: &str) -> Option<Self> {
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
    /// Reads what [`Display`](fmt::Display) wrote.
    pub fn read(line: &str) -> Option<Self> {
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
