//! What makes commands execute exactly once, on its way into a snapshot and out of it: record by
//! record, so that no turn is long however many sessions and keys there are.
//!
//! ```text
//! record = length u32 | a session, a guest's session, or a run of idempotency keys (MessagePack)
//! ```
//! Little-endian; a length of zero ends them. What is handed out shares the memory of what commands
//! use, and what a command changes meanwhile is copied first, one record's worth of it.

use std::{sync::Arc, vec};

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    guests::{Guest, Guests},
    keys::{Kept, Keys},
    sessions::{Session, Sessions},
};

/// All of it, as it was at one step.
pub(super) struct Memory {
    sessions: vec::IntoIter<(u64, Arc<Session>)>,
    guests: vec::IntoIter<(u64, Arc<Guest>)>,
    keys: vec::IntoIter<(usize, Arc<Vec<Kept>>)>,
}

/// A record on its way out.
#[derive(Serialize)]
enum Told<'a> {
    Session(u64, &'a Session),
    Guest(u64, &'a Guest),
    Keys(&'a [Kept]),
}

/// A record that came in.
#[derive(Debug, Deserialize)]
pub(super) enum Remembered {
    Session(u64, Session),
    Guest(u64, Guest),
    Keys(Vec<Kept>),
}

impl Memory {
    pub(super) fn of(sessions: &Sessions, guests: &Guests, keys: &Keys) -> Self {
        Self {
            sessions: sessions.shared().into_iter(),
            guests: guests.shared().into_iter(),
            keys: keys.shared().into_iter(),
        }
    }

    /// Appends the next record, or their end; whether there may be more.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some((number, session)) = self.sessions.next() {
            put(out, &Told::Session(number, &session));
        } else if let Some((number, guest)) = self.guests.next() {
            put(out, &Told::Guest(number, &guest));
        } else if let Some((forgotten, run)) = self.keys.next() {
            put(out, &Told::Keys(&run[forgotten..]));
        } else {
            out.put_u32_le(0);
            return false;
        }
        true
    }
}

fn put(out: &mut Vec<u8>, record: &Told<'_>) {
    let at = out.len();
    out.put_u32_le(0);
    rmp_serde::encode::write_named(out, record).expect("plain data encodes into memory");
    let len = u32::try_from(out.len() - at - 4).expect("what a record holds is bounded");
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// What stands at the beginning of some bytes.
pub(super) enum Next {
    /// A record, which was taken from them.
    Record(Box<Remembered>),
    /// The end of all records, which was taken from them.
    End,
    /// Not yet all of one.
    Wait,
}

/// Takes one record from the beginning of `bytes`, if it is there in whole.
///
/// # Errors
/// A text for people when it is none.
pub(super) fn take(bytes: &mut Bytes) -> Result<Next, String> {
    let Some(len) = bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize) else {
        return Ok(Next::Wait);
    };
    if len == 0 {
        bytes.advance(4);
        return Ok(Next::End);
    }
    let Some(record) = bytes.get(4..4 + len) else { return Ok(Next::Wait) };
    let record = rmp_serde::from_slice(record).map_err(|error| error.to_string())?;
    bytes.advance(4 + len);
    Ok(Next::Record(Box::new(record)))
}
