use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;

use super::{Weather, lock};
use crate::{
    identity::NodeName,
    sim::Simulation,
    world::network::{
        ConnectionId, DATAGRAMS_WAITING_BYTES_MAX, Endpoint, Identity, Lane, NetworkEvent,
        NetworkSink, WriteRefused,
    },
};

/// Keeps what the network tells, as short texts.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl NetworkSink for Ear {
    fn event(&self, event: NetworkEvent) {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let line = match event {
            NetworkEvent::Up { connection, peer, .. } => format!("up {} {peer}", connection.0),
            NetworkEvent::Chunk { bytes, .. } => text(bytes),
            NetworkEvent::Datagram { bytes, .. } => format!("datagram {}", text(bytes)),
            NetworkEvent::Down { reason, .. } => format!("down {reason}"),
            NetworkEvent::DialFailed { reason, .. } => format!("failed {reason}"),
        };
        lock(&self.0).push(line);
    }
}

impl Ear {
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0))
    }

    /// All chunks in one, whatever their borders.
    fn text(&self) -> String {
        self.heard().concat()
    }
}

struct Peer {
    ear: Arc<Ear>,
    endpoint: Arc<dyn Endpoint>,
}

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn identity(cluster: &str, node: &str) -> Identity {
    let listen = "0.0.0.0:0".parse().unwrap();
    Identity { cluster: name(cluster), name: name(node), listen, tls: None }
}

fn bind(sim: &Simulation, node: &str) -> Peer {
    let ear = Arc::new(Ear::default());
    let network = sim.world(&name(node)).network;
    let endpoint = network.bind(&identity("bank", node), Arc::clone(&ear) as _).unwrap();
    Peer { ear, endpoint }
}

async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Two nodes and the connection that `a` dialled, as `a` and `b` know it.
async fn pair(sim: &Simulation) -> (Peer, Peer, [ConnectionId; 2]) {
    let (a, b) = (bind(sim, "a"), bind(sim, "b"));
    a.endpoint.dial(&name("b"), &sim.address(&name("b")));
    wait(5).await;
    let id = |heard: Vec<String>, peer: &str| {
        let [line] = heard.as_slice() else { panic!("{heard:?}") };
        let parts: Vec<&str> = line.split(' ').collect();
        assert_eq!((parts[0], parts[2]), ("up", peer));
        ConnectionId(parts[1].parse().unwrap())
    };
    let ids = [id(a.ear.heard(), "b"), id(b.ear.heard(), "a")];
    (a, b, ids)
}

fn say(peer: &Peer, to: ConnectionId, lane: Lane, text: &str) {
    peer.endpoint.write(to, lane, Bytes::copy_from_slice(text.as_bytes())).unwrap();
}

#[test]
fn lanes_keep_their_order_and_datagrams_arrive() {
    for seed in 0..20 {
        Simulation::new(seed).run(|sim| async move {
            let (a, b, [to_b, to_a]) = pair(&sim).await;
            for i in 0..50 {
                say(&a, to_b, Lane::Consensus, &format!("{i},"));
            }
            wait(5).await;
            let expected: String = (0..50).map(|i| format!("{i},")).collect();
            assert_eq!(b.ear.text(), expected);
            b.endpoint.datagram(to_a, Bytes::from_static(b"beat")).unwrap();
            let large = b.endpoint.datagram(to_a, Bytes::from(vec![0; 2000]));
            assert_eq!(large, Err(WriteRefused::TooLarge));
            wait(5).await;
            assert_eq!(a.ear.heard(), ["datagram beat"]);
            assert_eq!(sim.traffic(&name("a"), &name("b"), Lane::Consensus).delivered, 50);
            assert_eq!(sim.datagrams(&name("b"), &name("a")).sent, 1);
            assert_eq!(sim.traffic(&name("b"), &name("a"), Lane::Bulk).sent, 0);
        });
    }
}

#[test]
fn a_stranger_is_refused_by_name() {
    Simulation::new(1).run(|sim| async move {
        let a = bind(&sim, "a");
        let network = sim.world(&name("b")).network;
        let ear = Arc::new(Ear::default());
        let _b = network.bind(&identity("shop", "b"), Arc::clone(&ear) as _).unwrap();
        a.endpoint.dial(&name("b"), "b:7400");
        a.endpoint.dial(&name("c"), "a:7400");
        a.endpoint.dial(&name("d"), "d:7400");
        wait(100).await;
        let heard = a.ear.heard();
        assert!(heard.iter().any(|line| line.contains("of cluster shop, not bank")), "{heard:?}");
        assert!(heard.iter().any(|line| line.contains("its certificate names a")), "{heard:?}");
        wait(3000).await;
        assert_eq!(a.ear.heard(), ["failed d:7400: timed out: no answer"]);
        assert!(ear.heard().is_empty());
    });
}

