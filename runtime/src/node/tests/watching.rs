//! Watches over a network in memory; nodes that crash are in `sim`.

use super::*;
use crate::registry::watch::{Reason, Terminated, Watch};

/// What has been told so far, of one watch.
async fn now(watch: &mut Watch) -> Option<Reason> {
    let told = tokio::time::timeout(Duration::from_millis(100), watch).await;
    told.ok().map(|told| told.reason)
}

fn once() -> Policy {
    Policy {
        restart: Restart::OnPanic,
        give_up: Some((1, Duration::from_secs(60))),
        ..Policy::default()
    }
}

#[test]
fn a_watch_tells_near_and_far_of_a_stop_a_panic_for_good_and_a_lost_name() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        for (name, end, reason) in [
            ("stops", Fault::Stop, Reason::Stopped),
            ("panics", Fault::Panic, Reason::Panicked { text: "injected fault".into() }),
        ] {
            let addr = b.spawn_with(name, once(), Till::default).unwrap();
            let near = b.register(name, addr).unwrap();
            let far: RemoteAddr<Till> = a.address(b.id().clone(), name);
            let mut watches = [a.watch(&far), b.watch(&near), a.watch(&far)];
            if end == Fault::Panic {
                b.inject(name, end);
                for watch in &mut watches {
                    assert_eq!(now(watch).await, None, "a restart is no end");
                }
            }
            assert_eq!(far.send(Pay(1)).await, Ok(Ok(1)));
            b.inject(name, end);
            let whom = (name.to_owned(), b.id().clone());
            for watch in watches {
                let Terminated { name, node, reason: told } = watch.await;
                assert_eq!(((name, node), told), (whom.clone(), reason.clone()));
            }
            assert_eq!(a.watch(&far).await.reason, Reason::NotThere, "at once");
            assert_eq!(b.watch(&near).await.reason, Reason::NotThere);
        }
        let binding = b.bind("sink", Arc::new(Sink::default())).unwrap();
        let watch = a.watch_name(b.id(), "sink");
        until("it is watched", || b.0.watches.open() == (0, 1)).await;
        drop(binding);
        assert_eq!(watch.await.reason, Reason::Unregistered);
        assert_eq!(b.0.watches.open(), (0, 0));
        assert_eq!(a.0.watches.open(), (0, 0), "nothing is left behind");
    });
}

#[test]
fn a_plain_actix_actor_is_watched_alike() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let addr = Till::default().start();
        let near = b.register("plain", addr.clone()).unwrap();
        let watch = a.watch(&a.address::<Till>(b.id().clone(), "plain"));
        until("it is watched", || b.0.watches.open() == (0, 1)).await;
        addr.do_send(Private);
        assert_eq!(watch.await.reason, Reason::Stopped);
        assert_eq!(b.watch(&near).await.reason, Reason::NotThere);
    });
}

#[test]
fn an_end_can_be_a_message_and_a_dropped_watch_is_none() {
    #[derive(Default)]
    struct Watcher(Arc<Mutex<Vec<String>>>);
    impl Actor for Watcher {
        type Context = Context<Self>;
    }
    impl Handler<Terminated> for Watcher {
        type Result = ();

        fn handle(&mut self, told: Terminated, _: &mut Self::Context) {
            self.0.lock().unwrap().push(told.name);
        }
    }
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let watcher = Watcher(Arc::clone(&heard)).start();
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        let _handles =
            [a.watch(&till), b.watch(&near)].map(|watch| watch.notify(watcher.clone().recipient()));
        let cancelled = a.watch(&till).notify(watcher.clone().recipient());
        cancelled.cancel();
        drop([a.watch(&till), b.watch(&near)]);
        until("the dropped ones are forgotten", || b.0.watches.open() == (1, 2)).await;
        b.stop("till");
        until("both are told", || heard.lock().unwrap().len() == 2).await;
        let late = a.watch(&till);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let _late = late.notify(watcher.recipient());
        until("what was told before is told", || heard.lock().unwrap().len() == 3).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*heard.lock().unwrap(), ["till"; 3]);
        assert_eq!((a.0.watches.open(), b.0.watches.open()), ((0, 0), (0, 0)));
    });
}

