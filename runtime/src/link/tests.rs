use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::sleep;

use super::{
    testing::{Heard, LATENCY, MemoryNetwork, RawSink, Recorder, Told, identity, name, world},
    *,
};
use crate::{
    wire::{FrameKind, encode},
    world::Network,
};

fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// A node in memory whose incarnation and port are `number`.
fn node(network: &MemoryNetwork, text: &str, number: u16) -> (Links, Heard<Told>) {
    let (inbound, heard) = Recorder::new();
    let me = identity(text, number.into(), address(number), None);
    (Links::start(&world(Arc::new(network.clone())), me, inbound).unwrap(), heard)
}

/// An endpoint without links: the test speaks for it.
fn raw(network: &MemoryNetwork, text: &str, port: u16) -> (Arc<dyn Endpoint>, Heard<NetworkEvent>) {
    let (sink, heard) = RawSink::new();
    let (cluster, listen) = (name("bank"), address(port));
    let me = Identity { cluster, name: name(text), listen, tls: None };
    (network.bind(&me, sink).unwrap(), heard)
}

fn frame(kind: FrameKind, lane: Lane, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    encode(&FrameHeader::new(kind), lane, body, &mut bytes);
    bytes.freeze()
}

fn hello(text: &str, cluster: &str) -> Bytes {
    let hello = Hello {
        cluster: name(cluster),
        node: identity(text, 9, address(0), None).id,
        protocol_version: 1,
        role: String::new(),
        start_nonce: 9,
        messages: Vec::new(),
    };
    frame(FrameKind::Hello, Lane::Control, &hello.to_body())
}

/// Dials the node `a` as `b` and waits for the connection.
async fn dial_raw(
    endpoint: &Arc<dyn Endpoint>,
    heard: &mut Heard<NetworkEvent>,
    port: u16,
) -> ConnectionId {
    endpoint.dial(&name("a"), &address(port).to_string());
    heard
        .find(|event| {
            if let NetworkEvent::Up { connection, .. } = event { Some(*connection) } else { None }
        })
        .await
}

/// The text of the goodbye that comes next.
async fn goodbye(heard: &mut Heard<NetworkEvent>) -> String {
    let mut deframer = crate::wire::Deframer::new(Lane::Control);
    heard
        .find(|event| {
            if let NetworkEvent::Chunk { bytes, .. } = event {
                deframer.push(bytes.clone());
            }
            let next = deframer.next().unwrap()?;
            let text = String::from_utf8_lossy(&next.body).into_owned();
            (next.header.kind == FrameKind::Goodbye).then_some(text)
        })
        .await
}

async fn hung_up(heard: &mut Heard<NetworkEvent>) -> String {
    heard
        .find(|event| {
            if let NetworkEvent::Down { reason, .. } = event { Some(reason.clone()) } else { None }
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn linked_nodes_exchange_frames_in_order_on_every_lane() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, mut at_b)) = (node(&network, "a", 1), node(&network, "b", 2));
    assert_eq!(a.send(&name("b"), Lane::User, &TELL, b"x"), Err(SendRefused::NotConnected));
    a.connect(&name("b"), &address(2).to_string());
    let (peer, back) = (at_a.up().await, at_b.up().await);
    assert_eq!(peer.id, b.is_up(&name("a")).map(|_| a.is_up(&name("b")).unwrap()).unwrap());
    assert_eq!(peer.address.as_deref(), Some("10.0.0.1:2"));
    assert_eq!((back.address, back.role.as_str()), (None, "main"));

    for number in 0..50_u8 {
        for lane in Lane::ALL {
            a.send(&name("b"), lane, &TELL, &[lane as u8, number]).unwrap();
        }
    }
    let mut next = [0_u8; 4];
    for _ in 0..200 {
        let body = at_b.frame().await.body;
        assert_eq!(body[1], next[usize::from(body[0])]);
        next[usize::from(body[0])] += 1;
    }
    b.datagram(&name("a"), &FrameHeader::new(FrameKind::Heartbeat), b"alive").unwrap();
    assert!(matches!(at_a.next().await, Told::Datagram(from, frame)
        if from.name == name("b") && frame.body == b"alive"[..]));

    let status = &b.peers()[0];
    assert_eq!((status.frames_in, status.frames_out, status.frames_bad), (201, 1, 0));
    assert!(status.bytes_in > 200 * 46);
    let huge = vec![0; BODY_BYTES_MAX + 1];
    assert_eq!(a.send(&name("b"), Lane::Bulk, &TELL, &huge), Err(SendRefused::TooLarge));
}

