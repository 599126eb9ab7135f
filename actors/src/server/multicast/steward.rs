//! What a node does for its place in a group: it stands for the sequencer where it serves, and sees
//! to it that a server which is lost is replaced.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use synod_runtime::identity::NodeId;

use super::{Inner, Multicast, MulticastError, room::Room};
use crate::{
    multicast::{
        book::{CHANGE, Change, What},
        group::Group,
        losses::{Losses, Sight},
        message::SequencerMessage,
    },
    server::elections::{Elections, Leadership},
};

/// Stands for the role of the sequencer, for as long as the node runs and serves the group.
pub(super) async fn stand(elections: Elections, room: Weak<Room>, me: NodeId) {
    let Some((role, mut groups)) =
        room.upgrade().map(|room| (format!("{}/sequencer", room.name), room.watch()))
    else {
        return;
    };
    let mut leaving = elections.hosts().leaving();
    loop {
        if groups.wait_for(|group| group.index(&me).is_some()).await.is_err() {
            return; // the node stopped
        }
        let stood = elections.volunteer(&role).lease(LEASE).stand();
        let mut volunteer = match stood {
            Ok(volunteer) => volunteer,
            Err(refusal) => return tracing::error!(role, %refusal, "cannot stand"),
        };
        let again = loop {
            let news = tokio::select! {
                biased;
                left = leaving.wait_for(|leaving| *leaving) => {
                    drop(left);
                    if let Some(room) = room.upgrade() {
                        room.tell(SequencerMessage::StepDown);
                    }
                    return; // the next one has it at once
                }
                // Its servers changed: whoever orders does so in a new epoch.
                changed = groups.changed() => {
                    let Some(room) = room.upgrade().filter(|_| changed.is_ok()) else { return };
                    room.tell(SequencerMessage::StepDown);
                    break Duration::ZERO;
                }
                news = volunteer.next() => news,
            };
            let Some(room) = room.upgrade() else { return };
            match news {
                Some(Leadership::Leading(lease)) => {
                    tracing::info!(role, epoch = %lease.epoch(), "orders");
                    room.tell(SequencerMessage::Lead(lease.epoch()));
                }
                Some(Leadership::Lost(_)) => room.tell(SequencerMessage::StepDown),
                Some(Leadership::Following(_)) => {}
                Some(Leadership::Ended(_)) | None => {
                    room.tell(SequencerMessage::StepDown);
                    break STAND_AGAIN;
                }
            }
        };
        drop(volunteer);
        tokio::time::sleep(again).await;
    }
}

/// Sees to it that this node knows the servers of a group; where the group is ordered here, that
/// lost ones are replaced; and where this node replaces one, that it counts once it can.
pub(super) struct Steward {
    inner: Weak<Inner>,
    room: Weak<Room>,
    me: NodeId,
    losses: Losses,
}

impl Steward {
    pub(super) fn new(multicast: &Multicast, room: &Arc<Room>) -> Self {
        Self {
            inner: Arc::downgrade(&multicast.0),
            room: Arc::downgrade(room),
            me: multicast.0.me.clone(),
            losses: Losses::default(),
        }
    }

    /// Until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            // Nothing is held while it waits: the node may stop.
            let Some(news) = self.room.upgrade().map(|room| Arc::clone(&room.news)) else { return };
            let told = tokio::time::timeout(LOOK_EVERY, news.notified()).await.is_ok();
            let (Some(inner), Some(room)) = (self.inner.upgrade(), self.room.upgrade()) else {
                return;
            };
            if let Err(error) = self.look(&Multicast(inner), &room, told).await {
                tracing::debug!(group = room.name, %error, "its servers are not known, or changed");
                drop(room);
                tokio::time::sleep(LOOK_EVERY).await;
                news.notify_one(); // whatever it was told is still so
            }
        }
    }

    async fn look(
        &mut self,
        multicast: &Multicast,
        room: &Arc<Room>,
        told: bool,
    ) -> Result<(), MulticastError> {
        if room.is_in() {
            return self.change(multicast, room, What::Joined(self.me.clone())).await;
        }
        if told || !room.hears() {
            let groups = multicast.groups().await?;
            if let Some(group) = groups.into_iter().find(|group| group.name == room.name) {
                room.regroup(group).map_err(MulticastError::Failed)?;
            }
        }
        if room.report().epoch.is_none() {
            self.losses = Losses::default();
            return Ok(());
        }
        match self.lost(multicast, &room.group()) {
            Some(what) => self.change(multicast, room, what).await,
            None => Ok(()),
        }
    }

    async fn change(
        &self,
        multicast: &Multicast,
        room: &Arc<Room>,
        what: What,
    ) -> Result<(), MulticastError> {
        let change = Change { group: room.name.clone(), version: room.group().version, what };
        match multicast.agree(CHANGE, &change).await {
            Ok(group) => {
                tracing::info!(group = room.name, ?change, "its servers changed");
                room.regroup(group).map_err(MulticastError::Failed)
            }
            Err(error) => {
                // Somebody else may have been first.
                room.news.notify_one();
                Err(error)
            }
        }
    }

    fn lost(&mut self, multicast: &Multicast, group: &Group) -> Option<What> {
        let Inner { node, board, .. } = &*multicast.0;
        let removed = board.reached().configuration.unwrap_or_default().removed;
        let (up, now) = (multicast.up(), node.now());
        self.losses.look(group, &Sight { me: &self.me, up: &up, removed: &removed, now })
    }
}

/// The sequencer's lease: so long after its node died nobody orders.
const LEASE: Duration = Duration::from_millis(500);

/// A store that does not answer is asked again then.
const STAND_AGAIN: Duration = Duration::from_millis(300);

/// How often to look whether a server is away: much shorter than it may be.
const LOOK_EVERY: Duration = Duration::from_millis(500);
