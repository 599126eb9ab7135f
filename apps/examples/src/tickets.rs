//! Two singletons: actors of which each is on one node of the cluster at a time.
//!
//! `tickets` hands out tickets, and remembers nothing; `numbers` counts from 1 on, and keeps its count: no
//! number is answered before it is kept.
//!
//! `tickets dev` runs a cluster of it here; then, at any node,
//! `tickets call tickets tickets.next '{}'` or `curl -X POST http://…/actors/tickets/tickets.next`.
//! Kill the node that has it, and go on: no ticket is given twice, and each is above all before. The
//! same with `numbers numbers.next`.

use std::process::ExitCode;

use actix::{Actor, Context, Handler, Message, MessageResult, ResponseFuture};
use serde::{Deserialize, Serialize};
use synod::{
    Cli,
    message::{RemoteActor, RemoteMessage},
    server::singletons::{HaActor, HaError, HaStart, Keeping, Messages, NotKept},
};

fn main() -> ExitCode {
    let program = Cli::new("tickets").singleton::<Tickets>("tickets", ());
    program.singleton::<Numbers>("numbers", ()).main()
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

/// It keeps its count.
#[derive(RemoteActor)]
#[remote(name = "numbers", handles(NextNumber))]
struct Numbers {
    last: u64,
    start: HaStart,
}

/// Asks for the next number; an error says whether it may have been used up.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, NotKept>")]
#[remote(name = "numbers.next")]
struct NextNumber {}

impl HaActor for Numbers {
    type Args = ();

    fn create(_: &(), start: &HaStart) -> Result<Self, HaError> {
        let last = match start.state() {
            Some(kept) => u64::from_be_bytes(kept[..].try_into()?),
            None => 0,
        };
        Ok(Self { last, start: start.clone() })
    }

    fn keeping() -> Keeping {
        Keeping::Said
    }

    fn messages(messages: &mut Messages<Self>) {
        messages.on::<NextNumber>();
    }
}

impl Actor for Numbers {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        tracing::info!(node = %self.start.node(), last = self.last, "counts on");
    }
}

impl Handler<NextNumber> for Numbers {
    type Result = ResponseFuture<Result<u64, NotKept>>;

    fn handle(&mut self, _: NextNumber, _: &mut Context<Self>) -> Self::Result {
        self.last += 1;
        let (number, kept) = (self.last, self.start.keep(self.last.to_be_bytes().into()));
        Box::pin(async move { kept.await.map(|()| number) })
    }
}
