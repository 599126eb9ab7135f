//! The watchdog of `elect`: when that is dead it gives the role up, once its program is gone.

use std::process::ExitCode;

use actix_rt::System;

use super::{
    WatchdogArgs,
    lease::{Lease, resign},
};
use crate::cli::{
    client::Cluster,
    failure::Failure,
    process::Signal,
    watchdog::{Charge, END_TIME, Kept, keep},
};

/// Runs the program until it ends or its lease does.
pub(in crate::cli) fn run(args: &WatchdogArgs) -> Result<ExitCode, Failure> {
    let kept = keep(&Charge {
        command: args.term.command.clone(),
        environment: vec![
            ("SYNOD_ROLE", args.role.clone()),
            ("SYNOD_NODE", args.term.node.to_string()),
            ("SYNOD_EPOCH", args.term.epoch.to_string()),
        ],
        lease: args.term.lease,
        until: args.term.until(),
        stop: Signal::Terminate,
        within: END_TIME,
    })?;
    if kept == Kept::Alone {
        resign_for_the_dead(args);
    }
    Ok(if kept == Kept::Unknown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Nobody else is left to give the role up, and the program is gone: the next need not wait for
/// the lease to run out.
fn resign_for_the_dead(args: &WatchdogArgs) {
    let Ok(cluster) = Cluster::open(&args.client) else { return };
    let lease = Lease {
        role: args.role.clone(),
        holder: args.holder.clone(),
        node: args.term.node.clone(),
        epoch: args.term.epoch,
        length: args.term.lease,
        until: args.term.until(),
    };
    // Without it the lease runs out by itself.
    System::new().block_on(resign(&cluster, &lease)).ok();
}
