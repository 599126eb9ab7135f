//! Over real sockets on loopback. Times here are upper bounds that only a broken node reaches.

mod security;

use bytes::BytesMut;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    link::{
        Links, LocalIdentity, SendRefused,
        testing::{Heard, RawSink, Recorder, Told, identity, name, world},
    },
    wire::{FrameHeader, FrameKind},
    world::network::TlsFiles,
};

const TELL: FrameHeader = FrameHeader::new(FrameKind::Tell);

fn free() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn authority(cluster: &str) -> Authority {
    Authority::new(&name(cluster)).unwrap()
}

fn issue(authority: &Authority, node: &str) -> TlsFiles {
    authority.issue(&name(node), &[], &[]).unwrap()
}

fn start(me: LocalIdentity) -> (Links, Heard<Told>) {
    let (inbound, heard) = Recorder::new();
    (Links::start(&world(Arc::new(QuicNetwork)), me, inbound).unwrap(), heard)
}

fn node(authority: &Authority, text: &str, number: u64) -> (Links, Heard<Told>) {
    start(identity(text, number, free(), Some(issue(authority, text))))
}

fn raw(cluster: &str, text: &str, tls: TlsFiles) -> (Arc<dyn Endpoint>, Heard<NetworkEvent>) {
    let (sink, heard) = RawSink::new();
    let me = Identity { cluster: name(cluster), name: name(text), listen: free(), tls: Some(tls) };
    (QuicNetwork.bind(&me, sink).unwrap(), heard)
}

/// Why `from` cannot reach the node `to` that listens at `at`.
async fn refusal(
    from: &Arc<dyn Endpoint>,
    heard: &mut Heard<NetworkEvent>,
    to: &str,
    at: SocketAddr,
) -> String {
    from.dial(&name(to), &at.to_string());
    heard
        .find(|event| {
            // TLS 1.3: the one that dials is done before the other has looked at its certificate.
            let (NetworkEvent::Down { reason, .. } | NetworkEvent::DialFailed { reason, .. }) =
                event
            else {
                return None;
            };
            Some(reason.clone())
        })
        .await
}

/// What a node of another cluster hears that does not check whom it dials.
async fn refusal_of_accepting(ca: &Authority, other: &Authority) -> String {
    let (a, _at_a) = node(ca, "a", 1);
    let mut files = issue(other, "b");
    files.ca = ca.ca_pem().into();
    let tls = tls::configure(&files).unwrap();
    let socket = transport::socket(&Settings::default(), free()).unwrap();
    let config = transport::endpoint(&Settings::default(), &tls.secret);
    let liar = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime)).unwrap();
    let client = quinn::ClientConfig::new(tls.client);
    let dialling = liar.connect_with(client, a.local_addr(), "a.bank.synod").unwrap();
    explain(&dialling.await.unwrap().closed().await)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_on_every_lane() {
    frames_arrive().await;
}

#[test]
fn frames_arrive_whole_and_in_order_among_the_actors_of_an_arbiter() {
    actix::System::new().block_on(async {
        assert!(matches!(Home::here(), Home::Arbiter(_)));
        frames_arrive().await;
    });
}

async fn frames_arrive() {
    let ca = authority("bank");
    let ((a, mut at_a), (b, mut at_b)) = (node(&ca, "a", 1), node(&ca, "b", 2));
    a.connect(&name("b"), &b.local_addr().to_string());
    let _ = (at_a.up().await, at_b.up().await);
    for number in 0..300_u32 {
        for lane in Lane::ALL {
            let mut body = vec![lane as u8; 6 + (number as usize * 97) % 20_000];
            body[1..5].copy_from_slice(&number.to_le_bytes());
            a.send(&name("b"), lane, &TELL, &body).unwrap();
        }
    }
    let mut next = [0_u32; 4];
    for _ in 0..1200 {
        let body = at_b.frame().await.body;
        let next = &mut next[usize::from(body[0])];
        assert_eq!(body[1..5], next.to_le_bytes());
        assert_eq!(body.len(), 6 + (*next as usize * 97) % 20_000);
        *next += 1;
    }
    b.send(&name("a"), Lane::User, &TELL, b"back").unwrap();
    assert_eq!(at_a.frame().await.body, b"back"[..]);
    b.datagram(&name("a"), &FrameHeader::new(FrameKind::Heartbeat), b"alive").unwrap();
    assert!(matches!(at_a.next().await, Told::Datagram(_, frame) if frame.body == b"alive"[..]));
    let large = vec![0; 60_000];
    assert_eq!(b.datagram(&name("a"), &TELL, &large), Err(SendRefused::TooLarge));
}

