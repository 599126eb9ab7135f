//! A watchdog as its master sees it.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
};

use crate::server::services::programs::{Order, Report};

/// A watchdog that runs, and the way to it. Dropped (or when this process ends) it ends its program.
#[derive(Debug)]
pub(in crate::cli) struct Dog {
    process: Child,
    orders: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
}

impl Dog {
    /// Starts this program once more with those words, which make it a watchdog. `output` is where
    /// its program writes to.
    pub(in crate::cli) fn start(words: &[OsString], output: Stdio) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reports, orders) = UnixStream::from_std(ours)?.into_split();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(output);
        let process = command.spawn()?;
        Ok(Self { process, orders, reports: BufReader::new(reports).lines() })
    }

    /// Tells it something. One that is gone hears nothing; its end is a report.
    pub(in crate::cli) async fn tell(&mut self, order: Order) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.ok();
    }

    /// What it says next; `None` when it ended without a word. May be dropped and called again.
    pub(in crate::cli) async fn next(&mut self) -> Option<Report> {
        let line = self.reports.next_line().await.ok().flatten();
        line.and_then(|line| Report::read(&line))
    }

    /// Waits for the end of a watchdog that said its last word.
    pub(in crate::cli) async fn gone(mut self) {
        // It cannot fail for a child of ours that was not waited for.
        self.process.wait().await.ok();
    }
}
