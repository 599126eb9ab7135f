//! Clients of every main of a simulated cluster, that go elsewhere when they are told *not applied*
//! and bear nothing else.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use synod::{
    consensus::message::Wish,
    replicated::{CallError, Outcome},
    sim::Cluster,
};

use super::{Add, Total, counter, name};

/// See the module's documentation. A handle; the clients live on until [`Load::finish`].
#[derive(Debug, Clone)]
pub struct Load {
    cluster: Rc<RefCell<Cluster>>,
    seen: Rc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    pause: Duration,
    enough: Cell<bool>,
    applied: Cell<u64>,
    last: Cell<Duration>,
    /// And when it ended.
    longest_gap: Cell<(Duration, Duration)>,
    errors: RefCell<Vec<CallError>>,
}

impl Load {
    /// Starts `clients` clients of a cluster that serves; each asks again as soon as it was answered.
    pub fn start(cluster: Cluster, clients: usize) -> Self {
        Self::paced(cluster, clients, Duration::ZERO)
    }

    /// The same, with a pause after each answer.
    pub fn paced(cluster: Cluster, clients: usize, pause: Duration) -> Self {
        let seen = Seen { last: Cell::new(cluster.sim().now()), pause, ..Seen::default() };
        let load = Self { cluster: Rc::new(RefCell::new(cluster)), seen: Rc::new(seen) };
        for client in 0..clients {
            actix_rt::spawn(load.clone().write(client));
        }
        load
    }

    async fn write(self, mut at: usize) {
        let seen = Rc::clone(&self.seen);
        while !seen.enough.get() {
            let way = self.with(|cluster| {
                let mains = cluster.mains();
                let node = &mains[at % mains.len()];
                cluster.submit(node).map(|_| counter(cluster, node.as_str()))
            });
            let answer = match way {
                Some(counter) => counter.send(Add { by: 1 }).await,
                None => Err(CallError::NotApplied("it does not run".into())),
            };
            match answer {
                Ok(_) => {
                    let now = self.now();
                    let gap = now - seen.last.replace(now);
                    seen.longest_gap.set(seen.longest_gap.get().max((gap, now)));
                    seen.applied.set(seen.applied.get() + 1);
                    if !seen.pause.is_zero() {
                        tokio::time::sleep(seen.pause).await;
                    }
                }
                Err(CallError::NotApplied(_)) => {
                    at += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => seen.errors.borrow_mut().push(error),
            }
        }
    }

    /// True time.
    pub fn now(&self) -> Duration {
        self.with(|cluster| cluster.sim().now())
    }

    /// Does something to the cluster.
    pub fn with<R>(&self, f: impl FnOnce(&mut Cluster) -> R) -> R {
        f(&mut self.cluster.borrow_mut())
    }

    /// What comes of a wish at `node`.
    ///
    /// # Panics
    /// When the node does not run.
    pub async fn wish(&self, node: &str, wish: Wish) -> Outcome {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| drop(tell.send(outcome)));
        self.with(|cluster| {
            let core = cluster.core(&name(node)).expect("it runs");
            core.wish(wish, Duration::from_secs(4), done);
        });
        told.await.expect("every wish is answered")
    }

    /// Stops a node in good order and starts it again.
    ///
    /// # Panics
    /// When it does not run, or does not start.
    pub async fn restart(&self, node: &str) {
        let core = self.with(|cluster| cluster.take(&name(node))).expect("it runs");
        core.hand_over().await;
        core.leave(Duration::from_secs(2)).await;
        self.with(|cluster| cluster.start(&name(node))).expect("it starts");
    }

    /// Waits until all is well.
    ///
    /// # Panics
    /// When it is not within half a minute.
    pub async fn until_whole(&self) {
        let begun = self.now();
        while let Err(why) = self.with(|cluster| cluster.is_whole()) {
            assert!(self.now() - begun < Duration::from_secs(30), "{why}{}", self.describe());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// When it does not within `most`.
    pub async fn until(&self, most: Duration, what: &str, holds: impl Fn(&mut Cluster) -> bool) {
        let begun = self.now();
        while !self.with(|cluster| holds(cluster)) {
            assert!(self.now() - begun < most, "{what}: not within {most:?}: {}", self.describe());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What every node thinks of all.
    fn describe(&self) -> String {
        self.with(|cluster| {
            let running = cluster.names().into_iter().filter_map(|name| cluster.core(&name));
            running.map(|core| format!("\n{}\n{:?}", core.status(), core.reached())).collect()
        })
    }

    /// Ends the clients. Everything that was acknowledged is there, once, and of what had an unknown
    /// outcome some may be.
    ///
    /// # Panics
    /// Otherwise.
    pub async fn finish_unsure(self) {
        self.seen.enough.set(true);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let total = self.total().await;
        let (applied, unsure) = (self.seen.applied.get(), self.seen.errors.borrow().len() as u64);
        assert!((applied..=applied + unsure).contains(&total), "{applied} + {unsure}: {total}");
    }

    /// Ends the clients, without judging what they were told.
    pub async fn stop(&self) {
        self.seen.enough.set(true);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    async fn total(&self) -> u64 {
        let running = self.with(|cluster| {
            let runs = cluster.mains().into_iter().find(|main| cluster.core(main).is_some());
            counter(cluster, runs.expect("a main runs").as_str())
        });
        running.query(Total).await.expect("all is well")
    }

    /// Ends the clients. Everything that was acknowledged is there once, nobody was told anything
    /// but *not applied*, and no pause was longer than `most`.
    ///
    /// # Panics
    /// Otherwise.
    pub async fn finish(self, most: Duration) {
        self.seen.enough.set(true);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(*self.seen.errors.borrow(), vec![]);
        assert_eq!(self.total().await, self.seen.applied.get());
        let (gap, until) = self.seen.longest_gap.get();
        println!("the longest pause: {gap:?} until {until:?}");
        assert!(gap <= most, "a pause of {gap:?} until {until:?}");
    }
}
