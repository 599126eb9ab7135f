//! The order by itself: who waits for whom, and what is remembered.

use actix::Handler as _;
use bytes::Bytes;
use synod::{
    replicated::{Moment, Position, Query as _, SessionId, Turn},
    server::config::OnMismatch,
};

use super::*;
use crate::{Apart, Past, Request, Response};

/// The order, and commands one after the other.
#[derive(Default)]
struct Log {
    web: Web,
    position: u64,
}

impl Log {
    fn turn(&mut self) -> Turn {
        self.position += 1;
        let moment = Moment { position: Position(self.position), time_ms: self.position };
        Turn::new(moment, SessionId(1), self.position, 0)
    }

    fn join(&mut self, site: &str, lineage: Option<u64>, applied: u64) -> Joined {
        let (site, upstream) = (site.to_owned(), "http://server".to_owned());
        let on_mismatch = OnMismatch::Alarm;
        let mut turn = self.turn();
        let (recalls, recalled) = (false, None);
        let join = Join {
            site,
            upstream,
            lineage,
            applied,
            lost: 0,
            on_mismatch,
            exports: true,
            recalls,
            recalled,
        };
        self.web.handle(join, &mut turn)
    }

    fn arrange(&mut self, site: &str, epoch: u64, key: Option<&str>, body: &str) -> Arranged {
        let request = Request {
            method: "PUT".to_owned(),
            target: "/x".to_owned(),
            headers: Vec::new(),
            body: Bytes::from(body.to_owned()),
            apart: None,
        };
        let key = key.map(|name| Key { name: name.to_owned(), digest: digest_request(&request) });
        let origin = Origin { site: site.to_owned(), epoch, ticket: self.position };
        let mut turn = self.turn();
        self.web.handle(Arrange { origin, key, request, parts: 0 }, &mut turn)
    }

    fn report(&mut self, site: &str, epoch: u64, seq: u64, verdict: Verdict) -> Reported {
        let done = vec![Done { seq, verdict, response: None }];
        let mut turn = self.turn();
        self.web.handle(Report { site: site.to_owned(), epoch, done, down: None }, &mut turn)
    }

    fn mend(&mut self, site: &str, news: News) -> Result<u64, String> {
        let epoch = self.state(site).epoch;
        let mut turn = self.turn();
        self.web.handle(Mend { site: site.to_owned(), epoch, news }, &mut turn)
    }

    fn state(&self, site: &str) -> &Site {
        &self.web.sites()[site]
    }
}

fn answered(status: u16, digest: &str) -> Verdict {
    Verdict::Answered { status, digest: digest.to_owned() }
}

/// Two sites with a request ordered at a.
fn two() -> (Log, u64, u64) {
    let mut log = Log::default();
    let (a, b) = (log.join("a", None, 0).epoch, log.join("b", None, 0).epoch);
    assert_eq!(log.arrange("a", a, None, "one"), Arranged::At(1));
    (log, a, b)
}

#[test]
fn a_key_has_one_place_at_whichever_site_it_comes_again() {
    let (mut log, a, b) = two();
    assert_eq!(log.arrange("a", a, Some("k"), "two"), Arranged::At(2));
    assert_eq!(log.arrange("b", b, Some("k"), "two"), Arranged::Before { seq: 2 });
    assert_eq!(log.arrange("b", b, Some("k"), "three"), Arranged::KeyReused);
    let past = |log: &Log| log.web.query(Recall { key: "k".to_owned() });
    assert_eq!(past(&log), Past::Ordered { seq: 2 });
    log.report("b", b, 1, answered(201, "x"));
    let response = Response { status: 204, headers: Vec::new(), body: Bytes::new() };
    let kept = Some(Kept::of(&response));
    let done = vec![Done { seq: 2, verdict: answered(204, "y"), response: kept }];
    let mut turn = log.turn();
    log.web.handle(Report { site: "b".to_owned(), epoch: b, done, down: None }, &mut turn);
    assert_eq!(past(&log), Past::Answered { seq: 2, status: 204 });
}

