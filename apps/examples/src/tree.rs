//! A supervised tree: a store, and two actors that cannot go on without it.

mod local;

use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use local::{Failure, nodes};
use synod::runtime::{
    registry::watch::Reason,
    supervision::{Strategy, Supervisor},
};

/// Shows when it begins and ends; panics when told to.
struct Part(&'static str);

impl Actor for Part {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        println!("{} begins", self.0);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        println!("{} ends", self.0);
    }
}

#[derive(Message)]
#[rtype(result = "String")]
struct Hello;

#[derive(Message)]
#[rtype(result = "()")]
struct Fail;

impl Handler<Hello> for Part {
    type Result = String;

    fn handle(&mut self, _: Hello, _: &mut Context<Self>) -> String {
        self.0.to_owned()
    }
}

impl Handler<Fail> for Part {
    type Result = ();

    fn handle(&mut self, _: Fail, _: &mut Context<Self>) {
        panic!("the {} broke", self.0);
    }
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let [node] = nodes(["a"])?;
    let tree = || {
        Supervisor::tree("shop")
            .strategy(Strategy::RestForOne)
            .restarts(2, Duration::from_secs(10))
            .child("store", || Part("store"))
            .child_tree(
                Supervisor::tree("front")
                    .child("cart", || Part("cart"))
                    .child("page", || Part("page")),
            )
            .start(&node)
    };
    let shop = tree()?;
    let store = shop.addr::<Part>("store").ok_or("no store")?;
    store.send(Hello).await?;

    println!("-- the store breaks: all that stand on it begin anew, behind the same addresses");
    store.do_send(Fail);
    store.send(Hello).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;

    println!("-- an orderly stop, from the leaves up");
    let finished = shop.stop(Duration::from_secs(1)).await;
    println!("all finished by themselves: {finished}");

    println!("-- a store that breaks again and again");
    let shop = tree()?;
    let store = shop.addr::<Part>("store").ok_or("no store")?;
    for _ in 0..3 {
        store.do_send(Fail);
    }
    match shop.watch().await.reason {
        Reason::GaveUp { why } => println!("the tree gave up: {why}"),
        other => return Err(format!("the tree ended otherwise: {other}").into()),
    }
    Ok(())
}
