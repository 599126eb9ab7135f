//! The scrubber: reads the journal and the snapshots again in the background, slowly, for as long as
//! the node runs.
//!
//! A record that cannot be read any more is still known here: the roles were made from it. So the
//! node takes a snapshot and trims its journal, and nothing refers to the damaged place any more;
//! where votes beyond that snapshot stand in the same segment, the next one covers them. Damage that is
//! found only when the node starts again has cost it its memory (see the room `memory`). In place of a
//! damaged snapshot a new one is taken likewise.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use synod_runtime::{
    journal::Scrub,
    snapshot,
    supervision::Policy,
    telemetry::Counter,
    world::disk::{Waker, Worker},
};

use super::{metrics, site::Site};
use crate::consensus::message::{Renew, ReplicaMessage};

/// How often a little is read…
const EVERY: Duration = Duration::from_millis(250);

/// …and how much: a mebibyte a second finds damage within minutes and takes nothing from others.
const SLICE_BYTES: u64 = 256 * 1024;

/// Of snapshots as much: they are larger, and needed less often.
const SNAPSHOT_SLICE_BYTES: usize = 256 * 1024;

/// After damage was found nothing is read for so long: the repair is under way.
const REPAIR: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub(super) struct Scrubber {
    site: Rc<Site>,
    waker: Option<Arc<dyn Waker>>,
    bytes: Counter,
    damage: Counter,
    snapshot_damage: Counter,
    /// Rounds to leave out.
    rests: u32,
}

impl Scrubber {
    /// Starts one for the journal of `site`.
    pub(super) fn start(site: &Rc<Site>) {
        let name = format!("scrubber@{}", site.me.name);
        let site = Rc::clone(site);
        let node = site.node.clone();
        let scrubber = node.spawn_with(&name, Policy::default(), move || {
            let count = |family| site.node.metrics().counter(family, &[]);
            Self {
                site: Rc::clone(&site),
                waker: None,
                bytes: count(&metrics::SCRUBBED_BYTES),
                damage: count(&metrics::DAMAGE),
                snapshot_damage: count(&metrics::SNAPSHOT_DAMAGE),
                rests: 0,
            }
        });
        if let Err(taken) = scrubber {
            tracing::error!(%taken, "the journal is not read again in the background");
        }
    }
}

impl Actor for Scrubber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let disk = &self.site.node.world().disk;
        let scrub = Scrub::new(Arc::clone(disk), &self.site.journal_dir, &self.site.journal);
        let me = ctx.address();
        let told = Box::new(move |read| me.do_send(read));
        let snapshots = snapshot::Scrub::new(Arc::clone(disk), &self.site.snapshot_dir);
        let reader = Reader { scrub, snapshots, told };
        self.waker = Some(disk.spawn_worker("scrubber", Box::new(reader)));
        ctx.run_interval(EVERY, |scrubber, _ctx| {
            scrubber.rests = scrubber.rests.saturating_sub(1);
            if let Some(waker) = scrubber.waker.as_ref().filter(|_| scrubber.rests == 0) {
                waker.wake();
            }
        });
    }
}

struct Reader {
    scrub: Scrub,
    snapshots: snapshot::Scrub,
    told: Box<dyn Fn(Read) + Send>,
}

impl Worker for Reader {
    fn run(&mut self) {
        let journal = self.scrub.read_on(SLICE_BYTES).map(|done| done.bytes);
        (self.told)(Read::Journal(journal.map_err(|error| error.to_string())));
        let snapshots = self.snapshots.read_on(SNAPSHOT_SLICE_BYTES);
        if let Err(error) = snapshots {
            (self.told)(Read::DamagedSnapshot(error.to_string()));
        }
    }
}

enum Read {
    /// So many bytes of it, or why not.
    Journal(Result<u64, String>),
    DamagedSnapshot(String),
}

impl Message for Read {
    type Result = ();
}

impl Handler<Read> for Scrubber {
    type Result = ();

    fn handle(&mut self, read: Read, _ctx: &mut Self::Context) {
        match read {
            Read::Journal(Ok(bytes)) => return self.bytes.add(bytes),
            Read::Journal(Err(error)) => {
                tracing::error!(%error, "the disk has lost a part of the journal; writing it anew");
                self.damage.increment();
            }
            Read::DamagedSnapshot(error) => {
                tracing::error!(%error, "the disk has lost a part of a snapshot; taking a new one");
                self.snapshot_damage.increment();
            }
        }
        self.rests = u32::try_from(REPAIR.as_millis() / EVERY.as_millis()).unwrap_or(1);
        self.site.tell(ReplicaMessage::Renew(Renew {}));
    }
}