#[test]
fn a_cluster_has_one_order_by_the_log_or_by_a_group() {
    let (mut log, ..) = two();
    let mut turn = log.turn();
    let refused = log.web.handle(Elsewhere {}, &mut turn).unwrap_err();
    assert!(refused.contains("by its log"), "{refused}");
    assert!(!log.web.query(IsElsewhere {}));
    let mut log = Log::default();
    for _ in 0..2 {
        let mut turn = log.turn();
        assert_eq!(log.web.handle(Elsewhere {}, &mut turn), Ok(()));
        let joined = log.join("a", None, 0);
        assert!(joined.quarantined.unwrap().contains("by multicast"));
        assert!(matches!(log.arrange("a", joined.epoch, None, "one"), Arranged::Refused(_)));
    }
    assert!(log.web.query(IsElsewhere {}) && log.web.sites().is_empty());
}

#[test]
fn a_site_that_failed_where_the_other_did_not_is_sent_away_and_the_last_never() {
    let (mut log, a, b) = two();
    log.report("a", a, 1, answered(201, "x"));
    log.report("b", b, 1, answered(507, "full"));
    assert!(log.state("b").quarantined().unwrap().contains("507"));
    assert!(log.report("b", b, 2, answered(201, "x")).stale, "O5: it is not heard any more");
    assert!(matches!(log.arrange("b", b, None, "two"), Arranged::Refused(_)));
    assert_eq!(log.arrange("a", a, None, "two"), Arranged::At(2));
    log.report("a", a, 2, Verdict::Lost("crash".to_owned()));
    assert_eq!((log.state("a").quarantined(), log.state("a").diverged), (None, 1));
    assert!(log.join("b", Some(log.state("b").lineage), 1).quarantined.is_some());
}

#[test]
fn a_site_that_failed_is_sent_away_also_when_the_other_crashed_before_it_told() {
    let (mut log, _, b) = two();
    log.report("b", b, 1, answered(507, "full"));
    let joined = log.join("a", Some(log.state("a").lineage), 1);
    assert_eq!((joined.applied, joined.quarantined), (1, None));
    assert!(log.state("b").quarantined().unwrap().contains("507"));
}

#[test]
fn of_two_that_differ_the_one_whose_client_was_answered_is_believed() {
    let (mut log, a, b) = two();
    log.report("b", b, 1, answered(201, "y"));
    log.report("a", a, 1, answered(201, "x"));
    assert_eq!((log.state("a").diverged, log.state("b").diverged), (0, 1));
    assert_eq!(log.state("b").quarantined(), None, "it is an alarm only");
    assert_eq!(log.arrange("b", b, None, "two"), Arranged::At(2));
    log.report("a", a, 2, Verdict::Redone { status: 404 });
    log.report("b", b, 2, answered(204, "z"));
    assert_eq!(log.state("a").diverged, 0, "what was performed again may be answered otherwise");
}

#[test]
fn a_site_that_died_is_waited_for_within_bounds_and_then_left_behind() {
    let (mut log, a, b) = two();
    for seq in 1..=BACKLOG_STEPS_MAX {
        log.report("a", a, seq, answered(201, "x"));
        let arranged = log.arrange("a", a, None, "more");
        assert_eq!(arranged, Arranged::At(seq + 1), "a goes on");
        assert!(log.web.step(seq).is_some() || log.state("b").quarantined().is_some());
    }
    assert!(log.state("b").quarantined().unwrap().contains("too far behind"));
    assert!(log.report("b", b, 1, answered(201, "x")).stale);
    // And nobody else is: a server that hangs stops what is new.
    for _ in 0..BACKLOG_STEPS_MAX {
        log.arrange("a", a, None, "more");
    }
    assert!(matches!(log.arrange("a", a, None, "more"), Arranged::Refused(_)));
    assert_eq!(log.state("a").quarantined(), None);
}

