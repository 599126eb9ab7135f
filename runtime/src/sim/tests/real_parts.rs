//! The real links and the real journal over the simulated ports.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;

use super::{lock, names};
use crate::{
    identity::{Incarnation, NodeId, NodeName},
    journal::{Journal, JournalConfig, Record},
    link::{Inbound, Links, LocalIdentity, PeerInfo},
    sim::{FaultAction, Nemesis, NemesisConfig, Simulation},
    wire::{Frame, FrameHeader, FrameKind},
    world::{World, network::Lane},
};

/// Counts what arrives, by what the frame says; notes ups and downs.
#[derive(Default)]
struct Count {
    frames: Mutex<Vec<u64>>,
    up: AtomicU64,
}

impl Inbound for Count {
    fn up(&self, _: &PeerInfo) {
        self.up.fetch_add(1, SeqCst);
    }

    fn down(&self, _: &NodeId, _: &str) {}

    fn frames(&self, _: &NodeId, _: Lane, batch: &mut Vec<Frame>) {
        lock(&self.frames).extend(batch.drain(..).map(|frame| frame.header.correlation));
    }

    fn datagram(&self, _: &NodeId, _: Frame) {}
}

/// One node's links to all others.
fn links(sim: &Simulation, name: &NodeName, world: &World) -> (Links, Arc<Count>) {
    let count = Arc::new(Count::default());
    let me = LocalIdentity {
        cluster: "bank".parse().unwrap(),
        id: NodeId::new(name.clone(), Incarnation(7)),
        role: "main".to_owned(),
        messages: Vec::new(),
        start_nonce: world.entropy.rng("start").random(),
        listen: "0.0.0.0:0".parse().unwrap(),
        tls: None,
    };
    let links = Links::start(world, me, Arc::clone(&count) as _).unwrap();
    for peer in names().iter().filter(|peer| *peer != name) {
        links.connect(peer, &sim.address(peer));
    }
    (links, count)
}

fn tell(links: &Links, to: &NodeName, number: u64) -> bool {
    let header = FrameHeader {
        kind: FrameKind::Tell,
        target: 1,
        message: 2,
        correlation: number,
        deadline_ms: 0,
        trace: 0,
    };
    links.send(to, Lane::Consensus, &header, &[0; 100]).is_ok()
}

/// Three nodes with links under faults that do not touch disks; answers the digest.
fn linked_under_faults(seed: u64) -> u64 {
    Simulation::new(seed).run(|sim| async move {
        let start = |name: &NodeName| links(&sim, name, &sim.world(name));
        let mut nodes: Vec<_> = names().iter().map(start).collect();
        let plan = "loss,duplication,reorder,cut,clog,partition,crash,pause,jump".parse().unwrap();
        let safety = Duration::from_secs(60);
        let config = NemesisConfig { plan, safety, ..NemesisConfig::new(&names()) };
        let mut number = 0;
        for (pause, action) in Nemesis::new(seed, &config) {
            tokio::time::sleep(pause).await;
            sim.apply(&action);
            if let FaultAction::Restart { node } = &action {
                let at = names().iter().position(|name| name == node).unwrap();
                let world = sim.restart(node);
                nodes[at] = links(&sim, node, &world);
            }
            for (links, _) in &nodes {
                for to in names() {
                    number += 1;
                    tell(links, &to, number);
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for (at, (links, count)) in nodes.iter().enumerate() {
            lock(&count.frames).clear();
            for to in names().iter().filter(|to| **to != names()[at]) {
                assert!(links.is_up(to).is_some(), "seed {seed}: {} lacks {to}", names()[at]);
            }
        }
        for (links, _) in &nodes {
            for (number, to) in (0..100).flat_map(|n| names().into_iter().map(move |to| (n, to))) {
                tell(links, &to, number);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (_, count) in &nodes {
            assert_eq!(lock(&count.frames).len(), 200, "seed {seed}");
        }
        sim.trace_digest()
    })
}

#[test]
fn real_links_come_back_after_every_fault_and_replay_exactly() {
    for seed in 0..12 {
        linked_under_faults(seed);
    }
    assert_eq!(linked_under_faults(3), linked_under_faults(3));
}

/// Opens the journal of a life, as often as the machine survives it.
fn open(world: &World) -> Option<(Journal, Vec<Record>)> {
    let config = JournalConfig { segment_bytes: 16 * 1024, ..JournalConfig::new("/d/journal") };
    match Journal::open(world, &config) {
        Ok((journal, recovered)) => Some((journal, recovered.records)),
        Err(error) => {
            assert!(error.to_string().contains("the machine has stopped"), "{error}");
            None
        }
    }
}

fn record(step: u64) -> Record {
    let payload = Bytes::from(vec![1; usize::try_from(step * 131 % 1500).unwrap()]);
    Record { kind: 1, group: 0, round: 1, author: 1, step, payload }
}

/// Method: append numbered records, stop the machine at a random disk operation (also while it
/// opens the journal), start it again, many lives long.
/// Goal: after every start the journal holds, without a gap, at least all it said was durable.
fn journal_through_crashes(seed: u64) -> u64 {
    Simulation::new(seed).run(|sim| async move {
        let name = &names()[0];
        let mut rng = sim.world(name).entropy.rng("test");
        let durable = Arc::new(AtomicU64::new(0));
        let mut appended = 0;
        for _ in 0..12 {
            let world = sim.restart(name);
            sim.crash_at_disk_operation(name, rng.random_range(1..120));
            let Some((journal, records)) = open(&world) else { continue };
            let steps: Vec<u64> = records.iter().map(|record| record.step).collect();
            let last = steps.len() as u64;
            assert!(steps.iter().copied().eq(1..=last), "seed {seed}: {steps:?}");
            let said = durable.load(SeqCst);
            assert!(
                last >= said && last <= appended,
                "seed {seed}: {said} <= {last} <= {appended}"
            );
            appended = last;
            for _ in 0..100 {
                appended += 1;
                let (durable, step) = (Arc::clone(&durable), appended);
                let done = move |result: Result<(), _>| {
                    if result.is_ok() {
                        durable.fetch_max(step, SeqCst);
                    }
                };
                journal.append(vec![record(step)], Box::new(done));
                if !sim.is_up(name) {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(rng.random_range(0..1500))).await;
            }
            sim.crash(name);
        }
        durable.load(SeqCst)
    })
}

#[test]
fn the_real_journal_loses_nothing_it_called_durable() {
    let durable: u64 = (0..60).map(journal_through_crashes).sum();
    assert!(durable > 3000, "only {durable} records were ever durable");
}
