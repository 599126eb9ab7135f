use synod_runtime::identity::Incarnation;

use super::*;
use crate::multicast::{
    application::{BLOCK_ENTRIES, NEWEST_KEPT, Newest},
    message::{Mid, Pair, Publisher},
};

const EVERY: u64 = 1_000;

/// A checkpoint server and the disk below it.
struct Desk {
    server: CheckpointServer,
    records: Vec<Record>,
    written: usize,
    forgotten: Seq,
}

impl Desk {
    fn new() -> Self {
        let me = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let group = Group { every: EVERY, ..Group::new("news", vec![me.clone()]) };
        let server = CheckpointServer::new(Arc::new(group), &me, Box::new(Newest::default()));
        Self { server, records: Vec::new(), written: 0, forgotten: Seq(0) }
    }

    /// The next message; the disk does at once what is wanted.
    fn deliver(&mut self, seq: u64) {
        let mid = Some(Mid { publisher: Publisher(1), number: seq });
        let pair = Pair { mid, stamp: Seq(0), lowest_open: 1 };
        let payload = Bytes::from(vec![seq.to_le_bytes()[0]; 100]);
        let entries = Arc::new(vec![Entry { seq: Seq(seq), pair, payload }]);
        self.tell(CheckpointMessage::Delivered(entries));
    }

    fn tell(&mut self, message: CheckpointMessage) {
        let mut todo = VecDeque::from([message]);
        while let Some(message) = todo.pop_front() {
            let (mut out, me) = (Effects::default(), self.server.me.clone());
            self.server.message(Now::default(), &me, message, &mut out);
            self.server.flush(Now::default(), &mut out);
            for record in &out.records {
                if let Record::Block { bytes, .. } = record {
                    self.written += bytes.len();
                }
            }
            self.records.append(&mut out.records);
            for letter in out.now.into_iter().chain(out.held) {
                match letter.message {
                    Message::Checkpoint(message) => todo.push_back(message),
                    Message::Commit(CommitMessage::Forget(upto)) => {
                        assert!(upto >= self.forgotten, "what is gone is gone");
                        self.forgotten = upto;
                        self.records.retain(|record| record.last() > upto);
                    }
                    _ => {}
                }
            }
        }
    }

    fn advertise(&mut self) {
        let checkpoint = self.server.newest().cloned();
        let (epoch, sequencer) = (Epoch(1), self.server.me.clone());
        let largest = self.server.at();
        let gossip = Gossip { epoch, sequencer, largest, checkpoint, version: 0, beat: 1 };
        self.tell(CheckpointMessage::Gossip(gossip));
    }
}

/// Goal: however much the journal forgets as soon as it may, the newest checkpoint is whole on the
/// disk, and what did not change was not written again each time; also after a start in between.
#[test]
fn a_block_that_stays_is_not_written_again_and_never_forgotten_too_early() {
    let mut desk = Desk::new();
    let mut taken = 0;
    for seq in 1..=40 * EVERY {
        desk.deliver(seq);
        if !seq.is_multiple_of(EVERY) {
            continue;
        }
        taken += desk.server.newest().unwrap().bytes;
        if seq.is_multiple_of(3 * EVERY) {
            desk.advertise();
        }
        let newest = newest_of(&desk.records).unwrap();
        assert_eq!(Some(&advert(&newest)), desk.server.newest(), "at {seq}");
        if seq == 25 * EVERY {
            let records = std::mem::take(&mut desk.records);
            let (written, forgotten) = (desk.written, desk.forgotten);
            desk = Desk { records, written, forgotten, ..Desk::new() };
            let survived = Survived { records: desk.records.clone(), snapshot: None };
            desk.server.start(Now::default(), &survived, &mut Effects::default());
            assert_eq!(desk.server.newest(), Some(&advert(&newest)));
        }
    }
    assert!(desk.forgotten >= Seq(30 * EVERY), "{:?} is all that may go", desk.forgotten);
    let (written, taken) = (desk.written, usize::try_from(taken).unwrap());
    assert!(written * 3 < taken * 2, "{written} bytes written for {taken}");
    const { assert!(NEWEST_KEPT > 4 * EVERY && EVERY > BLOCK_ENTRIES) };
}