#[test]
fn a_flapping_link_ends_no_watch_and_hides_no_end() {
    simulated(async {
        let Pair { network, a, b, till, .. } = pair().await;
        let mut watch = a.watch(&till);
        for _ in 0..20 {
            network.cut();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(now(&mut watch).await, None);
        network.cut();
        // The end falls between two links, and a successor has the name when the second is up.
        b.stop("till");
        tokio::task::yield_now().await;
        b.unregister("till");
        let successor = b.spawn("till", Till::default);
        b.register("till", successor).unwrap();
        assert_eq!(watch.await.reason, Reason::Stopped);
        let mut next = a.watch(&till);
        assert_eq!(now(&mut next).await, None, "the successor lives");
        b.stop("till");
        assert_eq!(next.await.reason, Reason::Stopped);
    });
}

#[test]
fn a_removed_node_and_a_silent_one_end_their_watches() {
    simulated(async {
        let Pair { network, a, b, till, .. } = pair().await;
        let watch = a.watch(&till);
        a.remove_peer(b.name());
        assert_eq!(watch.await.reason, Reason::NodeRemoved);

        connect(&a, &b);
        until("the link is back", || a.lookup::<Till>("till").is_ok()).await;
        let watch = a.watch(&till);
        let before = a.now();
        b.shutdown();
        drop(b);
        network.cut();
        let reason = watch.await.reason;
        assert!(matches!(reason, Reason::NodeLost { .. } | Reason::Stopped), "{reason:?}");
        let other = NodeId::new("c".parse().unwrap(), Incarnation(3));
        let never = a.watch_name(&other, "x").await;
        assert!(matches!(never.reason, Reason::NodeLost { .. }));
        assert!(a.now().since(before) < LOST_AFTER * 3);
        let former = NodeId::new("a".parse().unwrap(), Incarnation(9));
        let before = a.now();
        assert!(matches!(a.watch_name(&former, "x").await.reason, Reason::NodeLost { .. }));
        assert_eq!(a.now(), before, "at once: that is us now");
    });
}

#[test]
fn members_of_a_group_are_found_told_and_chosen_alike_everywhere() {
    simulated(async {
        let Pair { network, a, b, .. } = pair().await;
        for (node, name) in [(&a, "w/1"), (&b, "w/2"), (&b, "w/3")] {
            let addr = node.register(name, node.spawn(name, Till::default)).unwrap();
            let group = node.group::<Till>("workers");
            group.join(&addr).unwrap();
            group.join(&addr).unwrap();
        }
        let [near, far] = [a.group::<Till>("workers"), b.group::<Till>("workers")];
        until("all are known", || near.members().len() == 3 && far.members().len() == 3).await;
        assert_eq!(*near.members(), *far.members());
        assert_eq!(near.broadcast(&Coin(2)), 3);
        for name in ["w/1", "w/2", "w/3"] {
            let next = near.round_robin().unwrap();
            assert_eq!((next.name(), next.send(Pay(1)).await), (name, Ok(Ok(3))));
        }
        assert_eq!(near.round_robin().unwrap().name(), "w/1");
        for key in 0..100u32 {
            assert_eq!(near.for_key(key.to_le_bytes()), far.for_key(key.to_le_bytes()));
        }
        assert_eq!(a.group::<Impostor>("workers").members().len(), 0, "another kind of actor");
        let elsewhere = far.members()[0].clone();
        assert!(far.join(&elsewhere).is_err() && !far.leave(&elsewhere));
        let unknown = b.address::<Till>(b.id().clone(), "nobody");
        assert_eq!(far.join(&unknown), Err(JoinError::NotRegistered("nobody".into())));

        let third = b.lookup::<Till>("w/3").unwrap();
        assert!(far.leave(&third) && !far.leave(&third));
        b.stop("w/2");
        until("who left or ended is gone", || near.members().len() == 1).await;
        far.join(&third).unwrap();
        until("and can come again", || near.members().len() == 2).await;
        network.cut();
        until("members go with the link", || near.members().len() == 1).await;
        until("and come back with it", || near.members().len() == 2).await;
        b.shutdown();
        until("and go with the node", || near.members().len() == 1).await;
    });
}

#[test]
fn words_that_cannot_be_read_are_counted_and_survived() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let watch = a.watch(&till);
        for (at, garbage) in [&b"\xc1"[..], b"", b"\x81\xa5Watch\x01", b"\xdf\xff\xff\xff\xff"]
            .into_iter()
            .enumerate()
        {
            for target in ["synod/watch", "synod/nursery"] {
                a.tell(b.name(), target, 1, Lane::Control, garbage).unwrap();
            }
            let counted = 2 * (at as u64 + 1);
            until("both are counted", || dead_letters(&b, "codec") == counted).await;
        }
        assert!(b.bind("synod/watch", Arc::new(Sink::default())).is_err(), "a reserved name");
        b.stop("till");
        assert_eq!(watch.await.reason, Reason::Stopped, "the link and the watch survive it");
    });
}
