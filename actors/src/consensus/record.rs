//! What consensus makes durable, and how it stands in the journal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::{identity::Incarnation, journal};

use super::{
    ballot::{Ballot, Run, Runs, Step},
    configuration::{Configuration, History},
    message::Vote,
    value::Value,
};

/// A durable fact of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// How the log began.
    Genesis(Configuration),
    /// Nothing below this ballot is voted for any more.
    Promise(Ballot),
    /// A vote.
    Vote(Vote),
    /// Chosen without a vote of this node.
    Chosen(Vote),
    /// These steps are chosen: the [`Record::Chosen`] value of a step, else its last vote. Written in
    /// one call with the former, so that neither a crash nor a full journal keeps it without them.
    Mark(Run),
    /// Everything up to here was forgotten: a snapshot that is durable covers it.
    Trimmed(Step),
    /// An auxiliary's floor, and the configuration in force there.
    Floor(Step, Configuration),
    /// The end of the journal was cut off here after a crash. Nobody was told what stood there,
    /// unless the disk damaged its very last write.
    Torn,
    /// Whatever may have stood in a torn end before this was made up for.
    Mended,
}

/// Whether the end of the journal was torn, and that was not made up for yet.
pub fn is_torn(records: &[Record]) -> bool {
    let last = records.iter().rev().find(|r| matches!(r, Record::Torn | Record::Mended));
    matches!(last, Some(Record::Torn))
}

/// How far all is known to be chosen, by a journal whose snapshot covers everything up to `covered`.
/// What stands behind steps that no mark speaks of says nothing: their values may be missing.
pub fn chosen_upto(records: &[Record], covered: Step) -> Step {
    let mut marked = Runs::default();
    for record in records {
        match record {
            Record::Mark(run) => {
                let first = run.first;
                #[cfg(any(test, feature = "mutations"))]
                let first = match crate::mutation::on(crate::mutation::Mutation::MarkSpansGap) {
                    true => Step(1),
                    false => first,
                };
                marked.add(Run { first, last: run.last });
            }
            Record::Trimmed(step) => marked.add(Run { first: Step(1), last: *step }),
            Record::Genesis(_)
            | Record::Promise(_)
            | Record::Vote(_)
            | Record::Chosen(_)
            | Record::Floor(..)
            | Record::Torn
            | Record::Mended => {}
        }
    }
    marked.end_of(covered.next()).unwrap_or(covered)
}

/// The newest snapshot, as the roles get it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What was executed and who votes.
    pub history: History,
    /// The replica's state.
    pub body: Bytes,
}

/// A journal record that no version of this program wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal record of kind {kind} at step {step} is damaged")]
pub struct BadRecord {
    kind: u8,
    step: u64,
}

const GENESIS: u8 = 1;
const PROMISE: u8 = 2;
const VOTE: u8 = 3;
const CHOSEN: u8 = 4;
const MARK: u8 = 5;
const FLOOR: u8 = 6;
const TORN: u8 = 7;
const MENDED: u8 = 8;
const TRIMMED: u8 = 9;

/// Set on kinds that may use the journal's reserve: a full disk refuses commands, yet can still
/// promise, reconfigure and forget.
const RESERVE: u8 = journal::RESERVE;

impl Record {
    /// The kind, in the journal, of what an auxiliary keeps one of for each step: its votes.
    pub const BY_STEP: u8 = VOTE;

    /// Whether a vote for `value` may use the journal's reserve. A change of configuration must be
    /// possible on a full disk, and so must the empty steps that put it in force.
    pub(super) fn fits_in_reserve(value: &Value) -> bool {
        value.bytes().len() <= 1 || value.is_configuration()
    }

    /// As the journal keeps it.
    pub fn to_journal(&self) -> journal::Record {
        let plain = |kind, ballot: Ballot, step: Step, payload| journal::Record {
            kind,
            group: 0,
            round: ballot.round,
            author: ballot.node.0,
            step: step.0,
            payload,
        };
        match self {
            Self::Genesis(configuration) => {
                plain(GENESIS | RESERVE, Ballot::default(), Step(0), encode(configuration))
            }
            Self::Promise(ballot) => plain(PROMISE | RESERVE, *ballot, Step(0), Bytes::new()),
            Self::Vote(vote) => {
                let reserve = if Self::fits_in_reserve(&vote.value) { RESERVE } else { 0 };
                plain(VOTE | reserve, vote.ballot, vote.step, vote.value.bytes().clone())
            }
            // A node whose disk is full does without these two: the reserve is for what it must say.
            Self::Chosen(vote) => plain(CHOSEN, vote.ballot, vote.step, vote.value.bytes().clone()),
            Self::Mark(run) => {
                // Where it begins stands in place of a round.
                let first = Ballot { round: run.first.0, ..Ballot::default() };
                plain(MARK, first, run.last, Bytes::new())
            }
            Self::Trimmed(step) => plain(TRIMMED | RESERVE, Ballot::default(), *step, Bytes::new()),
            Self::Floor(step, configuration) => {
                plain(FLOOR | RESERVE, Ballot::default(), *step, encode(configuration))
            }
            Self::Torn => plain(TORN | RESERVE, Ballot::default(), Step(0), Bytes::new()),
            Self::Mended => plain(MENDED | RESERVE, Ballot::default(), Step(0), Bytes::new()),
        }
    }

    /// The step it is about, the first of all where it is about none.
    pub const fn step(&self) -> Step {
        match self {
            Self::Vote(vote) | Self::Chosen(vote) => vote.step,
            Self::Mark(run) => run.last,
            Self::Trimmed(step) | Self::Floor(step, _) => *step,
            Self::Genesis(_) | Self::Promise(_) | Self::Torn | Self::Mended => Step(0),
        }
    }

    /// From the journal.
    ///
    /// # Errors
    /// [`BadRecord`] for a kind or payload that is none of ours.
    pub fn from_journal(record: &journal::Record) -> Result<Self, BadRecord> {
        let bad = || BadRecord { kind: record.kind, step: record.step };
        let ballot = Ballot { round: record.round, node: Incarnation(record.author) };
        let step = Step(record.step);
        let vote = || Vote { step, ballot, value: Value::from_bytes(record.payload.clone()) };
        let configuration = || rmp_serde::from_slice(&record.payload).map_err(|_undecodable| bad());
        Ok(match record.kind & !RESERVE {
            GENESIS => Self::Genesis(configuration()?),
            PROMISE => Self::Promise(ballot),
            VOTE => Self::Vote(vote()),
            CHOSEN => Self::Chosen(vote()),
            // Older builds wrote no beginning: theirs is that of the log.
            MARK => Self::Mark(Run { first: Step(record.round.max(1)), last: step }),
            TRIMMED => Self::Trimmed(step),
            FLOOR => Self::Floor(step, configuration()?),
            TORN => Self::Torn,
            MENDED => Self::Mended,
            _ => return Err(bad()),
        })
    }
}

fn encode(configuration: &Configuration) -> Bytes {
    rmp_serde::to_vec_named(configuration).expect("plain data encodes").into()
}
