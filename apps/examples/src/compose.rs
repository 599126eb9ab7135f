//! The roles of consensus, placed and supervised by the program itself: no server, three bare
//! nodes. First all voters share one node, then each has its own; the roles cannot tell. Another
//! process speaks with an acceptor. Under load every role is stopped once, and no command is lost or
//! done twice.

mod local;

use std::{
    cell::Cell, collections::BTreeMap, io::Write as _, path::Path, process::Stdio, rc::Rc,
    time::Duration,
};

use actix::{Actor, Handler, Message};
use local::{Failure, cluster, nodes_of, start, until};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::{
        ballot::{Ballot, Step},
        message::{self, AcceptorMessage, NodeRole, Prepare, ProposerMessage},
    },
    message::RemoteMessage,
    replicated::{Handle, IdempotencyKey, Query, Replicated, Turn},
    runtime::{
        identity::{Incarnation, NodeId, NodeName},
        node::{Node, NodeConfig},
        quic::Authority,
        supervision::{Fault, Supervisor, Tree},
        world::network::TlsFiles,
    },
    server::{
        correspondent::Correspondent,
        seat::{House, Seat, SeatConfig},
    },
};

/// What is replicated: how often each number was written.
#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "book", commands(Write), queries(Written))]
struct Book(BTreeMap<u64, u32>);

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "book.write")]
struct Write(u64);

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "BTreeMap<u64, u32>")]
#[remote(name = "book.written")]
struct Written;

impl Actor for Book {
    type Context = Turn;
}

impl Handler<Write> for Book {
    type Result = ();

    fn handle(&mut self, write: Write, _: &mut Turn) {
        *self.0.entry(write.0).or_default() += 1;
    }
}

impl Query<Written> for Book {
    fn query(&self, _: Written) -> BTreeMap<u64, u32> {
        self.0.clone()
    }
}

/// The voters of the log: two that hold the book, and a cheap one that votes when one is missing.
fn listed() -> Result<BTreeMap<NodeName, NodeRole>, Failure> {
    let seats = [("a", NodeRole::Main), ("b", NodeRole::Main), ("x", NodeRole::Auxiliary)];
    seats.into_iter().map(|(name, role)| Ok((name.parse()?, role))).collect()
}

#[actix::main]
async fn main() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some("ask") {
        return ask_acceptor(&asker()?).await;
    }
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(&cluster()?)?;
    println!("== all voters on one node");
    let [one] = nodes_of(&authority, [("one", "main")])?;
    let house = House::on(&one);
    let homes = listed()?.into_keys().zip(1..).map(|(name, number)| {
        // Several voters on one node: each has an identity of its own.
        (one.clone(), house.clone(), NodeId::new(name, Incarnation(number)))
    });
    run(homes.collect(), &authority, &dir.path().join("one")).await?;

    println!("== each voter on its own node");
    let names = [("a", "main"), ("b", "main"), ("x", "auxiliary")];
    // A voter with a node of its own has the node's identity: that is how the others reach it.
    let homes = nodes_of(&authority, names)?
        .map(|node| (node.clone(), House::on(&node), node.id().clone()));
    run(homes.into(), &authority, &dir.path().join("spread")).await
}

/// One log: its voters at the given places.
async fn run(
    homes: Vec<(Node, House, NodeId)>,
    authority: &Authority,
    dir: &Path,
) -> Result<(), Failure> {
    let mut voters = Vec::new();
    for (node, house, id) in homes {
        let data_dir = dir.join(id.name.as_str());
        let seat = house.open(SeatConfig::hosting::<Book>("book", id, listed()?, data_dir))?;
        let tree = supervise(&seat).start(&node)?;
        voters.push((node, seat, tree));
    }
    until("a leader", || voters.iter().all(|(_, seat, _)| seat.ready().is_ok()).then_some(()))
        .await?;
    ask_from_outside(&voters, authority).await?;
    stop_each(&voters).await?;
    for (node, seat, tree) in voters {
        tree.stop(Duration::from_secs(1)).await;
        seat.close();
        node.shutdown();
    }
    Ok(())
}

/// Lets another process look an acceptor up and speak with it.
async fn ask_from_outside(
    voters: &[(Node, Seat, Tree)],
    authority: &Authority,
) -> Result<(), Failure> {
    let TlsFiles { ca, cert, key } = authority.issue(&"o".parse()?, &[], &[])?;
    let at = |(node, ..): &(Node, Seat, Tree)| {
        (node.name().to_string(), node.links().local_addr().to_string())
    };
    let peers: BTreeMap<String, String> = voters.iter().map(at).collect();
    let mut asker = tokio::process::Command::new(std::env::current_exe()?);
    let mut asker = asker.arg("ask").stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut input = asker.stdin.take().ok_or("asked for above")?;
    let begin = serde_json::to_vec(&(peers, [ca, cert, key]))?;
    tokio::io::AsyncWriteExt::write_all(&mut input, &begin).await?;
    drop(input);
    let ended = asker.wait().await?;
    if ended.success() { Ok(()) } else { Err("the other process failed".into()) }
}

