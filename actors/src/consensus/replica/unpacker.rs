//! Taking a snapshot apart.

use bytes::{Buf, Bytes};

use super::{
    image::{CUT, MAGIC, StateImage, VERSION},
    memory::{self, Next, Remembered},
};

/// From this form on, sessions and keys stand behind the head, record by record.
const RECORDS_SINCE: u16 = 3;

/// Takes a state apart as it comes, cut anywhere.
#[derive(Default)]
pub(super) struct Unpacker {
    rest: Bytes,
    awaits: Awaits,
}

#[derive(Clone, Copy, Default)]
enum Awaits {
    #[default]
    Head,
    Record,
    Actor,
    PartLen,
    /// So many bytes of a part.
    Part(usize),
    End,
}

/// What an [`Unpacker`] finds.
pub(super) enum Piece {
    Head(Box<StateImage>),
    Record(Box<Remembered>),
    Actor(String),
    Part(Bytes),
    ActorEnd,
}

impl Unpacker {
    /// More of the state.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.rest =
            if self.rest.is_empty() { bytes } else { [&self.rest[..], &bytes].concat().into() };
    }

    /// The next piece that is there, if any.
    ///
    /// # Errors
    /// A text for people when it is no state this build can read.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, String> {
        match self.awaits {
            Awaits::Head => self.head(),
            Awaits::Record => match memory::take(&mut self.rest)? {
                Next::Record(record) => Ok(Some(Piece::Record(record))),
                Next::Wait => Ok(None),
                Next::End => {
                    self.awaits = Awaits::Actor;
                    self.next()
                }
            },
            Awaits::Actor => {
                let Some(len) = self.rest.first_chunk().map(|len| u16::from_le_bytes(*len)) else {
                    return Ok(None);
                };
                let Some(name) = self.rest.get(2..2 + usize::from(len)) else { return Ok(None) };
                let name = String::from_utf8(name.to_vec()).map_err(|error| error.to_string())?;
                self.rest.advance(2 + usize::from(len));
                if len == 0 {
                    self.awaits = Awaits::End;
                    return Ok(None);
                }
                self.awaits = Awaits::PartLen;
                Ok(Some(Piece::Actor(name)))
            }
            Awaits::PartLen => {
                let Ok(len) = self.rest.try_get_u32_le() else { return Ok(None) };
                if len == 0 {
                    self.awaits = Awaits::Actor;
                    return Ok(Some(Piece::ActorEnd));
                }
                self.awaits = Awaits::Part(len as usize);
                self.next()
            }
            Awaits::Part(_) if self.rest.is_empty() => Ok(None),
            Awaits::Part(left) => {
                let part = self.rest.split_to(left.min(self.rest.len()));
                let left = left - part.len();
                self.awaits = if left == 0 { Awaits::PartLen } else { Awaits::Part(left) };
                Ok(Some(Piece::Part(part)))
            }
            Awaits::End => Ok(None),
        }
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// When the state was not whole.
    pub(super) fn end(&self) -> Result<(), String> {
        match self.awaits {
            Awaits::End if self.rest.is_empty() => Ok(()),
            Awaits::End => Err("it goes on behind its end".to_owned()),
            Awaits::Head | Awaits::Record | Awaits::Actor | Awaits::PartLen | Awaits::Part(_) => {
                Err(CUT.to_owned())
            }
        }
    }

    fn head(&mut self) -> Result<Option<Piece>, String> {
        const FIXED: usize = MAGIC.len() + 4;
        let Some((magic, rest)) = self.rest.split_first_chunk() else { return Ok(None) };
        if *magic != MAGIC {
            return self.first_version();
        }
        let Some(len) = rest.first_chunk().map(|len| u32::from_le_bytes(*len) as usize) else {
            return Ok(None);
        };
        let Some(head) = self.rest.get(FIXED..FIXED + len) else { return Ok(None) };
        let image: StateImage = rmp_serde::from_slice(head).map_err(|error| error.to_string())?;
        if image.version > VERSION {
            let version = image.version;
            return Err(format!("its version {version} is newer than this build's {VERSION}"));
        }
        self.rest.advance(FIXED + len);
        let records = image.version >= RECORDS_SINCE;
        self.awaits = if records { Awaits::Record } else { Awaits::Actor };
        Ok(Some(Piece::Head(Box::new(image))))
    }

    /// A state of the first version, which must be there in whole.
    fn first_version(&mut self) -> Result<Option<Piece>, String> {
        let image: StateImage = rmp_serde::from_slice(&self.rest).map_err(|e| e.to_string())?;
        if image.version != 1 {
            return Err(format!("it says that its version is {}", image.version));
        }
        (self.rest, self.awaits) = (Bytes::new(), Awaits::End);
        Ok(Some(Piece::Head(Box::new(image))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    /// The head of a snapshot's second form, and of its first one.
    #[derive(Serialize)]
    struct Second {
        version: u16,
        history: crate::consensus::configuration::History,
        position: u64,
        time_ms: u64,
        digest: u64,
        sessions: BTreeMap<u64, Value>,
        keys: BTreeMap<&'static str, BTreeMap<u64, Value>>,
        guests: Guests,
        taking: Option<()>,
        actors: Vec<(String, Bytes)>,
    }

    #[derive(Serialize)]
    struct Guests {
        sessions: BTreeMap<u64, Value>,
        used: BTreeSet<(u64, u64)>,
    }

    fn second(version: u16) -> Second {
        let home = json!({"name": "a", "incarnation": 1});
        let session = json!({
            "home": home, "nonce": 8, "last_seq": 3, "used": 9, "replies": [], "reply_bytes": 0,
        });
        let guest = json!({"nonce": 5, "used_ms": 40, "open": 1, "answers": {}, "bytes": 0});
        Second {
            version,
            history: crate::consensus::configuration::History::default(),
            position: 70,
            time_ms: 50,
            digest: 6,
            sessions: BTreeMap::from([(4, session)]),
            keys: BTreeMap::from([("by_key", BTreeMap::new()), ("by_position", BTreeMap::new())]),
            guests: Guests {
                sessions: BTreeMap::from([(11, guest)]),
                used: BTreeSet::from([(40, 11)]),
            },
            taking: None,
            actors: Vec::new(),
        }
    }

    #[test]
    fn the_second_form_of_a_snapshot_is_read_and_written_in_the_third() {
        let head = rmp_serde::to_vec_named(&second(2)).unwrap();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&[0; 2]);
        let first = rmp_serde::to_vec_named(&second(1)).unwrap();
        let written = StateImage::decode(&bytes).unwrap().encode();
        for form in [&bytes[..], &first[..], &written[..]] {
            let image = StateImage::decode(form).unwrap();
            let remembered = format!("{image:?}");
            assert_eq!(image.position, 70);
            assert!(remembered.contains("nonce: 8") && remembered.contains("nonce: 5"));
            assert_eq!(image.encode(), written);
        }
        for cut in 0..written.len() {
            assert!(StateImage::decode(&written[..cut]).is_err(), "cut at {cut}");
        }
    }
}