#[test]
fn a_life_goes_on_where_its_notes_say_and_a_site_without_notes_is_not_trusted() {
    let (mut log, a, _) = two();
    let lineage = log.state("a").lineage;
    let again = log.join("a", Some(lineage), 1);
    assert_eq!((again.applied, again.last, again.quarantined), (1, 1, None));
    assert!(log.report("a", a, 1, answered(201, "x")).stale, "that was another life");
    assert!(log.join("a", None, 0).quarantined.unwrap().contains("lost its notes"));
    // What an operator made good is: at the number that was copied.
    let wish = Wish::Rejoin { at: 1 };
    let mut turn = log.turn();
    assert_eq!(log.web.handle(Tend { site: "a".to_owned(), wish }, &mut turn), Ok(1));
    assert_ne!(log.state("a").lineage, lineage);
    let joined = log.join("a", Some(lineage), 0);
    assert_eq!((joined.applied, joined.quarantined), (1, None));
}

#[test]
fn what_a_site_lost_is_heard_even_if_it_crashes_before_it_told() {
    let (mut log, a, b) = two();
    log.report("a", a, 1, answered(201, "x"));
    let lost = |log: &Log, site: &str, lost: u64| Join {
        site: site.to_owned(),
        upstream: String::new(),
        lineage: Some(log.state(site).lineage),
        applied: 1,
        lost,
        on_mismatch: OnMismatch::Alarm,
        exports: false,
        recalls: false,
        recalled: None,
    };
    let mut turn = log.turn();
    let told = lost(&log, "a", 1);
    assert_eq!(log.web.handle(told, &mut turn).quarantined, None, "it was heard of before");
    let untold = lost(&log, "b", 1);
    assert!(log.web.handle(untold, &mut turn).quarantined.unwrap().contains("nobody knows"));
    assert!(log.report("b", b, 1, answered(201, "x")).stale);
}

#[test]
fn a_large_body_comes_in_pieces_and_half_a_body_is_refused() {
    let (mut log, a, _) = two();
    let origin = Origin { site: "a".to_owned(), epoch: a, ticket: 77 };
    let request = Request {
        method: "PUT".to_owned(),
        target: "/x".to_owned(),
        headers: Vec::new(),
        body: Bytes::new(),
        apart: None,
    };
    let part = |index: u32, bytes: &'static str| Part {
        origin: origin.clone(),
        index,
        bytes: bytes.into(),
    };
    let arrange = Arrange { origin: origin.clone(), key: None, request, parts: 2 };
    let mut turn = log.turn();
    assert_eq!(log.web.handle(part(0, "ab"), &mut turn), Ok(()));
    let refused = log.web.handle(arrange.clone(), &mut turn);
    assert!(matches!(refused, Arranged::Refused(why) if why.contains("missing")));
    assert!(log.web.handle(part(1, "cd"), &mut turn).is_err(), "the first is gone");
    assert_eq!(log.web.handle(part(0, "ab"), &mut turn), Ok(()));
    assert_eq!(log.web.handle(part(1, "cd"), &mut turn), Ok(()));
    assert_eq!(log.web.handle(arrange, &mut turn), Arranged::At(2));
    assert_eq!(&log.web.step(2).unwrap().whole().body[..], b"abcd");
}

