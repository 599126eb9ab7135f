//! Redis as a form of the binding: unmodified redis-servers behind the sites, clients that speak RESP
//! before them.
//!
//! A command that changes something is ordered, with those that a client sent right behind it, and
//! performed at every site's server in one transaction. In the same transaction the server keeps the
//! number that the request has, in a database that clients do not see. So a server that keeps its data
//! keeps with it how far it is: whatever crashes in between, nothing is performed twice and nothing is
//! left out, and a server that comes back with an older state is given what it lacks.
//!
//! # Layout
//! - `wire`: commands and replies as bytes; `command`: what a command is to a site; `agreed`: what a
//!   clock would decide, by agreed time
//! - `dialogue`: a request as a transaction, and what its replies mean; `line`: the machine that says
//!   what is sent next
//! - [`RedisServer`]: the shell of both; `connection`: a connection to the server; `reader`: reads
//! - `client`: one client; `watch`: what it watches; [`serve`]: the port they come to

mod agreed;
mod client;
mod command;
mod connection;
mod dialogue;
mod line;
mod listener;
mod reader;
mod server;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use connection::RedisAddress;
pub use listener::serve;
pub use server::RedisServer;
