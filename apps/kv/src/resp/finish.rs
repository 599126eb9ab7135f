//! From the outcome of a command to its reply, where the two differ.

use std::ops::ControlFlow;

use bytes::Bytes;
use synod::replicated::{Outcome, Reason, Refusal};

use crate::{
    reply::{Element, Reply, split_value, walk},
    transaction::Watched,
};

/// What is to be done with the outcome of a command before the client sees it.
#[derive(Debug)]
pub(super) enum Finish {
    /// Nothing.
    Plain,
    /// The versions of these keys are remembered, unless they were forgotten before.
    Watch {
        /// When the keys were asked for, see `Outbox::watch_round`.
        round: u64,
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// The replies of the replica and of the connection make one array.
    Exec(Vec<Piece>),
    /// This text goes before it.
    Info(String),
}

/// Where one reply of a transaction comes from.
#[derive(Debug)]
pub(super) enum Piece {
    /// From the replica: the next one.
    Replica,
    /// From the replica, with this text before it.
    Info(String),
    /// It is known already.
    Known(Vec<u8>),
}

impl Finish {
    pub(super) fn is_watch(&self) -> bool {
        matches!(self, Self::Watch { .. })
    }

    /// The reply to a command that was not a `WATCH`.
    pub(super) fn reply(self, outcome: Outcome) -> Bytes {
        let reply = match applied(outcome) {
            Ok(reply) => reply,
            Err(error) => return error,
        };
        match self {
            Self::Plain | Self::Watch { .. } => reply,
            Self::Info(head) => info(&head, &reply),
            Self::Exec(pieces) => splice(&pieces, &reply),
        }
    }

    /// The reply to a `WATCH`, and what is to be remembered.
    pub(super) fn versions(keys: Vec<Bytes>, outcome: Outcome) -> (Bytes, Vec<Watched>) {
        let reply = match applied(outcome) {
            Ok(reply) => reply,
            Err(error) => return (error, Vec::new()),
        };
        let mut versions = Vec::with_capacity(keys.len());
        let read = walk(&reply, |element| {
            if let Element::Integer(version) = element {
                versions.push(version);
            }
            ControlFlow::Continue(())
        });
        if read.is_err() || versions.len() != keys.len() {
            return (error(UNREADABLE), Vec::new());
        }
        let watched = keys.into_iter().zip(versions);
        let watched = watched.map(|(key, version)| Watched { key, version }).collect();
        (build(Reply::ok), watched)
    }
}

/// The reply of a command that was executed, or the error that tells what became of it.
fn applied(outcome: Outcome) -> Result<Bytes, Bytes> {
    match outcome {
        Outcome::Applied { reply, .. } => Ok(reply),
        Outcome::NotApplied(refusal) => Err(error(&refused(&refusal))),
        Outcome::Unknown(text) | Outcome::SessionExpired(text) => {
            Err(error(&format!("UNCERTAIN outcome unknown: {text}")))
        }
        Outcome::Failed(text) => Err(error(&format!("ERR {text}"))),
    }
}

fn refused(refusal: &Refusal) -> String {
    let code = match refusal.reason {
        Reason::Unavailable => "CLUSTERDOWN",
        Reason::Full => "FULL",
        Reason::Fenced => "FENCED",
        Reason::TooLarge | Reason::NoSuchActor | Reason::KeyReused => "ERR",
    };
    format!("{code} not applied: {}", refusal.text)
}

/// `INFO`: the listener's sections, then the replica's.
fn info(head: &str, reply: &[u8]) -> Bytes {
    match Element::split(reply) {
        Ok((Element::Verbatim(tail), _)) => {
            let tail = String::from_utf8_lossy(tail);
            build(|reply| reply.verbatim(&format!("{head}{tail}")))
        }
        Ok(_) | Err(_) => error(UNREADABLE),
    }
}

fn splice(pieces: &[Piece], reply: &[u8]) -> Bytes {
    let mut rest = match Element::split(reply) {
        Ok((Element::Array(_), rest)) => rest,
        // A watched key has changed, or the whole was refused.
        Ok((Element::NullArray | Element::Error(_), _)) => return Bytes::copy_from_slice(reply),
        Ok(_) | Err(_) => return error(UNREADABLE),
    };
    let mut whole = Reply::new();
    whole.array(pieces.len());
    for piece in pieces {
        if let Piece::Known(known) = piece {
            whole.append(known);
            continue;
        }
        let Ok((value, tail)) = split_value(rest) else { return error(UNREADABLE) };
        rest = tail;
        match piece {
            Piece::Info(head) => whole.append(&info(head, value)),
            Piece::Replica | Piece::Known(_) => whole.append(value),
        }
    }
    if whole.overflowed() {
        return error("ERR the transaction was applied; its replies together are too large");
    }
    whole.into_bytes().into()
}

fn error(text: &str) -> Bytes {
    build(|reply| reply.error(text))
}

fn build(write: impl FnOnce(&mut Reply)) -> Bytes {
    let mut reply = Reply::new();
    write(&mut reply);
    reply.into_bytes().into()
}

/// Cannot happen between equal versions of the program.
const UNREADABLE: &str = "ERR the replica's reply cannot be read";

#[cfg(test)]
mod tests {
    use synod::replicated::Position;

    use super::*;

    fn text_of(outcome: Outcome) -> String {
        let reply = Finish::Plain.reply(outcome);
        match Element::split(&reply).unwrap().0 {
            Element::Error(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_outcome_has_the_words_of_the_contract() {
        let refused = |reason| Outcome::NotApplied(Refusal::new(reason, "why"));
        assert_eq!(text_of(refused(Reason::Unavailable)), "CLUSTERDOWN not applied: why");
        assert_eq!(text_of(refused(Reason::Full)), "FULL not applied: why");
        assert_eq!(text_of(refused(Reason::TooLarge)), "ERR not applied: why");
        assert_eq!(text_of(Outcome::Unknown("why".into())), "UNCERTAIN outcome unknown: why");
        assert_eq!(text_of(Outcome::Failed("why".into())), "ERR why");
    }

    #[test]
    fn a_transaction_answers_in_the_order_of_its_commands() {
        let replica = build(|reply| {
            reply.array(2);
            reply.integer(1);
            reply.verbatim("# Keyspace\r\n");
        });
        let known = build(|reply| reply.simple("PONG")).to_vec();
        let pieces = [Piece::Known(known), Piece::Replica, Piece::Info("# Server\r\n".into())];
        let outcome = Outcome::Applied { reply: replica, position: Position(1) };
        let expected = build(|reply| {
            reply.array(3);
            reply.simple("PONG");
            reply.integer(1);
            reply.verbatim("# Server\r\n# Keyspace\r\n");
        });
        assert_eq!(Finish::Exec(pieces.into()).reply(outcome), expected);
    }
}
