//! The programs of managed services, each under a watchdog of its own.

use std::{
    ffi::{OsStr, OsString},
    io,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::error::Elapsed,
};

use super::{
    failure::Failure,
    haul,
    process::{self, Signal},
    watchdog::{
        Charge, Dog, Kept, is_program, keep,
        term::{self, TermArgs},
    },
};
use crate::{
    management::message::{CHECKPOINT_BYTES_MAX, StopSignal},
    server::{
        config::units,
        services::programs::{
            Feed, Haul, Launch, Order, Passed, Programs, Question, Report, Spool, Station, Ward,
        },
    },
};

/// Starts them as processes of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Processes;

impl Programs for Processes {
    fn start(&self, launch: Launch) -> io::Result<Box<dyn Ward>> {
        let Launch { station, command, lease, until, stop_signal, stop_within } = launch;
        let signal = json!(stop_signal).as_str().unwrap_or_default().to_owned();
        let whose = ["service-watchdog".to_owned(), format!("--service={}", station.service)];
        let term = term::words(&station.node, station.epoch.0, until, lease);
        let end = [
            format!("--stop-signal={signal}"),
            format!("--stop-within={}ms", stop_within.as_millis()),
            "--".to_owned(),
        ];
        let words = whose.into_iter().chain(term).chain(end).chain(command).map(OsString::from);
        // A node writes to standard error only, and so do its programs.
        Ok(Box::new(Dog::start(&words.collect::<Vec<_>>(), io::stderr().into())?))
    }

    fn find(&self, command: &[String]) -> Result<(), String> {
        match command.first() {
            Some(name) if is_program(OsStr::new(name)) => Ok(()),
            name => Err(format!("there is no program {}", name.map_or("", String::as_str))),
        }
    }

    fn ask(&self, question: Question) -> LocalBoxFuture<'static, bool> {
        let Question { station, command, within } = question;
        Box::pin(async move {
            let null = Stdio::null;
            let Ok(mut errand) = Errand::start(&command, &station, null(), null()) else {
                return false;
            };
            let asked = tokio::time::timeout(within, errand.0.wait()).await;
            matches!(asked, Ok(Ok(status)) if status.success())
        })
    }

    fn export(&self, question: Question) -> Passed<Vec<u8>> {
        let Question { station, command, within } = question;
        Box::pin(async move {
            let mut errand = Errand::start(&command, &station, Stdio::null(), Stdio::piped())
                .map_err(|error| format!("export cannot be started: {error}"))?;
            let mut written = Vec::new();
            let out = errand.0.stdout.take();
            let read = async {
                if let Some(out) = out {
                    // One byte more shows that there is too much.
                    out.take(CHECKPOINT_BYTES_MAX as u64 + 1).read_to_end(&mut written).await?;
                }
                errand.0.wait().await
            };
            ended("export", tokio::time::timeout(within, read).await)?;
            match written.len() > CHECKPOINT_BYTES_MAX {
                true => Err(format!("export wrote more than {CHECKPOINT_BYTES_MAX} bytes")),
                false => Ok(written),
            }
        })
    }

    fn import(&self, question: Question, state: Bytes) -> Passed<()> {
        let Question { station, command, within } = question;
        Box::pin(async move {
            let mut errand = Errand::start(&command, &station, Stdio::piped(), Stdio::null())
                .map_err(|error| format!("import cannot be started: {error}"))?;
            let into = errand.0.stdin.take();
            let write = async {
                if let Some(mut into) = into {
                    // Who ends without reading says by its status whether that was enough.
                    into.write_all(&state).await.ok();
                }
                errand.0.wait().await
            };
            ended("import", tokio::time::timeout(within, write).await)
        })
    }

    fn spool(&self, haul: Haul) -> Passed<Box<dyn Spool>> {
        Box::pin(haul::spool(haul))
    }

    fn feed(&self, question: Question) -> Result<Box<dyn Feed>, String> {
        haul::feed(&question)
    }
}

pub(super) fn ended(
    what: &str,
    how: Result<io::Result<ExitStatus>, Elapsed>,
) -> Result<(), String> {
    match how {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{what} ended with {status}")),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_elapsed) => Err(format!("{what} took too long")),
    }
}

/// A short command. Dropped before its end it is killed, and whatever it started.
pub(super) struct Errand(pub(super) Child);

impl Errand {
    fn start(
        command: &[String],
        station: &Station,
        input: Stdio,
        output: Stdio,
    ) -> io::Result<Self> {
        Self::start_heard(command, station, [input, output, Stdio::null()])
    }

    /// The same, with what it says to people.
    pub(super) fn start_heard(
        command: &[String],
        station: &Station,
        [input, output, said]: [Stdio; 3],
    ) -> io::Result<Self> {
        let (name, words) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = std::process::Command::new(name);
        command.args(words).envs(environment(station));
        command.stdin(input).stdout(output).stderr(said);
        process::tie_to_us(&mut command);
        Command::from(command).spawn().map(Self)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // Whoever ended has no number any more.
        if let Some(group) = self.0.id() {
            process::signal_group(group, Signal::Kill);
        }
    }
}

impl Ward for Dog {
    fn tell(&mut self, order: Order) -> LocalBoxFuture<'_, ()> {
        Box::pin(Self::tell(self, order))
    }

    fn next(&mut self) -> LocalBoxFuture<'_, Option<Report>> {
        Box::pin(Self::next(self))
    }
}

/// `service-watchdog`, which only nodes start.
#[derive(Debug, Args)]
pub(crate) struct ServiceWatchdogArgs {
    #[arg(long)]
    service: String,
    #[command(flatten)]
    term: TermArgs,
    #[arg(long, value_parser = super::services::signal)]
    stop_signal: StopSignal,
    #[arg(long, value_parser = units::duration)]
    stop_within: Duration,
}

/// Runs the program until it ends or its lease does. When its node is dead the role is left until
/// the lease is over.
pub(super) fn watchdog(args: &ServiceWatchdogArgs) -> Result<ExitCode, Failure> {
    let station = Station {
        service: args.service.clone(),
        node: args.term.node.clone(),
        epoch: crate::election::message::Epoch(args.term.epoch),
    };
    let kept = keep(&Charge {
        command: args.term.command.clone(),
        environment: environment(&station).into(),
        lease: args.term.lease,
        until: args.term.until(),
        stop: match args.stop_signal {
            StopSignal::Term => Signal::Terminate,
            StopSignal::Int => Signal::Interrupt,
            StopSignal::Quit => Signal::Quit,
            StopSignal::Hup => Signal::HangUp,
        },
        within: args.stop_within,
    })?;
    Ok(if kept == Kept::Unknown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn environment(station: &Station) -> [(&'static str, String); 3] {
    [
        ("SYNOD_SERVICE", station.service.clone()),
        ("SYNOD_NODE", station.node.to_string()),
        ("SYNOD_EPOCH", station.epoch.to_string()),
    ]
}
