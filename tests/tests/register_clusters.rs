//! Registers on whole clusters of the real actors, in simulated worlds: nothing that was written is
//! lost, whoever dies; who lost its disk never counts as a holder again.

use std::{collections::BTreeSet, time::Duration};

use synod::{
    server::registers::{Keeping, RegisterError, Registers, RolesIn},
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_tests::simulated::{Counter, founded_as, name, whole};

async fn cluster(sim: &Simulation, shape: Shape, keeping: Keeping) -> Cluster {
    let roles = RolesIn::Registers(keeping);
    founded_as(sim, shape, Blueprint { roles, ..Blueprint::hosting::<Counter>("counter") }).await
}

fn registers(cluster: &Cluster, node: &str) -> Registers {
    cluster.core(&name(node)).expect("it runs").registers().expect("it keeps some")
}

/// Adds a number to the set that the register holds: harmless if it happens twice.
async fn add(registers: &Registers, number: u32) -> Result<BTreeSet<u32>, RegisterError> {
    let change = move |old: &[u8]| {
        let mut set = set(old);
        set.insert(number);
        let words: Vec<_> = set.iter().map(u32::to_string).collect();
        words.join(" ").into_bytes()
    };
    registers.change("set", change).await.map(|new| set(&new))
}

fn set(value: &[u8]) -> BTreeSet<u32> {
    let text = std::str::from_utf8(value).expect("words");
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

async fn read(registers: &Registers) -> Result<BTreeSet<u32>, RegisterError> {
    registers.read("set").await.map(|value| set(&value))
}

const BOTH: [Keeping; 2] = [Keeping::Holders, Keeping::Servers];

/// Goal: what several nodes change at once is all there, at every node; it survives the death of any
/// node, and of all.
#[test]
fn what_was_changed_is_there_whoever_dies() {
    for (seed, keeping) in (800..).zip(BOTH) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { members: 1, ..Shape::default() };
            let mut cluster = cluster(&sim, shape, keeping).await;
            let nodes = ["a", "b", "m1"].map(|node| registers(&cluster, node));
            let adds: Vec<_> = (0..30)
                .zip(nodes.iter().cycle().cloned())
                .map(|(number, node)| actix_rt::spawn(async move { add(&node, number).await }))
                .collect();
            for added in adds {
                added.await.expect("it ends").expect("all are there");
            }
            let mut all: BTreeSet<_> = (0..30).collect();
            for node in &nodes {
                assert_eq!(read(node).await, Ok(all.clone()));
            }
            for (number, gone) in (100..).zip(["b", "x", "a"]) {
                cluster.crash(&name(gone));
                let here = if gone == "a" { "b" } else { "a" };
                add(&registers(&cluster, here), number).await.expect("a majority is there");
                all.insert(number);
                cluster.start(&name(gone)).expect("it starts again");
                whole(&cluster).await;
                assert_eq!(
                    read(&registers(&cluster, gone.replace('x', "m1").as_str())).await,
                    Ok(all.clone())
                );
            }
            for node in cluster.names() {
                cluster.crash(&node);
            }
            cluster.start_all().expect("all start again");
            whole(&cluster).await;
            assert_eq!(read(&registers(&cluster, "a")).await, Ok(all));
        });
    }
}

/// Goal: R3.26: whoever changed a register last, and meets nobody, changes it again in one round: one
/// question to each main; once somebody else was there it takes two, and then one again.
#[test]
fn whoever_changed_it_last_changes_it_again_in_one_round() {
    Simulation::new(840).run(|sim| async move {
        let cluster = cluster(&sim, Shape::default(), Keeping::Holders).await;
        let (a, b) = (registers(&cluster, "a"), registers(&cluster, "b"));
        let asked = |node: &str| {
            let metrics = cluster.core(&name(node)).expect("it runs").node().metrics().render();
            let counter = "synod_protocol_messages_received_total{role=\"register\"} ";
            let count = metrics.lines().find_map(|line| line.strip_prefix(counter)?.parse().ok());
            count.unwrap_or(0_u32)
        };
        let mut before = ["a", "b", "x"].map(asked);
        // The auxiliary hears nothing; the mains, as many words as there were rounds.
        let mut rounds = |wanted: u32| {
            let now = ["a", "b", "x"].map(asked);
            assert_eq!(now, [before[0] + wanted, before[1] + wanted, before[2]]);
            before = now;
        };
        add(&a, 1).await.expect("all are there");
        rounds(2);
        for number in 2..10 {
            add(&a, number).await.expect("all are there");
            rounds(1);
        }
        // Somebody looks at it; that changes nothing.
        read(&b).await.expect("all are there");
        rounds(1);
        add(&a, 10).await.expect("all are there");
        rounds(1);
        add(&b, 11).await.expect("all are there");
        rounds(2);
        assert_eq!(read(&a).await, Ok((1..12).collect()));
        rounds(1);
        add(&a, 12).await.expect("all are there");
        rounds(2);
        add(&a, 13).await.expect("all are there");
        rounds(1);
        assert_eq!(read(&b).await, Ok((1..14).collect()));
    });
}

