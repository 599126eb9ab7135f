//! Who leads, and how leadership passes on: when asked, when a node stops, when a disk hangs, when a
//! link fails. Clusters of the real actors in simulated worlds.

use std::time::Duration;

use synod::{
    consensus::{
        VoteStyle,
        ballot::{Ballot, Step},
        message::{AcceptorMessage, Heartbeat, Message, Program, Resign, Wish},
    },
    replicated::{CallError, Outcome},
    sim::{DiskConditions, Shape, Simulation},
};
use synod_tests::{
    hand::{A, B, Standing, node},
    simulated::{Add, Load, counter, founded, leader, leader_at, name},
};

const SHAPES: [(u8, u8); 3] = [(2, 1), (3, 2), (3, 0)];

/// A command while an auxiliary completes steps: round trips and two syncs.
const BRIDGED_MAX: Duration = Duration::from_millis(10);

/// After so long everybody knows that a main is silent.
const KNOWN_SILENT: Duration = Duration::from_millis(250);

/// What an operator or an orderly stop may cost.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Goal: `members lead` hands leadership to the main that was named, under load, without an error;
/// a name that cannot lead is refused, and nothing changes.
#[test]
fn an_operator_names_who_leads() {
    for (seed, (mains, auxiliaries)) in (300..).zip(SHAPES) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 1 };
            let load = Load::start(founded(&sim, shape, VoteStyle::Split).await, 6);
            for to in ["b", "a", "b", "b"] {
                let began = sim.now();
                let outcome = load.wish("m1", Wish::Lead(name(to))).await;
                assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
                assert_eq!(load.with(|cluster| leader_at(cluster, to)).as_deref(), Some(to));
                assert!(sim.now() - began < PAUSE_MAX, "{:?}", sim.now() - began);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let refused = load.wish("a", Wish::Lead(name("m1"))).await;
            assert!(
                matches!(&refused, Outcome::Failed(why) if why.contains("no main")),
                "{refused:?}"
            );
            assert_eq!(load.with(|cluster| leader(cluster)), "b");
            load.finish(PAUSE_MAX).await;
        });
    }
}

/// Goal: a rolling restart of all nodes under load shows no error to clients that go elsewhere when
/// they are told *not applied*, and no pause over 300 ms.
#[test]
fn a_rolling_restart_costs_no_error_and_no_long_pause() {
    for (seed, (mains, auxiliaries)) in (310..).zip(SHAPES) {
        for style in [VoteStyle::Split, VoteStyle::Piggyback] {
            Simulation::new(seed).run(|sim| async move {
                let shape = Shape { mains, auxiliaries, members: 0 };
                let load = Load::start(founded(&sim, shape, style).await, 6);
                for _ in 0..2 {
                    for node in load.with(|cluster| cluster.names()) {
                        tokio::time::sleep(Duration::from_millis(700)).await;
                        load.restart(node.as_str()).await;
                        load.until_whole().await;
                    }
                }
                load.finish(PAUSE_MAX).await;
            });
        }
    }
}

/// Goal: nobody's calls wait for a main that is dead: not those of a member's clients, whom it would have
/// answered, and not those of the third main's, which sees no quorum by itself. Method: one client, so
/// that no later step tells of the one before.
#[test]
fn clients_do_not_wait_for_a_main_that_is_dead() {
    for (seed, (mains, auxiliaries)) in (350..).zip(SHAPES) {
        for by_member in [false, true] {
            Simulation::new(seed).run(|sim| async move {
                let shape = Shape { mains, auxiliaries, members: 1 };
                let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
                let leads = leader(&cluster);
                let mut others = cluster.mains();
                others.retain(|main| main.as_str() != leads);
                let dead = others.pop().expect("two mains");
                let by = others.pop().filter(|_| !by_member).unwrap_or_else(|| name("m1"));
                let way = counter(&cluster, by.as_str());
                way.send(Add { by: 1 }).await.expect("all is well");
                cluster.crash(&dead);
                tokio::time::sleep(KNOWN_SILENT).await;
                let (crashed, mut longest) = (sim.now(), Duration::ZERO);
                while sim.now() - crashed < Duration::from_millis(600) {
                    let began = sim.now();
                    way.send(Add { by: 1 }).await.expect("the others go on");
                    longest = longest.max(sim.now() - began);
                    tokio::time::sleep(Duration::from_millis(17)).await;
                }
                println!("{mains}+{auxiliaries}, by {by}: {longest:?}");
                assert!(longest < BRIDGED_MAX, "{longest:?}");
            });
        }
    }
}