/// Goal: a short cut delays, in order; a long one brings `Down` to both; after it all works again.
#[test]
fn a_partition_blocks_and_heals() {
    Simulation::new(2).run(|sim| async move {
        let (a, b, [to_b, _]) = pair(&sim).await;
        let sides = ([name("a")], [name("b")]);
        sim.partition(&sides.0, &sides.1);
        for i in 0..5 {
            say(&a, to_b, Lane::User, &format!("{i}"));
        }
        wait(2000).await;
        assert!(b.ear.heard().is_empty());
        sim.mend_partition(&sides.0, &sides.1);
        wait(1100).await;
        assert_eq!(b.ear.text(), "01234");

        sim.partition(&sides.0, &sides.1);
        a.endpoint.datagram(to_b, Bytes::from_static(b"lost")).unwrap();
        wait(7000).await;
        for peer in [&a, &b] {
            assert_eq!(peer.ear.heard(), ["down timed out: nothing heard for 5 s"]);
        }
        let refused = a.endpoint.write(to_b, Lane::User, Bytes::from_static(b"x"));
        assert_eq!(refused, Err(WriteRefused::Gone));
        a.endpoint.dial(&name("b"), "b:7400");
        wait(2500).await;
        assert!(a.ear.text().starts_with("failed"));
        sim.heal_network();
        a.endpoint.dial(&name("b"), "b:7400");
        wait(5).await;
        assert!(a.ear.text().starts_with("up"));
        assert!(b.ear.text().starts_with("up"));
    });
}

/// Goal: a path that takes few datagrams a second lets more of them wait; what is more than may wait is lost,
/// and once all are gone nothing waits.
#[test]
fn more_datagrams_than_a_path_takes_wait_and_then_are_lost() {
    Simulation::new(2).run(|sim| async move {
        let (a, b, [to_b, _]) = pair(&sim).await;
        let weather = Weather { datagram_bytes_per_second: 1_000_000, ..Weather::default() };
        sim.set_path_weather(&name("a"), &name("b"), weather);
        assert_eq!(a.endpoint.datagrams_waiting(to_b), 0);
        for _ in 0..100 {
            a.endpoint.datagram(to_b, vec![b'x'; 1_000].into()).unwrap();
        }
        assert_eq!(a.endpoint.datagrams_waiting(to_b), 100_000);
        wait(50).await;
        assert_eq!(a.endpoint.datagrams_waiting(to_b), 50_000);
        let heard = b.ear.heard();
        assert!((48..=50).contains(&heard.len()), "{} of 100", heard.len());
        wait(52).await;
        assert!(b.ear.heard().len() >= 50, "they come one after the other");
        assert_eq!(a.endpoint.datagrams_waiting(to_b), 0);
        for _ in 0..1_100 {
            a.endpoint.datagram(to_b, vec![b'x'; 1_000].into()).unwrap();
        }
        let lost = 1_100 - DATAGRAMS_WAITING_BYTES_MAX as u64 / 1_000;
        assert_eq!(sim.datagrams(&name("a"), &name("b")).lost, lost);
    });
}

#[test]
fn a_one_way_cut_stops_one_way() {
    Simulation::new(3).run(|sim| async move {
        let (a, b, [to_b, to_a]) = pair(&sim).await;
        sim.cut(&name("a"), &name("b"));
        say(&a, to_b, Lane::User, "there");
        say(&b, to_a, Lane::User, "back");
        wait(1000).await;
        assert_eq!((a.ear.text().as_str(), b.ear.text().as_str()), ("back", ""));
    });
}

/// Goal: as after kill -9, the survivor learns of a crash only by silence, and its writes vanish;
/// the next life is reached by a new connection.
#[test]
fn a_crash_is_noticed_late_and_the_next_life_is_reached() {
    Simulation::new(4).run(|sim| async move {
        let (a, b, [to_b, to_a]) = pair(&sim).await;
        sim.crash(&name("b"));
        let refused = b.endpoint.write(to_a, Lane::User, Bytes::from_static(b"x"));
        assert_eq!(refused, Err(WriteRefused::Gone));
        say(&a, to_b, Lane::User, "into the void");
        wait(4000).await;
        assert!(a.ear.heard().is_empty());
        wait(2500).await;
        assert!(a.ear.text().starts_with("down timed out"));
        assert!(b.ear.heard().is_empty());
        assert_eq!(Arc::strong_count(&b.ear), 1, "the network keeps nothing of a dead life");
        sim.restart(&name("b"));
        let b = bind(&sim, "b");
        a.endpoint.dial(&name("b"), "b:7400");
        wait(5).await;
        assert!(a.ear.text().starts_with("up") && b.ear.text().starts_with("up"));
    });
}

