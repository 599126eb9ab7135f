//! One service's candidate variable at one node: how the nodes of a view come to the same primary
//! without a central place (disqualification).
//!
//! The numbers are those of the source's figures 4 to 7; [`Trace`] records them as they happen.
//!
//! ```text
//!   401 a view comes          616 the former primary lives: it is the candidate
//!   402 lock the candidate    618 unlock
//!   404 hold requesters off   620 it visits every other node,
//!   602 is it still there?    622 but those it has spoken with,
//!   604 ask the provider      624 and writes itself into their candidate variables
//!   606 candidate := me       702 lock, 704 write if the rank is higher, 706 unlock (at the other)
//!   608 unlock                408 connections go to the new primary
//!   610 still me?             410 it is made ready
//!   612 visit every other     412 it starts, and requesters go on
//!   614 outranked: stop
//! ```
//! - C1: while a primary is sought no request leaves: it waits, and then goes to the new one.
//! - C2: nobody writes into a candidate variable before its own node has passed 608 or 618.
//! - C3: words carry the view; those of another one count for nothing. A view that comes midway
//!   begins anew.
//! - C4: who is outranked says nothing more in this view, but answers.
//! - C5: a primary that lives, and was one, stays, whoever joins or leaves.
//! - C6: a candidate variable is overwritten by a higher rank only.
//!
//! No two nodes become primary in one view: each of them would have visited the other, no two rank
//! alike, and the lower one stops. Across views, what a primary may do is for a role's epoch to say.

/// Whether a rule is in force; a test may switch it off, to see that the judges notice.
macro_rules! when_on {
    ($rule:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        {
            !crate::mutation::is_view_rule_off(crate::mutation::ViewRule::$rule)
        }
        #[cfg(not(any(test, feature = "mutations")))]
        {
            true
        }
    }};
}

mod words;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use synod_runtime::{identity::NodeName, world::Instant};

pub use self::words::{Class, Deed, Letter, Rank, Trace, Word};
use crate::membership::message::ViewId;

/// Where a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No view yet, or this node is not in it.
    Out,
    /// 402 to 608: the lock is held.
    Locked,
    /// 612 or 620: visits the others.
    Visiting,
    /// 410.
    Initialising,
    /// 610, 614 or 618: waits to be told.
    Waiting,
    /// It is known who serves.
    Settled,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Candidate {
    me: NodeName,
    /// What the provider here is, but for being primary.
    class: Class,
    is_primary: bool,
    /// The node that serves, as far as is known: of this view, or of one before.
    host: Option<NodeName>,
    view: ViewId,
    others: BTreeSet<NodeName>,
    phase: Phase,
    candidate: Option<Rank>,
    /// Came while the lock was held.
    blocked: VecDeque<(NodeName, Letter)>,
    spoken: BTreeSet<NodeName>,
    /// Views and competitions so far.
    round: u64,
    /// Since when requesters are held off.
    held: Option<Instant>,
    longest: Duration,
    /// When to say it again, or not to wait any longer.
    due: Option<Instant>,
    trace: Option<Vec<Trace>>,
}

impl Candidate {
    /// The candidate variable at node `me`. Requesters are held off until the first view settles.
    pub const fn new(me: NodeName) -> Self {
        Self {
            me,
            class: Class::Spare,
            is_primary: false,
            host: None,
            view: ViewId { epoch: 0, verdicts: 0 },
            others: BTreeSet::new(),
            phase: Phase::Out,
            candidate: None,
            blocked: VecDeque::new(),
            spoken: BTreeSet::new(),
            round: 0,
            held: None,
            longest: Duration::ZERO,
            due: None,
            trace: None,
        }
    }

    /// From now on steps are recorded, for [`Candidate::trace`].
    #[must_use]
    pub fn traced(self) -> Self {
        Self { trace: Some(Vec::new()), ..self }
    }

    /// The steps so far.
    pub fn trace(&self) -> &[Trace] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// The candidate variable.
    pub fn candidate(&self) -> Option<&NodeName> {
        self.candidate.as_ref().map(Rank::node)
    }

    /// Whether this node is primary, in this view.
    pub const fn is_primary(&self) -> bool {
        self.is_primary && matches!(self.phase, Phase::Settled)
    }

    /// How often it began anew: within a round its candidate variable only rises (C6).
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The rank that stands in the candidate variable.
    pub const fn written(&self) -> Option<&Rank> {
        self.candidate.as_ref()
    }

    /// The view it is at.
    pub const fn view_id(&self) -> ViewId {
        self.view
    }

    /// Who takes requests: nobody while a primary is sought (C1).
    pub fn open_at(&self) -> Option<&NodeName> {
        if !when_on!(RequestersHeldOff) {
            return self.host.as_ref();
        }
        self.host.as_ref().filter(|_| self.held.is_none())
    }

    /// How long requesters were held off, at most; those that are held off now count from when they
    /// were.
    pub fn longest_hold(&self, now: Instant) -> Duration {
        self.longest.max(self.held.map_or(Duration::ZERO, |since| now.since(since)))
    }

