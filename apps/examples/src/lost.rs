//! A bug that shows once in a while: found in simulated time, and replayed from its seed. Two clerks
//! put coins into one till. The naive way is to ask what is in it and to set it to more: two
//! messages, between which the other clerk may come. The mended way is one command.

use std::time::Duration;

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use synod::{
    message::RemoteMessage,
    replicated::{CallError, Handle, IdempotencyKey, Query, Replicated, Turn},
    sim::{Drill, Scene},
};

#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "till", commands(Set, Add), queries(Content))]
struct Till(u64);

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.set")]
struct Set(u64);

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.add")]
struct Add(u64);

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "till.content")]
struct Content;

impl Actor for Till {
    type Context = Turn;
}

impl Handler<Set> for Till {
    type Result = ();

    fn handle(&mut self, set: Set, _: &mut Turn) {
        self.0 = set.0;
    }
}

impl Handler<Add> for Till {
    type Result = ();

    fn handle(&mut self, add: Add, _: &mut Turn) {
        self.0 += add.0;
    }
}

impl Query<Content> for Till {
    fn query(&self, _: Content) -> u64 {
        self.0
    }
}

async fn put(till: &Handle<Till>, key: IdempotencyKey, mended: bool) -> Result<(), CallError> {
    match mended {
        false => till.send(Set(till.query(Content).await? + 1)).await,
        true => till.send(Add(1)).idempotency(key).await, // the key makes a repetition harmless
    }
}

/// A clerk puts 20 coins, each until it is acknowledged.
async fn clerk(scene: &Scene, name: &str, till: &Handle<Till>, after_ms: u64, mended: bool) {
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    for coin in 1..=20 {
        let key = IdempotencyKey::new(&format!("{name}/{coin}")).expect("a short key");
        scene.tell(&format!("{name} puts coin {coin}"));
        scene.insist(async || put(till, key.clone(), mended).await).await;
        scene.tell(&format!("{name} has put coin {coin}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Two clerks at work, while machines stop and packets are lost.
async fn day(scene: Scene, mended: bool) -> Result<(), String> {
    let [at_a, at_b] = ["a", "b"].map(|main| scene.handle::<Till>("till", main));
    tokio::join!(clerk(&scene, "ann", &at_a, 0, mended), clerk(&scene, "bob", &at_b, 50, mended));
    scene.calm().await;
    match scene.insist(async || at_a.query(Content).await).await {
        40 => Ok(()),
        found => Err(format!("40 coins acknowledged, {found} in the till")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drill = Drill::of::<Till>("till").faults("crash,pause,loss".parse()?);
    let naive = drill.hunt(1..=40, async |scene| day(scene, false).await);
    println!("naive: {}", naive.ok_or("no seed finds the lost update")?);
    if let Some(lost) = drill.hunt(1..=40, async |scene| day(scene, true).await) {
        return Err(lost.to_string().into());
    }
    println!("mended: seeds 1 to 40: every coin is there");
    Ok(())
}
