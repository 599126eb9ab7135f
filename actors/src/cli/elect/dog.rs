//! The watchdog as `elect` sees it.

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

use super::{
    ElectArgs,
    lease::Lease,
    words::{Order, Report},
};

/// A watchdog that runs, and the way to it. Dropped (or when this process ends) it ends its program.
#[derive(Debug)]
pub(super) struct Dog {
    process: Child,
    orders: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
}

impl Dog {
    /// Starts one for the program of `args`, which leads by `lease`.
    pub(super) fn start(args: &ElectArgs, lease: &Lease) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reports, orders) = UnixStream::from_std(ours)?.into_split();
        let mut command = Command::new(std::env::current_exe()?);
        let text = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        command.arg("elect-watchdog").arg("--cluster").arg(&args.cluster);
        command.args(text(&[
            "--role",
            &lease.role,
            "--holder",
            &lease.holder,
            "--node",
            lease.node.as_str(),
            "--epoch",
            &lease.epoch.to_string(),
            "--until",
            &lease.until.as_nanos().to_string(),
            "--lease",
            &format!("{}ms", lease.length.as_millis()),
        ]));
        command.arg("--").args(&args.command);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let process = command.spawn()?;
        Ok(Self { process, orders, reports: BufReader::new(reports).lines() })
    }

    /// Tells it something. One that is gone hears nothing; its end is a report.
    pub(super) async fn tell(&mut self, order: Order) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.ok();
    }

    /// What it says next; `None` when it ended without a word. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Report> {
        let line = self.reports.next_line().await.ok().flatten();
        line.and_then(|line| Report::read(&line))
    }

    /// Waits for the end of a watchdog that said its last word.
    pub(super) async fn gone(mut self) {
        // It cannot fail for a child of ours that was not waited for.
        self.process.wait().await.ok();
    }
}