#[test]
fn a_body_is_wanted_from_its_announcement_on_until_the_last_request_that_has_it_goes() {
    let (mut log, a, b) = two();
    let apart = |digest: &str, bytes| Apart { digest: digest.to_owned(), bytes, held: None };
    let announce = |log: &mut Log, ticket, body: Apart| {
        let origin = Origin { site: "a".to_owned(), epoch: a, ticket };
        let mut turn = log.turn();
        log.web.handle(Announce { origin, body }, &mut turn)
    };
    let arrange = |log: &mut Log, ticket, body: Apart| {
        let origin = Origin { site: "a".to_owned(), epoch: a, ticket };
        let (method, target) = ("PUT".to_owned(), "/x".to_owned());
        let (headers, body, apart) = (Vec::new(), Bytes::new(), Some(body));
        let request = Request { method, target, headers, body, apart };
        let mut turn = log.turn();
        log.web.handle(Arrange { origin, key: None, request, parts: 0 }, &mut turn)
    };
    let large = apart("large", TAIL_BYTES_MAX + 1);
    let early = arrange(&mut log, 1, large.clone());
    assert!(matches!(early, Arranged::Refused(why) if why.contains("missing")), "nobody keeps it");
    assert!(!log.web.wants("large"));
    assert_eq!(announce(&mut log, 2, large.clone()), Ok(()));
    assert!(log.web.wants("large"));
    let other = arrange(&mut log, 2, apart("other", 5));
    assert!(matches!(other, Arranged::Refused(_)), "another was announced");
    assert!(!log.web.wants("large"), "that was all");
    assert_eq!(announce(&mut log, 3, large.clone()), Ok(()));
    log.position += 61_000;
    let late = arrange(&mut log, 3, large.clone());
    assert!(matches!(late, Arranged::Refused(_)), "it is forgotten after a minute");
    for ticket in 4..6 {
        assert_eq!(announce(&mut log, ticket, large.clone()), Ok(()));
        assert_eq!(arrange(&mut log, ticket, large.clone()), Arranged::At(ticket - 2));
    }
    assert_eq!(log.web.step(2).unwrap().whole().apart, Some(large));
    for seq in 1..4 {
        assert!(log.web.wants("large"), "request {seq} is not performed everywhere");
        log.report("a", a, seq, answered(201, "x"));
        log.report("b", b, seq, answered(201, "x"));
    }
    assert!(!log.web.wants("large"), "too large for the tail");
    announce(&mut log, 9, apart("last", 5)).unwrap();
    log.join("a", None, 3);
    assert!(!log.web.wants("last"), "nobody of that life asks any more");
}

/// Two sites of which b is quarantined, and a rebuild of it that has begun.
fn rebuilding() -> (Log, u64, u64) {
    let (mut log, a, b) = two();
    assert!(log.mend("b", News::Wanted).is_err(), "a site that serves is not rebuilt");
    log.report("a", a, 1, answered(201, "x"));
    log.report("b", b, 1, answered(507, "full"));
    let id = log.mend("b", News::Wanted).unwrap();
    assert_eq!((log.web.to_copy("a"), log.web.to_copy("b")), (Some(id), None));
    (log, a, id)
}

fn copied(id: u64, at: u64) -> News {
    News::Copied { id, copy: Copied { at, bytes: 5, digest: "d".to_owned() } }
}

#[test]
fn a_rebuilt_site_goes_on_after_the_copy_and_all_that_came_since_is_kept_for_it() {
    let (mut log, a, id) = rebuilding();
    assert!(log.mend("b", copied(id, 1)).is_err(), "only the source tells of the copy");
    assert!(log.mend("b", News::Taken { id }).is_err(), "there is no copy yet");
    assert_eq!(log.mend("a", copied(id, 1)), Ok(id));
    assert_eq!(log.web.to_copy("a"), None, "a goes on");
    let after = TAIL_STEPS_MAX + 100;
    for seq in 2..=after {
        assert_eq!(log.arrange("a", a, None, "more"), Arranged::At(seq));
        log.report("a", a, seq, answered(204, "x"));
    }
    assert!(log.web.step(2).is_some(), "O7");
    assert!(log.mend("a", News::Taken { id }).is_err(), "only the taker has taken it");
    let epoch = log.state("b").epoch;
    assert_eq!(log.mend("b", News::Taken { id }), Ok(1));
    let b = log.state("b");
    assert_eq!((b.quarantined(), b.applied, b.until, &b.rebuild), (None, 1, after, &None));
    let b = b.epoch;
    assert!(log.report("b", epoch, 2, answered(204, "x")).stale, "that was another life");
    for seq in 2..=after {
        assert_eq!(log.report("b", b, seq, answered(204, "x")).applied, seq);
    }
    assert!(log.web.step(2).is_none(), "it is needed no more");
    assert_eq!(log.state("b").diverged, 0);
}

