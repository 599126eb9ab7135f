//! The command line, as a library: every program that hosts actors gets the same verbs.
//!
//! ```no_run
//! # use actix::{Actor, Handler, Message};
//! # use serde::{Deserialize, Serialize};
//! # use synod::{message::RemoteMessage, replicated::{Replicated, Turn}};
//! # #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! # #[rtype(result = "()")]
//! # #[remote(name = "ledger.add")]
//! # struct Add {}
//! # #[derive(Default, Serialize, Deserialize, Replicated)]
//! # #[replicated(name = "ledger", commands(Add))]
//! # struct Ledger {}
//! # impl Actor for Ledger { type Context = Turn; }
//! # impl Handler<Add> for Ledger { type Result = (); fn handle(&mut self, _: Add, _: &mut Turn) {} }
//! fn main() -> std::process::ExitCode {
//!     synod::Cli::new("bank").replicated::<Ledger>("ledger").main()
//! }
//! ```
//!
//! # Layout
//! - `args`: what may be written
//! - `simulate`: clusters in a simulated world
//! - `dev`, `node`, `init`, `status`, `members`, `roles`, `web`, `top`, `call`, `bench`: the verbs
//! - `elect`: a program that runs on one machine at a time; `services`, `keeper`: programs that the
//!   cluster keeps running; `haul`: states of any size; `watchdog`: ends them in time; `process`:
//!   signals, ties, timers
//! - `backup`, `inspect`, `recover`: state as files, and the last resort
//! - `layout`: the directory of a cluster
//! - `resident`: the memory of a process that does little
//! - `client`: asking a running cluster
//! - `failure`: one line and one exit code; `out`: what is printed, or why it cannot be

mod args;
mod backup;
mod bench;
mod call;
mod client;
mod dev;
mod elect;
mod failure;
mod haul;
mod init;
mod inspect;
mod keeper;
mod layout;
mod members;
mod multicast;
mod node;
mod out;
mod process;
mod recover;
mod resident;
mod roles;
mod services;
mod simulate;
mod status;
mod table;
mod top;
mod watchdog;
mod web;

use std::{fmt, process::ExitCode, sync::Arc};

use actix_rt::System;

use self::{args::Verb, failure::Failure};
use crate::{
    replicated::Replicated,
    server::{
        Follower, Program, Replica, Service,
        services::programs::Programs,
        singletons::{AnySingleton, HaActor, Hosted},
    },
};

/// A program: its name, and what its nodes host. Finish with [`Cli::main`].
pub struct Cli {
    name: &'static str,
    services: Vec<Box<dyn Service>>,
    singletons: Vec<Box<dyn AnySingleton>>,
    followers: Vec<Box<dyn Follower>>,
}

impl Cli {
    /// A program called `name`, as people type it.
    pub const fn new(name: &'static str) -> Self {
        Self { name, services: Vec::new(), singletons: Vec::new(), followers: Vec::new() }
    }

    /// Lets its nodes host the replicated actor `A` under the name `actor`.
    ///
    /// # Panics
    /// When something else already has that name.
    #[must_use]
    pub fn replicated<A: Replicated>(self, actor: &'static str) -> Self {
        self.service(Replica::<A>::new(actor))
    }

    /// Lets its nodes host `service`.
    ///
    /// # Panics
    /// When something else already has its name, or already serves Redis clients as it does.
    #[must_use]
    pub fn service(mut self, service: impl Service) -> Self {
        self.check_free(service.name());
        for other in &self.services {
            let both = other.speaks_resp() && service.speaks_resp();
            assert!(!both, "{} and {} both serve Redis clients", other.name(), service.name());
            let both = other.speaks_web() && service.speaks_web();
            assert!(!both, "{} and {} both have servers behind them", other.name(), service.name());
        }
        self.services.push(Box::new(service));
        self
    }

    /// Lets its nodes, but for auxiliaries, host the singleton `A` under the name `actor`: one of
    /// them at a time, built from `args`.
    ///
    /// # Panics
    /// When something else already has that name.
    #[must_use]
    pub fn singleton<A: HaActor<Args: Clone>>(
        mut self,
        actor: &'static str,
        args: A::Args,
    ) -> Self {
        self.check_free(actor);
        self.singletons.push(Box::new(Hosted::<A>::new(actor, args)));
        self
    }

    /// Lets its nodes, but for auxiliaries, follow a group with a state of their own.
    ///
    /// # Panics
    /// When something else already follows that group.
    #[must_use]
    pub fn follower(mut self, follower: impl Follower) -> Self {
        for other in &self.followers {
            assert!(other.group() != follower.group(), "two followers of {}", other.group());
        }
        self.followers.push(Box::new(follower));
        self
    }

    fn check_free(&self, name: &str) {
        let services = self.services.iter().map(|other| other.name());
        for other in services.chain(self.singletons.iter().map(|other| other.name())) {
            assert!(other != name, "two services called {other}");
        }
    }

