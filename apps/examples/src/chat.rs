//! A chat room without a server: everybody is an actor on a node of their own, the room is a group,
//! and who leaves is missed by those who watch.

mod local;

use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message};
use local::{Failure, nodes, until};
use serde::{Deserialize, Serialize};
use synod::{
    message::{RemoteActor, RemoteMessage},
    runtime::{node::Node, registry::watch::Terminated},
};

/// Somebody said something.
#[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "chat.said")]
struct Said {
    by: String,
    text: String,
}

#[derive(RemoteActor)]
#[remote(name = "guest", handles(Said))]
struct Guest {
    name: &'static str,
    node: Node,
}

impl Actor for Guest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Whoever is here already is watched; each end is told once, however it comes.
        for other in &*self.node.group::<Self>("room").members() {
            let _lasting = self.node.watch(other).notify(ctx.address().recipient());
        }
    }
}

impl Handler<Said> for Guest {
    type Result = ();

    fn handle(&mut self, said: Said, _: &mut Context<Self>) {
        println!("{} hears {}: {}", self.name, said.by, said.text);
    }
}

impl Handler<Terminated> for Guest {
    type Result = ();

    fn handle(&mut self, gone: Terminated, _: &mut Context<Self>) {
        println!("{} misses {}: {}", self.name, gone.name, gone.reason);
    }
}

/// Comes in once all `others` are seen.
async fn enter(node: &Node, name: &'static str, others: usize) -> Result<(), Failure> {
    let room = node.group::<Guest>("room");
    until("the others are seen", || Some(()).filter(|()| room.members().len() == others)).await?;
    let own = node.clone();
    let guest = node.spawn(name, move || Guest { name, node: own.clone() });
    room.join(&node.register(name, guest)?)?;
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let [a, b, c] = nodes(["a", "b", "c"])?;
    enter(&a, "ann", 0).await?;
    enter(&b, "bob", 1).await?;
    enter(&c, "cy", 2).await?;

    let room = a.group::<Guest>("room");
    until("all are in the room", || Some(()).filter(|()| room.members().len() == 3)).await?;
    let heard = room.broadcast(&Said { by: "ann".into(), text: "hello, all".into() });
    println!("{heard} were told");
    tokio::time::sleep(Duration::from_millis(200)).await;

    a.drain(Duration::from_secs(1)).await;
    let room = c.group::<Guest>("room");
    until("ann is gone", || Some(()).filter(|()| room.members().len() == 2)).await?;
    room.broadcast(&Said { by: "cy".into(), text: "bye, ann".into() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}
