//! Async handlers on a supervised actor, near and far.

use tokio::sync::Semaphore;

use super::*;
use crate::serial::{Serial, async_handlers};

#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<u32>")]
#[remote(name = "list.push", crate = "crate")]
struct Push(u32);

/// Panics half-way.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "list.spoil", crate = "crate")]
struct Spoil;

#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "usize")]
#[remote(name = "list.count", crate = "crate")]
struct Count;

struct List {
    begun: Arc<AtomicU32>,
    /// Lets one push after the other go on.
    go: Arc<Semaphore>,
    items: Vec<u32>,
}

#[async_handlers(name = "list", crate = "crate")]
impl List {
    async fn push(&mut self, push: Push) -> Vec<u32> {
        self.begun.fetch_add(1, SeqCst);
        let before = self.items.clone();
        self.go.acquire().await.unwrap().forget();
        assert_eq!(self.items, before, "nobody else was here meanwhile");
        self.items.push(push.0);
        self.items.clone()
    }

    async fn spoil(&mut self, _: Spoil) {
        self.items.push(666);
        tokio::task::yield_now().await;
        panic!("told to, with the state half changed");
    }

    fn count(&mut self, _: Count) -> usize {
        self.items.len()
    }
}

struct Lists {
    b: Node,
    near: RemoteAddr<Serial<List>>,
    far: RemoteAddr<Serial<List>>,
    begun: Arc<AtomicU32>,
    go: Arc<Semaphore>,
}

/// A list on the second of two nodes, and its address on both.
async fn lists() -> Lists {
    let network = MemoryNetwork::default();
    let (a, b) = (join(&network, "a", 1), join(&network, "b", 2));
    let (begun, go) = (Arc::<AtomicU32>::default(), Arc::new(Semaphore::new(0)));
    let made = (Arc::clone(&begun), Arc::clone(&go));
    let addr = b.spawn("list", move || {
        let (begun, go) = made.clone();
        Serial::new(List { begun, go, items: Vec::new() })
    });
    let near = b.register("list", addr).unwrap();
    connect(&a, &b);
    until("the name is known", || a.lookup::<Serial<List>>("list").is_ok()).await;
    let far = a.lookup("list").unwrap();
    Lists { b, near, far, begun, go }
}

#[test]
fn async_handlers_run_one_at_a_time_in_order_from_near_and_far() {
    simulated(async {
        let Lists { b: _b, near, far, begun, go } = lists().await;
        let pushes = (0..3).map(|number| near.send(Push(number)));
        let pushes = tokio::task::spawn_local(futures_util::future::join_all(pushes));
        until("the first has begun", || begun.load(SeqCst) == 1).await;
        let last = tokio::task::spawn_local(far.send(Push(3)));
        go.add_permits(4);
        let answers = pushes.await.unwrap();
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().len()).collect();
        assert_eq!(answers, [1, 2, 3]);
        assert_eq!(last.await.unwrap(), Ok(vec![0, 1, 2, 3]));
        assert_eq!(far.send(Count).await, Ok(4), "a handler that does not wait is one too");
    });
}

#[test]
fn a_caller_that_goes_away_never_leaves_the_state_half_changed() {
    simulated(async {
        let Lists { b, far, begun, go, .. } = lists().await;
        let short = Duration::from_millis(50);
        // Both give up: one whose handler has begun, one that waits behind it.
        let asked = [Push(1), Push(2)].map(|push| far.send(push).timeout(short));
        let given_up = futures_util::future::join_all(asked).await;
        assert_eq!(given_up, [Err(SendError::Timeout), Err(SendError::Timeout)]);
        until("both are taken back", || b.0.asks.open() == (0, 0)).await;
        assert_eq!(begun.load(SeqCst), 1);
        go.add_permits(2);
        assert_eq!(far.send(Push(3)).await, Ok(vec![1, 3]), "begun is done, the other is not run");
    });
}

#[test]
fn a_panic_takes_the_state_along_and_leaves_mailbox_and_address() {
    simulated(async {
        let Lists { b, near: _near, far, go, .. } = lists().await;
        go.add_permits(2);
        assert_eq!(far.send(Push(1)).await, Ok(vec![1]));
        let spoilt = tokio::task::spawn_local(far.send(Spoil));
        let next = tokio::task::spawn_local(far.send(Push(2)));
        assert_eq!(spoilt.await.unwrap(), Err(SendError::Closed));
        assert_eq!(next.await.unwrap(), Ok(vec![2]), "by a new state, behind the same address");
        assert_eq!(b.metrics().value(&ACTOR_RESTARTS, &[("actor", "list")]), Some(1));
    });
}
