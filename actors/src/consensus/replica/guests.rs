//! Sessions of clients outside the cluster.
//!
//! Such a client has no home that would number its commands in order: it sends the same call to one
//! node after the other until it is answered, so calls may come twice, late, and in any order. Each
//! carries a number, and the lowest number the client still waits for; what is below that is
//! forgotten and never executed again. A session that was not used for [`KEPT_MS`] of agreed time
//! ends, and its client is told so instead of being answered twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::replicated::GuestCall;

/// Sessions kept; the one longest unused makes room.
const GUESTS_MAX: usize = 10_000;

/// A session lives this long by agreed time without being used: longer than a client waits for a
/// cluster that is being repaired.
const KEPT_MS: u64 = 60 * 60 * 1_000;

/// Calls a client may have open; their answers are kept until it says that it has them.
pub const GUEST_WINDOW: u64 = 1_024;

/// Answers kept a session, in bytes, beside the newest; an older call is then only known to have
/// been applied.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How the answer to a session that ended begins.
pub const SESSION_EXPIRED: &str = "session expired: ";

/// All sessions, by number. A snapshot shares them while it is taken.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Whole")]
pub(super) struct Guests {
    sessions: BTreeMap<u64, Arc<Guest>>,
    /// When each was used last, in agreed time, and its number.
    used: BTreeSet<(u64, u64)>,
}

/// All of them at once, as the first forms of a snapshot had them.
#[derive(Deserialize)]
struct Whole {
    sessions: BTreeMap<u64, Guest>,
}

impl From<Whole> for Guests {
    fn from(whole: Whole) -> Self {
        let mut guests = Self::default();
        whole.sessions.into_iter().for_each(|(number, guest)| guests.put(number, guest));
        guests
    }
}

/// The session of a client outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Guest {
    /// From the opening, so that a repeated one is the same session.
    nonce: u64,
    used_ms: u64,
    /// Everything below was answered, and the client has the answers.
    open: u64,
    answers: BTreeMap<u64, Answered>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answered {
    /// Digest of function and arguments.
    request: u64,
    position: u64,
    /// None: applied, but the answer was too old to be kept.
    result: Option<Result<Bytes, String>>,
}

/// What a session says of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is new: execute it.
    New,
    /// It was executed at this position, with this result.
    Known(u64, Result<Bytes, String>),
    /// It is not to be executed.
    Refused(String),
}

impl Guests {
    /// All of them, as they are now.
    pub(super) fn shared(&self) -> Vec<(u64, Arc<Guest>)> {
        self.sessions.iter().map(|(number, guest)| (*number, Arc::clone(guest))).collect()
    }

    /// One that came with a snapshot.
    pub(super) fn put(&mut self, number: u64, guest: Guest) {
        self.used.insert((guest.used_ms, number));
        self.sessions.insert(number, Arc::new(guest));
    }

    /// Opens a session, numbered by its position; a repeated opening answers the same number.
    pub(super) fn open(&mut self, position: u64, nonce: u64, now_ms: u64) -> u64 {
        self.expire(now_ms);
        // Young sessions are few among those that are kept, and openings are rare.
        let known = self.sessions.iter().rev().find(|(_, guest)| guest.nonce == nonce);
        if let Some((number, _)) = known {
            return *number;
        }
        if self.sessions.len() >= GUESTS_MAX
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.sessions.remove(&oldest);
        }
        let answers = BTreeMap::new();
        let guest = Guest { nonce, used_ms: now_ms, open: 1, answers, bytes: 0 };
        self.put(position, guest);
        position
    }

    /// Whether `call` is to be executed. `request` is a digest of what it asks for.
    pub(super) fn admit(&mut self, call: GuestCall, request: u64, now_ms: u64) -> Admission {
        self.expire(now_ms);
        let GuestCall { session, seq, open } = call;
        let Some(guest) = self.sessions.get_mut(&session).map(Arc::make_mut) else {
            let why = "it was not used for an hour, or made room for others; what it left open may \
                       or may not have been applied";
            return Admission::Refused(format!("{SESSION_EXPIRED}{session}: {why}"));
        };
        self.used.remove(&(guest.used_ms, session));
        guest.used_ms = now_ms;
        self.used.insert((now_ms, session));
        guest.forget_below(open);
        if seq < guest.open {
            let why = "the client said that it has the answer";
            return Admission::Refused(format!("call {seq} of session {session} is over: {why}"));
        }
        if seq >= guest.open + GUEST_WINDOW {
            let why = format!("more than {GUEST_WINDOW} calls are open");
            return Admission::Refused(format!("call {seq} of session {session}: {why}"));
        }
        match guest.answers.get(&seq) {
            None => Admission::New,
            Some(known) if known.request != request => {
                let why = "it was made with another request";
                Admission::Refused(format!("{}call {seq}: {why}", super::KEY_REUSED))
            }
            Some(known) => {
                let gone = || Err("applied, but its answer is not kept any more".to_owned());
                Admission::Known(known.position, known.result.clone().unwrap_or_else(gone))
            }
        }
    }

    /// Keeps the answer of an executed call.
    pub(super) fn answered(
        &mut self,
        call: GuestCall,
        request: u64,
        position: u64,
        result: Result<Bytes, String>,
    ) {
        let Some(guest) = self.sessions.get_mut(&call.session).map(Arc::make_mut) else { return };
        guest.bytes += size(Some(&result));
        guest.answers.insert(call.seq, Answered { request, position, result: Some(result) });
        let mut numbers = guest.answers.range_mut(..call.seq);
        while guest.bytes > ANSWER_BYTES_MAX
            && let Some((_, old)) = numbers.next()
        {
            guest.bytes -= size(old.result.take().as_ref());
        }
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((used_ms, number)) = self.used.first().copied()
            && used_ms + KEPT_MS < now_ms
        {
            self.used.pop_first();
            self.sessions.remove(&number);
        }
    }
}