#[tokio::test]
async fn nodes_of_another_cluster_or_authority_are_refused() {
    let ca = authority("bank");
    let (a, mut at_a) = node(&ca, "a", 1);
    let at = a.local_addr();

    // The same authority signed for another cluster: both sides see it by name.
    let shop = Authority::from_pem(&name("shop"), ca.ca_pem(), &ca.key_pem()).unwrap();
    let (b, mut at_b) = raw("shop", "b", issue(&shop, "b"));
    let reason = refusal(&b, &mut at_b, "a", at).await;
    assert!(reason.contains("a.shop.synod") && reason.contains("a.bank.synod"), "{reason}");
    let accepted = refusal_of_accepting(&ca, &shop).await;
    assert_eq!(
        accepted,
        "the peer hung up: the certificate is for b.shop.synod, not for a node of cluster bank"
    );

    // Another node than the one that was dialled.
    let (b, mut at_b) = raw("bank", "b", issue(&ca, "b"));
    let reason = refusal(&b, &mut at_b, "c", at).await;
    assert!(reason.contains("c.bank.synod"), "{reason}");

    // Another authority, on either side.
    let (b, mut at_b) = raw("bank", "b", issue(&authority("bank"), "b"));
    let reason = refusal(&b, &mut at_b, "a", at).await;
    assert!(reason.contains("certificate"), "{reason}");
    let forged = TlsFiles { ca: ca.ca_pem().into(), ..issue(&authority("bank"), "b") };
    let (b, mut at_b) = raw("bank", "b", forged);
    let reason = refusal(&b, &mut at_b, "a", at).await;
    assert!(reason.contains("the peer refused"), "{reason}");

    // A certificate that was good yesterday.
    let yesterday = Duration::from_millis(crate::world::Clock::wall_ms(&crate::world::RealClock))
        - Duration::from_secs(24 * 3600);
    let expired = ca.issue_until(&name("b"), &[], &[], yesterday).unwrap();
    let (b, mut at_b) = raw("bank", "b", expired);
    let reason = refusal(&b, &mut at_b, "a", at).await;
    assert!(reason.contains("the peer refused") && reason.contains("expired"), "{reason}");

    assert_eq!(at_a.try_next(), None);
    assert!(a.peers().is_empty());
}

/// Goal: datagrams that the path has not taken yet are seen to wait, and then they are gone.
#[tokio::test]
async fn datagrams_that_wait_are_counted_until_they_are_gone() {
    let ca = authority("bank");
    let (a, mut at_a) = raw("bank", "a", issue(&ca, "a"));
    let (b, _at_b) = raw("bank", "b", issue(&ca, "b"));
    assert_eq!(a.datagrams_waiting(ConnectionId(0)), 0);
    a.dial(&name("b"), &b.local_addr().to_string());
    let up = |event: &NetworkEvent| match event {
        NetworkEvent::Up { connection, .. } => Some(*connection),
        _ => None,
    };
    let to_b = at_a.find(up).await;
    for _ in 0..200 {
        a.datagram(to_b, vec![7; 1_000].into()).unwrap();
    }
    assert!(a.datagrams_waiting(to_b) >= 200_000, "nothing went while nobody waited");
    let begun = Instant::now();
    while a.datagrams_waiting(to_b) > 1_000 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", a.datagrams_waiting(to_b));
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_node_does_not_start_with_a_certificate_that_peers_would_refuse() {
    let ca = authority("bank");
    let bind = |cluster: &str, tls: Option<TlsFiles>| {
        let (cluster, listen) = (name(cluster), free());
        let me = Identity { cluster, name: name("a"), listen, tls };
        QuicNetwork.bind(&me, RawSink::new().0).unwrap_err().to_string()
    };
    assert_eq!(bind("bank", None), "QUIC needs certificates");
    assert_eq!(
        bind("bank", Some(issue(&ca, "b"))),
        "the node's certificate: it is for b.bank.synod, not for a.bank.synod"
    );
    assert!(bind("shop", Some(issue(&ca, "a"))).contains("not for a.shop.synod"));
    let junk = TlsFiles { key: b"junk".to_vec(), ..issue(&ca, "a") };
    assert!(bind("bank", Some(junk)).contains("the node's key"));
}

#[tokio::test]
async fn an_authority_survives_being_stored() {
    let ca = authority("bank");
    let stored = Authority::from_pem(&name("bank"), ca.ca_pem(), &ca.key_pem()).unwrap();
    let ((a, mut at_a), (b, mut at_b)) = (node(&ca, "a", 1), node(&stored, "b", 2));
    a.connect(&name("b"), &b.local_addr().to_string());
    let _ = (at_a.up().await, at_b.up().await);
}

#[tokio::test]
async fn both_dialling_at_once_end_with_one_connection() {
    let ca = authority("bank");
    let ((a, mut at_a), (b, mut at_b)) = (node(&ca, "a", 1), node(&ca, "b", 2));
    a.connect(&name("b"), &b.local_addr().to_string());
    b.connect(&name("a"), &a.local_addr().to_string());
    let _ = (at_a.up().await, at_b.up().await);
    // Frames that were under way on the connection given up are lost; the next ones are not.
    let mut arrived = false;
    until("a frame goes through", || {
        let _ = a.send(&name("b"), Lane::User, &TELL, b"x");
        while let Some(told) = at_b.try_next() {
            arrived |= matches!(told, Told::Frame(..));
        }
        arrived
    })
    .await;
}

/// A node in a thread of its own, so that it can end as a killed process does: its socket closes
/// and nobody says goodbye.
fn doomed(me: LocalIdentity) -> (SocketAddr, impl FnOnce()) {
    let (ready, address) = std::sync::mpsc::channel();
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let links = runtime.block_on(async {
            let (links, _heard) = start(me);
            ready.send(links.local_addr()).unwrap();
            let _ = killed.await;
            links
        });
        // The runtime first: no task is left that could send a last packet.
        drop(runtime);
        drop(links);
    });
    let address = address.recv().unwrap();
    (address, move || {
        kill.send(()).unwrap();
        thread.join().unwrap();
    })
}

