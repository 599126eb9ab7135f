//! Forming steps and sending them.
//!
//! A leader first finishes what its promises reported (rule L3), then shows with one empty step
//! that its ballot works, then orders what clients ask for. Steps overlap, at most `WINDOW` at a
//! time, and a further one is opened only when it carries at least as much as the last: small
//! steps eat what overlap gives.

use rand::RngExt;

use super::{Phase, Proposer, reign::Open};
use crate::{
    consensus::{
        auxiliary::cost,
        ballot::{Run, Step},
        configuration::ALPHA,
        message::{Accept, AcceptorMessage, AuxiliaryMessage, LearnerMessage, Mark},
        timing::VoteStyle,
        value::{EncodedCommand, STEP_BYTES_MAX, Value},
    },
    effects::{Effects, To},
};

/// Steps in flight. Two overlap sync and round trip; more was measured to make smaller steps.
const WINDOW: u64 = 2;

/// How long a vote mark may wait for the next Accept to ride on.
pub(super) const MARK_WAIT: std::time::Duration = std::time::Duration::from_millis(5);

impl Proposer {
    /// Proposes whatever may be proposed now.
    pub(super) fn propose(&mut self, out: &mut Effects<Self>) {
        if self.leads().is_none() {
            return;
        }
        let mut values = Vec::new();
        let Phase::Leading(reign) = &self.phase else { return };
        let first = reign.next;
        while let Some(value) = self.next_value() {
            let Phase::Leading(reign) = &mut self.phase else { return };
            reign.open.insert(reign.next, Open { value: value.clone(), since: self.turn.at });
            reign.next = reign.next.next();
            values.push(value);
        }
        if !values.is_empty() {
            let me = AcceptorMessage::Accept(self.accept(first, values));
            out.here(me);
        }
        self.send_steps(out);
        self.send_mark(out);
    }