/// The node of that process: it has no role, and knows addresses and its certificate.
fn asker() -> Result<Node, Failure> {
    type Begin = (BTreeMap<NodeName, String>, [Vec<u8>; 3]);
    let (peers, [ca, cert, key]): Begin = serde_json::from_reader(std::io::stdin())?;
    let mut config = NodeConfig::new(cluster()?, "o".parse()?, Incarnation(1));
    config.role = "observer".to_owned();
    config.peers = peers.into_iter().collect();
    config.tls = Some(TlsFiles { ca, cert, key });
    start(config)
}

/// The roles of a seat under a supervisor of ours. Each is an actor, begun anew when it ends, with
/// what its seat's journal holds.
fn supervise(seat: &Seat) -> Supervisor {
    let name = &seat.id().name;
    let tree = Supervisor::tree(&format!("roles-{name}")).restarts(100, Duration::from_secs(10));
    if name.as_str() == "x" {
        return tree.child("auxiliary", seat.auxiliary());
    }
    tree.child("acceptor", seat.acceptor()) // promises and votes, durably
        .child("learner", seat.learner()) // learns what enough of them voted for
        .child("replica", seat.replica()) // executes it on the book
        .child("proposer", seat.proposer()) // leads, or follows who leads
        .child("home", seat.home()) // stands for clients until their command is answered
}

/// A node without any role finds an acceptor by its name, over QUIC, and asks it for a promise as a
/// would-be leader does. The leader finds out at its next proposal, and has to lead anew.
async fn ask_acceptor(node: &Node) -> Result<(), Failure> {
    let mut roles = Correspondent::on(node)?;
    let name = "consensus/acceptor@b";
    let home = until("the acceptor's name", || roles.whereabouts(name)).await?;
    let ballot = Ballot { round: 1_000, node: node.id().incarnation };
    let prepare = Prepare { ballot, from: Step(1) };
    roles.tell(&home, &"b".parse()?, AcceptorMessage::Prepare(prepare))?;
    let (from, answer) = tokio::time::timeout(Duration::from_secs(10), roles.hear()).await?;
    match answer {
        message::Message::Proposer(ProposerMessage::Promise(promise)) => {
            let Ballot { round, node } = promise.ballot;
            let (at, process) = (&from.name, std::process::id());
            println!("{name} on {at} answers process {process}: a promise for {round}.{node}");
            Ok(std::io::stdout().flush()?)
        }
        other => Err(format!("{name} answered {other:?}").into()),
    }
}

/// Stops one role after the other while clients write, and looks into the book at the end.
async fn stop_each(voters: &[(Node, Seat, Tree)]) -> Result<(), Failure> {
    let load = Rc::new(Load::default());
    let mains = voters.iter().filter(|(_, seat, _)| seat.id().name.as_str() != "x");
    let clients: Vec<_> = mains
        .map(|(_, seat, _)| Handle::<Book>::new(seat.submit(), "book"))
        .flat_map(|book| vec![book; CLIENTS])
        .map(|book| actix::spawn(Rc::clone(&load).write(book)))
        .collect();
    for (node, seat, tree) in voters {
        let seat = &seat.id().name;
        let roles: &[&str] = match seat.as_str() {
            "x" => &["auxiliary"],
            _ => &["acceptor", "learner", "replica", "proposer", "home"],
        };
        for role in roles {
            load.goes_on().await?;
            let before = node.now();
            if !node.inject(&format!("{}/{role}", tree.name()), Fault::Stop) {
                return Err(format!("the {role} of {seat} does not run").into());
            }
            load.goes_on().await?;
            let took = node.now().since(before);
            println!("the {role} of {seat} stops: {ENOUGH} more commands are done {took:?} later");
        }
    }
    load.over.set(true);
    for client in clients {
        client.await??;
    }
    let book = Handle::<Book>::new(voters[0].1.submit(), "book").query(Written).await?;
    let acknowledged = load.acknowledged.get();
    if book.len() as u64 != acknowledged || book.values().any(|times| *times != 1) {
        return Err(format!("{acknowledged} acknowledged, but the book says {book:?}").into());
    }
    println!("{acknowledged} commands acknowledged; each is in the book exactly once");
    Ok(())
}

/// Clients at each main.
const CLIENTS: usize = 4;

/// Commands that show that all is well.
const ENOUGH: u64 = 100;

/// What the clients did.
#[derive(Default)]
struct Load {
    next: Cell<u64>,
    acknowledged: Cell<u64>,
    over: Cell<bool>,
}

impl Load {
    /// A client: writes one number after the other, each until it is acknowledged.
    async fn write(self: Rc<Self>, book: Handle<Book>) -> Result<(), String> {
        while !self.over.get() {
            let number = self.next.replace(self.next.get() + 1);
            // A repetition under the same key is answered, not executed again.
            let key =
                IdempotencyKey::new(&format!("number-{number}")).map_err(|e| e.to_string())?;
            let mut tries = 1;
            while let Err(error) = book.send(Write(number)).idempotency(key.clone()).await {
                if tries == 10 {
                    return Err(format!("{number}: {error}"));
                }
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.acknowledged.set(self.acknowledged.get() + 1);
        }
        Ok(())
    }

    /// Waits for some more commands to be acknowledged.
    async fn goes_on(&self) -> Result<(), Failure> {
        let enough = self.acknowledged.get() + ENOUGH;
        until("the load goes on", || (self.acknowledged.get() >= enough).then_some(())).await
    }
}
