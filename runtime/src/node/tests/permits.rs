//! Actors that act under a permit: once it is over, nothing of them runs any more.

use std::sync::atomic::AtomicBool;

use actix::AsyncContext as _;

use super::*;
use crate::supervision::Permit;

/// As a test says.
#[derive(Default)]
struct Granted {
    closed: AtomicBool,
    over: AtomicBool,
}

impl Permit for Granted {
    fn takes(&self) -> bool {
        !self.closed.load(SeqCst) && self.acts()
    }

    fn acts(&self) -> bool {
        !self.over.load(SeqCst)
    }
}

/// Counts what runs, and ends its own permit at a message of zero.
#[derive(RemoteActor)]
#[remote(name = "clerk", handles(Coin), crate = "crate")]
struct Clerk {
    permit: Arc<Granted>,
    ran: Arc<AtomicU32>,
}

impl Actor for Clerk {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(Duration::from_millis(10), |clerk, _| {
            clerk.ran.fetch_add(1, SeqCst);
        });
    }
}

impl Handler<Coin> for Clerk {
    type Result = ();

    fn handle(&mut self, coin: Coin, _: &mut Context<Self>) {
        self.ran.fetch_add(1, SeqCst);
        if coin.0 == 0 {
            self.permit.over.store(true, SeqCst);
        }
    }
}

fn clerk(b: &Node, permit: &Arc<Granted>) -> Arc<AtomicU32> {
    let ran = Arc::new(AtomicU32::new(0));
    let (of_clerk, counted) = (Arc::clone(permit), Arc::clone(&ran));
    let permit = || Arc::clone(permit) as Arc<dyn Permit>;
    let built = b.spawn_while("clerk", Policy::default(), permit(), move |_| Clerk {
        permit: Arc::clone(&of_clerk),
        ran: Arc::clone(&counted),
    });
    b.register_while("clerk", built.unwrap(), permit()).unwrap();
    ran
}

#[test]
fn what_comes_after_a_permit_is_over_is_not_run_and_neither_are_timers() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let permit = Arc::new(Granted::default());
        let ran = clerk(&b, &permit);
        let clerk = a.address::<Clerk>(b.id().clone(), "clerk");
        // All in one batch: the second ends the permit, while the third waits behind it.
        let asks = [1, 0, 1].map(|coin| clerk.send(Coin(coin)));
        let answers = futures_util::future::join_all(asks).await;
        assert_eq!(answers, [Ok(()), Ok(()), Err(SendError::NoSuchActor)]);
        assert_eq!(answers[2].as_ref().unwrap_err().outcome(), Delivery::NotRun);
        let before = ran.load(SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ran.load(SeqCst), before, "a timer ran");
        assert_eq!(clerk.send(Coin(1)).await, Err(SendError::NoSuchActor));
    });
}

#[test]
fn an_actor_that_steps_down_takes_nothing_more_and_is_not_rebuilt() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let permit = Arc::new(Granted::default());
        let ran = clerk(&b, &permit);
        let clerk = a.address::<Clerk>(b.id().clone(), "clerk");
        assert_eq!(clerk.send(Coin(1)).await, Ok(()));
        permit.closed.store(true, SeqCst);
        assert_eq!(clerk.send(Coin(1)).await, Err(SendError::NoSuchActor));
        // What it does by itself goes on, until it ends.
        let before = ran.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(ran.load(SeqCst) > before);
        let ended = b.watch_name(b.id(), "clerk");
        b.inject("clerk", Fault::Stop);
        ended.await;
    });
}