#[tokio::test]
async fn a_killed_and_restarted_peer_is_linked_again_quickly() {
    let ca = authority("bank");
    let files = issue(&ca, "b");
    let (a, mut at_a) = node(&ca, "a", 1);
    let (at, kill) = doomed(identity("b", 2, free(), Some(files.clone())));
    a.connect(&name("b"), &at.to_string());
    let before = at_a.up().await;
    kill();

    // It does not know a's address: what brings it back is that it answers a's packets, on the
    // connection it knows nothing of, with a reset.
    let restart = Instant::now();
    let (b, mut at_b) = start(identity("b", 2, at, Some(files)));
    assert_eq!(at_a.down().await, "the peer was started anew");
    let after = at_a.up().await;
    assert!(restart.elapsed() < transport::IDLE_TIME_MAX, "{:?}", restart.elapsed());
    assert_eq!(before.id, after.id);
    let _ = at_b.up().await;
    b.send(&name("a"), Lane::User, &TELL, b"back again").unwrap();
    assert_eq!(at_a.frame().await.body, b"back again"[..]);
}

#[tokio::test]
async fn a_restarted_peer_that_dials_replaces_its_dead_connection_at_once() {
    let ca = authority("bank");
    let files = issue(&ca, "b");
    let (a, mut at_a) = node(&ca, "a", 1);
    let (at, kill) = doomed(identity("b", 2, free(), Some(files.clone())));
    a.connect(&name("b"), &at.to_string());
    let _ = at_a.up().await;
    kill();
    let restart = Instant::now();
    let (b, mut at_b) = start(identity("b", 2, at, Some(files)));
    b.connect(&name("a"), &a.local_addr().to_string());
    assert_eq!(at_a.down().await, "the peer was started anew");
    let _ = (at_a.up().await, at_b.up().await);
    assert!(restart.elapsed() < Duration::from_millis(500), "{:?}", restart.elapsed());
}

