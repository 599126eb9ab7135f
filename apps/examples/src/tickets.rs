//! A singleton: one actor, on one node of the cluster at a time, that hands out tickets.
//!
//! `tickets dev` runs a cluster of it here; then, at any node,
//! `tickets call tickets tickets.next '{}'` or `curl -X POST http://…/actors/tickets/tickets.next`.
//! Kill the node that has it, and go on: no ticket is given twice, and each is above all before.

use std::process::ExitCode;

use actix::{Actor, Context, Handler, Message, MessageResult};
use serde::{Deserialize, Serialize};
use synod::{
    Cli,
    message::{RemoteActor, RemoteMessage},
    server::singletons::{HaActor, HaError, HaStart, Messages},
};

fn main() -> ExitCode {
    Cli::new("tickets").singleton::<Tickets>("tickets", ()).main()
}

/// It remembers nothing: each of its lives begins with an epoch above all before.
#[derive(RemoteActor)]
#[remote(name = "tickets", handles(Next))]
struct Tickets {
    last: Ticket,
    start: HaStart,
}

/// A number in two parts; later tickets are higher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Ticket {
    epoch: u64,
    number: u64,
}

/// Asks for the next ticket.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Ticket")]
#[remote(name = "tickets.next")]
struct Next {}

impl HaActor for Tickets {
    type Args = ();

    fn create(_: &(), start: &HaStart) -> Result<Self, HaError> {
        let last = Ticket { epoch: start.epoch().0, number: 0 };
        Ok(Self { last, start: start.clone() })
    }

    fn messages(messages: &mut Messages<Self>) {
        messages.on::<Next>();
    }
}

impl Actor for Tickets {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        tracing::info!(node = %self.start.node(), epoch = self.last.epoch, "hands out tickets");
    }
}

impl Handler<Next> for Tickets {
    type Result = MessageResult<Next>;

    fn handle(&mut self, _: Next, _: &mut Context<Self>) -> Self::Result {
        self.last.number += 1;
        MessageResult(self.last)
    }
}
