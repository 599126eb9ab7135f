//! One program at its primary, from the grant of its role until it is gone: what to do when.
//!
//! - N1: it is started once, and again only when the one before is gone.
//! - N2: it is *running* once its readiness probe says yes, or at once if it has none.
//! - N3: a liveness probe that fails so often in a row ends it, and it is started again.
//! - N4: more restarts than its budget end the run: another node has a try.
//! - N5: once it is not wanted, or its lease is not renewed, it is asked to end and not started
//!   again, whatever its probes say.
//! - N6: what others need is asked to end only when they have ended, or had their time; a lease that
//!   is not renewed waits for nobody.

use std::{collections::VecDeque, time::Duration};

use synod_runtime::world::Instant;

use super::message::{Probe, RESTARTS_WITHIN, Spec, State};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start the program.
    Start,
    /// Ask it to end, in order.
    End,
    /// Ask whether it serves; the answer comes back by [`Run::probed`].
    Ready,
    /// Ask whether it is well; likewise.
    Live,
    /// Tell the table.
    Tell(State),
}

/// How a run ended. The program is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It was not wanted here any more.
    Stopped,
    /// The lease was not renewed.
    Lapsed,
    /// It could not be kept running.
    Failed,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Run {
    spec: Spec,
    phase: Phase,
    wanted: bool,
    lapsing: bool,
    /// Others that need it have not ended, and have so long to do so.
    needed: Option<Duration>,
    /// The state that was told last.
    told: Option<State>,
    restarts: VecDeque<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be started then.
    Due(Instant),
    /// It runs and has not said that it serves.
    Starting(Asking),
    Running(Asking),
    /// It is to end once nobody needs it any more, or then.
    Retiring(Instant),
    /// It was asked to end.
    Ending,
    Over(Over),
}

/// Where a probe stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asking {
    /// When to ask next; none while an answer is awaited, or nothing is to be asked.
    next: Option<Instant>,
    /// So many *no* in a row.
    failures: u32,
}

impl Run {
    /// A run of a program that is to be started at once.
    pub const fn new(spec: Spec, now: Instant) -> Self {
        let restarts = VecDeque::new();
        let phase = Phase::Due(now);
        Self { spec, phase, wanted: true, lapsing: false, needed: None, told: None, restarts }
    }

    /// Others that need it have not ended, and have so long to do so; or nobody needs it.
    pub const fn needed(&mut self, within: Option<Duration>) {
        self.needed = within;
    }

    /// It is not wanted here any more.
    pub const fn unwanted(&mut self) {
        self.wanted = false;
    }

    /// Its lease is not renewed: whoever guards it has asked it to end, or does so now.
    pub const fn lapsing(&mut self) {
        self.lapsing = true;
    }

    /// What is to be done now.
    pub fn acts(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        let goes_on = self.wanted && !self.lapsing;
        match self.phase {
            Phase::Due(_) if !goes_on => self.end(&mut acts),
            Phase::Due(at) if at <= now => {
                acts.push(Act::Start);
                let asking = Asking::beginning(self.spec.ready.as_ref(), now);
                self.phase = Phase::Starting(asking);
                self.tell(State::Starting, &mut acts);
                if self.spec.ready.is_none() {
                    self.serves(now, &mut acts);
                }
            }
            // N5, N6
            Phase::Starting(_) | Phase::Running(_) if !goes_on => match self.needed {
                Some(within) if !self.lapsing && when_on!(NeededEndLast) => {
                    self.phase = Phase::Retiring(now + within);
                    self.tell(State::Stopping, &mut acts);
                }
                _ => self.stop(&mut acts),
            },
            Phase::Retiring(until) => {
                if self.lapsing || self.needed.is_none() || now >= until {
                    self.stop(&mut acts);
                }
            }
            Phase::Starting(ref mut asking) => {
                if asking.is_due(now) {
                    acts.push(Act::Ready);
                }
            }
            Phase::Running(ref mut asking) => {
                if asking.is_due(now) {
                    acts.push(Act::Live);
                }
            }
            Phase::Due(_) | Phase::Ending | Phase::Over(_) => {}
        }
        acts
    }