    /// 401: another view, with these nodes to choose from.
    pub fn view(
        &mut self,
        now: Instant,
        view: ViewId,
        nodes: impl IntoIterator<Item = NodeName>,
    ) -> Vec<Deed> {
        let mut nodes: BTreeSet<NodeName> = nodes.into_iter().collect();
        let is_in = nodes.remove(&self.me);
        (self.view, self.others) = (view, nodes);
        self.round += 1;
        self.note(401, None);
        self.note(402, None);
        self.note(404, None);
        self.held.get_or_insert(now);
        self.spoken.clear();
        self.blocked.clear();
        (self.candidate, self.due) = (None, None);
        self.host.take_if(|host| *host != self.me && !self.others.contains(host));
        if !is_in {
            // Others serve now, if anybody does: what it was it has to become anew.
            (self.is_primary, self.host, self.phase) = (false, None, Phase::Out);
            return Vec::new();
        }
        self.phase = Phase::Locked;
        vec![Deed::AskProvider]
    }

    /// 604: the provider here is of that class; see [`Deed::AskProvider`]. Being primary is not for
    /// it to say.
    pub fn provider(&mut self, now: Instant, class: Class) -> Vec<Deed> {
        if self.phase != Phase::Locked {
            return Vec::new();
        }
        self.class = class.min(Class::Secondary);
        self.note(602, None);
        if !when_on!(PrimaryStays) {
            (self.is_primary, self.host) = (false, None);
        }
        // Whoever believes in itself, and is not, was never told of a later one.
        self.host.take_if(|host| *host == self.me && !self.is_primary);
        match self.host.clone() {
            Some(host) => self.follow_host(now, host),
            None => self.compete(now),
        }
    }

    /// 410 is done.
    pub fn ready(&mut self, now: Instant) -> Vec<Deed> {
        if self.phase != Phase::Initialising {
            return Vec::new();
        }
        self.is_primary = true;
        self.candidate = Some(self.rank());
        let mut deeds = self.settle(now, self.me.clone());
        // The others hear of it, each until it answers.
        self.spoken.clear();
        deeds.extend(self.visit_all(now));
        deeds
    }

    /// A word of another node.
    pub fn letter(&mut self, now: Instant, from: &NodeName, letter: Letter) -> Vec<Deed> {
        if when_on!(RanksNameView) && letter.view != self.view {
            return Vec::new(); // C3
        }
        match self.phase {
            Phase::Out => Vec::new(),
            Phase::Locked if letter.word == Word::Visit && when_on!(LockIsBarrier) => {
                // C2. One of each is enough: it is said again.
                self.blocked.retain(|(node, _)| node != from);
                self.blocked.push_back((from.clone(), letter));
                Vec::new()
            }
            _ => match letter.word {
                Word::Visit => self.visited_by(now, from, letter.class),
                Word::Visited => self.answered(now, from, letter.class),
            },
        }
    }

