//! State machines that groups order instead of the log, on whole simulated clusters: one order at every
//! node, nothing acknowledged lost, nothing twice, whoever orders it and whoever dies.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};

use actix::{Actor, Handler, Message};
use rand::{RngExt as _, SeedableRng};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::VoteStyle,
    message::RemoteMessage,
    replicated::{CallError, Consistency, Handle, Host, Query, Replicated, Turn},
    sim::{Cluster, Shape, Simulation},
};
use synod_runtime::world::Rng;
use synod_tests::simulated::{founded, name, whole};
use tokio::time::Instant;

/// All that was appended, in its order, and when.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "list", commands(Append), queries(All))]
struct List {
    ids: Vec<u64>,
    last_ms: u64,
    chance: u64,
}

/// Answered with the place.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<usize, String>")]
#[remote(name = "list.append")]
struct Append {
    id: u64,
    /// So that some commands are larger than a message.
    padding: String,
}

#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(Vec<u64>, u64, u64)")]
#[remote(name = "list.all")]
struct All {}

impl Actor for List {
    type Context = Turn;
}

impl Handler<Append> for List {
    type Result = Result<usize, String>;

    fn handle(&mut self, append: Append, turn: &mut Turn) -> Result<usize, String> {
        if turn.time_ms() < self.last_ms {
            return Err(format!("agreed time went back to {}", turn.time_ms()));
        }
        self.last_ms = turn.time_ms();
        self.chance = self.chance.rotate_left(1) ^ turn.rng().random::<u64>();
        self.ids.push(append.id);
        Ok(self.ids.len())
    }
}

impl Query<All> for List {
    fn query(&self, _: All) -> (Vec<u64>, u64, u64) {
        (self.ids.clone(), self.last_ms, self.chance)
    }
}

const NODES: [&str; 5] = ["a", "b", "m1", "m2", "m3"];
const GROUP: &str = "lists";

/// The ways in that live; a node that starts again has a new one.
type Ways = Rc<RefCell<Vec<Option<Handle<List>>>>>;

/// What a program says at the start of its node.
fn host(cluster: &Cluster, node: &str) -> Handle<List> {
    let multicast = cluster.core(&name(node)).expect("it runs").multicast().expect("no auxiliary");
    Handle::new(multicast.host(GROUP, 3, || Box::new(Host::<List>::default())), "list")
}

fn at(node: &str) -> usize {
    NODES.iter().position(|one| *one == node).expect("one of them")
}

/// What clients did.
#[derive(Default)]
struct Book {
    applied: RefCell<BTreeSet<u64>>,
    not_applied: RefCell<BTreeSet<u64>>,
    unknown: RefCell<BTreeSet<u64>>,
    next: Cell<u64>,
    enough: Cell<bool>,
    /// When the last command was answered, and the longest that nobody was.
    last: Cell<Option<Instant>>,
    pause: Cell<Duration>,
    wrong: RefCell<Vec<String>>,
}

