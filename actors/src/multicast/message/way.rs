//! Which way a message goes, and to which roles of a node.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    CheckpointMessage, Commit, CommitMessage, DataMessage, Gossip, Message, PAIR_BYTES,
    ReceiverMessage, SenderMessage, SequencerMessage, Word,
};

impl Message {
    /// Whether another node may say it. All else is between the roles of one node.
    pub const fn travels(&self) -> bool {
        match self {
            Self::Sequencer(message) => !matches!(
                message,
                SequencerMessage::Lead(_)
                    | SequencerMessage::StepDown
                    | SequencerMessage::Stored { .. }
                    | SequencerMessage::Regroup(_)
            ),
            Self::Data(message) => !matches!(
                message,
                DataMessage::Delivered(_) | DataMessage::Skipped(_) | DataMessage::Regroup(_)
            ),
            Self::Committed(_) | Self::Gossip(_) | Self::Sent(_) => true,
            Self::Commit(message) => {
                !matches!(message, CommitMessage::Forget(_) | CommitMessage::Regroup(_))
            }
            Self::Checkpoint(message) => matches!(message, CheckpointMessage::Query { .. }),
            Self::Receiver(message) => {
                !matches!(message, ReceiverMessage::Again(_) | ReceiverMessage::Regroup(_))
            }
            Self::Sender(_)
            | Self::Delivered(_)
            | Self::Installed(_)
            | Self::Regroup(_)
            | Self::Word(_) => false,
        }
    }

    /// Whether it carries what publishers said, and so may be large.
    pub const fn is_bulky(&self) -> bool {
        match self {
            Self::Sent(_) | Self::Commit(CommitMessage::Adopt(_)) => true,
            Self::Receiver(message) => matches!(
                message,
                ReceiverMessage::Data(_)
                    | ReceiverMessage::Entries(_)
                    | ReceiverMessage::Blocks { .. }
            ),
            _ => false,
        }
    }

    /// So many bytes it takes on its way, or a little more: room for it is made once.
    pub(crate) fn len_hint(&self) -> usize {
        let said = |payload: &Bytes| payload.len() + PAIR_BYTES;
        ENVELOPE_BYTES
            + match self {
                Self::Sent(data) | Self::Receiver(ReceiverMessage::Data(data)) => {
                    data.iter().map(|one| said(&one.payload)).sum()
                }
                Self::Receiver(ReceiverMessage::Entries(entries)) => {
                    entries.iter().map(|one| said(&one.payload)).sum()
                }
                Self::Receiver(ReceiverMessage::Blocks { blocks, .. }) => {
                    blocks.iter().map(|(_, block)| said(block)).sum()
                }
                Self::Committed(commit) => commit.pairs.len() * PAIR_BYTES,
                Self::Commit(CommitMessage::Submit { pairs, .. }) => pairs.len() * PAIR_BYTES,
                Self::Sequencer(SequencerMessage::Reported(pairs)) => pairs.len() * PAIR_BYTES,
                _ => 0,
            }
    }

    /// What is said on a channel, as it comes to each role of a node; anything else is one role's.
    pub fn split(self, mut to: impl FnMut(Self)) {
        match self {
            Self::Committed(commit) => {
                to(Self::Commit(CommitMessage::Committed(commit.clone())));
                to(Self::Data(DataMessage::Committed(commit.clone())));
                to(Self::Receiver(ReceiverMessage::Committed(commit)));
            }
            Self::Gossip(gossip) => {
                to(Self::Commit(CommitMessage::Gossip(gossip.clone())));
                to(Self::Data(DataMessage::Gossip(gossip.clone())));
                to(Self::Checkpoint(CheckpointMessage::Gossip(gossip.clone())));
                to(Self::Receiver(ReceiverMessage::Gossip(gossip)));
            }
            Self::Sent(data) => {
                to(Self::Receiver(ReceiverMessage::Data(data.clone())));
                to(Self::Data(DataMessage::Store(data)));
            }
            Self::Delivered(entries) => {
                to(Self::Data(DataMessage::Delivered(Arc::clone(&entries))));
                to(Self::Checkpoint(CheckpointMessage::Delivered(Arc::clone(&entries))));
                to(Self::Sender(SenderMessage::Delivered(Arc::clone(&entries))));
                to(Self::Word(Word::Delivered(entries)));
            }
            Self::Installed(checkpoint) => {
                to(Self::Data(DataMessage::Skipped(checkpoint.seq)));
                to(Self::Sender(SenderMessage::Skipped(checkpoint.seq)));
                to(Self::Checkpoint(CheckpointMessage::Install(Arc::clone(&checkpoint))));
                to(Self::Word(Word::Installed(checkpoint)));
            }
            Self::Regroup(group) => {
                to(Self::Sequencer(SequencerMessage::Regroup(Arc::clone(&group))));
                to(Self::Data(DataMessage::Regroup(Arc::clone(&group))));
                to(Self::Commit(CommitMessage::Regroup(Arc::clone(&group))));
                to(Self::Checkpoint(CheckpointMessage::Regroup(Arc::clone(&group))));
                to(Self::Receiver(ReceiverMessage::Regroup(Arc::clone(&group))));
                to(Self::Sender(SenderMessage::Regroup(group)));
            }
            one => to(one),
        }
    }
}

macro_rules! messages {
    ($($kind:ident $message:ty;)*) => {$(
        impl From<$message> for Message {
            fn from(message: $message) -> Self {
                Self::$kind(message)
            }
        }
    )*};
}

messages! {
    Sequencer SequencerMessage;
    Data DataMessage;
    Commit CommitMessage;
    Checkpoint CheckpointMessage;
    Receiver ReceiverMessage;
    Sender SenderMessage;
    Committed Commit;
    Gossip Gossip;
    Word Word;
}

/// What is around the largest part of a message, and the name of the group.
const ENVELOPE_BYTES: usize = 256;