    /// When to call [`Candidate::timeout`].
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Says again what was not answered; does not wait for ever.
    pub fn timeout(&mut self, now: Instant) -> Vec<Deed> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = None;
        match self.phase {
            Phase::Visiting | Phase::Settled => self.visit_all(now),
            // Whoever was believed in says nothing: it is asked, as any other.
            Phase::Waiting => {
                self.host = None;
                self.spoken.clear();
                self.round += 1;
                self.compete(now)
            }
            Phase::Out | Phase::Locked | Phase::Initialising => Vec::new(),
        }
    }

    /// 602 to 618, and 620: the former primary is still there.
    fn follow_host(&mut self, now: Instant, host: NodeName) -> Vec<Deed> {
        self.note(616, Some(&host));
        self.candidate = Some(Rank::new(Class::Primary, host.clone()));
        self.note(618, None);
        if host != self.me {
            (self.phase, self.due) = (Phase::Waiting, Some(now + WAIT));
            return self.unblock(now);
        }
        let mut deeds = self.settle(now, host);
        deeds.extend(self.unblock(now));
        self.note(620, None);
        for other in self.spoken.clone() {
            self.note(622, Some(&other));
        }
        deeds.extend(self.visit_all(now));
        deeds
    }

    /// 604 to 612: nobody is primary.
    fn compete(&mut self, now: Instant) -> Vec<Deed> {
        self.note(604, None);
        self.candidate = Some(self.rank());
        self.note(606, None);
        self.note(608, None);
        self.phase = Phase::Visiting;
        let mut deeds = self.unblock(now);
        self.note(610, None);
        if self.phase == Phase::Visiting {
            deeds.extend(self.visit_all(now));
        }
        deeds
    }

    /// The lock is free: those who waited for it, in order.
    fn unblock(&mut self, now: Instant) -> Vec<Deed> {
        let blocked = std::mem::take(&mut self.blocked);
        blocked.into_iter().flat_map(|(from, said)| self.letter(now, &from, said)).collect()
    }

    /// 612 or 624: who competes visits one after the other, the likeliest to outrank it first; who
    /// is primary has nothing to fear and visits all at once.
    fn visit_all(&mut self, now: Instant) -> Vec<Deed> {
        let mut left: Vec<_> = self.others.difference(&self.spoken).cloned().collect();
        let step = match self.phase {
            Phase::Visiting => {
                left.truncate(1);
                612
            }
            Phase::Settled if self.is_primary => 624,
            _ => return Vec::new(),
        };
        if left.is_empty() {
            self.due = None;
            return if self.phase == Phase::Visiting { self.won() } else { Vec::new() };
        }
        self.due = Some(now + AGAIN);
        left.iter().for_each(|node| self.note(step, Some(node)));
        left.into_iter().map(|node| self.say(node, Word::Visit)).collect()
    }

    fn say(&self, to: NodeName, word: Word) -> Deed {
        Deed::Send(to, Letter { view: self.view, class: self.shown(), word })
    }

    /// Everybody was visited, and nobody outranks this node.
    fn won(&mut self) -> Vec<Deed> {
        self.phase = Phase::Initialising;
        let me = self.me.clone();
        self.note(408, Some(&me));
        self.note(410, None);
        vec![Deed::Remap(me), Deed::Initialise]
    }

    /// FIG. 7, at the node that is visited.
    fn visited_by(&mut self, now: Instant, from: &NodeName, class: Class) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let believed = self.host.as_ref() == Some(from) && !self.is_primary;
        if believed && class < Class::Primary {
            // It serves no more, though it lives: the provider failed.
            self.host = None;
            self.held.get_or_insert(now);
            self.spoken.clear();
            self.round += 1;
            deeds.extend(self.compete(now));
        }
        let rank = Rank::new(class, from.clone());
        self.note(702, Some(from));
        let wins = self.candidate.as_ref().is_none_or(|candidate| rank > *candidate);
        if wins || !when_on!(HigherRankWins) {
            self.note(704, Some(from));
            self.candidate = Some(rank.clone());
        }
        self.note(706, Some(from));
        if class == Class::Primary {
            deeds.extend(self.serves(now, from));
        } else if rank > self.rank() {
            self.outranked(now, from);
        }
        if self.is_primary {
            self.spoken.insert(from.clone()); // it hears who is primary: 622
        }
        deeds.push(self.say(from.clone(), Word::Visited));
        deeds
    }

    fn answered(&mut self, now: Instant, from: &NodeName, class: Class) -> Vec<Deed> {
        match self.phase {
            Phase::Visiting => {}
            Phase::Settled if self.is_primary => {
                self.spoken.insert(from.clone());
                self.due.take_if(|_| self.others.is_subset(&self.spoken));
                return Vec::new();
            }
            _ => return Vec::new(),
        }
        self.spoken.insert(from.clone());
        let rank = Rank::new(class, from.clone());
        if class == Class::Primary {
            self.note(614, Some(from));
            return self.serves(now, from);
        }
        if rank > self.rank() {
            self.outranked(now, from);
        }
        self.visit_all(now)
    }

    /// 614.
    fn outranked(&mut self, now: Instant, by: &NodeName) {
        if self.phase == Phase::Visiting && when_on!(DisqualifiedIsSilent) {
            self.note(614, Some(by));
            (self.phase, self.due) = (Phase::Waiting, Some(now + WAIT)); // C4
        }
    }

    /// Another says that it is primary.
    fn serves(&mut self, now: Instant, host: &NodeName) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if self.is_primary || self.phase == Phase::Settled && self.host.as_ref() == Some(host) {
            return deeds;
        }
        let rank = Rank::new(Class::Primary, host.clone());
        if self.candidate.as_ref() != Some(&rank) {
            // Whoever was written there served before, in this view, and does no more.
            (self.candidate, self.round) = (Some(rank), self.round + 1);
        }
        if self.host.as_ref() != Some(host) {
            self.note(408, Some(host));
            deeds.push(Deed::Remap(host.clone()));
        }
        deeds.extend(self.settle(now, host.clone()));
        deeds
    }

    /// 412.
    fn settle(&mut self, now: Instant, host: NodeName) -> Vec<Deed> {
        self.note(412, Some(&host));
        self.longest = self.longest_hold(now);
        (self.held, self.due) = (None, None);
        (self.phase, self.host) = (Phase::Settled, Some(host.clone()));
        vec![Deed::Release(host)]
    }

    fn shown(&self) -> Class {
        if self.is_primary { Class::Primary } else { self.class }
    }

    fn rank(&self) -> Rank {
        Rank::new(self.shown(), self.me.clone())
    }

    fn note(&mut self, step: u16, other: Option<&NodeName>) {
        if let Some(trace) = self.trace.as_mut().filter(|trace| trace.len() < TRACE_MAX) {
            trace.push(Trace { step, other: other.cloned() });
        }
    }
}

/// What was not answered is said again after this.
const AGAIN: Duration = Duration::from_millis(250);

/// Whoever waits for somebody to become primary, or to say that it is, asks anew after this.
const WAIT: Duration = Duration::from_secs(2);

/// Steps that are recorded; nobody reads more.
const TRACE_MAX: usize = 10_000;

#[cfg(test)]
mod figures;
#[cfg(test)]
mod tests;
