//! The largest number of a group beside its servers, on behalf of the sequencer of this node: in a register,
//! or in a file of the node.

mod file;

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use synod_runtime::{watch, world::Disk};

use self::file::File;
use super::room::Room;
use crate::{
    election::message::Epoch,
    multicast::message::{Seq, SequencerMessage},
    server::registers::Registers,
};

/// What is written down, or shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Of the newest sequencer that asked.
    pub(super) epoch: Epoch,
    /// No number above it was given out.
    pub(super) seq: Seq,
}

impl Held {
    /// What comes of it when a sequencer wants that. One of an earlier epoch changes nothing.
    fn raised(self, wanted: Self) -> Self {
        match wanted.epoch < self.epoch {
            true => self,
            false => Self { epoch: wanted.epoch, seq: self.seq.max(wanted.seq) },
        }
    }

    /// Nothing, before anybody wrote. What cannot be read is not ours: nothing is known then.
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(Self::default()),
            bytes => rmp_serde::from_slice(bytes).ok(),
        }
    }

    fn encode(self) -> Vec<u8> {
        rmp_serde::to_vec(&self).expect("two numbers encode")
    }
}

/// Where it is written.
pub(super) enum Store {
    /// In the register of that name.
    Register(Registers, String),
    /// In a file.
    File(File),
}

impl Store {
    /// The register of a group.
    pub(super) fn register(registers: Registers, group: &str) -> Self {
        Self::Register(registers, format!("sam/{group}/max"))
    }

    /// The file of a group whose journal is in `dir`.
    pub(super) fn file(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        Self::File(File::new(disk, dir))
    }

    async fn raise(&self, mine: Held) -> Result<Held, String> {
        let (registers, name) = match self {
            Self::File(file) => return file.raise(mine).await,
            Self::Register(registers, name) => (registers, name),
        };
        // What is not ours stays as it is.
        let change = move |old: &[u8]| match Held::decode(old) {
            Some(held) => held.raised(mine).encode(),
            None => old.to_vec(),
        };
        let value = registers.change(name, change).await;
        let value = value.map_err(|error| format!("register {name}: {error}"))?;
        Held::decode(&value).ok_or_else(|| format!("register {name} holds something else"))
    }
}

/// Does what the sequencer of the room wants last, and tells it; until the room is closed.
pub(super) async fn keep(
    store: Store,
    room: Weak<Room>,
    mut wanted: watch::Receiver<Option<Held>>,
) {
    while wanted.changed().await.is_ok() {
        let Some(mine) = *wanted.borrow_and_update() else { continue };
        // A sequencer of a later epoch is not kept waiting for what an earlier one wanted.
        while !wanted.has_changed().unwrap_or(true) {
            let said = store.raise(mine).await;
            let Some(room) = room.upgrade() else { return };
            match said {
                Ok(held) if held.epoch > mine.epoch => {
                    room.tell(SequencerMessage::Refused(held.epoch));
                    break;
                }
                Ok(Held { seq, .. }) => {
                    room.tell(SequencerMessage::Stored { epoch: mine.epoch, seq });
                    break;
                }
                Err(why) => {
                    tracing::warn!(group = room.name, why, "nothing is ordered without it");
                    drop(room);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// What does not answer is asked again then.
const AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_only_and_never_for_an_earlier_sequencer() {
        let held = |epoch, seq| Held { epoch: Epoch(epoch), seq: Seq(seq) };
        assert_eq!(Held::decode(&[]), Some(Held::default()));
        let first = Held::default().raised(held(1, 7));
        assert_eq!(Held::decode(&first.encode()), Some(held(1, 7)));
        assert_eq!(first.raised(held(1, 5)), held(1, 7));
        assert_eq!(
            first.raised(held(2, 0)),
            held(2, 7),
            "a new one learns it, and shuts out others"
        );
        assert_eq!(held(2, 7).raised(held(1, 9)), held(2, 7));
        assert_eq!(Held::decode(b"something else"), None);
    }
}