const TELL: FrameHeader = FrameHeader::new(FrameKind::Tell);

#[tokio::test(start_paused = true)]
async fn when_both_dial_at_once_the_one_of_the_lower_node_stays() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, mut at_b)) = (node(&network, "a", 2), node(&network, "b", 1));
    a.connect(&name("b"), &address(1).to_string());
    b.connect(&name("a"), &address(2).to_string());
    let _ = (at_a.up().await, at_b.up().await);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(network.dials().len(), 2, "both dialled, and nobody again");
    assert_eq!(network.open_connections(), 1);
    // b is the lower one: at b the surviving connection is the one it dialled.
    let dialled = |links: &Links, peer: &str| {
        links.shared.lock().peers[&name(peer)].link.as_ref().unwrap().dialled
    };
    assert!(dialled(&b, "a") && !dialled(&a, "b"));
    // Whatever was told in between, it ends with up and frames flow both ways.
    while at_a.try_next().is_some() {}
    while at_b.try_next().is_some() {}
    a.send(&name("b"), Lane::User, &TELL, b"to b").unwrap();
    b.send(&name("a"), Lane::User, &TELL, b"to a").unwrap();
    assert_eq!(at_b.frame().await.body, b"to b"[..]);
    assert_eq!(at_a.frame().await.body, b"to a"[..]);
}

