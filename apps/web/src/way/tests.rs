//! Where whoever asks a node is sent.

use actix::System;
use synod::{
    replicated::{CallError, Handle, local::LocalLog},
    server::config::OnMismatch,
};

use super::*;
use crate::order::{Join, Last, Tend, Web, Wish};

/// A log and a group, and the way to one of them.
struct Ways {
    log: Arc<LocalLog>,
    group: Arc<LocalLog>,
    way: Handle<Web>,
}

impl Ways {
    fn new() -> Self {
        let [(log, _), (group, _)] = [0, 1].map(|_| LocalLog::with::<Web>(NAME));
        let way = WayIn::new(Arc::clone(&log) as _, Arc::clone(&group) as _);
        Self { log, group, way: Handle::new(Arc::new(way), NAME) }
    }

    /// Which of them knows that site.
    async fn know(&self, site: &str) -> [bool; 2] {
        let mut known = [false; 2];
        for (known, one) in known.iter_mut().zip([&self.log, &self.group]) {
            let one = Handle::<Web>::new(Arc::clone(one) as _, NAME);
            let tend = Tend { site: site.to_owned(), wish: Wish::Release };
            *known = one.send(tend).await.unwrap().is_ok();
        }
        known
    }
}

fn join(site: &str) -> Join {
    Join {
        site: site.to_owned(),
        upstream: "http://server".to_owned(),
        lineage: None,
        applied: 0,
        lost: 0,
        on_mismatch: OnMismatch::Alarm,
        exports: false,
        recalls: false,
        recalled: None,
    }
}

#[test]
fn whoever_asks_a_node_comes_to_the_order_that_there_is() {
    System::new().block_on(async {
        let ways = Ways::new();
        assert!(!ways.way.query(IsElsewhere {}).await.unwrap());
        ways.way.send(join("a")).await.unwrap();
        assert_eq!(ways.know("a").await, [true, false]);
        assert!(ways.way.send(Elsewhere {}).await.unwrap().is_err(), "it is by the log");

        let ways = Ways::new();
        for _ in 0..2 {
            // Said once more it is no word to the group.
            assert_eq!(ways.way.send(Elsewhere {}).await, Ok(Ok(())));
        }
        assert!(ways.way.query(IsElsewhere {}).await.unwrap());
        ways.way.send(join("b")).await.unwrap();
        assert_eq!(ways.know("b").await, [false, true]);
        assert_eq!(ways.way.query(Last {}).await, Ok(0));
        ways.log.refuse(Some(Outcome::NotApplied("no quorum".into())));
        let refused = ways.way.send(join("c")).await.unwrap_err();
        assert!(matches!(refused, CallError::NotApplied(_)), "{refused}");
        assert!(ways.way.query(Last {}).await.is_err());
        ways.log.refuse(None);
        assert_eq!(ways.know("c").await, [false, false]);
    });
}
