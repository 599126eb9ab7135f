//! Highly available actors: you write a service as an actix actor, and two full machines and a
//! cheap one keep it alive. Every acknowledged command survives the crash of any one of them and is
//! executed exactly once.
//!
//! This is a whole replicated service, and its unit test:
//!
//! ```
//! use actix::{Actor, Handler, Message};
//! use serde::{Deserialize, Serialize};
//! use std::collections::BTreeMap;
//! use synod::{
//!     message::RemoteMessage,
//!     replicated::{Query, Replicated, Turn, local::LocalLog},
//! };
//!
//! /// Who won how often. Equal at every main.
//! #[derive(Default, Serialize, Deserialize, Replicated)]
//! #[replicated(name = "scores", commands(Won), queries(Best))]
//! struct Scores {
//!     wins: BTreeMap<String, u64>,
//! }
//!
//! /// A command: it takes one place in the log, and is executed once.
//! #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! #[rtype(result = "u64")]
//! #[remote(name = "scores.won")]
//! struct Won {
//!     player: String,
//! }
//!
//! /// A question: its answer covers every command acknowledged before it.
//! #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! #[rtype(result = "Option<String>")]
//! #[remote(name = "scores.best")]
//! struct Best {}
//!
//! impl Actor for Scores {
//!     type Context = Turn; // one command of the log: agreed time, seeded randomness, no clock
//! }
//!
//! impl Handler<Won> for Scores {
//!     type Result = u64;
//!
//!     fn handle(&mut self, won: Won, _: &mut Turn) -> u64 {
//!         let wins = self.wins.entry(won.player).or_default();
//!         *wins += 1;
//!         *wins
//!     }
//! }
//!
//! impl Query<Best> for Scores {
//!     fn query(&self, _: Best) -> Option<String> {
//!         self.wins.iter().max_by_key(|(_, wins)| **wins).map(|(player, _)| player.clone())
//!     }
//! }
//!
//! /// `scores dev` runs a cluster of it here; `scores call scores scores.won '{"player":"ann"}'`
//! /// plays.
//! fn program() -> std::process::ExitCode {
//!     synod::Cli::new("scores").replicated::<Scores>("scores").main()
//! }
//!
//! # actix::System::new().block_on(async {
//! // The same actor under a log of one process.
//! let (_log, scores) = LocalLog::with::<Scores>("scores");
//! assert_eq!(scores.send(Won { player: "ann".into() }).await, Ok(1));
//! assert_eq!(scores.query(Best {}).await, Ok(Some("ann".into())));
//! # });
//! ```
//!
//! # Layout
//! - [`manual`]: getting started, messages, async handlers, guarantees, testing, operations,
//!   views, roles, singletons, services, multicast, the key/value service, servers behind one
//!   order, security, compatibility, composing, design
//! - [`replicated`]: actors that live in the log
//! - [`Client`]: the way in for programs outside the cluster
//! - [`Cli`]: the verbs, for your own program; [`server`]: one node
//! - [`server::seat`]: the protocol roles one by one, for programs that compose them
//! - [`trace`]: what one request led to, on all nodes
//! - [`sim`]: whole clusters in simulated time, for your tests
//! - [`election`]: roles with exactly one holder; [`server::elections`]: standing for them
//! - [`register`]: a few words that a majority keeps, without a leader; Disk Paxos
//! - [`server::singletons`]: actors of which exactly one lives
//! - [`membership`]: who is there, decided; [`server::membership`]: views at a node
//! - [`management`]: outside programs of which exactly one runs; [`server::services`]: theirs
//! - [`multicast`]: one order of messages for an open group
//! - [`consensus`]: the protocol roles; [`machine`], [`effects`], [`role`]: how every role is built
//! - [`message`]: messages that travel between nodes; [`runtime`]: everything below the roles

// Lets code written by our derives, which says `::synod::…`, compile in this crate too.
extern crate self as synod;

pub mod cli;
pub mod client;
pub mod consensus;
pub mod effects;
pub mod election;
pub mod machine;
pub mod management;
pub mod manual;
pub mod membership;
pub mod multicast;
#[cfg(any(test, feature = "mutations"))]
pub mod mutation;
pub mod register;
pub mod replicated;
pub mod role;
pub mod server;
pub mod sim;
#[cfg(any(test, feature = "mutations"))]
pub mod sometimes;
pub mod trace;

pub use cli::Cli;
pub use client::Client;
pub use synod_runtime as runtime;
pub use synod_runtime::{
    message,
    serial::{self, Serial, async_handlers},
};

// The README's example is a program people copy: it must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