impl Book {
    /// One command after the other, each at any node; then a look at any other, which must show it.
    async fn client(self: Rc<Self>, ways: Ways, seed: u64) {
        let mut rng = Rng::seed_from_u64(seed);
        while !self.enough.get() {
            let id = self.next.get();
            self.next.set(id + 1);
            let padding = "x".repeat([0, 10, 3_000, 150_000][rng.random_range(0..4)]);
            let way = ways.borrow()[rng.random_range(0..NODES.len())].clone();
            let Some(way) = way else { continue };
            match way.send(Append { id, padding }).await {
                Ok(Ok(_)) => {
                    self.applied.borrow_mut().insert(id);
                    let now = Instant::now();
                    let pause = self.last.replace(Some(now)).map_or(Duration::ZERO, |at| now - at);
                    self.pause.set(self.pause.get().max(pause));
                }
                Ok(Err(why)) => self.wrong.borrow_mut().push(why),
                Err(CallError::NotApplied(_)) => drop(self.not_applied.borrow_mut().insert(id)),
                Err(_) => drop(self.unknown.borrow_mut().insert(id)),
            }
            let way = ways.borrow()[rng.random_range(0..NODES.len())].clone();
            let Some(way) = way else { continue };
            let known = self.applied.borrow().clone();
            if let Ok((ids, ..)) = way.query(All {}).await {
                let ids: BTreeSet<u64> = ids.into_iter().collect();
                if let Some(missing) = known.iter().find(|id| !ids.contains(*id)) {
                    let why = format!("{missing} was answered before a question that misses it");
                    self.wrong.borrow_mut().push(why);
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
        }
    }

    async fn wait_for_more(&self, more: usize) {
        let before = self.applied.borrow().len();
        let waiting = async {
            while self.applied.borrow().len() < before + more {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "{before} commands, and no more");
    }
}

/// Where the node that orders leads the log, too: that it is gone is seen after 0.3 s, the log's next
/// leader waits for its lease of half a second once more, and a moment for whoever orders then.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Who orders, as that node heard lately.
fn sequencer(cluster: &Cluster, node: &str) -> Option<String> {
    let status = cluster.core(&name(node))?.multicast()?.status();
    let group = status.iter().find(|status| status.group == GROUP)?;
    group.sequencer.as_ref().map(ToString::to_string)
}

/// Goal: equal states at every node, of nothing but what was sent, all that was acknowledged and nothing
/// twice; questions see what was answered before; while the node that orders crashes again and again,
/// and a node that uses the group without serving it, too.
#[test]
fn a_state_machine_under_a_group_is_equal_everywhere_while_sequencers_die() {
    for seed in [41, 42, 43] {
        Simulation::new(seed).run(move |sim| async move {
            let shape = Shape { mains: 2, auxiliaries: 1, members: 3 };
            let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
            let all = NODES.iter().map(|node| Some(host(&cluster, node))).collect();
            let ways: Ways = Rc::new(RefCell::new(all));
            let book = Rc::new(Book::default());
            let clients: Vec<_> = (0..6)
                .map(|client| {
                    let client = Rc::clone(&book).client(Rc::clone(&ways), 100 * seed + client);
                    actix_rt::spawn(client)
                })
                .collect();
            book.wait_for_more(30).await;
            for round in 0..4 {
                let orders = sequencer(&cluster, "m2").expect("somebody orders");
                // Which nodes are mains does not matter to a group; a fed node is no less than others.
                let victim = if round == 2 { "m3".to_owned() } else { orders };
                ways.borrow_mut()[at(&victim)] = None;
                cluster.crash(&name(&victim));
                book.wait_for_more(20).await;
                cluster.start(&name(&victim)).unwrap();
                ways.borrow_mut()[at(&victim)] = Some(host(&cluster, &victim));
                whole(&cluster).await;
                book.wait_for_more(20).await;
            }
            book.enough.set(true);
            for client in clients {
                client.await.unwrap();
            }
            assert!(book.wrong.borrow().is_empty(), "{:?}", book.wrong.borrow());
            assert!(book.pause.get() < PAUSE_MAX, "nobody was answered for {:?}", book.pause.get());
            judge(&book, &ways).await;
        });
    }
}

async fn judge(book: &Book, ways: &Ways) {
    let mut states = Vec::new();
    let all = ways.borrow().clone();
    for (node, way) in NODES.iter().zip(all) {
        let state = way.expect("all run").query(All {}).await;
        states.push((*node, state.unwrap_or_else(|why| panic!("{node}: {why}"))));
    }
    let (_, first) = &states[0];
    for (node, state) in &states {
        assert!(state == first, "{node} differs from a");
    }
    let (ids, ..) = first;
    let there: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(there.len(), ids.len(), "something was done twice");
    let applied = book.applied.borrow();
    let lost: Vec<_> = applied.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let not_applied = book.not_applied.borrow();
    let denied: Vec<_> = not_applied.intersection(&there).collect();
    assert!(denied.is_empty(), "not applied, and there: {denied:?}");
    let sent = there.iter().all(|id| *id < book.next.get());
    assert!(sent, "something is there that nobody sent");
    println!(
        "{} acknowledged, {} not applied, {} unknown, at five nodes alike; no pause above {:?}",
        applied.len(),
        not_applied.len(),
        book.unknown.borrow().len(),
        book.pause.get()
    );
}

/// Goal: what was not sent is *not applied*, and a node answers of its own what it has. Method: of three
/// servers two are gone.
#[test]
fn without_enough_servers_nothing_is_applied_and_what_is_there_can_be_seen() {
    Simulation::new(44).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 1 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        let ways: Vec<_> = ["a", "b", "m1"].iter().map(|node| host(&cluster, node)).collect();
        let append = |id| Append { id, padding: String::new() };
        assert_eq!(ways[0].send(append(1)).await, Ok(Ok(1)));
        assert_eq!(ways[2].query(All {}).await.unwrap().0, [1]);
        cluster.crash(&name("b"));
        cluster.crash(&name("m1"));
        // Whoever ordered is seen to be gone.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let refused = ways[0].send(append(2)).timeout(Duration::from_secs(1)).await.unwrap_err();
        let word = refused.outcome();
        let unseen = ways[0].query(All {}).timeout(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(unseen.outcome(), "not_applied", "{unseen}");
        let local = ways[0].query(All {}).consistency(Consistency::Local).await.unwrap();
        assert_eq!(local.0, [1]);
        for node in ["b", "m1"] {
            cluster.start(&name(node)).unwrap();
            host(&cluster, node);
        }
        whole(&cluster).await;
        assert!(ways[0].send(append(3)).timeout(Duration::from_secs(30)).await.unwrap().is_ok());
        let (ids, ..) = ways[0].query(All {}).await.unwrap();
        assert!(word != "not_applied" || ids == [1, 3], "{refused}, and then {ids:?}");
    });
}

/// Goal: a group that could not go on without one of its nodes is not made.
#[test]
fn a_group_of_too_few_servers_is_not_made() {
    Simulation::new(45).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 0 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let ways: Vec<_> = ["a", "b"].iter().map(|node| host(&cluster, node)).collect();
        let refused = ways[1].send(Append { id: 1, padding: String::new() }).await.unwrap_err();
        assert_eq!(refused.outcome(), "not_applied");
        let why = "group lists waits for 3 nodes that serve it; 2 are up";
        assert!(refused.to_string().contains(why), "{refused}");
    });
}
