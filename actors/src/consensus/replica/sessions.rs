//! Sessions: what makes a command that is sent twice execute once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use crate::consensus::message::CommandReply;

/// Sessions kept; one a start of a home. The one longest unused goes first.
const SESSIONS_MAX: usize = 4_096;

/// Replies kept a session: at least what a home may have under way.
const REPLIES_MAX: usize = 4_096;

/// …as far as they fit in this many bytes.
const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// All sessions, by number. A snapshot shares them while it is taken.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "BTreeMap<u64, Session>")]
pub(super) struct Sessions(BTreeMap<u64, Arc<Session>>);

/// The commands of one start of a home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    home: NodeId,
    /// From the registration, so that a repeated one is the same session.
    nonce: u64,
    last_seq: u64,
    used: u64,
    replies: VecDeque<CommandReply>,
    reply_bytes: usize,
}

/// What a session says of a command's number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The next one: execute it.
    Next,
    /// Executed before; the reply, if it is still known.
    Repeated(Option<CommandReply>),
    /// Out of order: this one is expected.
    Gap(u64),
    /// No such session (any more).
    Expired,
}

impl From<BTreeMap<u64, Session>> for Sessions {
    fn from(whole: BTreeMap<u64, Session>) -> Self {
        Self(whole.into_iter().map(|(number, session)| (number, Arc::new(session))).collect())
    }
}

impl Sessions {
    /// All of them, as they are now.
    pub(super) fn shared(&self) -> Vec<(u64, Arc<Session>)> {
        self.0.iter().map(|(number, session)| (*number, Arc::clone(session))).collect()
    }

    /// One that came with a snapshot.
    pub(super) fn put(&mut self, number: u64, session: Session) {
        self.0.insert(number, Arc::new(session));
    }

    /// Registers a session of `home`; a repeated registration answers the same number.
    pub(super) fn register(&mut self, position: u64, home: NodeId, nonce: u64) -> u64 {
        let known =
            self.0.iter().find(|(_, session)| session.nonce == nonce && session.home == home);
        if let Some((number, _)) = known {
            return *number;
        }
        if self.0.len() >= SESSIONS_MAX
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, session)| session.used).map(|(number, _)| *number)
        {
            self.0.remove(&oldest);
        }
        let session = Session {
            home,
            nonce,
            last_seq: 0,
            used: position,
            replies: VecDeque::new(),
            reply_bytes: 0,
        };
        self.put(position, session);
        position
    }

    /// Whether command `seq` of session `number` is to be executed.
    pub(super) fn admit(&self, number: u64, seq: u64) -> Admission {
        let Some(session) = self.0.get(&number) else { return Admission::Expired };
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::NoDuplicateCheck) {
            return Admission::Next;
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::AnyOrder) {
            let known = session.replies.iter().find(|reply| reply.seq == seq).cloned();
            return known.map_or(Admission::Next, |reply| Admission::Repeated(Some(reply)));
        }
        if seq == session.last_seq + 1 {
            Admission::Next
        } else if seq > session.last_seq {
            Admission::Gap(session.last_seq + 1)
        } else {
            let first = session.replies.front().map_or(u64::MAX, |reply| reply.seq);
            let index = seq.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            Admission::Repeated(index.and_then(|index| session.replies.get(index)).cloned())
        }
    }

    /// Keeps the reply of an executed command.
    pub(super) fn answered(&mut self, number: u64, position: u64, reply: CommandReply) {
        let Some(session) = self.0.get_mut(&number).map(Arc::make_mut) else { return };
        session.last_seq = reply.seq;
        session.used = position;
        session.reply_bytes += size(&reply);
        session.replies.push_back(reply);
        while session.replies.len() > REPLIES_MAX
            || (session.reply_bytes > REPLY_BYTES_MAX && session.replies.len() > 1)
        {
            if let Some(old) = session.replies.pop_front() {
                session.reply_bytes -= size(&old);
            }
        }
    }

    /// The newest session of `home`: its number, the nonce it was registered with, and the replies
    /// that are kept.
    pub(super) fn newest_of(&self, home: &NodeId) -> Option<(u64, u64, Vec<CommandReply>)> {
        let newest = self.0.iter().rev().find(|(_, session)| session.home == *home);
        newest.map(|(number, session)| {
            (*number, session.nonce, session.replies.iter().cloned().collect())
        })
    }

    /// Whose session it is.
    pub(super) fn home(&self, number: u64) -> Option<&NodeId> {
        self.0.get(&number).map(|session| &session.home)
    }
}

fn size(reply: &CommandReply) -> usize {
    32 + reply.result.as_ref().map_or_else(String::len, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use synod_runtime::identity::Incarnation;

    use super::*;

    fn home() -> NodeId {
        NodeId::new("a".parse().unwrap(), Incarnation(1))
    }

    fn reply(seq: u64) -> CommandReply {
        CommandReply { seq, position: 100 + seq, result: Ok(bytes::Bytes::new()) }
    }

    #[test]
    fn a_session_executes_in_order_once_and_remembers_its_replies() {
        let mut sessions = Sessions::default();
        let number = sessions.register(7, home(), 99);
        assert_eq!(sessions.register(9, home(), 99), number);
        assert_eq!(sessions.admit(number, 2), Admission::Gap(1));
        assert_eq!(sessions.admit(number, 1), Admission::Next);
        sessions.answered(number, 101, reply(1));
        assert_eq!(sessions.admit(number, 1), Admission::Repeated(Some(reply(1))));
        assert_eq!(sessions.admit(8, 1), Admission::Expired);
        assert_eq!(sessions.newest_of(&home()), Some((number, 99, vec![reply(1)])));
        let later = sessions.register(200, home(), 100);
        assert_eq!(sessions.newest_of(&home()), Some((later, 100, vec![])), "a new life of it");
    }

    #[test]
    fn replies_beyond_the_window_are_forgotten_but_never_executed_again() {
        let mut sessions = Sessions::default();
        let number = sessions.register(1, home(), 1);
        for seq in 1..=REPLIES_MAX as u64 + 10 {
            sessions.answered(number, seq, reply(seq));
        }
        assert_eq!(sessions.admit(number, 1), Admission::Repeated(None));
        assert_eq!(sessions.admit(number, 11), Admission::Repeated(Some(reply(11))));
    }
}