    /// The answer to a probe.
    pub fn probed(&mut self, now: Instant, yes: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        match (&mut self.phase, &self.spec.ready, &self.spec.live) {
            (Phase::Starting(_), Some(_), _) if yes => self.serves(now, &mut acts),
            (Phase::Starting(asking), Some(probe), _) => asking.again(probe, now),
            (Phase::Running(asking), _, Some(probe)) => {
                asking.failures = if yes { 0 } else { asking.failures + 1 };
                if asking.failures < probe.failures {
                    asking.again(probe, now);
                } else {
                    self.stop(&mut acts); // N3
                }
            }
            // Its question was asked of a program that is gone.
            _ => {}
        }
        acts
    }

    /// The program is gone, or could not be started.
    pub fn gone(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        if matches!(self.phase, Phase::Over(_) | Phase::Due(_)) {
            return acts;
        }
        if !self.wanted || self.lapsing {
            self.end(&mut acts);
            return acts;
        }
        self.restarts.retain(|at| now.since(*at) < RESTARTS_WITHIN);
        if self.restarts.len() >= self.spec.restarts as usize {
            self.phase = Phase::Over(Over::Failed); // N4
            self.tell(State::Failed, &mut acts);
            return acts;
        }
        let so_far = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.restarts.push_back(now);
        let wait = BACKOFF_FIRST.saturating_mul(1 << so_far.min(16)).min(BACKOFF_MAX);
        self.phase = Phase::Due(now + wait);
        self.tell(State::Restarting, &mut acts);
        acts
    }

    /// How it ended, once the program is gone for good.
    pub const fn over(&self) -> Option<Over> {
        match self.phase {
            Phase::Over(over) => Some(over),
            Phase::Due(_)
            | Phase::Starting(_)
            | Phase::Running(_)
            | Phase::Retiring(_)
            | Phase::Ending => None,
        }
    }

    /// When to look again, if nothing happens before.
    pub const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) | Phase::Retiring(at) => Some(at),
            Phase::Starting(asking) | Phase::Running(asking) => asking.next,
            Phase::Ending | Phase::Over(_) => None,
        }
    }

    fn serves(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.phase = Phase::Running(Asking::beginning(self.spec.live.as_ref(), now));
        self.tell(State::Running, acts);
    }

    fn stop(&mut self, acts: &mut Vec<Act>) {
        acts.push(Act::End);
        self.phase = Phase::Ending;
        self.tell(State::Stopping, acts);
    }

    fn end(&mut self, acts: &mut Vec<Act>) {
        self.phase = Phase::Over(if self.lapsing { Over::Lapsed } else { Over::Stopped });
        self.tell(State::Stopped, acts);
    }

    fn tell(&mut self, state: State, acts: &mut Vec<Act>) {
        // Of what changes at once only the last is told.
        acts.retain(|act| !matches!(act, Act::Tell(_)));
        if self.told.replace(state) != Some(state) {
            acts.push(Act::Tell(state));
        }
    }
}

impl Asking {
    /// From one period after now on, if there is something to ask.
    fn beginning(probe: Option<&Probe>, now: Instant) -> Self {
        Self { next: probe.map(|probe| now + every(probe)), failures: 0 }
    }

    fn again(&mut self, probe: &Probe, now: Instant) {
        self.next = Some(now + every(probe));
    }

    fn is_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|at| *at <= now).is_some()
    }
}

fn every(probe: &Probe) -> Duration {
    Duration::from_millis(probe.every_ms.into())
}

