//! What a flooded actor costs its neighbour on the same arbiter, with a turn budget and without.

mod local;

use std::time::Duration;

use actix::{Actor, Arbiter, Context, Handler, Message};
use local::{Failure, nodes};
use synod::runtime::{
    node::Node,
    supervision::{Policy, TurnBudget},
};

/// Messages of one flood, each worth so much time.
const FLOOD: usize = 1_000;
const WORK: Duration = Duration::from_micros(20);
const ROUNDS: usize = 25;

#[derive(Message)]
#[rtype(result = "()")]
struct Work;

/// Busy for [`WORK`] with each message.
struct Hot(Node);

impl Actor for Hot {
    type Context = Context<Self>;
}

impl Handler<Work> for Hot {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Context<Self>) {
        let began = self.0.now();
        while self.0.now().since(began) < WORK {
            std::hint::spin_loop();
        }
    }
}

/// Has nothing to do but to answer.
struct Neighbour;

impl Actor for Neighbour {
    type Context = Context<Self>;
}

impl Handler<Work> for Neighbour {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Context<Self>) {}
}

/// How long asks of the neighbour took while the other was flooded, in order.
async fn measure(node: &Node, name: &str, turn: TurnBudget) -> Result<Vec<Duration>, Failure> {
    let arbiter = Arbiter::new();
    let (policy, own) = (Policy { turn, ..Policy::default() }, node.clone());
    let hot =
        node.spawn_on(&arbiter.handle(), &format!("{name}/hot"), policy, move || Hot(own.clone()))?;
    let next = format!("{name}/neighbour");
    let neighbour = node.spawn_on(&arbiter.handle(), &next, Policy::default(), || Neighbour)?;
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..FLOOD {
            hot.do_send(Work);
        }
        let done = actix::spawn(hot.send(Work));
        // One ask after the other for as long as the flood lasts.
        while !done.is_finished() {
            let began = node.now();
            neighbour.send(Work).await?;
            waits.push(node.now().since(began));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    arbiter.stop();
    waits.sort();
    Ok(waits)
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let [node] = nodes(["a"])?;
    println!("{FLOOD} messages of {WORK:?} at once, and a neighbour that is asked meanwhile:");
    for (name, turn) in [("without", TurnBudget::UNLIMITED), ("with", TurnBudget::default())] {
        let waits = measure(&node, name, turn).await?;
        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
        println!("{name:>7} a turn budget: p50 {:?}, p99 {:?}", at(50), at(99));
    }
    Ok(())
}
