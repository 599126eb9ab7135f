//! Two nodes and one trace: what a request leads to carries one number on log lines of both nodes.

mod local;

use actix::{Actor, Context, Handler, Message};
use local::{Failure, nodes, until};
use serde::{Deserialize, Serialize};
use synod::{
    message::{RemoteActor, RemoteMessage},
    runtime::address::RemoteRecipient,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::{Instrument as _, info, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

/// Taken by the desk, which tells `book` of it.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "desk.order")]
struct Order {
    pieces: u32,
    book: RemoteRecipient<Entry>,
}

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "book.entry")]
struct Entry(u32);

#[derive(RemoteActor)]
#[remote(name = "desk", handles(Order))]
struct Desk;

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Order> for Desk {
    type Result = ();

    fn handle(&mut self, order: Order, _: &mut Context<Self>) {
        info!("packs {} pieces", order.pieces);
        order.book.do_send(Entry(order.pieces));
    }
}

#[derive(RemoteActor)]
#[remote(name = "book", handles(Entry))]
struct Book(UnboundedSender<u32>);

impl Actor for Book {
    type Context = Context<Self>;
}

impl Handler<Entry> for Book {
    type Result = ();

    fn handle(&mut self, entry: Entry, _: &mut Context<Self>) {
        info!("writes {} pieces down", entry.0);
        // The program may have ended.
        let _ = self.0.send(entry.0);
    }
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    let lines = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
    // This layer makes a trace of every span that is not inside of another.
    tracing::subscriber::set_global_default(lines.finish().with(synod::trace::layer()))?;
    let [a, b] = nodes(["a", "b"])?;
    b.register("desk", b.spawn("desk", || Desk))?;
    let (written, mut entries) = unbounded_channel();
    let book = a.spawn("book", move || Book(written.clone()));
    let book = a.register("book", book)?.recipient();
    let desk = until("the name is known", || a.lookup::<Desk>("desk").ok()).await?;

    for (customer, pieces) in [("ann", 3), ("bob", 5)] {
        let (desk, book) = (desk.clone(), book.clone());
        let request = async move {
            info!("orders");
            desk.send(Order { pieces, book }).await
        };
        request.instrument(info_span!("checkout", customer)).await?;
        entries.recv().await;
    }
    Ok(())
}
