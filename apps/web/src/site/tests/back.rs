//! The order goes back under a site that lives, as when a backup is restored.

use super::*;
use crate::order::{Tend, Wish};

/// Goal: places that are given again are not taken for what was performed under them. Method: a site
/// performs six requests, then its replica has the state of when there were three.
#[test]
fn a_site_whose_order_went_back_begins_another_life_and_skips_nothing() {
    Simulation::new(1).run(|sim| async move {
        let walk = Walk::new(&sim, 1, CALM);
        walk.boot("a");
        let site = walk.site("a").unwrap();
        let put = async |number: u32| site.perform(request(number), Identity::Made).await;
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

/// Goal: a backup of another cluster is never taken for what a site's own server performed, also where
/// the site's life has the same epoch there, or a later one here, or where its replica came to its
/// life and to the backup in one turn. Method: four requests at a site of one order; the state of that
/// under a site that has just joined another order, at once or when it has settled, alone or second.
#[test]
fn a_site_under_another_clusters_order_is_quarantined() {
    let state = Simulation::new(1).run(|sim| async move {
        let walk = Walk::new(&sim, 1, CALM);
        walk.log.lock().unwrap().seed = 8;
        walk.boot("a");
        let site = walk.site("a").unwrap();
        for number in 1..=4 {
            site.perform(request(number), Identity::Made).await.unwrap();
        }
        // It has told the others by then.
        sleep(Duration::from_secs(1)).await;
        site.abort();
        walk.log.lock().unwrap().everywhere().remove(0)
    });
    for (settled, joined) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let state = state.clone();
        Simulation::new(1).run(move |sim| async move {
            let walk = Walk::new(&sim, 1, CALM);
            for (at, site) in ["b", "a"][1 - joined..].iter().enumerate() {
                walk.boot(site);
                while walk.log.lock().unwrap().len() <= at {
                    sleep(Duration::from_micros(50)).await;
                }
            }
            if settled {
                sleep(Duration::from_secs(1)).await;
            }
            walk.log.lock().unwrap().go_back(&state);
            sleep(Duration::from_secs(1)).await;
            let (site, desk) = walk.sites.borrow()["a"].clone();
            let away = desk.read(|web| web.sites()["a"].quarantined().map(str::to_owned)).unwrap();
            let shown = away.as_ref().is_some_and(|why| why.contains("lost its notes"));
            assert!(shown, "settled {settled}, after {joined}: {away:?}");
            let answer = site.perform(request(5), Identity::Made).await;
            assert!(matches!(&answer, Err(OrderError::NotApplied(_))), "{answer:?}");
            walk.sites.borrow().values().for_each(|(site, _)| site.abort());
        });
    }
}

/// Goal: what failed at a place that is given again keeps nobody waiting for it (S7). Method: the fourth of
/// four requests fails, under a key; the order goes back to the third, and the site rejoins it there.
#[test]
fn what_failed_in_an_order_that_went_back_is_not_waited_for() {
    Simulation::new(1).run(|sim| async move {
        let walk = Walk::new(&sim, 1, CALM);
        walk.boot("a");
        let site = walk.site("a").unwrap();
        for number in 1..=3 {
            site.perform(request(number), Identity::Made).await.unwrap();
        }
        // It has told the others by then.
        sleep(Duration::from_secs(1)).await;
        let state = walk.log.lock().unwrap().everywhere().remove(0);
        walk.servers["a"].full.set(true);
        let failed = site.perform(request(4), Identity::Key("k".into())).await.unwrap();
        assert_eq!((failed.seq, failed.response.status), (4, 507));
        walk.servers["a"].full.set(false);
        sleep(Duration::from_secs(1)).await;
        walk.log.lock().unwrap().go_back(&state);
        sleep(Duration::from_secs(1)).await;
        assert!(site.fresh(Fresh::Linearizable).await.is_err(), "it is quarantined");
        let wish = Wish::Rejoin { at: 3 };
        let rejoined = site.0.order.send(Tend { site: "a".to_owned(), wish }).await.unwrap();
        assert_eq!(rejoined, Ok(3));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(site.fresh(Fresh::Linearizable).await, Ok(3));
        let next = site.perform(request(5), Identity::Made).await;
        assert_eq!(next.map(|answer| answer.seq), Ok(4));
        site.abort();
    });
}

fn request(number: u32) -> Request {
    Request {
        method: "PUT".to_owned(),
        target: "/x".to_owned(),
        headers: Vec::new(),
        body: number.to_string().into(),
        apart: None,
    }
}
