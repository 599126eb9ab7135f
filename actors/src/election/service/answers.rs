//! What the log answers, and what the store says by itself.

use std::time::Duration;

use synod_runtime::world::Instant;

use super::{Ended, Event, FAR, Failed, Flight, Phase, Service, Wanted, Word, deadline};
use crate::{
    effects::Effects,
    election::message::{Change, Epoch, Exceptions, Grant, Holder, Refusal, Said},
};

impl Service {
    pub(super) fn answer(
        &mut self,
        now: Instant,
        flight: u64,
        said: Result<Vec<Said>, Failed>,
        out: &mut Effects<Self>,
    ) {
        let Some(flight) = self.open.remove(&flight) else { return };
        let said = match said {
            Ok(said) => said,
            Err(failed) => return self.failed(now, &flight, &failed, out),
        };
        let mut said = said.into_iter();
        for wanted in &flight.wanted {
            let Some(said) = said.next() else { return };
            match wanted {
                Wanted::Take(number) | Wanted::Adopt(number) => {
                    self.taken(now, *number, flight.sent, said, out);
                }
                Wanted::Farewell(number) => {
                    self.farewells.retain(|farewell| farewell.number != *number);
                }
            }
        }
        if let Some(Said::Renewed(exceptions)) = said.next() {
            self.renewed(now, &flight, &exceptions, out);
        }
    }

    /// The log did not answer: the same is said again, but by whoever does not stand.
    fn failed(&mut self, now: Instant, flight: &Flight, why: &Failed, out: &mut Effects<Self>) {
        for wanted in &flight.wanted {
            match wanted {
                Wanted::Farewell(number) => {
                    let again = self.farewells.iter_mut().filter(|one| one.number == *number);
                    again.for_each(|farewell| farewell.due = Some(now + AGAIN));
                    self.wake = self.wake.min(now + AGAIN);
                }
                Wanted::Take(number) | Wanted::Adopt(number) => {
                    let Some(&handle) = self.by_number.get(number) else { continue };
                    let Some(one) = self.candidates.get_mut(&handle) else { continue };
                    if one.stands {
                        one.phase = Phase::Outside(now + AGAIN);
                        self.wake = self.wake.min(now + AGAIN);
                        continue;
                    }
                    // It may have been granted, and nobody will act on it.
                    let adopts = matches!(wanted, Wanted::Adopt(_));
                    if why.not_applied || adopts {
                        self.forget(handle);
                    } else {
                        self.leave(now, handle);
                    }
                    let ended = Event::Ended(Ended::Failed(why.clone()));
                    out.here(Word::Tell(handle, ended));
                }
            }
        }
    }

    fn taken(
        &mut self,
        now: Instant,
        number: u64,
        sent: Instant,
        said: Said,
        out: &mut Effects<Self>,
    ) {
        // Who left meanwhile has said farewell, which releases what was granted here.
        let Some(&handle) = self.by_number.get(&number) else { return };
        let Some(one) = self.candidates.get(&handle) else { return };
        if !matches!(one.phase, Phase::Asking) {
            return;
        }
        let key = one.client.key;
        match said {
            Said::Granted(grant) => {
                self.follow(handle, grant.role);
                self.granted(now, handle, grant);
                // The very request: it may act, counted from its first sending.
                self.lead(now, handle, sent, grant.epoch, out);
            }
            Said::Standing(role, holder) => {
                self.follow(handle, role);
                self.stand(now, handle, holder, out);
            }
            Said::Held(role, holder) if holder.client.key == key => {
                self.follow(handle, role);
                let Holder { epoch, terms, .. } = holder;
                self.granted(now, handle, Grant { role, epoch, terms });
                if off!(HeldIsNoGrant) {
                    self.lead(now, handle, sent, epoch, out);
                }
            }
            Said::Held(_, holder) => self.end(handle, Ended::Held(holder), out),
            Said::Refused(Refusal::NotHeld { holder: Some(holder), .. }) => {
                self.end(handle, Ended::Held(holder), out);
            }
            Said::Refused(refusal) => self.end(handle, Ended::Refused(refusal), out),
            Said::Done | Said::Renewed(_) => {}
        }
    }

    fn end(&mut self, handle: u64, ended: Ended, out: &mut Effects<Self>) {
        self.forget(handle);
        out.here(Word::Tell(handle, Event::Ended(ended)));
    }