    /// The value of the next step, if one may be proposed.
    fn next_value(&mut self) -> Option<Value> {
        let Phase::Leading(reign) = &self.phase else { return None };
        let step = reign.next;
        if !self.may_propose(reign, step) {
            return None;
        }
        let executed = self.history.executed();
        let last_reported = reign.reported.last_key_value().map_or(Step(0), |(step, _)| *step);
        #[cfg(any(test, feature = "mutations"))]
        let last_reported = if crate::mutation::on(crate::mutation::Mutation::IgnoreReportedVotes) {
            Step(0)
        } else {
            last_reported
        };
        if step <= last_reported {
            let vote = reign.reported.get(&step);
            sometimes!(ReportedValueProposed if vote.is_some());
            sometimes!(GapFilled if vote.is_none());
            return Some(vote.map_or_else(Value::noop, |vote| vote.value.clone()));
        }
        let in_flight = step.beyond(executed) - 1;
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::EffectiveAtOnce) {
            return self.after_filling(in_flight);
        }
        let filling = reign.open.iter().rev().find(|(_, open)| open.value.is_configuration());
        if let Some((changed, _)) = filling {
            // The empty steps up to the one where the change takes effect.
            return (step < changed.plus(ALPHA)).then(Value::noop);
        }
        if self.history.newest_from().is_some_and(|from| step < from) {
            return Some(Value::noop()); // likewise, the change being executed already
        }
        self.after_filling(in_flight)
    }

    /// The value of the next step, when nothing that earlier leaders or changes left is to be done.
    fn after_filling(&mut self, in_flight: u64) -> Option<Value> {
        let Phase::Leading(reign) = &mut self.phase else { return None };
        if !reign.opened {
            reign.opened = true;
            return Some(Value::noop());
        }
        if reign.change.is_some() {
            // Its effect must lie within what this node may propose: the pipeline drains first.
            if in_flight > 0 {
                return None;
            }
            return reign.change.take().map(|change| Value::configuration(&change));
        }
        if reign.handover.is_some() {
            return None; // the next leader's
        }
        self.next_batch(in_flight)
    }

    fn next_batch(&mut self, in_flight: u64) -> Option<Value> {
        if self.full {
            return None; // its own vote would be missing, and reads would wait for that
        }
        let Phase::Leading(reign) = &mut self.phase else { return None };
        let expired = self.expiry_ms.is_some_and(|due| due <= self.turn.wall_ms);
        let worth_it = match in_flight {
            0 => !self.queue.is_empty() || expired,
            1..WINDOW => self.queue.len() >= reign.last_commands.max(1),
            _ => false,
        };
        if !worth_it {
            return None;
        }
        let mut bytes = 0;
        let mut commands: Vec<EncodedCommand> = Vec::with_capacity(self.queue.len().min(1024));
        while let Some(command) = self.queue.front()
            && (commands.is_empty() || bytes + command.len() <= STEP_BYTES_MAX)
        {
            bytes += command.len();
            commands.extend(self.queue.pop_front());
        }
        self.queue_bytes -= bytes;
        reign.last_commands = commands.len();
        if reign.remote_waits {
            reign.awaited = reign.next;
            reign.remote_waits = !self.queue.is_empty();
        }
        if expired {
            self.expiry_ms = None; // this step's agreed time sees to it; the replica tells the next
        }
        Some(Value::batch(self.turn.wall_ms, self.rng.random(), &commands))
    }

    fn accept(&self, first: Step, values: Vec<Value>) -> Accept {
        let Phase::Leading(reign) = &self.phase else {
            unreachable!("only a leader has values to send")
        };
        Accept {
            ballot: reign.ballot,
            first,
            values,
            voted: reign.voted_run(),
            chosen: reign.chosen,
        }
    }

    /// Sends new steps to the other mains (and, bridging, to the auxiliaries).
    fn send_steps(&mut self, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &self.phase else { return };
        let upto = match self.style {
            VoteStyle::Split => Step(reign.next.0 - 1),
            // One message with value and vote (R1.1, R1.3): it waits for the own disk.
            VoteStyle::Piggyback => reign.voted.min(Step(reign.next.0 - 1)),
        };
        let Some(run) = Run::new(reign.sent.next(), upto) else { return };
        let values: Vec<Value> =
            reign.open.range(run.first..=run.last).map(|(_, open)| open.value.clone()).collect();
        let first = reign.open.range(run.first..=run.last).next().map(|(step, _)| *step);
        let Some(configuration) = self.history.at(run.last).cloned() else { return };
        if let Some(first) = first {
            let accept = self.accept(first, values);
            for main in configuration.other_mains(self.me.incarnation) {
                out.send(To::Node(main.clone()), AcceptorMessage::Accept(accept.clone()));
            }
            let Phase::Leading(reign) = &mut self.phase else { return };
            reign.marked = reign.voted; // the mark rode along
            reign.worded = reign.word();
            reign.mark_since = None;
        }
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.sent = upto;
        if reign.bridge.is_some() {
            self.send_bridged(out);
        }
    }

    /// Sends the open steps that the auxiliaries have not got yet.
    pub(super) fn send_bridged(&mut self, out: &mut Effects<Self>) {
        if self.owes_lease() {
            sometimes!(LeaseHoldsBridge);
            return; // nothing is chosen behind the back of a main that reads by lease
        }
        let executed = self.history.executed();
        let Phase::Leading(reign) = &mut self.phase else { return };
        let Some(bridge) = &mut reign.bridge else { return };
        let first = bridge.sent.max(executed).next();
        let Some(run) = Run::new(first, reign.sent) else { return };
        let values: Vec<Value> =
            reign.open.range(run.first..=run.last).map(|(_, open)| open.value.clone()).collect();
        if values.is_empty() {
            return;
        }
        let cost = values.iter().map(cost).sum();
        bridge.bytes = bridge.bytes.saturating_add(cost);
        bridge.sent = run.last;
        let Some(configuration) = self.history.at(run.last).cloned() else { return };
        let accept = self.accept(run.first, values);
        for auxiliary in &configuration.auxiliaries {
            out.send(To::Node(auxiliary.clone()), AuxiliaryMessage::Accept(accept.clone()));
        }
    }

    /// Tells the other mains of this node's own votes, and what is chosen where they may not see it by
    /// votes, when somebody there waits for that or it waited long enough for a ride.
    fn send_mark(&mut self, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let Some(configuration) = self.configuration().cloned() else { return };
        let Phase::Leading(reign) = &mut self.phase else { return };
        let votes = self.style == VoteStyle::Split && reign.voted > reign.marked;
        // A main whose vote is missing, or two of three where an auxiliary voted too.
        let word = reign.bridge.is_some() && reign.word() > reign.worded;
        let told = [votes.then_some(reign.marked), word.then_some(reign.worded)];
        let Some(told) = told.into_iter().flatten().min() else {
            reign.mark_since = None;
            return;
        };
        let waited = reign.mark_since.get_or_insert(now);
        if reign.awaited <= told && now < *waited + MARK_WAIT {
            return;
        }
        reign.mark_since = None;
        (reign.marked, reign.worded) = (reign.voted, reign.word());
        let mark = Mark { ballot: reign.ballot, voted: reign.voted_run(), chosen: reign.chosen };
        for main in configuration.other_mains(self.me.incarnation) {
            out.send(To::Node(main.clone()), LearnerMessage::Mark(mark.clone()));
        }
    }

    /// Sends the open steps to `to` once more.
    pub(super) fn resend(&self, to: &synod_runtime::identity::NodeId, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &self.phase else { return };
        let Some((first, _)) = reign.open.first_key_value() else { return };
        // The own acceptor is asked for its vote before anyone else hears of the step.
        let upto = if *to == self.me { reign.next } else { reign.sent };
        let values: Vec<Value> =
            reign.open.range(..=upto).map(|(_, open)| open.value.clone()).collect();
        if values.is_empty() {
            return;
        }
        let accept = self.accept(*first, values);
        if *to == self.me {
            out.here(AcceptorMessage::Accept(accept));
        } else if self.configuration().is_some_and(|c| c.auxiliaries.contains(to)) {
            out.send(To::Node(to.clone()), AuxiliaryMessage::Accept(accept));
        } else {
            out.send(To::Node(to.clone()), AcceptorMessage::Accept(accept));
        }
    }
}
