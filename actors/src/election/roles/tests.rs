use std::time::Duration;

use super::*;

fn client(number: u64, name: &str) -> Client {
    let key = ClientKey { service: 7, number };
    Client { key, name: name.to_owned(), node: "a".to_owned() }
}

fn take(number: u64, name: &str, priority: u8, stand: bool) -> Op {
    let terms = Terms::new(Duration::from_secs(2), priority).unwrap();
    Op::Take { role: "jobs".to_owned(), client: client(number, name), terms, stand }
}

/// A store, and the position of its last command.
#[derive(Default)]
struct Log(Roles, u64, Vec<Change>);

impl Log {
    fn run(&mut self, op: Op) -> Said {
        self.1 += 1;
        self.0.apply(Position(self.1), op, &mut self.2)
    }

    fn leader(&self) -> Option<String> {
        self.0.named("jobs").unwrap().holder().map(|holder| holder.client.name)
    }

    fn tenure(&self) -> Tenure {
        self.0.named("jobs").unwrap().tenure.clone().unwrap()
    }

    fn epoch(&self) -> Epoch {
        self.0.named("jobs").unwrap().epoch
    }

    fn jobs(&self) -> RoleId {
        self.0.iter().find(|(_, role)| role.name == "jobs").unwrap().0
    }

