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
