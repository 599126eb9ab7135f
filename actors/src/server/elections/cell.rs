//! What a client was told last, for whoever waits for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use synod_runtime::world::Instant;
use tokio::sync::Notify;

use super::lock;
use crate::election::{
    message::{Epoch, Grant, Holder},
    service::{Ended, Event},
};

/// One client, as it is seen from outside of the service.
#[derive(Debug)]
pub(in crate::server) struct Cell {
    pub(in crate::server) handle: u64,
    known: Mutex<Known>,
    news: Notify,
}

/// Where the client stands.
#[derive(Debug, Default)]
pub(in crate::server) struct Known {
    /// In what it may act: the grant, when the request was sent, and until when.
    pub(in crate::server) lease: Option<(Grant, Instant, Instant)>,
    /// Who leads instead.
    pub(in crate::server) holder: Option<Holder>,
    /// Nothing more comes.
    pub(in crate::server) ended: Option<Ended>,
    /// What happened, in order.
    news: VecDeque<News>,
}

/// One change.
#[derive(Debug, Clone)]
pub(in crate::server) enum News {
    Following(Holder),
    Leading(Grant),
    Lost(Epoch),
    Ended(Ended),
}

/// What a look into a cell found.
pub(in crate::server) enum Found<T> {
    /// This.
    This(T),
    /// Nothing yet.
    Wait,
}

impl Cell {
    pub(super) fn new(handle: u64) -> Self {
        Self { handle, known: Mutex::default(), news: Notify::new() }
    }

    /// The service said this.
    pub(super) fn note(&self, event: Event) {
        let mut known = self.known();
        match event {
            Event::Following(holder) => {
                known.holder = Some(holder.clone());
                known.push(News::Following(holder));
            }
            Event::Leading { grant, sent, deadline } => {
                let before = known.lease.replace((grant, sent, deadline));
                if before.is_none_or(|(before, _, _)| before.epoch != grant.epoch) {
                    known.push(News::Leading(grant));
                }
            }
            Event::Lost(epoch) => {
                known.lease = None;
                known.push(News::Lost(epoch));
            }
            Event::Ended(ended) => {
                known.lease = None;
                known.ended.get_or_insert_with(|| ended.clone());
                known.push(News::Ended(ended));
            }
        }
        drop(known);
        self.news.notify_one();
    }

    /// From now on the client does not act.
    pub(in crate::server) fn give_up(&self) {
        self.known().lease = None;
    }

    /// The client may act in that epoch until then.
    pub(super) fn deadline(&self, epoch: Epoch) -> Option<Instant> {
        let lease = self.known().lease;
        lease.filter(|(grant, _, _)| grant.epoch == epoch).map(|(_, _, deadline)| deadline)
    }

    /// Waits until `look` finds what it looks for. One at a time.
    pub(in crate::server) async fn wait<T>(
        &self,
        mut look: impl FnMut(&mut Known) -> Found<T>,
    ) -> T {
        loop {
            if let Found::This(found) = look(&mut self.known()) {
                return found;
            }
            self.news.notified().await;
        }
    }

    /// What is known at this moment.
    pub(in crate::server) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

impl Known {
    fn push(&mut self, news: News) {
        if self.news.len() >= NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    pub(super) fn next(&mut self) -> Option<News> {
        self.news.pop_front()
    }
}

/// Changes kept for a client that does not look; what it missed then is over in any case, and the
/// lease it may hold is never read from here.
const NEWS_MAX: usize = 64;
