//! `bench`: what messages between actors and commands to a cluster cost on this machine.
//!
//! Every row is a closed loop: a fixed number of clients, each of which waits for its answer
//! before it asks again, so the rate is what the cluster gives at that many in flight.
//!
//! # Layout
//! - [`commands`]: Redis clients against a cluster, with [`resp`] and [`costs`]
//! - [`multicast`]: publishers and subscribers of a group
//! - [`target`]: the cluster that these drive, their own or somebody's
//! - [`actors`]: tells and asks to a [`listener`], local and remote, with [`peer`] (the other
//!   process), [`bare`] (what they are measured against) and [`turns`] (one ask at a time, beside
//!   its limits)
//! - [`raw`]: one disk sync, one QUIC round trip, the latter with [`pair`]
//! - [`web`]: HTTP clients of servers behind a cluster, beside [`nginx`] without one
//! - [`meter`], [`report`]: what was measured, and how it is said

mod actors;
mod bare;
mod commands;
mod costs;
mod http;
mod listener;
mod meter;
mod multicast;
mod nginx;
mod pair;
mod peer;
mod raw;
mod report;
mod resp;
mod target;
mod turns;
mod web;

use actix_rt::System;

pub(super) use self::peer::run as run_peer;
use self::report::Report;
use super::{
    args::{BenchArgs, BenchKind},
    failure::Failure,
    node::Signals,
};
use crate::{
    multicast::data_server::PAYLOAD_BYTES_MAX,
    server::{StopSignal, stop_pair},
};

/// Measures what `args` asks for; `with_resp` when this program serves Redis clients, `with_web` when
/// it puts servers behind the agreed order.
pub(crate) fn run(
    program: &str,
    args: &BenchArgs,
    with_resp: bool,
    with_web: bool,
) -> Result<(), Failure> {
    check(args, with_resp, with_web)?;
    let (program, args) = (program.to_owned(), args.clone());
    System::new().block_on(async {
        let (trigger, stop) = stop_pair();
        let signals = Signals::listen();
        let signals = signals.map_err(|e| Failure::failed("signals", e, "report this"))?;
        actix_rt::spawn(signals.serve(trigger));
        // In a task, as actors are: what the system itself waits for is woken a longer way.
        let done = actix_rt::spawn(async move { measure(&program, &args, stop).await }).await;
        done.unwrap_or_else(|e| Err(Failure::failed("bench", e, "report this")))
    })
}

async fn measure(program: &str, args: &BenchArgs, stop: StopSignal) -> Result<(), Failure> {
    let mut report = Report::new(program, args.json);
    let done = match args.what {
        BenchKind::Commands => commands::run(args, &mut report, stop).await,
        BenchKind::Local => unless_stopped(stop, actors::local(args, &mut report)).await,
        BenchKind::Remote => unless_stopped(stop, actors::remote(args, &mut report)).await,
        BenchKind::Multicast => multicast::run(args, &mut report, stop).await,
        BenchKind::Web => web::run(args, &mut report, stop).await,
    };
    // Rows that were measured are worth something, whatever came after them.
    report.finish()?;
    done
}

/// Refuses, before anything is started, what cannot be measured.
fn check(args: &BenchArgs, with_resp: bool, with_web: bool) -> Result<(), Failure> {
    if args.large.is_some() && args.what != BenchKind::Web {
        let why = "only `bench web` has large bodies";
        return Err(Failure::usage("--large", why, "leave it out"));
    }
    let most = PAYLOAD_BYTES_MAX as u32;
    match args.what {
        BenchKind::Multicast if args.size.is_some_and(|size| size > most) => {
            let why = format!("a message of a group has at most {most} bytes");
            return Err(Failure::usage("--size", why, "measure smaller ones"));
        }
        BenchKind::Commands if !with_resp => {
            let why = "this program serves no Redis clients, and these drive the cluster";
            return Err(Failure::usage("bench commands", why, "use a program that serves RESP"));
        }
        BenchKind::Commands | BenchKind::Multicast => return Ok(()),
        BenchKind::Local | BenchKind::Remote => {}
        BenchKind::Web if !with_web => {
            let why = "this program puts no servers behind the agreed order";
            return Err(Failure::usage("bench web", why, "use a program with the web binding"));
        }
        BenchKind::Web => {}
    }
    for (flag, given) in [
        ("--cluster", args.cluster.is_some()),
        ("--node", !args.node.is_empty()),
        ("--durability", args.durability.is_some() && args.what != BenchKind::Web),
    ] {
        if given {
            let why = match args.what {
                BenchKind::Web => "it measures a cluster of its own, at both sites",
                BenchKind::Local
                | BenchKind::Remote
                | BenchKind::Commands
                | BenchKind::Multicast => "messages between actors need no cluster",
            };
            return Err(Failure::usage(flag, why, "leave it out, or use `bench commands`"));
        }
    }
    Ok(())
}

/// Does `work`, or gives it up when the stop is asked for.
async fn unless_stopped<T>(
    mut stop: StopSignal,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = stop.stopped() => {
            Err(Failure::failed("bench", "interrupted before it was done", "let it finish"))
        }
        done = work => done,
    }
}
