//! Disks that lose what they had kept: it is found, and nobody is served it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use synod::{
    consensus::VoteStyle,
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_tests::simulated::{Add, Counter, Total, counter, founded, name, whole};

/// A counter of a node's.
fn count(cluster: &Cluster, node: &str, counter: &str) -> u64 {
    let text = cluster.core(&name(node)).unwrap().node().metrics().render();
    let line = text.lines().find_map(|line| line.strip_prefix(counter));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

async fn add(cluster: &Cluster, commands: u64) {
    let client = counter(cluster, "b");
    for total in 1..=commands {
        assert_eq!(client.send(Add { by: 1 }).await, Ok(total));
    }
}

const COMMANDS: u64 = 300;

/// Bits flipped at most, one after the other: most hit what is not in use.
const FLIPS_MAX: u32 = 2_000;

/// Goal: damage to a running node's journal is found before it is needed, and mended. Method: bits
/// flip until the scrubber finds one; later the machine stops, and its journal is read.
#[test]
fn rot_in_the_journal_of_a_running_node_is_found_and_the_journal_written_anew() {
    for seed in 40..43 {
        Simulation::new(seed).run(|sim| async move {
            let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
            add(&cluster, COMMANDS).await;
            let mut flips = 0;
            while count(&cluster, "a", "synod_journal_damage_total") == 0 {
                flips += 1;
                assert!(flips < FLIPS_MAX, "{flips} bits flipped and nothing was found");
                sim.rot(&name("a"), "segment-").unwrap();
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            assert!(count(&cluster, "a", "synod_journal_scrubbed_bytes_total") > 0);
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(count(&cluster, "a", "synod_journal_damage_total"), 1, "it is mended");
            cluster.start(&name("a")).unwrap();
            assert_eq!(cluster.core(&name("a")).unwrap().lost_memory(), None);
            whole(&cluster).await;
            assert_eq!(counter(&cluster, "a").query(Total).await, Ok(COMMANDS));
        });
    }
}

/// A cluster that takes snapshots and has some.
async fn with_snapshots(sim: &Simulation) -> Cluster {
    let blueprint = Blueprint::hosting::<Counter>("counter");
    let blueprint = Blueprint { snapshot_log_bytes: 2 * 1024, ..blueprint };
    let mut cluster = Cluster::new(sim, Shape::default(), blueprint);
    cluster.start_all().unwrap();
    whole(&cluster).await;
    add(&cluster, COMMANDS).await;
    cluster
}

/// Goal: damage to a snapshot is found before anybody needs it, and another is taken. Method: a bit
/// flips in one while its node runs; later the machine stops and starts.
#[test]
fn rot_in_a_snapshot_of_a_running_node_is_found_and_another_is_taken() {
    for seed in 60..64 {
        Simulation::new(seed).run(|sim| async move {
            let mut cluster = with_snapshots(&sim).await;
            sim.rot(&name("a"), "snapshot-").expect("it took some");
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(count(&cluster, "a", "synod_snapshot_damage_total"), 1, "it was found");
            cluster.crash(&name("a"));
            cluster.start(&name("a")).unwrap();
            assert_eq!(cluster.core(&name("a")).unwrap().lost_memory(), None);
            whole(&cluster).await;
            assert_eq!(counter(&cluster, "a").query(Total).await, Ok(COMMANDS));
        });
    }
}

/// Bits of a node's files flip, at most so many, and it starts again after each, until it notices.
async fn rot_until_noticed(sim: &Simulation, cluster: &mut Cluster, files: &str, most: u32) {
    let mut flips = 0;
    while cluster.core(&name("a")).unwrap().lost_memory().is_none() {
        flips += 1;
        assert!(flips < most, "{flips} bits flipped and nothing was found");
        cluster.crash(&name("a"));
        sim.rot(&name("a"), files).unwrap();
        cluster.start(&name("a")).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Goal: a node whose snapshot is damaged never votes as if it had never voted for what that covered.
/// Method: a bit flips in one while the node is down, until its newest is hit.
#[test]
fn a_node_without_its_snapshot_comes_back_as_another_one() {
    Simulation::new(65).run(|sim| async move {
        let mut cluster = with_snapshots(&sim).await;
        let before = cluster.core(&name("a")).unwrap().node().id().clone();
        rot_until_noticed(&sim, &mut cluster, "snapshot-", 20).await;
        whole(&cluster).await;
        assert_ne!(*cluster.core(&name("a")).unwrap().node().id(), before, "not the node it was");
        assert_eq!(counter(&cluster, "a").query(Total).await, Ok(COMMANDS));
    });
}

/// Goal: damage to a stopped node's journal costs it its memory and nobody else anything. Method:
/// bits flip until one is noticed at a start.
#[test]
fn a_node_that_lost_its_memory_comes_back_by_itself_as_another_one() {
    Simulation::new(45).run(|sim| async move {
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        add(&cluster, COMMANDS).await;
        let before = cluster.core(&name("a")).unwrap().node().id().clone();
        rot_until_noticed(&sim, &mut cluster, "segment-", FLIPS_MAX).await;
        whole(&cluster).await;
        assert_ne!(*cluster.core(&name("a")).unwrap().node().id(), before, "not the node it was");
        assert_eq!(counter(&cluster, "a").query(Total).await, Ok(COMMANDS));
        let kept = sim.files(&name("a")).iter().any(|file| file.to_string_lossy().contains("lost"));
        assert!(kept, "what is left is kept for people");
    });
}

/// Goal: a write that went astray takes no word back. Method: one does, and its node crashes a moment
/// later. Whatever it finds then, it serves nothing wrong, or nothing.
#[test]
fn a_misdirected_write_is_found_and_takes_no_word_back() {
    let (mut as_it_was, mut another, mut refused) = (0, 0, 0);
    for seed in 50..70 {
        let outcome = Simulation::new(seed).run(|sim| async move {
            let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
            add(&cluster, COMMANDS).await;
            sim.misdirect_next_write(&name("a"), "segment-");
            let client = counter(&cluster, "b");
            for total in COMMANDS + 1..=COMMANDS + seed % 4 + 1 {
                assert_eq!(client.send(Add { by: 1 }).await, Ok(total));
            }
            cluster.crash(&name("a"));
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.start(&name("a")).unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            let core = cluster.core(&name("a")).unwrap();
            let refused = core.failed().borrow().clone();
            let lost = core.lost_memory().is_some();
            if let Some(why) = &refused {
                assert!(why.contains("older copy"), "{why}");
                cluster.lose(&name("a"));
                cluster.start(&name("a")).unwrap();
            }
            whole(&cluster).await;
            let total = Ok(COMMANDS + seed % 4 + 1);
            assert_eq!(counter(&cluster, "a").query(Total).await, total, "seed {seed}");
            (refused.is_some(), lost)
        });
        match outcome {
            (true, _) => refused += 1,
            (false, true) => another += 1,
            (false, false) => as_it_was += 1,
        }
    }
    println!(
        "{as_it_was} nodes made up for it, {another} lost their memory, {refused} were refused"
    );
    assert!(another > 0, "{as_it_was}, {another}, {refused}");
}
