//! Two nodes, an actor on one of them, and its address used from the other.

mod local;

use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use local::{Failure, nodes, until};
use serde::{Deserialize, Serialize};
use synod::{
    message::{RemoteActor, RemoteMessage},
    runtime::address::SendError,
};

/// Comes back as it is.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u32")]
#[remote(name = "ping")]
struct Ping(u32);

#[derive(RemoteActor)]
#[remote(name = "echo", handles(Ping))]
struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

impl Handler<Ping> for Echo {
    type Result = u32;

    fn handle(&mut self, ping: Ping, _: &mut Context<Self>) -> u32 {
        ping.0
    }
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let [a, b] = nodes(["a", "b"])?;
    // An ordinary actix actor: started under a name, and known to all nodes by it.
    b.register("echo", b.spawn("echo", || Echo))?;

    let echo = until("the name is known", || a.lookup::<Echo>("echo").ok()).await?;
    for number in 1..=3 {
        let before = a.now();
        let pong = echo.send(Ping(number)).timeout(Duration::from_secs(1)).await?;
        println!("pong {pong} from {} after {:?}", echo.node().name, a.now().since(before));
    }

    // Every error says whether the message was run: this one was not, for b takes nothing new.
    b.drain(Duration::from_secs(1)).await;
    match echo.send(Ping(4)).await {
        Err(error @ SendError::Unreachable) => println!("ping 4: {error}, {:?}", error.outcome()),
        other => return Err(format!("a node that left answered {other:?}").into()),
    }
    Ok(())
}