#[test]
fn weather_loses_doubles_and_reorders_but_control_breaks_instead() {
    Simulation::new(5).run(|sim| async move {
        let (a, b, [to_b, _]) = pair(&sim).await;
        let weather = Weather { loss: 0.2, duplication: 0.2, reorder: 0.2, ..Weather::default() };
        sim.set_path_weather(&name("a"), &name("b"), weather);
        for _ in 0..1000 {
            say(&a, to_b, Lane::Consensus, "x");
        }
        wait(100).await;
        let traffic = sim.traffic(&name("a"), &name("b"), Lane::Consensus);
        assert!((150..250).contains(&traffic.lost), "{traffic:?}");
        let doubled = traffic.delivered + traffic.lost - traffic.sent;
        assert!((110..210).contains(&doubled), "{traffic:?}");
        assert_eq!(b.ear.text().len() as u64, traffic.delivered);
        for i in 0..100 {
            say(&a, to_b, Lane::User, &format!("{i:02} "));
            wait(1).await;
        }
        wait(100).await;
        let heard = b.ear.text();
        let numbers: Vec<u32> = heard.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(!numbers.is_sorted(), "{numbers:?}");

        let mut said = 0;
        while a.endpoint.write(to_b, Lane::Control, Bytes::from_static(b"c")).is_ok() {
            said += 1;
            assert!(said < 200, "control lost nothing");
            wait(1).await;
        }
        wait(5).await;
        let heard = b.ear.heard();
        assert_eq!(heard.last().unwrap(), "down connection reset", "{heard:?}");
        assert_eq!(a.ear.heard(), ["down connection reset"]);
    });
}

#[test]
fn a_clog_delays() {
    Simulation::new(6).run(|sim| async move {
        let (a, b, [to_b, _]) = pair(&sim).await;
        let (extra, lasting) = (Duration::from_secs(1), Duration::from_millis(50));
        sim.clog(&name("a"), &name("b"), extra, lasting);
        say(&a, to_b, Lane::User, "late");
        wait(10).await;
        assert_eq!(b.ear.text(), "");
        wait(1000).await;
        assert_eq!(b.ear.text(), "late");
        say(&a, to_b, Lane::User, "soon");
        wait(1).await;
        assert_eq!(b.ear.text(), "soon");
    });
}

#[test]
fn hanging_up_and_shutting_down_are_told_to_both() {
    Simulation::new(7).run(|sim| async move {
        let (a, b, [to_b, _]) = pair(&sim).await;
        say(&a, to_b, Lane::Control, "goodbye");
        a.endpoint.hang_up(to_b, "done");
        wait(5).await;
        assert_eq!(a.ear.heard(), ["down done"]);
        assert_eq!(b.ear.heard().last().unwrap(), "down closed by a: done");
        b.endpoint.dial(&name("a"), &a.endpoint.local_addr().to_string());
        wait(5).await;
        drop((a.ear.heard(), b.ear.heard()));
        a.endpoint.shutdown();
        wait(5).await;
        assert_eq!(a.ear.heard(), ["down shut down"]);
        assert_eq!(b.ear.heard(), ["down closed by a: shut down"]);
        assert_eq!(Arc::strong_count(&a.ear), 1);
        b.endpoint.dial(&name("a"), "a:7400");
        wait(3000).await;
        assert!(b.ear.text().starts_with("failed"));
    });
}

#[test]
fn a_paused_node_hears_and_says_all_when_it_resumes() {
    Simulation::new(8).run(|sim| async move {
        let (a, b, [to_b, to_a]) = pair(&sim).await;
        sim.pause(&name("b"));
        say(&a, to_b, Lane::User, "1");
        say(&a, to_b, Lane::User, "2");
        say(&b, to_a, Lane::User, "3");
        wait(1000).await;
        assert_eq!((a.ear.text(), b.ear.text()), (String::new(), String::new()));
        sim.resume(&name("b"));
        wait(5).await;
        assert_eq!((a.ear.text().as_str(), b.ear.text().as_str()), ("3", "12"));
        sim.pause(&name("b"));
        wait(7000).await;
        assert!(a.ear.text().starts_with("down timed out"));
    });
}

#[test]
fn a_lane_that_nobody_empties_is_full() {
    Simulation::new(9).run(|sim| async move {
        let (a, _b, [to_b, _]) = pair(&sim).await;
        sim.cut(&name("a"), &name("b"));
        let chunk = Bytes::from(vec![0; 8 * 1024 * 1024]);
        for _ in 0..4 {
            a.endpoint.write(to_b, Lane::Bulk, chunk.clone()).unwrap();
        }
        assert_eq!(a.endpoint.write(to_b, Lane::Bulk, chunk), Err(WriteRefused::Full));
        say(&a, to_b, Lane::Consensus, "other lanes have room");
    });
}