#[tokio::test(start_paused = true)]
async fn up_and_down_alternate() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, _at_b)) = (node(&network, "a", 1), node(&network, "b", 2));
    a.connect(&name("b"), &address(2).to_string());
    b.connect(&name("a"), &address(1).to_string());
    for _ in 0..20 {
        sleep(Duration::from_millis(700)).await;
        let state = b.shared.lock().route(&name("a")).map(|path| path.connection);
        if let Some(connection) = state {
            b.shared.endpoint().hang_up(connection, "test");
        }
    }
    let mut up = false;
    while let Some(told) = at_a.try_next() {
        match told {
            Told::Up(_) => assert!(!std::mem::replace(&mut up, true)),
            Told::Down(..) => assert!(std::mem::replace(&mut up, false)),
            Told::Frame(..) | Told::Datagram(..) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_handshake_times_out() {
    let network = MemoryNetwork::default();
    let (_a, mut at_a) = node(&network, "a", 1);
    let (b, mut at_b) = raw(&network, "b", 2);
    let connection = dial_raw(&b, &mut at_b, 1).await;
    let start = Instant::now();
    b.write(connection, Lane::Control, hello("b", "bank").slice(..20)).unwrap();
    assert_eq!(hung_up(&mut at_b).await, "no hello within 2 s");
    assert!(start.elapsed() < Duration::from_millis(2300), "{:?}", start.elapsed());
    assert_eq!(at_a.try_next(), None);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_told_why_they_are_refused() {
    let network = MemoryNetwork::default();
    let (a, mut at_a) = node(&network, "a", 1);
    let (b, mut at_b) = raw(&network, "b", 2);
    let giant = Bytes::copy_from_slice(&1_000_000_u32.to_le_bytes());
    let early = frame(FrameKind::Tell, Lane::Control, b"x");
    for (bytes, reason) in [
        (hello("b", "shop"), "b is of cluster shop, a is of cluster bank"),
        (hello("c", "bank"), "the certificate is b's, the hello is c's"),
        (giant, "a frame of 1000000 bytes, when 197632 are allowed"),
        (early, "Tell before the hello"),
    ] {
        let connection = dial_raw(&b, &mut at_b, 1).await;
        b.write(connection, Lane::Control, bytes).unwrap();
        assert_eq!(goodbye(&mut at_b).await, reason);
        assert_eq!(hung_up(&mut at_b).await, reason);
    }
    assert_eq!(at_a.try_next(), None);
    sleep(LATENCY * 2).await;
    assert!(a.peers().is_empty(), "strangers leave no trace");
}

#[tokio::test(start_paused = true)]
async fn frames_that_overtake_the_hello_are_kept_for_it() {
    let network = MemoryNetwork::default();
    let (_a, mut at_a) = node(&network, "a", 1);
    let (b, mut at_b) = raw(&network, "b", 2);
    let connection = dial_raw(&b, &mut at_b, 1).await;
    let early = frame(FrameKind::Tell, Lane::User, b"early");
    b.write(connection, Lane::User, early.slice(..30)).unwrap();
    b.write(connection, Lane::User, early.slice(30..)).unwrap();
    b.write(connection, Lane::Control, hello("b", "bank")).unwrap();
    assert!(matches!(at_a.next().await, Told::Up(peer) if peer.id.name == name("b")));
    assert_eq!(at_a.frame().await.body, b"early"[..]);

    // But not without end.
    let connection = dial_raw(&b, &mut at_b, 1).await;
    let megabyte = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..5 {
        b.write(connection, Lane::Bulk, megabyte.clone()).unwrap();
    }
    assert_eq!(goodbye(&mut at_b).await, "more than 4194304 bytes before the hello");
}

#[tokio::test(start_paused = true)]
async fn a_bad_frame_is_counted_and_the_link_made_anew() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, mut at_b)) = (node(&network, "a", 1), node(&network, "b", 2));
    a.connect(&name("b"), &address(2).to_string());
    let _ = (at_a.up().await, at_b.up().await);
    let connection = b.shared.lock().route(&name("a")).unwrap().connection;
    let good = frame(FrameKind::Tell, Lane::User, b"good");
    let bytes = [good, Bytes::from_static(&[0xff; 50])].concat();
    b.shared.endpoint().write(connection, Lane::User, bytes.into()).unwrap();
    assert_eq!(at_a.frame().await.body, b"good"[..], "what came before it counts");
    let reason = "bad frame: a frame of 4294967295 bytes, when 16777216 are allowed";
    assert_eq!(at_a.down().await, reason);
    assert_eq!(at_b.down().await, format!("the peer hung up: {reason}"));
    let _ = (at_a.up().await, at_b.up().await);
    assert_eq!(a.peers()[0].frames_bad, 1);

    let route = b.shared.lock().route(&name("a")).unwrap().connection;
    b.shared.endpoint().datagram(route, Bytes::from_static(b"junk")).unwrap();
    sleep(LATENCY * 2).await;
    assert_eq!(a.peers()[0].frames_bad, 2);
    assert!(a.is_up(&name("b")).is_some(), "a bad datagram spoils nothing else");
}