#[test]
fn a_rebuild_ends_when_its_copy_may_be_none_or_costs_too_much() {
    let (mut log, a, id) = rebuilding();
    let lineage = Some(log.state("a").lineage);
    log.join("a", lineage, 1);
    assert!(log.web.rebuild(id).is_none(), "what a copied died with it");
    assert!(log.state("b").trouble.as_ref().unwrap().contains("another life"));
    assert!(log.mend("a", copied(id, 1)).is_err(), "O6: it may have gone on since");
    let a = log.state("a").epoch.max(a);
    let id = log.mend("b", News::Wanted).unwrap();
    let newer = log.mend("b", News::Wanted).unwrap();
    assert!(log.web.rebuild(id).is_none() && newer > id, "the last counts");
    assert_eq!(log.mend("a", News::Failed { id: newer, why: "no disk".to_owned() }), Ok(newer));
    assert_eq!(log.state("b").trouble.as_deref(), Some("no disk"));
    assert_eq!(log.web.to_copy("a"), None);
    // While it is copied a performs nothing, and while the copy is taken in all that is new is kept.
    for told in [false, true] {
        let id = log.mend("b", News::Wanted).unwrap();
        if told {
            let at = log.state("a").applied;
            log.mend("a", copied(id, at)).unwrap();
        }
        for _ in 0..=BACKLOG_STEPS_MAX {
            match log.arrange("a", a, None, "more") {
                Arranged::At(seq) if told => drop(log.report("a", a, seq, answered(204, "x"))),
                Arranged::At(_) => {}
                other => assert!(!told, "{other:?}: only a still server holds up what is new"),
            }
        }
        assert!(log.web.rebuild(id).is_none(), "it is given up");
        for seq in log.state("a").applied + 1..=log.web.last() {
            log.report("a", a, seq, answered(204, "x"));
        }
    }
    assert_eq!(log.state("a").quarantined(), None);
}

#[test]
fn a_site_that_cannot_be_copied_is_not() {
    let (mut log, _, id) = rebuilding();
    log.mend("a", News::Failed { id, why: "no".to_owned() }).unwrap();
    let join = Join {
        site: "a".to_owned(),
        upstream: String::new(),
        lineage: Some(log.state("a").lineage),
        applied: 1,
        lost: 0,
        on_mismatch: OnMismatch::Alarm,
        exports: false,
        recalls: false,
        recalled: None,
    };
    let mut turn = log.turn();
    log.web.handle(join, &mut turn);
    assert!(log.mend("b", News::Wanted).unwrap_err().contains("no other site"));
}

#[test]
fn a_server_that_knows_what_it_performed_is_believed_as_far_as_it_can_be_caught_up() {
    let (mut log, a, _) = two();
    for _ in 0..3 {
        log.arrange("a", a, None, "x");
    }
    for seq in 1..=3 {
        log.report("a", a, seq, answered(200, "x"));
    }
    let lineage = log.state("a").lineage;
    let mut join = |applied: u64, recalled: Option<u64>| {
        let join = Join {
            site: "a".to_owned(),
            upstream: String::new(),
            lineage: recalled.map(|_| lineage),
            applied,
            lost: 0,
            on_mismatch: OnMismatch::Alarm,
            exports: false,
            recalls: true,
            recalled,
        };
        let mut turn = log.turn();
        log.web.handle(join, &mut turn)
    };
    // Its notes may be gone: the server itself is asked.
    let Joined { quarantined, order, .. } = join(0, None);
    assert_eq!((quarantined, order > 0), (None, true));
    let behind = join(0, Some(1));
    assert_eq!((behind.applied, behind.quarantined, behind.order), (1, None, order));
    let again = join(1, Some(3));
    assert_eq!((again.applied, again.quarantined), (3, None));
    // What nobody ordered it cannot have performed.
    assert!(join(3, Some(9)).quarantined.unwrap().contains("what came next is gone"));
}
