//! The checkpoint server: follows the order, and keeps the state that came of it.

mod blocks;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use synod_runtime::{identity::NodeId, world::Instant};

pub use self::blocks::digest;
use self::blocks::{Origin, origins, whole_of};
pub(super) use self::blocks::{advert, newest_of};
use super::{
    application::Application,
    group::Group,
    message::{
        Advert, Checkpoint, CheckpointMessage, CommitMessage, Entry, Gossip, Message,
        ReceiverMessage, Seq, SequencerMessage, Step, Word,
    },
    record::Record,
};
use crate::{
    effects::{Effects, To},
    election::message::Epoch,
    machine::{Machine, Now, Survived},
};

/// The machine. A node that is no server of the group has one too: it holds its application.
#[derive(Debug)]
pub struct CheckpointServer {
    me: NodeId,
    group: Arc<Group>,
    application: Box<dyn Application>,
    /// The application has seen everything up to here.
    at: Seq,
    /// Whether it takes part, or only holds the application.
    serves: bool,
    /// Durable, from the oldest: the newest ones, and the one that is advertised.
    kept: VecDeque<Kept>,
    /// On its way to the disk.
    writing: Option<Writing>,
    next: Option<Checkpoint>,
    /// What was written with checkpoints up to this one is written again with the next.
    rewritten: Seq,
    advertised: Seq,
    sequencer: Option<(Epoch, NodeId)>,
    report_at: Instant,
}

#[derive(Debug, Clone)]
struct Kept {
    advert: Advert,
    blocks: Vec<Bytes>,
    /// Where each of these is on the disk.
    origins: Vec<Origin>,
}

#[derive(Debug)]
struct Writing {
    checkpoint: Checkpoint,
    origins: Vec<Origin>,
    /// Blocks that were given to the disk.
    given: usize,
}

impl CheckpointServer {
    /// A checkpoint server with an empty state.
    pub fn new(group: Arc<Group>, me: &NodeId, application: Box<dyn Application>) -> Self {
        Self {
            serves: group.is_host(me),
            me: me.clone(),
            group,
            application,
            at: Seq(0),
            kept: VecDeque::new(),
            writing: None,
            next: None,
            rewritten: Seq(0),
            advertised: Seq(0),
            sequencer: None,
            report_at: Instant::default(),
        }
    }

    /// The newest checkpoint that is durable here.
    pub fn newest(&self) -> Option<&Advert> {
        self.kept.back().map(|kept| &kept.advert)
    }

    /// Up to where the application has seen the order.
    pub const fn at(&self) -> Seq {
        self.at
    }

    fn deliver(&mut self, entries: &[Entry], out: &mut Effects<Self>) {
        for entry in entries {
            if entry.seq <= self.at {
                continue;
            }
            if entry.seq != self.at.next() {
                // It was rebuilt from an older state than the receiver's.
                return out.here(ReceiverMessage::Again(self.at));
            }
            self.application.deliver(entry);
            self.at = entry.seq;
            if self.serves && self.at.0.is_multiple_of(self.group.every) {
                let mut blocks = self.application.checkpoint();
                if blocks.is_empty() {
                    blocks.push(Bytes::new()); // so that there is something to find again
                }
                // If the disk is slower than that, the newest is what counts.
                self.next = Some(Checkpoint { seq: self.at, blocks });
            }
        }
    }

    fn install(&mut self, checkpoint: &Checkpoint) {
        if checkpoint.seq <= self.at {
            return;
        }
        match self.application.restore(&checkpoint.blocks) {
            Ok(()) => {
                self.at = checkpoint.seq;
                if self.serves {
                    self.next = Some(checkpoint.clone());
                }
            }
            // Its digest was right, so everybody has it: nobody can go on from it.
            Err(bad) => panic!("the checkpoint at {}: {bad}", checkpoint.seq),
        }
    }

    /// Gives the disk the next blocks, when it has the last ones.
    fn write(&mut self, out: &mut Effects<Self>) {
        if self.writing.is_none() {
            let Some(checkpoint) = self.next.take() else { return };
            let oldest = checkpoint.seq.back(REUSED_FOR * self.group.every).max(self.rewritten);
            // Who is on its way in may be told to forget what the others have forgotten.
            let joins = self.group.is_joining(&self.me);
            let before = self.kept.back().filter(|_| !joins);
            let known = before.map(|kept| (&kept.blocks[..], &kept.origins[..]));
            let origins = origins(&checkpoint, known, oldest);
            self.writing = Some(Writing { checkpoint, origins, given: 0 });
            self.write_on(out);
        }
    }

