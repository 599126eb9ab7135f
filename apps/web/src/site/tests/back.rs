//! The order goes back under a site that lives, as when a backup is restored.

use super::*;

/// Goal: places that are given again are not taken for what was performed under them. Method: a site
/// performs six requests, then its replica has the state of when there were three.
#[test]
fn a_site_whose_order_went_back_begins_another_life_and_skips_nothing() {
    Simulation::new(1).run(|sim| async move {
        let walk = Walk::new(&sim, 1, CALM);
        walk.boot("a");
        let site = walk.site("a").unwrap();
        let put = async |number: u32| {
            let request = Request {
                method: "PUT".to_owned(),
                target: "/x".to_owned(),
                headers: Vec::new(),
                body: number.to_string().into(),
                apart: None,
            };
            site.perform(request, Identity::Made).await
        };
        let mut state = Vec::new();
        for number in 1..=6 {
            assert_eq!(put(number).await.map(|answer| answer.seq), Ok(u64::from(number)));
            if number == 3 {
                // It has told the others by then.
                sleep(Duration::from_secs(1)).await;
                state = walk.log.lock().unwrap().everywhere().remove(0);
            }
        }
        sleep(Duration::from_secs(1)).await;
        walk.log.lock().unwrap().go_back(&state);
        sleep(Duration::from_secs(1)).await;
        let answer = put(7).await;
        assert!(matches!(&answer, Err(OrderError::NotApplied(_))), "{answer:?}");
        let (_, desk) = walk.sites.borrow()["a"].clone();
        let (last, away) = desk
            .read(|web| (web.last(), web.sites()["a"].quarantined().map(str::to_owned)))
            .unwrap();
        assert_eq!(last, 3, "nothing was ordered");
        assert!(away.is_some_and(|why| why.contains("what came next is gone")));
        site.abort();
    });
}
