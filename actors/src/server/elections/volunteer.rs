//! Standing for a role, from a program's point of view.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use synod_runtime::world::Instant;

use super::{
    Elections, Inner,
    cell::{Cell, Found, News},
    lock,
};
use crate::election::{
    lease::period,
    message::{Epoch, Grant, Holder, Refusal, Terms, check_name},
    service::{Ended, ServiceMessage, Volunteered},
};

/// A wish to lead, before it is said.
#[derive(Debug)]
#[must_use = "nobody stands before `stand` is called"]
pub struct Candidacy {
    elections: Elections,
    role: String,
    name: Option<String>,
    lease: Duration,
    priority: u8,
    pulse: Option<Pulse>,
}

impl Candidacy {
    pub(super) fn new(elections: Elections, role: &str) -> Self {
        let lease = elections.lease();
        Self { elections, role: role.to_owned(), name: None, lease, priority: 0, pulse: None }
    }

    /// What others shall call the volunteer; by default the node's name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Among those who stand the highest priority is next; by default 0.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// How long nobody else may have the role once this volunteer falls silent: 300 ms to ten
    /// minutes, by default what the node file says, or two seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Whose life counts as this volunteer's. By default each has a pulse of its own, on the
    /// arbiter that calls [`stand`](Self::stand): once that arbiter hangs, the lease runs out.
    pub fn pulse(mut self, pulse: &Pulse) -> Self {
        self.pulse = Some(pulse.clone());
        self
    }

    /// Stands, from now on until the [`Volunteer`] is dropped. Call it where local tasks can be
    /// spawned.
    ///
    /// # Errors
    /// For a name or lease that cannot be. Nothing was said to anybody.
    pub fn stand(self) -> Result<Volunteer, Refusal> {
        let Self { elections, role, name, lease, priority, pulse } = self;
        let name = name.unwrap_or_else(|| elections.0.me.name.to_string());
        check_name("role", &role)?;
        check_name("holder", &name)?;
        let terms = Terms::new(lease, priority)?;
        let pulse = pulse.unwrap_or_else(|| elections.pulse());
        pulse.0.quicken(period(lease) / 2);
        let new = Volunteered {
            handle: 0,
            role,
            name,
            terms,
            stands: true,
            pulse: Some(pulse.0.number),
            adopt: None,
        };
        elections.0.tell(ServiceMessage::Pulsed(pulse.0.number));
        let cell = elections.stand(new);
        Ok(Volunteer { elections, cell, pulse })
    }
}

impl Elections {
    /// Hands a client to the service.
    pub(in crate::server) fn stand(&self, new: Volunteered) -> Arc<Cell> {
        let handle = self.0.number();
        let cell = Arc::new(Cell::new(handle));
        lock(&self.0.cells).insert(handle, Arc::clone(&cell));
        self.0.tell(ServiceMessage::Volunteer(Volunteered { handle, ..new }));
        cell
    }

    /// Says something about a client to the service.
    pub(in crate::server) fn tell(&self, message: ServiceMessage) {
        if let ServiceMessage::Leave(handle) | ServiceMessage::Forget(handle) = message {
            lock(&self.0.cells).remove(&handle);
        }
        self.0.tell(message);
    }
}

/// Somebody who stands for a role. Dropping it leaves: what it held goes to the next at once, so
/// drop it only when nothing acts for it any more.
pub struct Volunteer {
    elections: Elections,
    cell: Arc<Cell>,
    pulse: Pulse,
}

impl Volunteer {
    /// What happens next, in order. `None` after [`Leadership::Ended`]. Who does not ask for long
    /// hears of the newest 64 changes.
    pub async fn next(&mut self) -> Option<Leadership> {
        let cell = &self.cell;
        let news = cell.wait(|known| match (known.next(), &known.ended) {
            (Some(news), _) => Found::This(Some(news)),
            (None, Some(_)) => Found::This(None),
            (None, None) => Found::Wait,
        });
        Some(match news.await? {
            News::Following(holder) => Leadership::Following(holder),
            News::Leading(grant) => {
                let (elections, cell) = (self.elections.clone(), Arc::clone(cell));
                Leadership::Leading(Lease { elections, cell, grant })
            }
            News::Lost(epoch) => Leadership::Lost(epoch),
            News::Ended(ended) => Leadership::Ended(ended),
        })
    }

    /// Gives the role to the next, if this volunteer leads, and stands no more. Nothing may act for
    /// it any more.
    pub fn resign(self) {
        drop(self);
    }
}

impl Drop for Volunteer {
    fn drop(&mut self) {
        self.cell.give_up();
        self.elections.tell(ServiceMessage::Leave(self.cell.handle));
    }
}

/// Where a volunteer stands.
#[derive(Debug)]
pub enum Leadership {
    /// Another leads.
    Following(Holder),
    /// It leads, for as long as the lease is valid.
    Leading(Lease),
    /// It leads no more in that epoch. It goes on standing.
    Lost(Epoch),
    /// It stands no more.
    Ended(Ended),
}

/// The right to act in a role. Cloning gives another look at the same right.
#[derive(Clone)]
pub struct Lease {
    elections: Elections,
    cell: Arc<Cell>,
    grant: Grant,
}

impl Lease {
    /// The number to say with every write elsewhere: it rises with every holder.
    pub fn epoch(&self) -> Epoch {
        self.grant.epoch
    }

    /// The whole lease, as it was granted.
    pub fn length(&self) -> Duration {
        self.grant.terms.lease()
    }

    /// Until when its holder may act, by this node's clock; later as it is renewed. Zero once it is
    /// lost or given up.
    pub fn deadline(&self) -> Instant {
        self.cell.deadline(self.grant.epoch).unwrap_or_default()
    }

    /// Whether its holder may act at this moment.
    pub fn is_valid(&self) -> bool {
        self.elections.now() < self.deadline()
    }
}

/// A sign of life: beats on the arbiter where it was made for as long as that arbiter turns.
#[derive(Clone)]
pub struct Pulse(Arc<Beat>);

struct Beat {
    number: u64,
    every_nanos: AtomicU64,
    inner: Weak<Inner>,
}

impl Pulse {
    pub(super) fn new(elections: &Elections) -> Self {
        let beat = Arc::new(Beat {
            number: elections.0.number(),
            every_nanos: AtomicU64::new(nanos(BEAT_MAX)),
            inner: Arc::downgrade(&elections.0),
        });
        let weak = Arc::downgrade(&beat);
        elections.0.node.task(async move {
            while let Some(beat) = weak.upgrade() {
                let Some(inner) = beat.inner.upgrade() else { return };
                inner.tell(ServiceMessage::Pulsed(beat.number));
                let wait = Duration::from_nanos(beat.every_nanos.load(Relaxed));
                drop((beat, inner));
                tokio::time::sleep(wait).await;
            }
        });
        Self(beat)
    }

    pub(in crate::server) fn number(&self) -> u64 {
        self.0.number
    }

    pub(in crate::server) fn quicken(&self, every: Duration) {
        self.0.quicken(every);
    }
}

impl Beat {
    fn quicken(&self, every: Duration) {
        self.every_nanos.fetch_min(nanos(every), Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.tell(ServiceMessage::PulseEnded(self.number));
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A pulse beats at least so often; more often for short leases.
const BEAT_MAX: Duration = Duration::from_millis(200);

impl fmt::Debug for Volunteer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pulse = &self.pulse;
        f.debug_struct("Volunteer").field("pulse", pulse).finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("number", &self.0.number).finish_non_exhaustive()
    }
}