    /// Does what the command line says. Returns the program's exit code: 0 done, 1 failed, 2
    /// wrong usage or configuration, 3 *not applied*, 4 *outcome unknown*; `elect` has more.
    pub fn main(self) -> ExitCode {
        let name = self.name;
        let failure = match args::parse(name, std::env::args_os()) {
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some(verb)) => {
                let json = wants_json(&verb);
                match self.run(verb) {
                    Ok(code) => return code,
                    Err(failure) => {
                        if json {
                            // It stands on standard error too.
                            out::say(call::failure_document(&failure)).ok();
                        }
                        failure
                    }
                }
            }
            Err(failure) => failure,
        };
        out::tell(format_args!("{name}: {failure}"));
        failure.exit.into()
    }

    /// Whether a message of one of its replicated actors is surely a query.
    fn is_query(&self, actor: &str, message: &str) -> bool {
        let service = self.services.iter().find(|service| service.name() == actor);
        let known = service.map(|service| service.machine().descriptor());
        known.is_some_and(|actor| actor.function(message).is_ok_and(|known| known.function.query))
    }

    fn run(self, verb: Verb) -> Result<ExitCode, Failure> {
        let with_resp = self.services.iter().any(|service| service.speaks_resp());
        let with_web = self.services.iter().any(|service| service.speaks_web());
        let done = match verb {
            Verb::Dev(args) => {
                let (services, followers) = (&self.services[..], &self.followers[..]);
                dev::run(self.name, &args, dev::Hosted { services, followers })
            }
            Verb::Node(args) => {
                let (services, singletons) = (self.services.into(), self.singletons.into());
                let programs: Option<Arc<dyn Programs>> = Some(Arc::new(keeper::Processes));
                let followers = self.followers.into();
                node::run(self.name, &args, &Program { services, singletons, followers, programs })
            }
            Verb::Init(args) => init::run(self.name, &args, with_resp),
            Verb::Status(args) => System::new().block_on(status::run(&args)),
            Verb::Members(args) => System::new().block_on(members::run(&args)),
            Verb::Roles(args) => System::new().block_on(roles::run(&args)),
            Verb::Publish(args) => System::new().block_on(multicast::publish::run(&args)),
            Verb::Subscribe(args) => System::new().block_on(multicast::subscribe::run(&args)),
            Verb::Multicast(args) => System::new().block_on(multicast::run(&args)),
            Verb::Elect(args) => return elect::run(self.name, &args),
            Verb::ElectWatchdog(args) => return elect::watchdog::run(&args),
            Verb::Services(args) => System::new().block_on(services::run(&args)),
            Verb::ServiceWatchdog(args) => return keeper::watchdog(&args),
            Verb::Call(args) => {
                let read_only = self.is_query(&args.actor, &args.message);
                System::new().block_on(call::call(&args, read_only))
            }
            Verb::Actors(args) => System::new().block_on(call::actors(&args)),
            Verb::Backup(args) => System::new().block_on(backup::backup(&args)),
            Verb::Restore(args) => System::new().block_on(backup::restore(&args)),
            Verb::Inspect(args) => inspect::run(&args),
            Verb::Recover(args) => recover::run(self.name, &args, self.services, with_resp),
            Verb::Simulate(args) => simulate::run(self.name, &args),
            Verb::Web(args) => System::new().block_on(web::run(&args)),
            Verb::Top(args) => System::new().block_on(top::run(&args)),
            Verb::Bench(args) => bench::run(self.name, &args, with_resp, with_web),
            Verb::BenchPeer => bench::run_peer(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Whether a failure too is one JSON document on standard output. A stream of events has no place
/// for it.
fn wants_json(verb: &Verb) -> bool {
    match verb {
        Verb::Status(client) | Verb::Web(client) => client.json,
        Verb::Members(members) => members.client().json,
        Verb::Roles(roles) => roles.client().json,
        Verb::Services(services) => services.client().json,
        Verb::Call(call) => call.client.json,
        Verb::Actors(actors) => actors.client.json,
        Verb::Top(top) => top.client.json,
        Verb::Backup(file) | Verb::Restore(file) => file.client.json,
        Verb::Recover(recover) => recover.json,
        Verb::Multicast(multicast) => multicast.client().json,
        Verb::Publish(publish) => publish.client.json,
        Verb::Subscribe(_)
        | Verb::Dev(_)
        | Verb::Elect(_)
        | Verb::ElectWatchdog(_)
        | Verb::ServiceWatchdog(_)
        | Verb::Inspect(_)
        | Verb::Node(_)
        | Verb::Init(_)
        | Verb::Simulate(_)
        | Verb::Bench(_)
        | Verb::BenchPeer => false,
    }
}

impl fmt::Debug for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.services.iter().map(|service| service.name()).collect();
        f.debug_struct("Cli").field("name", &self.name).field("services", &names).finish()
    }
}
