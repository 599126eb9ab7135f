//! `elect`: a program that runs on one machine at a time.
//!
//! Three processes, each the parent of the next: `elect` stands for the role and renews its lease;
//! its [`watchdog`] ends the program in time when the renewals fail to come, whatever the reason;
//! the program leads. `elect` may die, stop or lose the network at any moment.
//!
//! - `campaign`: a role from standing for it to its end
//! - `lease`: what is asked of nodes
//! - `watchdog`: what is its own of the [`watchdog`](super::watchdog)

mod campaign;
mod lease;
pub(super) mod watchdog;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use actix_rt::System;
use clap::Args;
use futures_util::future::try_join_all;
use synod_runtime::identity::NodeName;

use super::{
    args::ClientArgs,
    client::Cluster,
    failure::Failure,
    node::Signals,
    roles,
    watchdog::{is_program, term::TermArgs},
};
use crate::{
    election::{
        lease::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN},
        message::{Refusal, SYSTEM_MANAGER},
    },
    server::{config::units, stop_pair},
};

/// `elect`.
#[derive(Debug, Args)]
pub(crate) struct ElectArgs {
    /// Run CMD only while it leads in this role; several roles have a CMD each, and imply --keep
    #[arg(long, value_name = "ROLE", required = true)]
    role: Vec<String>,
    /// How long a lease lasts: who falls silent is replaced after it
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = length)]
    lease: Duration,
    /// Ask only this node [default: whichever answers]
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Stand again when CMD has ended or leadership is lost
    #[arg(long)]
    keep: bool,
    /// The client file that `dev` or `init` wrote
    #[arg(long, value_name = "FILE", env = "SYNOD_CLUSTER", default_value = "client.toml")]
    cluster: PathBuf,
    /// How long to wait for a first answer; later, how long nobody serves before it says so and goes on
    /// trying
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    timeout: Duration,
    /// The program and its arguments; it gets SYNOD_ROLE, SYNOD_NODE and SYNOD_EPOCH, no input,
    /// and SIGTERM in time before it is killed
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// `elect-watchdog`, which only `elect` starts.
#[derive(Debug, Args)]
pub(crate) struct WatchdogArgs {
    #[arg(long)]
    role: String,
    #[arg(long)]
    holder: String,
    #[command(flatten)]
    term: TermArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the program while it leads; the exit code of `elect`.
pub(super) fn run(name: &'static str, args: &ElectArgs) -> Result<ExitCode, Failure> {
    let mut roles = BTreeSet::new();
    for role in &args.role {
        // What is no name fails before anybody is asked.
        roles::path(role)?;
        if !roles.insert(role) {
            return Err(Failure::usage(format!("--role {role}"), "there twice", "name it once"));
        }
    }
    find(&args.command[0])?;
    if args.role.iter().any(|role| role == SYSTEM_MANAGER) {
        let what = format!("--role {SYSTEM_MANAGER}");
        return Err(Failure::usage(what, Refusal::BuiltIn, "name a role of your own"));
    }
    System::new().block_on(run_all(name, args))
}

async fn run_all(name: &'static str, args: &ElectArgs) -> Result<ExitCode, Failure> {
    let (cluster, timeout) = (args.cluster.clone(), args.timeout);
    let cluster = Cluster::open(&ClientArgs { cluster, timeout, json: false })?;
    if cluster.servers(args.node.as_ref()).next().is_none() {
        let what =
            args.node.as_ref().map_or_else(|| "--cluster".into(), |node| format!("--node {node}"));
        let why = format!("{} names no such main or member", args.cluster.display());
        return Err(Failure::usage(what, why, "see `members` for who is who"));
    }
    cluster.get("/roles").await?;
    let signals = Signals::listen()
        .map_err(|e| Failure::failed("signals", e, "see what the system allows"))?;
    let (trigger, stop) = stop_pair();
    actix_rt::spawn(signals.serve(trigger));
    let campaigns = args.role.iter().map(|role| {
        let campaign = campaign::Campaign { name, cluster: &cluster, args, role };
        campaign.run(stop.clone())
    });
    let codes = try_join_all(campaigns).await?;
    // Several roles end only when all are asked to.
    Ok(codes.into_iter().next().unwrap_or(ExitCode::SUCCESS))
}

/// Whether there is such a program: standing for a role that then cannot be filled helps nobody.
fn find(program: &OsStr) -> Result<(), Failure> {
    match is_program(program) {
        true => Ok(()),
        false => {
            let (what, why) = (Path::new(program).display(), "there is no such program");
            Err(Failure::usage(what, why, "name one on PATH, or by its path"))
        }
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = units::duration(text)?;
    match (LEASE_MIN..=LEASE_MAX).contains(&length) {
        true => Ok(length),
        false => Err(format!("a lease lasts {LEASE_MIN:?} to {LEASE_MAX:?}")),
    }
}

/// The usual lease is what the flag's default says.
const _: () = assert!(LEASE_DEFAULT.as_secs() == 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_refused_before_anybody_is_asked() {
        find(OsStr::new("sh")).unwrap();
        find(OsStr::new("/bin/sh")).unwrap();
        for program in ["no-such-program", "./no-such-program", "/etc/passwd", "/tmp", ""] {
            find(OsStr::new(program)).unwrap_err();
        }
    }

    #[test]
    fn a_lease_has_bounds() {
        assert_eq!(length("300ms"), Ok(LEASE_MIN));
        assert!(length("200ms").unwrap_err().contains("300ms"));
    }
}
