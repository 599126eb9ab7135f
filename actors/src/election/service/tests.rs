use std::time::Duration;

use synod_runtime::identity::{Incarnation, NodeId};

use super::*;
use crate::{
    election::{
        message::{Change, Exceptions, Said},
        roles::Roles,
    },
    replicated::Position,
};

const LEASE: Duration = Duration::from_secs(1);

/// A service before a store, at a time of the test's choice.
struct Bench {
    service: Service,
    roles: Roles,
    position: u64,
    now: Instant,
    told: Vec<(u64, Event)>,
    commands: Vec<(u64, Vec<Op>)>,
    changes: Vec<Change>,
}

impl Bench {
    fn new() -> Self {
        let service = Service::new("a", 7);
        let now = Instant::from_nanos(1_000_000_000);
        let (told, commands, changes) = (vec![], vec![], vec![]);
        Self { service, roles: Roles::default(), position: 0, now, told, commands, changes }
    }

    fn say(&mut self, message: ServiceMessage) {
        let me = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let mut out = Effects::default();
        let now = Now { at: self.now, wall_ms: 0 };
        self.service.message(now, &me, message, &mut out);
        self.service.flush(now, &mut out);
        self.take(out);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut out = Effects::default();
        self.service.timeout(Now { at: self.now, wall_ms: 0 }, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Effects<Service>) {
        for letter in out.now {
            match letter.message {
                Word::Tell(handle, event) => self.told.push((handle, event)),
                Word::Command { flight, ops } => self.commands.push((flight, ops)),
            }
        }
    }

    /// Executes the oldest command; its answer is still to come.
    #[track_caller]
    fn execute(&mut self) -> (u64, Vec<Said>) {
        let (flight, ops) = self.commands.remove(0);
        self.position += 1;
        let (at, changes) = (Position(self.position), &mut self.changes);
        (flight, ops.into_iter().map(|op| self.roles.apply(at, op, changes)).collect())
    }

    /// Executes the oldest command, and answers.
    #[track_caller]
    fn settle(&mut self) {
        let executed = self.execute();
        self.answer(executed);
    }

    fn answer(&mut self, (flight, said): (u64, Vec<Said>)) {
        self.say(ServiceMessage::Answer { flight, said: Ok(said) });
    }

    fn volunteer(&mut self, handle: u64, stands: bool) {
        let pulse = stands.then_some(1);
        let terms = Terms::new(LEASE, 0).unwrap();
        let (role, name) = ("jobs".to_owned(), format!("client-{handle}"));
        let new = Volunteered { handle, role, name, terms, stands, pulse, adopt: None };
        self.say(ServiceMessage::Pulsed(1));
        self.say(ServiceMessage::Volunteer(new));
    }

    fn deadline(&mut self) -> Option<Instant> {
        let leading = self.told.drain(..).filter_map(|(_, event)| match event {
            Event::Leading { deadline, .. } => Some(deadline),
            _ => None,
        });
        leading.reduce(|_, last| last)
    }
}

#[test]
fn a_holder_acts_from_the_sending_of_what_was_answered() {
    let mut bench = Bench::new();
    bench.volunteer(1, true);
    let sent = bench.now;
    let granted = bench.execute();
    bench.now = bench.now + Duration::from_millis(100);
    bench.answer(granted);
    assert_eq!(bench.deadline(), Some(sent + acts_for(LEASE)));
    // The renewal likewise, a fifth of the lease later.
    bench.say(ServiceMessage::Pulsed(1));
    bench.pass(Duration::from_millis(200));
    let sent = bench.now;
    let renewed = bench.execute();
    bench.now = bench.now + Duration::from_millis(50);
    bench.answer(renewed);
    assert_eq!(bench.deadline(), Some(sent + acts_for(LEASE)));
}

#[test]
fn whoever_stood_acts_only_after_a_renewal_sent_after_learning() {
    let mut bench = Bench::new();
    bench.volunteer(1, true);
    bench.settle();
    bench.volunteer(2, true);
    bench.settle();
    bench.told.clear();
    bench.say(ServiceMessage::Pulsed(1));
    bench.pass(Duration::from_millis(200));
    let before = bench.execute();
    // The first leaves, which hands over; the renewal sent before answers the second's standing.
    bench.say(ServiceMessage::Leave(1));
    bench.settle();
    bench.answer(before);
    assert_eq!(bench.deadline(), None);
    bench.say(ServiceMessage::Pulsed(1));
    bench.pass(Duration::from_millis(200));
    let learning = bench.execute();
    bench.now = bench.now + Duration::from_millis(20);
    bench.say(ServiceMessage::Pulsed(1));
    bench.answer(learning);
    assert_eq!(bench.deadline(), None, "learnt, and renewed at once");
    let sent = bench.now;
    bench.settle();
    assert_eq!(bench.deadline(), Some(sent + acts_for(LEASE)));
}

#[test]
fn whoever_gets_the_role_before_its_request_is_answered_need_not_wait_a_period_to_learn_it() {
    let mut bench = Bench::new();
    bench.volunteer(1, true);
    bench.settle();
    bench.volunteer(2, true);
    let second = bench.execute();
    assert!(matches!(second.1[..], [Said::Standing(..)]));
    // The first leaves, and the store hands over, before the second hears that it stands.
    bench.say(ServiceMessage::Leave(1));
    let left = bench.execute();
    let change = bench.changes.pop().expect("a new holder");
    assert_eq!(change.holder.as_ref().unwrap().client.name, "client-2");
    bench.say(ServiceMessage::Changed(vec![change]));
    bench.answer(left);
    bench.told.clear();
    bench.answer(second);
    assert_eq!(bench.deadline(), None, "standing permits nothing");
    let sent = bench.now;
    bench.settle();
    assert_eq!(bench.deadline(), Some(sent + acts_for(LEASE)));
}

#[test]
fn a_client_that_does_not_ask_is_not_renewed_and_loses_the_role_in_time() {
    let mut bench = Bench::new();
    bench.volunteer(1, false);
    bench.settle();
    let until = bench.deadline().unwrap();
    assert!(bench.commands.is_empty());
    bench.pass(Duration::from_millis(989));
    assert!(bench.told.is_empty() && bench.commands.is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.now, until);
    assert!(matches!(bench.told[..], [(1, Event::Lost(_)), (1, Event::Ended(Ended::Lost))]));
    assert!(matches!(&bench.commands[0].1[..], [Op::Leave { .. }]), "for whoever is next");
}

#[test]
fn a_renewal_on_request_counts_from_after_the_request() {
    let mut bench = Bench::new();
    bench.volunteer(1, false);
    bench.settle();
    bench.pass(Duration::from_millis(300));
    bench.told.clear();
    bench.say(ServiceMessage::Asked { handle: 1, at_once: true });
    let sent = bench.now;
    bench.settle();
    assert_eq!(bench.deadline(), Some(sent + acts_for(LEASE)));
}

#[test]
fn no_answer_revives_what_was_given_up() {
    let mut bench = Bench::new();
    bench.volunteer(1, true);
    bench.settle();
    bench.say(ServiceMessage::Pulsed(1));
    bench.pass(Duration::from_millis(200));
    let renewed = bench.execute();
    bench.told.clear();
    bench.say(ServiceMessage::Leave(1));
    bench.answer(renewed);
    assert!(bench.told.is_empty());
    // Until it is heard, that it left is said again.
    let (flight, _) = bench.commands.remove(0);
    let failed = Failed { not_applied: false, why: "cut".to_owned() };
    bench.say(ServiceMessage::Answer { flight, said: Err(failed) });
    bench.pass(Duration::from_millis(50));
    let left = bench.execute();
    assert_eq!(left.1, [Said::Done]);
    assert!(bench.roles.named("jobs").unwrap().tenure.is_none());
    bench.answer(left);
    assert!(bench.service.farewells.is_empty());
}

#[test]
fn an_expired_holder_is_told_and_stands_again_as_another() {
    let mut bench = Bench::new();
    bench.volunteer(1, true);
    bench.settle();
    bench.told.clear();
    bench.say(ServiceMessage::Pulsed(1));
    bench.pass(Duration::from_millis(200));
    let (flight, _) = bench.commands.remove(0);
    let lost = Said::Renewed(Exceptions { lost: vec![0], ..Exceptions::default() });
    bench.answer((flight, vec![lost]));
    assert!(matches!(bench.told[..], [(1, Event::Lost(_))]));
    bench.say(ServiceMessage::Pulsed(1));
    let (_, ops) = bench.commands.remove(0);
    assert!(matches!(&ops[..], [Op::Take { client, .. }] if client.key.number == 2));
}

#[test]
fn ten_thousand_roles_are_renewed_by_one_command_a_period() {
    let mut bench = Bench::new();
    bench.say(ServiceMessage::Pulsed(1));
    for handle in 1..=10_000 {
        let terms = Terms::new(LEASE, 0).unwrap();
        let (role, name) = (format!("role-{handle}"), "worker".to_owned());
        let new =
            Volunteered { handle, role, name, terms, stands: true, pulse: Some(1), adopt: None };
        let me = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let now = Now { at: bench.now, wall_ms: 0 };
        bench.service.message(now, &me, ServiceMessage::Volunteer(new), &mut Effects::default());
    }
    bench.pass(Duration::ZERO);
    let granted = bench.execute();
    assert_eq!(granted.1.len(), 10_000);
    bench.answer(granted);
    for _ in 0..10 {
        bench.say(ServiceMessage::Pulsed(1));
        bench.pass(Duration::from_millis(100));
        bench.say(ServiceMessage::Pulsed(1));
        bench.pass(Duration::from_millis(100));
        assert_eq!(bench.commands.len(), 1);
        let renewed = bench.execute();
        assert_eq!(renewed.1, [Said::Renewed(Exceptions::default())]);
        bench.answer(renewed);
    }
    assert!(bench.told.iter().all(|(_, event)| matches!(event, Event::Leading { .. })));
}