#[tokio::test]
async fn a_silent_peer_is_down_within_the_idle_time() {
    let ca = authority("bank");
    let (a, mut at_a) = node(&ca, "a", 1);
    let (at, kill) = doomed(identity("b", 2, free(), Some(issue(&ca, "b"))));
    a.connect(&name("b"), &at.to_string());
    let _ = at_a.up().await;
    kill();
    assert_eq!(at_a.down().await, "no sign of life for 3 s");
    until("the dial's end is told", || {
        let error = a.peers()[0].last_error.clone();
        error.is_some_and(|error| error.contains("no answer within 1 s"))
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_the_lane_and_no_other() {
    let ca = authority("bank");
    let (a, mut at_a) = node(&ca, "a", 1);
    // A peer that speaks, and never reads: quinn without our readers.
    let hello = crate::wire::Hello {
        cluster: name("bank"),
        node: identity("b", 2, free(), None).id,
        protocol_version: 1,
        role: String::new(),
        start_nonce: 2,
        messages: Vec::new(),
    };
    let mut greeting = BytesMut::from(&[Lane::Control as u8][..]);
    let header = FrameHeader::new(FrameKind::Hello);
    crate::wire::encode(&header, Lane::Control, &hello.to_body(), &mut greeting);
    let tls = tls::configure(&issue(&ca, "b")).unwrap();
    let client = quinn::ClientConfig::new(tls.client);
    let deaf = quinn::Endpoint::client(free()).unwrap();
    let dialling = deaf.connect_with(client, a.local_addr(), "a.bank.synod").unwrap();
    let connection = dialling.await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&greeting).await.unwrap();
    let _ = at_a.up().await;

    let body = vec![0; 1024 * 1024];
    let mut sent = 0;
    while sent < 100 {
        match a.send(&name("b"), Lane::Bulk, &TELL, &body) {
            Ok(()) => sent += 1,
            Err(refused) => {
                assert_eq!(refused, SendRefused::Full);
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    assert!((31..60).contains(&sent), "{sent}");
    a.send(&name("b"), Lane::Consensus, &TELL, b"still open").unwrap();
}

#[tokio::test]
async fn streams_that_are_no_lanes_end_the_connection() {
    let ca = authority("bank");
    for (first, second, reason) in [
        (9, None, "the peer hung up: a stream for no lane"),
        (2, Some(2), "the peer hung up: a second stream for one lane"),
    ] {
        let (b, mut at_b) = raw("bank", "b", issue(&ca, "b"));
        let tls = tls::configure(&issue(&ca, "a")).unwrap();
        let odd = quinn::Endpoint::client(free()).unwrap();
        let client = quinn::ClientConfig::new(tls.client);
        let dialling = odd.connect_with(client, b.local_addr(), "b.bank.synod").unwrap();
        let connection = dialling.await.unwrap();
        let mut streams = Vec::new();
        for number in std::iter::once(first).chain(second) {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&[number, 0]).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(explain(&connection.closed().await), reason);
        let ended = |event: &NetworkEvent| matches!(event, NetworkEvent::Down { .. }).then_some(());
        at_b.find(ended).await;
    }
}

/// Not a promise but a figure: `cargo test --release -p synod-runtime round_trip -- --ignored
/// --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn round_trip() {
    struct Echo(std::sync::OnceLock<Links>);
    impl crate::link::Inbound for Echo {
        fn up(&self, _: &crate::link::PeerInfo) {}
        fn down(&self, _: &crate::identity::NodeId, _: &str) {}
        fn frames(
            &self,
            from: &crate::identity::NodeId,
            _: Lane,
            batch: &mut Vec<crate::wire::Frame>,
        ) {
            for frame in batch.drain(..) {
                let links = self.0.get().unwrap();
                let _ = links.send(&from.name, Lane::Consensus, &frame.header, &frame.body);
            }
        }
        fn datagram(&self, _: &crate::identity::NodeId, _: crate::wire::Frame) {}
    }
    let ca = authority("bank");
    let (a, mut at_a) = node(&ca, "a", 1);
    let (ready, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let echo = Arc::new(Echo(std::sync::OnceLock::new()));
            let me = identity("b", 2, free(), Some(issue(&ca, "b")));
            let links = Links::start(&world(Arc::new(QuicNetwork)), me, echo.clone()).unwrap();
            ready.send(links.local_addr()).unwrap();
            let _ = echo.0.set(links);
            std::future::pending::<()>().await;
        });
    });
    a.connect(&name("b"), &address.recv().unwrap().to_string());
    let _ = at_a.up().await;
    for (batch, rounds, size) in [(1, 2000, 64), (1, 5000, 64), (64, 2000, 300), (512, 500, 300)] {
        let body = vec![7; size];
        let start = Instant::now();
        for _ in 0..rounds {
            for _ in 0..batch {
                a.send(&name("b"), Lane::Consensus, &TELL, &body).unwrap();
            }
            for _ in 0..batch {
                at_a.frame().await;
            }
        }
        let each = start.elapsed() / rounds;
        println!("{batch} frames of {size} B there and back: {each:?}");
    }
}
