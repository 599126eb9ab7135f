use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    replicated::{CallError, Handle},
    sim::witness::{Length, NAME, Witness},
};

async fn whole(sim: &Simulation) -> Cluster {
    let blueprint = Blueprint::hosting::<Witness>(NAME);
    let mut cluster = Cluster::new(sim, Shape::default(), blueprint);
    cluster.start_all().unwrap();
    while cluster.is_whole().is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    cluster
}

#[test]
fn a_call_ends_when_its_node_stops_and_so_does_one_made_after_that() {
    Simulation::new(1).run(|sim| async move {
        let mut cluster = whole(&sim).await;
        let a = "a".parse().unwrap();
        let witness = Handle::<Witness>::new(cluster.submit(&a).unwrap(), NAME);
        sim.pause(&a); // no answer comes
        let open = actix_rt::spawn({
            let witness = witness.clone();
            async move { witness.query(Length { list: 0 }).await }
        });
        sleep(Duration::from_millis(10)).await;
        let before = Instant::now();
        cluster.crash(&a);
        let ended = timeout(Duration::from_secs(60), open).await.expect("it ends").unwrap();
        assert!(matches!(ended, Err(CallError::Unknown(_))), "{ended:?}");
        let late = timeout(Duration::from_secs(60), witness.query(Length { list: 0 })).await;
        let late = late.expect("it ends too");
        assert!(matches!(late, Err(CallError::NotApplied(_))), "{late:?}");
        assert_eq!(before.elapsed(), Duration::ZERO, "nobody has to wait for a deadline");
    });
}

#[test]
fn a_client_of_a_main_that_stopped_is_served_by_another() {
    Simulation::new(2).run(|sim| async move {
        let mut cluster = whole(&sim).await;
        let [a, b] = ["a", "b"].map(|name| name.parse().unwrap());
        let witness = Handle::<Witness>::new(cluster.client(&a), NAME);
        assert_eq!(witness.query(Length { list: 0 }).await, Ok(0));
        cluster.crash(&a);
        assert_eq!(witness.query(Length { list: 0 }).await, Ok(0));
        cluster.crash(&b);
        let nobody = witness.query(Length { list: 0 }).await;
        assert!(matches!(nobody, Err(CallError::NotApplied(_))), "{nobody:?}");
        cluster.start_all().unwrap();
        while cluster.is_whole().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(witness.query(Length { list: 0 }).await, Ok(0));
    });
}

/// Goal: who dies is down in everybody's view, decided once, and up again soon after it is back; while
/// nothing fails there is one view and monitors say nothing.
#[test]
fn views_follow_who_dies_and_who_comes_back() {
    Simulation::new(3).run(|sim| async move {
        let blueprint = Blueprint::hosting::<Witness>(NAME);
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let mut cluster = Cluster::new(&sim, shape, blueprint);
        cluster.start_all().unwrap();
        while cluster.is_whole().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        let [a, b, m1, m2, x] = ["a", "b", "m1", "m2", "x"].map(|name| name.parse().unwrap());
        let view = |cluster: &Cluster, at: &NodeName| cluster.core(at).unwrap().views().now();
        sleep(Duration::from_secs(20)).await;
        let calm = view(&cluster, &a);
        assert!([&a, &b, &m1, &m2, &x].into_iter().all(|node| calm.is_up(node)), "{calm:?}");
        assert_eq!(calm.id.verdicts, 0);
        for node in [&a, &b, &m1, &m2] {
            assert_eq!(view(&cluster, node), calm);
            let metrics = cluster.core(node).unwrap().node().metrics().render();
            let monitor = "synod_protocol_messages_received_total{role=\"monitor\"} 0";
            assert!(metrics.contains(monitor), "{metrics}");
        }
        // A member, the auxiliary, and a main, which the others vote out.
        for gone in [&m1, &x, &b] {
            let before = view(&cluster, &a).id;
            cluster.crash(gone);
            // An auxiliary says little, and is given more time.
            sleep(Duration::from_secs(20)).await;
            for node in [&a, &m2] {
                let seen = view(&cluster, node);
                assert!(!seen.is_up(gone) && seen.id > before, "{gone} at {node}: {seen:?}");
                let shown = cluster.core(node).unwrap().status();
                let rows = shown["nodes"].as_array().unwrap();
                let row = rows.iter().find(|row| row["name"] == gone.as_str()).unwrap();
                assert_eq!(row["state"], "down", "{gone} at {node}");
                assert_eq!(shown["view"], seen.id.number());
            }
            cluster.start(gone).unwrap();
            sleep(Duration::from_secs(25)).await;
            let seen = view(&cluster, &a);
            let up = [&a, &b, &m1, &m2, &x].into_iter().all(|node| seen.is_up(node));
            assert!(up, "after {gone}: {seen:?}");
            assert_eq!(view(&cluster, &m2), seen);
        }
    });
}

/// Goal: a minority comes to no view of its own, and to all that it missed once it is back.
#[test]
fn whoever_is_cut_off_comes_to_no_view_of_its_own() {
    Simulation::new(4).run(|sim| async move {
        let cluster = whole(&sim).await;
        let [a, b, x]: [NodeName; 3] = ["a", "b", "x"].map(|name| name.parse().unwrap());
        let view = |at: &NodeName| cluster.core(at).unwrap().views().now();
        let before = view(&a);
        sim.partition(std::slice::from_ref(&a), &[b.clone(), x]);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(view(&a), before);
        assert!(!view(&b).is_up(&a));
        sim.heal();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(view(&a), view(&b));
        assert!(view(&b).is_up(&a));
    });
}
