//! One client in one role, as the service knows it.

use std::collections::BTreeMap;

use synod_runtime::world::Instant;

use crate::election::{
    lease::period,
    message::{Client, Epoch, Grant, RoleId, Terms},
};

/// One client in one role.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) role: String,
    pub(super) id: Option<RoleId>,
    pub(super) client: Client,
    pub(super) terms: Terms,
    /// Stands again and again, until it resigns or leaves.
    pub(super) stands: bool,
    pub(super) phase: Phase,
    /// Asks for itself.
    pub(super) asked: Option<Instant>,
    /// Is asked for by a pulse.
    pub(super) pulse: Option<u64>,
    /// When a command spoke for it last.
    pub(super) spoken: Option<Instant>,
    /// Is to be spoken for at once.
    pub(super) urgent: bool,
    /// Was given the role while the answer to its request was on its way.
    pub(super) meanwhile: Option<Grant>,
}

#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// To ask for the role, not before that instant.
    Outside(Instant),
    /// Has asked.
    Asking,
    /// Another holds the role.
    Standing,
    /// Learnt that it holds the role, and may not act yet (I3).
    Granted(Grant),
    /// May act.
    Leading(Grant, Instant),
}

impl Candidate {
    /// When it is to be spoken for.
    pub(super) fn due(&self) -> Option<Instant> {
        let period = period(self.terms.lease());
        match &self.phase {
            Phase::Outside(at) => Some(*at),
            Phase::Asking => None,
            Phase::Standing | Phase::Granted(_) | Phase::Leading(..) => {
                let regular = self.spoken.map_or_else(Instant::default, |at| at + period);
                Some(if self.urgent { Instant::default() } else { regular })
            }
        }
    }

    /// Whether it has asked since it was spoken for last (I6).
    pub(super) fn has_asked(&self, now: Instant, pulses: &BTreeMap<u64, Instant>) -> bool {
        // What was just granted need not wait for the next beat of a pulse that is there.
        let granted = matches!(self.phase, Phase::Granted(_));
        if off!(OnlyAskedRenewed) {
            return true;
        }
        let Some(pulse) = self.pulse else { return self.asked.is_some() || granted };
        pulses.get(&pulse).is_some_and(|at| {
            let fresh = granted && now <= *at + period(self.terms.lease());
            fresh || self.spoken.is_none_or(|spoken| *at >= spoken)
        })
    }

    /// The epoch it holds the role in.
    pub(super) const fn epoch(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Granted(grant) | Phase::Leading(grant, _) => Some(grant.epoch),
            Phase::Outside(_) | Phase::Asking | Phase::Standing => None,
        }
    }
}