    fn renew(&mut self, held: &[(RoleId, Epoch)], stood: &[(RoleId, u64)]) -> Exceptions {
        let renew = Renew { service: 7, held: held.to_vec(), stood: stood.to_vec() };
        match self.run(Op::Renew(renew)) {
            Said::Renewed(exceptions) => exceptions,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_has_the_role_and_the_others_stand_by_priority_and_order() {
    let mut log = Log::default();
    assert!(
        matches!(log.run(take(1, "one", 0, false)), Said::Granted(grant) if grant.epoch.0 == 1)
    );
    assert!(
        matches!(log.run(take(2, "two", 0, false)), Said::Held(_, holder) if holder.client.name == "one")
    );
    for (number, name, priority) in [(2, "two", 0), (3, "three", 0), (4, "four", 5)] {
        assert!(matches!(log.run(take(number, name, priority, true)), Said::Standing(..)));
    }
    let names: Vec<_> =
        log.0.named("jobs").unwrap().view().volunteers.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["four", "two", "three"]);
    assert_eq!(log.run(Op::Resign { role: "jobs".to_owned(), epoch: Epoch(1) }), Said::Done);
    assert_eq!((log.leader().as_deref(), log.epoch()), (Some("four"), Epoch(6)));
    assert!(!log.tenure().confirmed, "it has not asked at this moment");
}

#[test]
fn only_the_epoch_renews_and_resigns() {
    let mut log = Log::default();
    log.run(take(1, "one", 0, false));
    let jobs = log.jobs();
    assert_eq!(log.renew(&[(jobs, Epoch(1))], &[]), Exceptions::default());
    assert_eq!(log.tenure().renewal, Position(2));
    let other = Renew { service: 8, held: vec![(jobs, Epoch(1))], stood: vec![] };
    assert!(matches!(log.run(Op::Renew(other)), Said::Renewed(e) if e.lost == [0]));
    assert_eq!(log.renew(&[(jobs, Epoch(9))], &[]).lost, [0]);
    let resign = Op::Resign { role: "jobs".to_owned(), epoch: Epoch(9) };
    assert!(matches!(log.run(resign), Said::Refused(Refusal::NotHeld { .. })));
    assert!(matches!(log.run(take(1, "one", 0, true)), Said::Held(..)), "even its own");
    assert_eq!(log.tenure().renewal, Position(2));
}

#[test]
fn an_expiry_counts_from_the_renewal_that_it_names() {
    let mut log = Log::default();
    log.run(take(1, "one", 0, false));
    log.run(take(2, "two", 0, true));
    let (jobs, epoch) = (log.jobs(), Epoch(1));
    log.renew(&[(jobs, epoch)], &[(jobs, 2)]);
    log.run(Op::Expire { role: jobs, epoch, renewal: Position(1) });
    assert_eq!(log.leader().as_deref(), Some("one"), "it was renewed since");
    log.run(Op::Drop { role: jobs, client: client(2, "").key, renewal: Position(2) });
    assert_eq!(log.0.named("jobs").unwrap().volunteers.len(), 1, "so was who stands");
    log.run(Op::Expire { role: jobs, epoch, renewal: Position(3) });
    assert_eq!(log.leader().as_deref(), Some("two"));
    // Who stood learns of it by its renewal, which renews nothing yet.
    let learnt = log.renew(&[(jobs, epoch)], &[(jobs, 2)]);
    assert_eq!((&learnt.lost[..], learnt.granted[0].1.epoch), (&[0][..], log.epoch()));
    assert!(!log.tenure().confirmed);
    let epoch = log.epoch();
    log.renew(&[(jobs, epoch)], &[]);
    assert!(log.tenure().confirmed);
    log.run(Op::Expire { role: jobs, epoch, renewal: log.tenure().renewal });
    assert_eq!((log.leader(), log.0.standing), (None, 0));
}

#[test]
fn epochs_rise_for_ever_through_removals_and_other_stores() {
    let mut log = Log::default();
    let role = || "jobs".to_owned();
    assert_eq!(log.run(Op::Fence { role: role(), epoch: Epoch(50) }), Said::Done);
    assert!(
        matches!(log.run(take(1, "one", 0, false)), Said::Granted(grant) if grant.epoch == Epoch(51))
    );
    assert_eq!(log.run(Op::Remove { role: role() }), Said::Done);
    assert!(matches!(log.run(take(2, "two", 0, true)), Said::Refused(Refusal::Removing(_))));
    let jobs = log.jobs();
    assert_eq!(log.renew(&[(jobs, Epoch(51))], &[]).lost, [0], "it is to go");
    let renewal = log.tenure().renewal;
    log.run(Op::Expire { role: jobs, epoch: Epoch(51), renewal });
    assert!(log.0.named("jobs").is_none());
    assert!(matches!(
        log.run(Op::Fence { role: role(), epoch: Epoch(50) }),
        Said::Refused(Refusal::Fenced { known: Epoch(51), .. })
    ));
    assert!(
        matches!(log.run(take(3, "three", 0, false)), Said::Granted(grant) if grant.epoch == Epoch(52))
    );
    assert_ne!(log.jobs(), jobs, "a late renewal of the old one must not meet the new one");
    assert!(matches!(
        log.run(Op::Remove { role: "none".to_owned() }),
        Said::Refused(Refusal::UnknownRole(_))
    ));
}

#[test]
fn whoever_has_ended_leaves_and_only_it() {
    let mut log = Log::default();
    log.run(take(1, "same", 0, true));
    log.run(take(2, "same", 0, true));
    log.run(Op::Leave { role: "jobs".to_owned(), client: client(3, "same").key });
    assert_eq!((log.epoch(), log.0.standing), (Epoch(1), 1));
    log.run(Op::Leave { role: "jobs".to_owned(), client: client(1, "same").key });
    assert_eq!((log.epoch(), log.0.standing), (Epoch(4), 0));
    assert_eq!(log.tenure().client.key.number, 2);
    // Whoever knows name and epoch may go on by way of another node, and then only there.
    let moved = Client { key: ClientKey { service: 9, number: 1 }, ..client(0, "same") };
    let adopt = |epoch| Op::Adopt { role: "jobs".to_owned(), epoch, client: moved.clone() };
    assert!(matches!(log.run(adopt(Epoch(1))), Said::Refused(Refusal::NotHeld { .. })));
    assert!(matches!(log.run(adopt(Epoch(4))), Said::Granted(_)));
    let jobs = log.jobs();
    assert_eq!(log.renew(&[(jobs, Epoch(4))], &[]).lost, [0]);
}

#[test]
fn bad_names_and_more_than_fits_are_refused() {
    let mut log = Log::default();
    for name in ["", "a b", "a\n", &"x".repeat(256)] {
        let said = log.run(Op::Add { role: name.to_owned() });
        assert!(matches!(said, Said::Refused(Refusal::BadName { .. })), "{name:?}: {said:?}");
    }
    let epoch = Epoch(u64::MAX);
    let said = log.run(Op::Fence { role: "jobs".to_owned(), epoch });
    assert!(matches!(said, Said::Refused(Refusal::BadEpoch(_))));
    for number in 0..=VOLUNTEERS_MAX as u64 {
        log.run(take(number, "one", 0, true));
    }
    assert!(matches!(log.run(take(999, "one", 0, true)), Said::Refused(Refusal::Full(_))));
    assert_eq!(log.0.standing, VOLUNTEERS_MAX);
}
