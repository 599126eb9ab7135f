//! `dev`: a whole cluster on this machine, one child process a node.
//!
//! # Layout
//! - [`home`]: the directory, its lock, and the nodes in it
//! - [`children`]: one task a node keeps its process running
//! - [`process`]: children die with us (the one room with `unsafe`)
//! - [`ready`]: when writes are served
//! - [`output`]: what is said

mod children;
mod home;
mod output;
mod ports;
mod ready;

use actix_rt::System;
use tokio::sync::mpsc::{Receiver, channel};

pub(super) use self::home::WEB_ORDER;
use self::{
    children::{Event, Keeper, last_words, log_file},
    home::{Home, Nodes},
    output::{Output, Up},
};
use super::{
    args::DevArgs,
    failure::Failure,
    node::{Signals, stop_at_once},
    out,
};
use crate::server::{Follower, NodeAddresses, Service, StopTrigger, config::NodeConfig, stop_pair};

/// What the nodes of the program host.
#[derive(Clone, Copy)]
pub(crate) struct Hosted<'a> {
    pub(crate) services: &'a [Box<dyn Service>],
    pub(crate) followers: &'a [Box<dyn Follower>],
}

impl Hosted<'_> {
    /// Commands to try at that node.
    fn hints(&self, at: &NodeAddresses) -> impl Iterator<Item = String> {
        let services = self.services.iter().flat_map(|one| one.hints(at));
        services.chain(self.followers.iter().flat_map(|one| one.hints(at)))
    }
}

/// Runs a cluster until it is told to stop.
pub(crate) fn run(
    program: &'static str,
    args: &DevArgs,
    hosted: Hosted<'_>,
) -> Result<(), Failure> {
    let services = hosted.services;
    if !args.upstream.is_empty() && !services.iter().any(|service| service.speaks_web()) {
        let why = "this program puts no servers behind its nodes";
        return Err(Failure::usage("--upstream", why, "leave it out"));
    }
    home::check(args)?;
    let home = Home::open(args.dir.as_deref())?;
    let with_resp = services.iter().any(|service| service.speaks_resp());
    for attempt in 0..COLLISIONS_MAX {
        let nodes = home.nodes(args, with_resp, attempt)?;
        let output = Output { program, json: args.json };
        let cluster = Cluster::new(&home, &nodes, hosted, output, !args.no_restart);
        match System::new().block_on(cluster.run())? {
            Ended::Stopped => return Ok(()),
            Ended::AtOnce => {
                drop(home);
                stop_at_once();
            }
            Ended::Collision => home.clear(&nodes)?,
        }
    }
    Err(Failure::failed("ports", "others keep taking them", "try again"))
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// As it was told to.
    Stopped,
    /// Told twice: the children were killed.
    AtOnce,
    /// Somebody took a port between choosing and using it.
    Collision,
}

/// A cluster while it runs.
struct Cluster<'a> {
    home: &'a Home,
    nodes: &'a Nodes,
    hosted: Hosted<'a>,
    output: Output,
    restart: bool,
    /// The process of each node, while it runs.
    pids: Vec<Option<u32>>,
    is_ready: bool,
    /// Set when the children were told to stop: what the run will end as.
    stopping: Option<Ended>,
}

impl<'a> Cluster<'a> {
    fn new(
        home: &'a Home,
        nodes: &'a Nodes,
        hosted: Hosted<'a>,
        output: Output,
        restart: bool,
    ) -> Self {
        let pids = vec![None; nodes.nodes.len()];
        Self { home, nodes, hosted, output, restart, pids, is_ready: false, stopping: None }
    }

    async fn run(mut self) -> Result<Ended, Failure> {
        let signals = Signals::listen();
        let mut signals = signals.map_err(|e| Failure::failed("signals", e, "report this"))?;
        let (trigger, mut events) = self.start();
        let output = self.output;
        let ready = ready::wait(&self.nodes.nodes, |text| output.note(text));
        let mut ready = std::pin::pin!(ready);
        loop {
            tokio::select! {
                biased;
                () = signals.next() => match self.stopping {
                    // A stop of our own making is not theirs: they are told to stop only once.
                    Some(Ended::Stopped) => return Ok(Ended::AtOnce),
                    Some(_) | None => {
                        self.stopping = Some(Ended::Stopped);
                        trigger.stop();
                    }
                },
                event = events.recv() => match event {
                    Some(event) => self.tell(event, &trigger),
                    // Every task is done.
                    None => break,
                },
                () = &mut ready, if !self.is_ready && self.stopping.is_none() => self.ready(),
            }
        }
        self.stopping.ok_or_else(|| {
            let hint = "see their logs, and leave --no-restart out";
            Failure::failed("cluster", "every node has ended", hint)
        })
    }

    /// Starts a task for every node. The channel ends when all of them have.
    fn start(&self) -> (StopTrigger, Receiver<Event>) {
        let (trigger, stop) = stop_pair();
        let (tell, events) = channel(EVENTS_MAX);
        for (index, config) in self.nodes.nodes.iter().enumerate() {
            let keeper = Keeper::new(index, config, self.restart);
            actix_rt::spawn(keeper.keep(stop.clone(), tell.clone()));
        }
        (trigger, events)
    }

    fn ready(&mut self) {
        self.is_ready = true;
        let nodes = self.nodes.nodes.iter().zip(&self.pids);
        let up = nodes.filter_map(|(config, pid)| Some(Up { config, pid: (*pid)? }));
        self.output.ready(self.home, &up.collect::<Vec<_>>(), self.hosted);
    }

    fn tell(&mut self, event: Event, trigger: &StopTrigger) {
        match event {
            Event::Started { node, pid, again } => {
                self.pids[node] = Some(pid);
                if again {
                    self.output.restarted(self.nodes.nodes[node].name.as_str(), pid);
                }
            }
            Event::Ended { node, pid, status, removed } => {
                self.pids[node] = None;
                let config = &self.nodes.nodes[node];
                self.output.exited(config.name.as_str(), pid, status);
                if removed {
                    self.output.note(&format!("node {} was removed from the cluster", config.name));
                } else if status.code().is_some_and(|code| code != 0) {
                    let log = log_file(&config.file);
                    self.output.note(&format!("its last words, from {}:", log.display()));
                    last_words(&log).iter().for_each(|line| out::tell(format_args!("  {line}")));
                }
                let can_choose_again = self.nodes.fresh && !self.is_ready;
                if can_choose_again && self.stopping.is_none() && is_taken(config) {
                    self.output
                        .note(&format!("a port of node {} was taken, choosing anew", config.name));
                    self.stopping = Some(Ended::Collision);
                    trigger.stop();
                }
            }
            Event::NotStarted { node, error } => {
                self.pids[node] = None;
                let name = &self.nodes.nodes[node].name;
                self.output.note(&format!("node {name} could not be started: {error}"));
            }
        }
    }
}

/// Whether somebody listens on a port of this node, whose own process is dead.
fn is_taken(config: &NodeConfig) -> bool {
    let listen = config.listen;
    let web = config.web.as_ref().map(|web| web.listen);
    let all = [Some(listen.quic), Some(listen.http), listen.resp, web];
    !all.into_iter().flatten().all(ports::is_free)
}

/// Events come one at a time per node; tasks wait when this many were not told yet.
const EVENTS_MAX: usize = 64;

/// Ports are chosen anew this often when others take them.
const COLLISIONS_MAX: u32 = 5;