/// A program that ends at once is not started in a tight loop.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// And is not forgotten.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn probe(failures: u32) -> Option<Probe> {
        Some(Probe { failures, ..Probe::new(vec!["true".into()]) })
    }

    #[test]
    fn a_program_runs_once_it_says_so_and_is_started_again_when_it_is_not_well() {
        let spec = Spec { ready: probe(1), live: probe(2), ..Spec::new("web", &["web"]) };
        let mut run = Run::new(spec, at(0));
        assert_eq!(run.acts(at(0)), [Act::Start, Act::Tell(State::Starting)]);
        assert!(run.acts(at(999)).is_empty());
        assert_eq!(run.acts(at(1_000)), [Act::Ready]);
        assert!(run.acts(at(5_000)).is_empty(), "it was asked and has not answered");
        assert!(run.probed(at(5_000), false).is_empty());
        assert_eq!(run.acts(at(6_000)), [Act::Ready]);
        assert_eq!(run.probed(at(6_001), true), [Act::Tell(State::Running)]);
        // One *no* is none.
        for (ms, yes) in [(7_001, false), (8_001, true), (9_001, false)] {
            assert_eq!(run.acts(at(ms)), [Act::Live]);
            assert!(run.probed(at(ms), yes).is_empty());
        }
        assert_eq!(run.acts(at(10_001)), [Act::Live]);
        assert_eq!(run.probed(at(10_001), false), [Act::End, Act::Tell(State::Stopping)]);
        assert!(run.acts(at(10_002)).is_empty());
        assert_eq!(run.gone(at(10_100)), [Act::Tell(State::Restarting)]);
        assert_eq!(run.deadline(), Some(at(10_200)));
        assert_eq!(run.acts(at(10_200)), [Act::Start, Act::Tell(State::Starting)]);
    }

    #[test]
    fn a_program_that_ends_again_and_again_fails_here() {
        let mut run = Run::new(Spec { restarts: 2, ..Spec::new("web", &["web"]) }, at(0));
        let mut now = 0;
        for wait in [100, 200] {
            assert_eq!(run.acts(at(now))[0], Act::Start);
            now += 1;
            assert_eq!(run.gone(at(now)), [Act::Tell(State::Restarting)]);
            assert!(run.acts(at(now + wait - 1)).is_empty());
            now += wait;
        }
        assert_eq!(run.acts(at(now))[0], Act::Start);
        assert_eq!(run.gone(at(now)), [Act::Tell(State::Failed)]);
        assert_eq!(run.over(), Some(Over::Failed));
        // Long ago is forgotten.
        let mut run = Run::new(Spec { restarts: 1, ..Spec::new("web", &["web"]) }, at(0));
        for now in [0, 61_000, 122_000] {
            run.acts(at(now));
            run.gone(at(now));
            assert_eq!(run.over(), None);
        }
    }

    #[test]
    fn what_is_not_wanted_ends_in_order_and_does_not_come_back() {
        let mut run = Run::new(Spec::new("web", &["web"]), at(0));
        assert_eq!(run.acts(at(0)), [Act::Start, Act::Tell(State::Running)]);
        run.unwanted();
        assert_eq!(run.acts(at(1)), [Act::End, Act::Tell(State::Stopping)]);
        assert_eq!(run.over(), None, "its program still runs");
        run.gone(at(2));
        assert_eq!(run.over(), Some(Over::Stopped));
        // Nor does one that was about to be started.
        let mut run = Run::new(Spec::new("web", &["web"]), at(0));
        run.lapsing();
        assert_eq!(run.acts(at(0)), [Act::Tell(State::Stopped)]);
        assert_eq!(run.over(), Some(Over::Lapsed));
    }

    #[test]
    fn what_others_need_ends_after_them_and_waits_for_nobody_without_a_lease() {
        let running = || {
            let mut run = Run::new(Spec::new("db", &["db"]), at(0));
            run.acts(at(0));
            run.needed(Some(Duration::from_secs(4)));
            run.unwanted();
            assert_eq!(run.acts(at(1)), [Act::Tell(State::Stopping)]);
            run
        };
        let mut run = running();
        assert!(run.acts(at(100)).is_empty());
        run.needed(None);
        assert_eq!(run.acts(at(101)), [Act::End]);
        let mut run = running();
        assert_eq!(run.deadline(), Some(at(4_001)));
        assert_eq!(run.acts(at(4_001)), [Act::End]);
        let mut run = running();
        run.lapsing();
        assert_eq!(run.acts(at(2)), [Act::End]);
    }
}