impl Guest {
    fn forget_below(&mut self, open: u64) {
        self.open = self.open.max(open);
        while let Some(first) = self.answers.first_entry()
            && *first.key() < self.open
        {
            self.bytes -= size(first.remove().result.as_ref());
        }
    }
}

fn size(result: Option<&Result<Bytes, String>>) -> usize {
    result.map_or(0, |result| result.as_ref().map_or_else(String::len, Bytes::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(session: u64, seq: u64, open: u64) -> GuestCall {
        GuestCall { session, seq, open }
    }

    fn done(text: &'static str) -> Result<Bytes, String> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    fn refusal(admission: Admission) -> String {
        match admission {
            Admission::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_is_executed_once_in_whatever_order_calls_come() {
        let mut guests = Guests::default();
        let one = guests.open(7, 99, 0);
        assert_eq!((one, guests.open(8, 99, 0), guests.open(9, 98, 0)), (7, 7, 9));
        for seq in [2, 1] {
            assert_eq!(guests.admit(call(one, seq, 1), 5, 0), Admission::New);
            guests.answered(call(one, seq, 1), 5, 10 + seq, done("x"));
            assert_eq!(
                guests.admit(call(one, seq, 1), 5, 0),
                Admission::Known(10 + seq, done("x"))
            );
        }
        assert!(refusal(guests.admit(call(one, 2, 1), 6, 0)).starts_with(super::super::KEY_REUSED));
    }

    #[test]
    fn what_the_client_has_heard_is_forgotten_and_never_executed_again() {
        let mut guests = Guests::default();
        let one = guests.open(7, 99, 0);
        guests.answered(call(one, 1, 1), 5, 8, done("x"));
        assert_eq!(guests.admit(call(one, 2, 2), 5, 0), Admission::New);
        assert!(refusal(guests.admit(call(one, 1, 1), 5, 0)).contains("is over"));
        assert_eq!(guests.sessions[&one].bytes, 0);
        let beyond = call(one, 2 + GUEST_WINDOW, 2);
        assert!(refusal(guests.admit(beyond, 5, 0)).contains("are open"));
    }

    #[test]
    fn an_old_answer_that_had_to_go_is_still_known_to_have_been_applied() {
        let mut guests = Guests::default();
        let one = guests.open(7, 99, 0);
        guests.answered(call(one, 1, 1), 5, 8, done("x"));
        let large = Ok(Bytes::from(vec![0; 2 * ANSWER_BYTES_MAX]));
        guests.answered(call(one, 2, 1), 5, 9, large.clone());
        assert_eq!(guests.admit(call(one, 2, 1), 5, 0), Admission::Known(9, large));
        let first = guests.admit(call(one, 1, 1), 5, 0);
        assert!(matches!(first, Admission::Known(8, Err(why)) if why.starts_with("applied")));
    }

    #[test]
    fn a_session_ends_by_agreed_time_or_to_make_room_and_its_client_is_told() {
        let mut guests = Guests::default();
        let (one, two) = (guests.open(1, 1, 0), guests.open(2, 2, 0));
        assert_eq!(guests.admit(call(two, 1, 1), 5, 10), Admission::New);
        assert_eq!(guests.admit(call(two, 1, 1), 5, KEPT_MS + 5), Admission::New);
        let expired = refusal(guests.admit(call(one, 1, 1), 5, KEPT_MS + 5));
        assert!(expired.starts_with(SESSION_EXPIRED), "{expired}");
        for number in 0..GUESTS_MAX as u64 {
            guests.open(100 + number, 100 + number, KEPT_MS + 6);
        }
        assert_eq!((guests.sessions.len(), guests.used.len()), (GUESTS_MAX, GUESTS_MAX));
        assert!(
            refusal(guests.admit(call(two, 2, 1), 5, KEPT_MS + 6)).starts_with(SESSION_EXPIRED)
        );
    }
}