    fn write_on(&mut self, out: &mut Effects<Self>) {
        let Some(writing) = &mut self.writing else { return };
        let Checkpoint { seq, blocks } = &writing.checkpoint;
        let of = u32::try_from(blocks.len()).expect("blocks are few");
        let mut bytes = 0;
        while writing.given < blocks.len() && bytes < WRITE_BYTES {
            let number = u32::try_from(writing.given).expect("blocks are few");
            let Origin { seq: origin, block: was } = writing.origins[writing.given];
            if origin == *seq {
                let block = blocks[writing.given].clone();
                bytes += block.len();
                out.persist(Record::Block { seq: *seq, block: number, of, bytes: block });
            } else {
                out.persist(Record::Same { seq: *seq, block: number, of, origin, was });
            }
            writing.given += 1;
        }
        out.after_all_before().then_here(CheckpointMessage::Written(*seq));
    }

    fn written(&mut self, seq: Seq, out: &mut Effects<Self>) {
        let Some(writing) = self.writing.take_if(|writing| writing.checkpoint.seq == seq) else {
            return;
        };
        if writing.given < writing.checkpoint.blocks.len() {
            self.writing = Some(writing);
            return self.write_on(out);
        }
        self.keep(writing.checkpoint, writing.origins);
        self.report_at = Instant::default();
        self.tell_how_far(out);
        self.tell_what_may_go(out);
    }

    /// Who is on its way in needs what is advertised.
    fn tell_how_far(&self, out: &mut Effects<Self>) {
        if self.group.is_joining(&self.me) {
            let kept = self.newest().map_or(Seq(0), |advert| advert.seq);
            for step in [Step::Kept(kept), Step::Advertised(self.advertised)] {
                // It must still know, when it was started again, what it may not drop.
                out.after_all_before().then_here(Word::Step(step));
            }
        }
    }

    fn regroup(&mut self, group: Arc<Group>) {
        if group.version > self.group.version {
            self.serves = group.is_host(&self.me);
            self.group = group;
            self.rewritten = self.at;
        }
    }

    fn keep(&mut self, checkpoint: Checkpoint, origins: Vec<Origin>) {
        let advert = advert(&checkpoint);
        self.kept.push_back(Kept { advert, blocks: checkpoint.blocks, origins });
        self.drop_old();
    }

    /// What is advertised stays until something newer is: whoever lags may have nothing else to come
    /// from, and may be needed for that.
    fn drop_old(&mut self) {
        while self.kept.len() > KEPT_MAX {
            if self.kept[1].advert.seq <= self.advertised {
                self.kept.pop_front();
            } else if self.kept.len() > KEPT_MAX + 1 {
                self.kept.remove(1);
            } else {
                return;
            }
        }
    }

    fn gossip(&mut self, gossip: &Gossip, out: &mut Effects<Self>) {
        if self.sequencer.as_ref().is_none_or(|(known, _)| gossip.epoch > *known) {
            self.sequencer = Some((gossip.epoch, gossip.sequencer.clone()));
            self.report_at = Instant::default();
        }
        let advertised = gossip.checkpoint.as_ref().map_or(Seq(0), |advert| advert.seq);
        if advertised > self.advertised {
            self.advertised = advertised;
            self.drop_old();
            if self.serves {
                // A later sequencer learns it from here: nobody else may have got so far.
                out.persist(Record::Advertised(advertised));
            }
            self.tell_what_may_go(out);
        }
        self.tell_how_far(out);
    }