#[tokio::test(start_paused = true)]
async fn dials_back_off_up_to_a_second_and_reach_a_late_peer() {
    let network = MemoryNetwork::default();
    let (a, mut at_a) = node(&network, "a", 1);
    a.connect(&name("b"), &address(2).to_string());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(a.peers()[0].last_error.as_deref(), Some("nobody listens there"));
    let dials = network.dials();
    let pauses: Vec<Duration> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= Duration::from_millis(22), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(1002)), "{pauses:?}");
    assert!((30..80).contains(&dials.len()), "{pauses:?}");

    let (_b, mut at_b) = node(&network, "b", 2);
    let start = Instant::now();
    let _ = (at_a.up().await, at_b.up().await);
    assert!(start.elapsed() <= Duration::from_millis(1010));
    assert_eq!(a.peers()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_replaces_its_dead_connection_at_once() {
    let network = MemoryNetwork::default();
    let (a, mut at_a) = node(&network, "a", 1);
    let (old, mut at_old) = node(&network, "b", 2);
    a.connect(&name("b"), &address(2).to_string());
    let before = at_a.up().await;
    let _ = at_old.up().await;
    // Killed: it says nothing any more, and as far as a can tell its connection is still open.
    let _killed = old;
    let (new, mut at_new) = node(&network, "b", 2);
    let start = Instant::now();
    new.connect(&name("a"), &address(1).to_string());
    assert_eq!(at_a.down().await, "the peer was started anew");
    let after = at_a.up().await;
    let _ = at_new.up().await;
    assert!(start.elapsed() < LATENCY * 5);
    assert_eq!(before.id, after.id);
    assert_ne!(before.start_nonce, after.start_nonce);
    a.send(&name("b"), Lane::User, &TELL, b"to the new one").unwrap();
    assert_eq!(at_new.frame().await.body, b"to the new one"[..]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_peer_is_let_go_and_a_stopped_node_ends_its_links() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, mut at_b)) = (node(&network, "a", 1), node(&network, "b", 2));
    let (c, mut at_c) = node(&network, "c", 3);
    a.connect(&name("b"), &address(2).to_string());
    a.connect(&name("c"), &address(3).to_string());
    let _ = (at_b.up().await, at_c.up().await, at_a.up().await, at_a.up().await);
    a.forget(&name("b"));
    assert_eq!(at_a.down().await, "no longer wanted");
    assert_eq!(at_b.down().await, "no longer wanted");
    sleep(Duration::from_secs(5)).await;
    assert_eq!((a.peers().len(), b.peers().len(), network.dials().len()), (1, 0, 2));

    a.shutdown();
    assert_eq!(at_a.down().await, "shutting down");
    assert_eq!(at_c.down().await, "shutting down");
    assert_eq!(c.is_up(&name("a")), None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(network.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_name_is_hung_up_on_and_refused_until_it_is_taken_back() {
    let network = MemoryNetwork::default();
    let ((a, mut at_a), (b, mut at_b)) = (node(&network, "a", 1), node(&network, "b", 2));
    a.connect(&name("b"), &address(2).to_string());
    let _ = (at_a.up().await, at_b.up().await);

    a.revoke([name("b")].into());
    assert_eq!(at_a.down().await, "b is revoked");
    assert_eq!(at_b.down().await, "the peer hung up: b is revoked");
    b.connect(&name("a"), &address(1).to_string());
    sleep(Duration::from_secs(10)).await;
    assert_eq!((at_a.try_next(), at_b.try_next()), (None, None), "neither side gets through");
    assert_eq!(a.send(&name("b"), Lane::User, &TELL, b"x"), Err(SendRefused::NotConnected));

    b.forget(&name("a"));
    a.revoke(BTreeSet::new());
    let _ = (at_a.up().await, at_b.up().await);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_hello_has_few_connections_and_little_room() {
    let network = MemoryNetwork::default();
    let (a, mut at_a) = node(&network, "a", 1);
    let (b, mut at_b) = raw(&network, "b", 2);
    let first = dial_raw(&b, &mut at_b, 1).await;
    let megabyte = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..4 {
        b.write(first, Lane::Bulk, megabyte.clone()).unwrap();
    }
    b.write(first, Lane::User, Bytes::from_static(b"x")).unwrap();
    let reason = "more than 4194304 bytes before the hello";
    assert_eq!(goodbye(&mut at_b).await, reason);
    assert_eq!(hung_up(&mut at_b).await, reason);

    for _ in 0..4 {
        let _ = dial_raw(&b, &mut at_b, 1).await;
    }
    let _ = dial_raw(&b, &mut at_b, 1).await;
    assert_eq!(hung_up(&mut at_b).await, "too many connections without a hello");
    assert_eq!(at_a.try_next(), None);
    assert_eq!(a.peers().len(), 1);
}
