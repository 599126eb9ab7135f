//! The replica's whole state as bytes, and back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Replica, State, guests::Guests, keys::Keys, sessions::Sessions, takeover::Taking};
use crate::{
    consensus::configuration::History,
    replicated::{is_in_force, name_hash},
};

/// The form of a snapshot; a higher one is of a newer build.
const VERSION: u16 = 1;

/// A snapshot's content. Named fields, so that later versions may add some.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateImage {
    version: u16,
    /// What was executed and who votes.
    pub history: History,
    /// Commands executed.
    pub position: u64,
    /// Agreed time in milliseconds.
    pub time_ms: u64,
    /// Chain over commands and replies.
    pub digest: u64,
    sessions: Sessions,
    pub(super) keys: Keys,
    #[serde(default)]
    guests: Guests,
    #[serde(default)]
    taking: Option<Taking>,
    /// Name and state of every replicated actor.
    pub(super) actors: Vec<(String, Bytes)>,
}

impl StateImage {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// A text for people when this build cannot read it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let image: Self = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        if image.version > VERSION {
            return Err(format!(
                "its version {} is newer than this build's {VERSION}",
                image.version
            ));
        }
        Ok(image)
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self).expect("plain data encodes").into()
    }

    /// The same state, after which positions go on from `position`.
    pub(crate) fn continued_at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    /// Every replicated actor, with the bytes of its state.
    pub(crate) fn actors(&self) -> impl Iterator<Item = (&str, usize)> {
        self.actors.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }
}

impl Replica {
    /// The present state.
    pub(crate) fn image(&self) -> Bytes {
        let State { history, position, time_ms, digest, sessions, keys, guests, taking } =
            self.state.clone();
        // What no command can have changed yet, older builds need not have.
        let version = history.newest().map_or(0, |configuration| configuration.version);
        let actors = self
            .machines
            .values()
            .filter(|machine| is_in_force(machine.as_ref(), version))
            .map(|machine| (machine.name().to_owned(), machine.snapshot().into()))
            .collect();
        let image = StateImage {
            version: VERSION,
            history,
            position,
            time_ms,
            digest,
            sessions,
            keys,
            guests,
            taking,
            actors,
        };
        image.encode()
    }

    /// Replaces the state. On an error nothing changed, but for actors already restored.
    pub(super) fn install(&mut self, bytes: &[u8]) -> Result<(), String> {
        let image = StateImage::decode(bytes)?;
        self.reset_machines();
        if let Some(why) = self.is_too_old_for(&image.history) {
            return Err(why);
        }
        for (name, bytes) in &image.actors {
            let Some(machine) = self.machines.get_mut(&name_hash(name)) else {
                return Err(format!("it holds actor {name}, which this build does not have"));
            };
            machine.restore(bytes).map_err(|error| error.to_string())?;
        }
        let StateImage {
            history, position, time_ms, digest, sessions, keys, guests, taking, ..
        } = image;
        self.state = State { history, position, time_ms, digest, sessions, keys, guests, taking };
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::SnapshotForgetsSessions) {
            self.state.sessions = Sessions::default();
        }
        self.log_bytes = 0;
        Ok(())
    }
}
