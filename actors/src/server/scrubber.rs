//! The scrubber: reads the journal again in the background, slowly, for as long as the node runs.
//!
//! A record that cannot be read any more is still known here: the roles were made from it. So the
//! node takes a snapshot and trims its journal, and nothing refers to the damaged place any more;
//! where votes beyond that snapshot stand in the same segment, the next one covers them. Damage that is
//! found only when the node starts again has cost it its memory (see the room `memory`).

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use synod_runtime::{
    journal::{JournalError, Scrub, Scrubbed},
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

/// After damage was found nothing is read for so long: the repair is under way.
const REPAIR: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub(super) struct Scrubber {
    site: Rc<Site>,
    waker: Option<Arc<dyn Waker>>,
    bytes: Counter,
    damage: Counter,
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
            let (bytes, damage) = (count(&metrics::SCRUBBED_BYTES), count(&metrics::DAMAGE));
            Self { site: Rc::clone(&site), waker: None, bytes, damage, rests: 0 }
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
        let told = Box::new(move |result| me.do_send(Read(result)));
        self.waker = Some(disk.spawn_worker("scrubber", Box::new(Reader { scrub, told })));
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
    told: Box<dyn Fn(Result<Scrubbed, JournalError>) + Send>,
}

impl Worker for Reader {
    fn run(&mut self) {
        (self.told)(self.scrub.read_on(SLICE_BYTES));
    }
}

struct Read(Result<Scrubbed, JournalError>);

impl Message for Read {
    type Result = ();
}

impl Handler<Read> for Scrubber {
    type Result = ();

    fn handle(&mut self, read: Read, _ctx: &mut Self::Context) {
        match read.0 {
            Ok(done) => self.bytes.add(done.bytes),
            Err(error) => {
                tracing::error!(%error, "the disk has lost a part of the journal; writing it anew");
                self.damage.increment();
                self.rests = u32::try_from(REPAIR.as_millis() / EVERY.as_millis()).unwrap_or(1);
                self.site.tell(ReplicaMessage::Renew(Renew {}));
            }
        }
    }
}
