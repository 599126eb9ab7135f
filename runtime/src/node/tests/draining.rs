//! A node that leaves.

use super::*;
use crate::{
    registry::watch::Reason,
    supervision::{Strategy, Supervisor},
};

/// What the hooks of a node were told of its peers.
fn heard(node: &Node) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let told = Arc::clone(&heard);
    node.watch_peers(Box::new(move |event| {
        let text = match event {
            PeerEvent::Up(peer) => format!("up {}", peer.id.name),
            PeerEvent::Down { peer, .. } => format!("down {}", peer.name),
            PeerEvent::Left(peer) => format!("left {}", peer.name),
            PeerEvent::Heartbeat { .. } => return,
        };
        told.lock().unwrap().push(text);
    }));
    heard
}

#[test]
fn a_leaving_node_finishes_what_runs_takes_nothing_new_and_is_seen_to_leave() {
    simulated(async {
        let Pair { a, b, till, dawdled, .. } = pair().await;
        let group = b.group::<Till>("tills");
        group.join(&b.lookup("till").unwrap()).unwrap();
        let tills = a.group::<Till>("tills");
        until("the member is known", || tills.members().len() == 1).await;
        let tree = Supervisor::tree("t").strategy(Strategy::OneForAll).child("x", Till::default);
        let tree = tree.start(&b).unwrap();
        let [till_ends, tree_ends] = ["till", tree.name()].map(|name| a.watch_name(b.id(), name));
        let (seen, before) = (heard(&a), a.now());

        let running = till.send(Dawdle);
        let drained = async {
            until("it runs", || dawdled.load(SeqCst) == 1).await;
            b.drain(Duration::from_secs(10)).await
        };
        let refused = async {
            until("it leaves", || b.is_draining()).await;
            until("groups first", || tills.members().is_empty()).await;
            assert_eq!(tills.round_robin(), None);
            till.do_send(Pay(1));
            till.send(Pay(1)).await
        };
        let (answer, drained, refused) =
            futures_util::future::join3(running, drained, refused).await;
        assert_eq!(answer, Ok(()), "what ran was finished");
        assert_eq!((&refused, drained), (&Err(SendError::Leaving), true));
        assert_eq!(SendError::Leaving.outcome(), Delivery::NotRun);
        assert_eq!(dead_letters(&b, "leaving"), 1);
        let took = a.now().since(before);
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(
            (till_ends.await.reason, tree_ends.await.reason),
            (Reason::Stopped, Reason::Stopped)
        );
        assert_eq!(*seen.lock().unwrap(), ["up b", "left b"], "not a failure");
        assert!(a.lookup::<Till>("till").is_err());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*seen.lock().unwrap(), ["up b", "left b"]);
    });
}

#[test]
fn a_node_that_cannot_finish_leaves_at_its_deadline() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let watch = a.watch_name(b.id(), "nothing that is registered");
        assert_eq!(watch.await.reason, Reason::NotThere);
        let seen = heard(&a);
        let never = a.ask(b.name(), name_hash("never"), 1, Lane::User, Vec::new(), ASK_TIMEOUT);
        let _never = b.bind("never", Arc::new(Silent)).unwrap();
        let leave = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            b.drain(Duration::from_secs(2)).await
        };
        let before = a.now();
        let (never, drained) = futures_util::future::join(never, leave).await;
        assert_eq!((never, drained), (Err(SendError::Closed), false));
        assert!(a.now().since(before) < Duration::from_secs(2), "half of it was for asks");
        assert_eq!(*seen.lock().unwrap(), ["up b", "left b"]);
        assert_eq!(till.send(Pay(1)).await, Err(SendError::Unreachable));
    });
}

/// Serves asks, and never answers.
struct Silent;

impl Deliver for Silent {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            node.serve(from, &frame.header, std::future::pending());
        }
    }

    fn type_name(&self) -> &'static str {
        "silent"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}
