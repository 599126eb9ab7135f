//! The largest number of a walk's group, where it is written down.

use rand::RngExt;
use synod::{
    election::message::Epoch,
    multicast::{
        group::Maximum,
        message::{CommitMessage, Message, Seq, SequencerMessage},
    },
};

use super::Walk;
use crate::judge::{Broken, broken};

impl Walk {
    /// Which of what is written a node knows: the one register, or its own file.
    fn page(&self, node: usize) -> usize {
        match self.group.maximum {
            Maximum::CommitServers | Maximum::Register => 0,
            Maximum::LocalFile => node,
        }
    }

    /// The register, or the file, takes a larger number from the newest sequencer, and tells that what it
    /// holds. Of a node that died under way its file may have it or not.
    pub(super) fn store(&mut self, node: usize, epoch: Epoch, seq: Seq) -> Result<(), Broken> {
        let dead = self.nodes[node].roles.is_none();
        if dead && self.group.maximum == Maximum::LocalFile && self.rng.random_ratio(1, 2) {
            return Ok(());
        }
        let page = self.page(node);
        let (newest, largest) = self.written[page];
        if epoch < newest {
            return self.tell(node, SequencerMessage::Refused(newest).into());
        }
        self.written[page] = (epoch, largest.max(seq));
        let seq = self.written[page].1;
        self.tell(node, SequencerMessage::Stored { epoch, seq }.into())
    }

    /// R4.21: what commit servers hear of from a node is written where that node will find it.
    pub(super) fn is_stored(&self, node: usize, message: &Message) -> Result<(), Broken> {
        let Message::Commit(CommitMessage::Submit { pairs, .. }) = message else { return Ok(()) };
        let last = pairs.last().map_or(Seq(0), |(seq, _)| *seq);
        let (_, written) = self.written[self.page(node)];
        if self.group.maximum.is_written() && last > written {
            return broken(format!("{last} is submitted and {written} is written down"));
        }
        Ok(())
    }
}