    fn stand(&mut self, now: Instant, handle: u64, holder: Holder, out: &mut Effects<Self>) {
        if let Some(one) = self.candidates.get_mut(&handle) {
            one.phase = Phase::Standing;
            self.wake = self.wake.min(one.due().unwrap_or(FAR));
            out.here(Word::Tell(handle, Event::Following(holder)));
            // That was the next holder's turn when it was decided, and is over.
            if let Some(grant) = one.meanwhile.take() {
                self.granted(now, handle, grant);
            }
        }
    }

    /// The client holds the role, as was just learnt: it is renewed at once, and acts then (I3).
    fn granted(&mut self, now: Instant, handle: u64, grant: Grant) {
        let Some(one) = self.candidates.get_mut(&handle) else { return };
        one.phase = Phase::Granted(grant);
        (one.urgent, one.meanwhile) = (true, None);
        self.wake = now;
    }

    /// What was sent then, in that epoch, was answered well.
    fn lead(
        &mut self,
        now: Instant,
        handle: u64,
        sent: Instant,
        epoch: Epoch,
        out: &mut Effects<Self>,
    ) {
        let Some(one) = self.candidates.get_mut(&handle) else { return };
        let (grant, before) = match one.phase {
            Phase::Granted(grant) => (grant, Instant::default()),
            Phase::Leading(grant, before) => (grant, before),
            Phase::Outside(_) | Phase::Asking | Phase::Standing => return,
        };
        let sent = if off!(CountsFromSending) { now } else { sent };
        let deadline = deadline(sent, grant.terms);
        if grant.epoch != epoch || deadline <= now || deadline <= before {
            return;
        }
        one.phase = Phase::Leading(grant, deadline);
        one.urgent &= before != Instant::default();
        self.wake = self.wake.min(deadline).min(one.due().unwrap_or(FAR));
        out.here(Word::Tell(handle, Event::Leading { grant, sent, deadline }));
    }

    fn renewed(
        &mut self,
        now: Instant,
        flight: &Flight,
        exceptions: &Exceptions,
        out: &mut Effects<Self>,
    ) {
        let mut lost = exceptions.lost.iter().peekable();
        for (place, (number, epoch)) in (0..).zip(&flight.held) {
            let is_lost = lost.next_if_eq(&&place).is_some();
            let Some(&handle) = self.by_number.get(number) else { continue };
            if is_lost && !off!(OnlyRenewedCounts) {
                let one = &self.candidates[&handle];
                if one.epoch() == Some(*epoch) {
                    self.lost(now, handle, *epoch, false, out);
                }
            } else {
                self.lead(now, handle, flight.sent, *epoch, out);
            }
        }
        for (place, grant) in &exceptions.granted {
            self.at_place(flight, *place, |service, handle| {
                service.learnt(now, handle, *grant);
                if off!(StandingConfirms) {
                    service.lead(now, handle, now, grant.epoch, out);
                }
            });
        }
        for place in &exceptions.gone {
            self.at_place(flight, *place, |service, handle| {
                if matches!(service.candidates[&handle].phase, Phase::Standing) {
                    service.stand_again(now, handle, Ended::Lost, out);
                }
            });
        }
    }

    fn at_place(&mut self, flight: &Flight, place: u32, act: impl FnOnce(&mut Self, u64)) {
        let number = usize::try_from(place).ok().and_then(|place| flight.stood.get(place));
        if let Some(handle) = number.and_then(|number| self.by_number.get(number)).copied() {
            act(self, handle);
        }
    }

    /// Somebody who stood holds the role.
    fn learnt(&mut self, now: Instant, handle: u64, grant: Grant) {
        let Some(one) = self.candidates.get_mut(&handle) else { return };
        match &one.phase {
            Phase::Standing => self.granted(now, handle, grant),
            // Its request may have been answered by this very grant, or before it.
            Phase::Asking => one.meanwhile = Some(grant),
            Phase::Outside(_) | Phase::Granted(_) | Phase::Leading(..) => {}
        }
    }

    /// The store has new holders.
    pub(super) fn changed(&mut self, now: Instant, changes: Vec<Change>, out: &mut Effects<Self>) {
        for Change { role, holder, .. } in changes {
            let Some(holder) = holder else { continue };
            let Holder { epoch, terms, ref client } = holder;
            if client.key.service == self.life
                && let Some(&handle) = self.by_number.get(&client.key.number)
            {
                self.learnt(now, handle, Grant { role, epoch, terms });
            }
            for handle in self.by_role.get(&role).into_iter().flatten() {
                if matches!(self.candidates[handle].phase, Phase::Standing) {
                    out.here(Word::Tell(*handle, Event::Following(holder.clone())));
                }
            }
        }
    }
}

/// How soon to say again what had no answer: a fail-over takes a few of these.
const AGAIN: Duration = Duration::from_millis(50);