    /// This node can come back from a checkpoint of its own, and others from enough of theirs.
    fn tell_what_may_go(&self, out: &mut Effects<Self>) {
        if let Some(before) = self.kept.iter().rev().nth(1) {
            // What is advertised is on the disk until something newer is.
            let upto = before.advert.seq.min(self.advertised.back(1));
            // I9: and so is what they were written with before.
            let stays = self.kept.iter().filter(|kept| kept.advert.seq > upto);
            let origins = stays.map(|kept| &kept.origins);
            let origins = origins.chain(self.writing.as_ref().map(|writing| &writing.origins));
            let oldest = origins.flatten().map(|origin| origin.seq).min();
            let upto = oldest.map_or(upto, |oldest| upto.min(oldest.back(1)));
            out.after_all_before().then_here(CommitMessage::Forget(upto));
        }
    }

    fn answer(&self, from: &NodeId, seq: Seq, wanted: &[u32], out: &mut Effects<Self>) {
        // None of it is an answer too: whoever asked need not wait for one.
        let kept = self.kept.iter().find(|kept| kept.advert.seq == seq);
        let (mut bytes, mut blocks) = (0, Vec::new());
        for number in wanted.iter().take(BLOCKS_MAX) {
            let block = kept.and_then(|kept| kept.blocks.get(*number as usize));
            let Some(block) = block else { continue };
            bytes += block.len();
            blocks.push((*number, block.clone()));
            if bytes >= WRITE_BYTES {
                break;
            }
        }
        out.send(To::Node(from.clone()), ReceiverMessage::Blocks { seq, blocks });
    }
}

impl Machine for CheckpointServer {
    type Message = CheckpointMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, survived: &Survived<Record, ()>, out: &mut Effects<Self>) {
        let advertised = survived.records.iter().filter_map(|record| match record {
            Record::Advertised(seq) => Some(*seq),
            _ => None,
        });
        self.advertised = advertised.max().unwrap_or_default();
        let mut whole = whole_of(&survived.records);
        let Some((checkpoint, origins)) = whole.pop() else { return };
        // Any of the others may be the one that is advertised: most likely the oldest.
        whole.into_iter().for_each(|(before, origins)| self.keep(before, origins));
        match self.application.restore(&checkpoint.blocks) {
            Ok(()) => {
                self.at = checkpoint.seq;
                self.rewritten = checkpoint.seq;
                self.keep(checkpoint.clone(), origins);
                out.here(Word::Installed(Arc::new(checkpoint)));
            }
            Err(bad) => panic!("the checkpoint at {}: {bad}", checkpoint.seq),
        }
    }

    fn message(
        &mut self,
        _: Now,
        from: &NodeId,
        message: CheckpointMessage,
        out: &mut Effects<Self>,
    ) {
        match message {
            CheckpointMessage::Delivered(entries) => self.deliver(&entries, out),
            CheckpointMessage::Install(checkpoint) => self.install(&checkpoint),
            CheckpointMessage::Gossip(gossip) => self.gossip(&gossip, out),
            CheckpointMessage::Query { seq, blocks } => self.answer(from, seq, &blocks, out),
            CheckpointMessage::Written(seq) => self.written(seq, out),
            CheckpointMessage::Regroup(group) => self.regroup(group),
            CheckpointMessage::Ask(call, question) => {
                let said = self.application.query(&question).map(Bytes::from);
                out.here(Word::Answer { call, at: self.at, said });
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        if !self.serves {
            return;
        }
        self.write(out);
        if self.report_at <= now.at
            && let Some((_, sequencer)) = &self.sequencer
        {
            self.report_at = now.at + REPORT_EVERY;
            for kept in &self.kept {
                let advert = kept.advert.clone();
                let advertised = advert.seq <= self.advertised;
                let report = SequencerMessage::Checkpointed { advert, advertised };
                out.send(To::Node(sequencer.clone()), report);
            }
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        let reports = self.serves && self.sequencer.is_some() && !self.kept.is_empty();
        reports.then_some(self.report_at)
    }
}

/// A sequencer that missed a report, or is new, hears it soon.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The newest, and the one before it, which somebody may be fetching; and one more that is advertised.
const KEPT_MAX: usize = 2;

/// A block that stays as it is is written again with the checkpoint after so many: what the journal
/// keeps for it alone is bounded so.
const REUSED_FOR: u64 = 2;

/// Given to the disk, or sent, at once.
pub(super) const WRITE_BYTES: usize = 1 << 20;

/// Of one answer; the receiver asks again for the rest.
pub(super) const BLOCKS_MAX: usize = 64;

#[cfg(test)]
mod tests;
