//! What every watchdog is told on its command line, by whoever starts it.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use synod_runtime::{identity::NodeName, world::Instant};

use crate::server::config::units;

/// The time that a program has, and the program.
#[derive(Debug, Args)]
pub(in crate::cli) struct TermArgs {
    /// Where its role is held.
    #[arg(long)]
    pub(in crate::cli) node: NodeName,
    /// In which epoch.
    #[arg(long)]
    pub(in crate::cli) epoch: u64,
    /// Nanoseconds of CLOCK_BOOTTIME.
    #[arg(long)]
    until: u64,
    /// The whole lease.
    #[arg(long, value_parser = units::duration)]
    pub(in crate::cli) lease: Duration,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub(in crate::cli) command: Vec<OsString>,
}

impl TermArgs {
    /// Until when the lease holds.
    pub(in crate::cli) const fn until(&self) -> Instant {
        Instant::from_nanos(self.until)
    }
}

/// The words that [`TermArgs`] reads, but for the program, which comes last.
pub(in crate::cli) fn words(
    node: &NodeName,
    epoch: u64,
    until: Instant,
    lease: Duration,
) -> [String; 4] {
    [
        format!("--node={node}"),
        format!("--epoch={epoch}"),
        format!("--until={}", until.as_nanos()),
        format!("--lease={}ms", lease.as_millis()),
    ]
}
