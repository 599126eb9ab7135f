//! Unmodified servers behind one agreed order (Microsoft's binding of CRUD protocols to a
//! distributed agreement protocol, with Cheap Paxos as the protocol; HTTP and Redis are its forms).
//!
//! Each main has a server of its own and a reverse proxy in front of it. What changes something is
//! ordered, through the log or through a group of multicast, and performed at every site in that order;
//! whoever asked is answered from the server of the site it asked.
//!
//! # Layout
//! [`exchange`](Request) has what is ordered and answered, [`binding`](Order) the traits where the
//! parts meet. [`edge`] hears the clients, [`order`] is the agreed order in the log, [`site`] follows
//! it at each main, [`upstream`] speaks HTTP with the server behind. [`resp`] hears the clients of Redis
//! and speaks with their servers, by the same order. [`bodies`] keeps large bodies apart from the order,
//! `carrier` carries them, and one server's content to another.
//! [`WebService`] puts them together, `way` finds the order for who comes by HTTP, `log` says what clients
//! asked, and `tireless` begins anew what panics.

mod binding;
pub mod bodies;
mod carrier;
pub mod edge;
mod exchange;
mod log;
pub mod metrics;
pub mod order;
mod path;
pub mod resp;
mod service;
pub mod site;
mod slip;
#[cfg(test)]
mod testing;
mod time;
mod tireless;
pub mod upstream;
mod way;

pub use binding::{
    Answer, Carrier, Copy, Feed, Form, Fresh, Identity, Order, OrderError, Past, Perform, Stamp,
    Touches, Unperformed,
};
pub use bodies::{Apart, Courier, Holding};
pub use exchange::{Header, Request, Response};
pub use service::WebService;