/// Goal: a leader that hands leadership over does not take it back when it hears of the next one's
/// ballot before that one leads: it would leave as the leader, and everybody would wait until its
/// silence is noticed. Any other main that stands it does stand against.
#[test]
fn a_leader_that_stops_does_not_stand_against_the_next() {
    for stops in [false, true] {
        let mut leader = Standing::new();
        let ballot = leader.asks(0);
        for main in [A, B] {
            leader.promises(main, ballot, &[]);
        }
        if stops {
            leader.tell(A, Resign {});
        }
        leader.said.clear();
        leader.tell(
            B,
            Heartbeat {
                ballot: Ballot { round: ballot.round + 1, node: node(B).incarnation },
                leading: false,
                serving: true,
                chosen_upto: Step(0),
                durable_upto: Step(0),
                epoch: 0,
                program: Program::THIS,
                knows: 0,
                full: false,
            },
        );
        let asks =
            |message: &Message| matches!(message, Message::Acceptor(AcceptorMessage::Prepare(_)));
        assert_eq!(leader.said.iter().any(asks), !stops);
    }
}

/// Goal: a leader whose journal makes no progress steps down although it lives, and writes go on.
#[test]
fn a_leader_whose_disk_hangs_gives_leadership_away() {
    Simulation::new(320).run(|sim| async move {
        let load = Load::start(founded(&sim, Shape::default(), VoteStyle::Split).await, 4);
        let stuck = load.with(|cluster| leader(cluster));
        let other = if stuck == "a" { "b" } else { "a" };
        let hangs = DiskConditions { latency: Duration::from_secs(20), ..Default::default() };
        sim.set_disk_conditions(&name(&stuck), hangs);
        let most = Duration::from_secs(3);
        load.until(most, "the other leads", |cluster| {
            leader_at(cluster, other).as_deref() == Some(other)
        })
        .await;
        let client = load.with(|cluster| counter(cluster, other));
        assert!(client.send(Add { by: 0 }).await.is_ok());
    });
}

/// Goal: a leader that reaches nobody stops taking requests, so that they are *not applied* rather
/// than unknown, and goes on when the link is back.
#[test]
fn a_leader_without_a_quorum_takes_no_requests() {
    Simulation::new(330).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let alone = leader(&cluster);
        let others: Vec<_> = cluster.names().into_iter().filter(|n| n.as_str() != alone).collect();
        sim.partition(&[name(&alone)], &others);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let core = cluster.core(&name(&alone)).unwrap();
        assert!(core.ready().unwrap_err().contains("needs main"), "{:?}", core.ready());
        let client = counter(&cluster, &alone);
        let refused = client.send(Add { by: 1 }).timeout(Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(CallError::NotApplied(_))), "{refused:?}");
        sim.heal();
        let applied = client.send(Add { by: 1 }).timeout(Duration::from_secs(10)).await;
        assert_eq!(applied, Ok(1), "what was not applied is not there");
    });
}

/// Goal: pre-vote and stickiness: a main that cannot hear its leader, but is heard, deposes nobody.
#[test]
fn a_main_with_a_deaf_link_does_not_depose_the_leader() {
    for seed in 340..344 {
        Simulation::new(seed).run(|sim| async move {
            let load = Load::start(founded(&sim, Shape::default(), VoteStyle::Split).await, 2);
            let leads = load.with(|cluster| leader(cluster));
            let deaf = if leads == "a" { "b" } else { "a" };
            let ballot = |cluster: &mut _| {
                let cluster: &synod::sim::Cluster = cluster;
                cluster.core(&name(&leads)).unwrap().reached().leader
            };
            let before = load.with(ballot);
            sim.cut(&name(&leads), &name(deaf));
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(load.with(ballot), before);
            sim.heal();
            load.until_whole().await;
            assert_eq!(load.with(ballot), before);
        });
    }
}
