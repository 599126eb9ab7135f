//! A group of workers on two nodes: work in turn, work by key, and a node that leaves meanwhile.

mod local;

use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use local::{Failure, nodes, until};
use serde::{Deserialize, Serialize};
use synod::message::{RemoteActor, RemoteMessage};

/// Counts the primes below a number; answers who counted, too.
#[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(String, usize)")]
#[remote(name = "primes.below")]
struct PrimesBelow(u32);

/// Forget what you know.
#[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "primes.forget")]
struct Forget;

#[derive(RemoteActor)]
#[remote(name = "worker", handles(PrimesBelow, Forget))]
struct Worker {
    name: String,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<PrimesBelow> for Worker {
    type Result = actix::MessageResult<PrimesBelow>;

    fn handle(&mut self, below: PrimesBelow, _: &mut Context<Self>) -> Self::Result {
        let is_prime = |n: &u32| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
        actix::MessageResult((self.name.clone(), (2..below.0).filter(is_prime).count()))
    }
}

impl Handler<Forget> for Worker {
    type Result = ();

    fn handle(&mut self, _: Forget, _: &mut Context<Self>) {}
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let [a, b, c] = nodes(["a", "b", "c"])?;
    for (node, name) in [(&b, "worker/1"), (&b, "worker/2"), (&c, "worker/3")] {
        let worker = node.spawn(name, move || Worker { name: name.to_owned() });
        node.group::<Worker>("workers").join(&node.register(name, worker)?)?;
    }

    let workers = a.group::<Worker>("workers");
    let all = || Some(()).filter(|()| workers.members().len() == 3);
    until("all three have joined", all).await?;
    for _ in 0..3 {
        let worker = workers.round_robin().ok_or("nobody there")?;
        let (who, primes) = worker.send(PrimesBelow(10_000)).await?;
        println!("{who} on {}: {primes} primes", worker.node().name);
    }
    println!("told {} workers to forget", workers.broadcast(&Forget));
    let home = |key: &str| workers.for_key(key).map(|worker| worker.name().to_owned());
    println!("ann's work is always done by {}", home("ann").ok_or("nobody there")?);

    // Members that leave are gone from every node's copy; the keys of others stay where they are.
    b.drain(Duration::from_secs(1)).await;
    until("b's have left", || Some(()).filter(|()| workers.members().len() == 1)).await?;
    let (who, _) = workers.for_key("ann").ok_or("nobody there")?.send(PrimesBelow(100)).await?;
    println!("and by {who} when b has left");
    Ok(())
}