/// Goal: a node that lost its disk is no holder any more: with one of the two others gone as well
/// nobody is told anything, instead of something old.
#[test]
fn who_lost_its_disk_does_not_count_any_more() {
    for (seed, keeping) in (810..).zip(BOTH) {
        Simulation::new(seed).run(|sim| async move {
            let mut cluster = cluster(&sim, Shape::default(), keeping).await;
            add(&registers(&cluster, "a"), 1).await.expect("all are there");
            cluster.crash(&name("b"));
            cluster.lose(&name("b"));
            cluster.start(&name("b")).expect("it starts, as another");
            whole(&cluster).await;
            // The auxiliary stands in for it from now on.
            let both = add(&registers(&cluster, "b"), 2).await.expect("a and x are there");
            assert_eq!(both, BTreeSet::from([1, 2]));
            cluster.crash(&name("a"));
            let said = read(&registers(&cluster, "b")).await;
            assert!(matches!(said, Err(RegisterError::NotApplied(_))), "{said:?}");
            cluster.start(&name("a")).expect("it starts again");
            whole(&cluster).await;
            assert_eq!(read(&registers(&cluster, "b")).await, Ok(both));
        });
    }
}

/// Goal: a damaged copy is known to be damaged, and the others stand in for it.
#[test]
fn a_damaged_copy_is_not_taken_for_a_good_one() {
    for (seed, (keeping, which)) in (820..).zip(BOTH.into_iter().zip([".register", "blocks"])) {
        Simulation::new(seed).run(|sim| async move {
            let mut cluster = cluster(&sim, Shape::default(), keeping).await;
            add(&registers(&cluster, "a"), 1).await.expect("all are there");
            cluster.crash(&name("b"));
            for _ in 0..40 {
                sim.rot(&name("b"), which).expect("there is such a file");
            }
            cluster.start(&name("b")).expect("it starts again");
            whole(&cluster).await;
            for number in 2..5 {
                add(&registers(&cluster, "a"), number).await.expect("a and x are there");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(read(&registers(&cluster, "b")).await, Ok((1..5).collect()));
        });
    }
}

/// Goal: plain directories are disks too: with three of them any one may rot, and
/// what was written is still there after a restart.
#[test]
fn three_directories_survive_the_loss_of_any() {
    for (seed, rotten) in (830..).zip(["one", "two", "three"]) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains: 1, auxiliaries: 0, members: 0 };
            let disks = ["one", "two", "three"].map(|disk| format!("/disks/{disk}").into());
            let mut cluster = cluster(&sim, shape, Keeping::Disks(disks.to_vec())).await;
            add(&registers(&cluster, "a"), 1).await.expect("all are there");
            sim.rot(&name("a"), &format!("disks/{rotten}")).expect("there is a block");
            add(&registers(&cluster, "a"), 2).await.expect("two of three are there");
            cluster.crash(&name("a"));
            sim.rot(&name("a"), &format!("disks/{rotten}")).expect("there is a block");
            cluster.start(&name("a")).expect("it starts again");
            whole(&cluster).await;
            assert_eq!(add(&registers(&cluster, "a"), 3).await, Ok((1..4).collect()));
            assert_eq!(read(&registers(&cluster, "a")).await, Ok((1..4).collect()));
        });
    }
}
