//! The sender: sends messages to the group until their numbers are known.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{
    group::Group,
    message::{Data, Entry, Message, Mid, Outcome, SenderMessage, Seq, Word},
    record::Record,
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// The machine. It keeps a message until it is committed, or nobody waits for it any more.
#[derive(Debug)]
pub struct Sender {
    me: NodeId,
    group: Arc<Group>,
    open: BTreeMap<Mid, Open>,
    calls: BTreeMap<u64, Call>,
    /// The order as it was delivered here: where messages of the last lifetime are.
    recent: BTreeMap<Mid, Seq>,
    order: VecDeque<Mid>,
    /// It saw every number above this one…
    seen_from: Seq,
    /// …up to this one.
    seen: Seq,
    fresh: Vec<Mid>,
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    data: Data,
    call: u64,
    sent: Instant,
    wait: Duration,
}

#[derive(Debug, Default)]
struct Call {
    open: usize,
    done: Vec<(Mid, Outcome)>,
}

impl Sender {
    /// The sender of the node `me`.
    pub fn new(me: NodeId, group: Arc<Group>) -> Self {
        Self {
            me,
            group,
            open: BTreeMap::new(),
            calls: BTreeMap::new(),
            recent: BTreeMap::new(),
            order: VecDeque::new(),
            seen_from: Seq(0),
            seen: Seq(0),
            fresh: Vec::new(),
            look_at: None,
        }
    }

    /// Messages it keeps.
    pub fn held(&self) -> usize {
        self.open.len()
    }

    fn publish(&mut self, now: Instant, call: u64, messages: Vec<Data>) {
        self.calls.insert(call, Call::default());
        for data in messages {
            let mid = data.mid;
            self.calls.entry(call).or_default().open += 1;
            if let Some(seq) = self.recent.get(&mid).copied() {
                self.close(call, mid, Outcome::Committed(seq));
                continue;
            }
            let earlier = self.open.insert(mid, Open { data, call, sent: now, wait: RESEND_AFTER });
            if let Some(earlier) = earlier {
                // Whoever asked before has gone, and asks again here.
                self.close(earlier.call, mid, Outcome::Unknown);
            }
            self.fresh.push(mid);
        }
    }

    fn close(&mut self, call: u64, mid: Mid, outcome: Outcome) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.open -= 1;
            call.done.push((mid, outcome));
        }
    }

    fn delivered(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.seq <= self.seen {
                continue;
            }
            if entry.seq != self.seen.next() {
                // What was delivered before this role was rebuilt it did not see.
                self.skipped(entry.seq.back(1));
            }
            self.seen = entry.seq;
            let Some(mid) = entry.pair.mid else { continue };
            self.recent.insert(mid, entry.seq);
            self.order.push_back(mid);
            if self.order.len() as u64 > self.group.lifetime
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen_from = self.recent.remove(&oldest).unwrap_or(self.seen_from);
            }
            if let Some(open) = self.open.remove(&mid) {
                self.close(open.call, mid, Outcome::Committed(entry.seq));
            }
        }
    }

    /// The order goes on behind a checkpoint. What was sent before it was taken may be in it, and nobody
    /// here will see where: whoever waits for that is told so now, and not when its lifetime is over.
    fn skipped(&mut self, seq: Seq) {
        if seq <= self.seen {
            return;
        }
        self.recent.clear();
        self.order.clear();
        (self.seen_from, self.seen) = (seq, seq);
        let is_lost = |_: &Mid, open: &mut Open| open.data.stamp < seq;
        let lost: Vec<_> = self.open.extract_if(.., is_lost).collect();
        for (mid, open) in lost {
            self.close(open.call, mid, Outcome::Unknown);
        }
    }

    /// Sends again what has no number, and gives up what will get none.
    fn look(&mut self, now: Instant, out: &mut Effects<Self>) {
        let mut again = std::mem::take(&mut self.fresh);
        let mut over = Vec::new();
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            for (mid, open) in &mut self.open {
                let stamp = open.data.stamp;
                if self.group.lives_until(stamp) <= self.seen {
                    let all_seen = stamp >= self.seen_from;
                    over.push((*mid, if all_seen { Outcome::Expired } else { Outcome::Unknown }));
                } else if now.since(open.sent) >= open.wait {
                    (open.sent, open.wait) = (now, (open.wait * 2).min(RESEND_AFTER_MAX));
                    again.push(*mid);
                }
            }
        }
        for (mid, outcome) in over {
            if let Some(open) = self.open.remove(&mid) {
                self.close(open.call, mid, outcome);
            }
        }
        if !self.open.is_empty() && self.look_at.is_none() {
            self.look_at = Some(now + RESEND_AFTER / 2);
        }
        let data: Vec<_> = again
            .iter()
            .filter_map(|mid| self.open.get(mid))
            .map(|open| open.data.clone())
            .collect();
        for data in parts(&data) {
            for server in self.group.hosts() {
                out.send(To::Node(server.clone()), Message::Sent(data.to_vec()));
            }
        }
        let finished = |(call, one): (&u64, &Call)| (one.open == 0).then_some(*call);
        let finished: Vec<_> = self.calls.iter().filter_map(finished).collect();
        for call in finished {
            let messages = self.calls.remove(&call).map(|call| call.done).unwrap_or_default();
            out.here(Word::Outcome { call, messages });
        }
    }

    fn abandon(&mut self, call: u64) {
        self.calls.remove(&call);
        self.open.retain(|_, open| open.call != call);
    }
}

/// Cuts messages so that each part fits a frame well.
fn parts(mut data: &[Data]) -> impl Iterator<Item = &[Data]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = data.iter().take_while(|one| {
            bytes += one.payload.len();
            bytes <= PART_BYTES
        });
        let count = fits.count().clamp(usize::from(!data.is_empty()), PART_MAX);
        let (part, rest) = data.split_at(count);
        data = rest;
        (!part.is_empty()).then_some(part)
    })
}

impl Machine for Sender {
    type Message = SenderMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, _: &Survived<Record, ()>, _: &mut Effects<Self>) {}

    fn message(&mut self, now: Now, from: &NodeId, message: SenderMessage, _: &mut Effects<Self>) {
        if *from != self.me {
            return; // clients speak through their own node
        }
        match message {
            SenderMessage::Publish { call, messages } => self.publish(now.at, call, messages),
            SenderMessage::Abandon(call) => self.abandon(call),
            SenderMessage::Delivered(entries) => self.delivered(&entries),
            SenderMessage::Skipped(seq) => self.skipped(seq),
            SenderMessage::Regroup(group) => {
                if group.version > self.group.version {
                    self.group = group;
                }
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.look(now.at, out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

/// What was not delivered here by then is sent again, to all servers; twice as long each time after.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// At most so long.
const RESEND_AFTER_MAX: Duration = Duration::from_secs(2);

/// Bytes of one message to servers.
const PART_BYTES: usize = 1 << 20;

/// Messages in it.
const PART_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use synod_runtime::identity::Incarnation;

    use super::*;
    use crate::multicast::message::Publisher;

    /// Goal: nobody waits for the rest of a lifetime for a number that a checkpoint hides.
    #[test]
    fn what_a_checkpoint_may_hold_is_told_unknown_at_once_and_the_rest_is_waited_for() {
        let me = NodeId::new("a".parse().expect("a name"), Incarnation(1));
        let mut sender = Sender::new(me.clone(), Arc::new(Group::new("news", vec![me.clone()])));
        let mid = |number| Mid { publisher: Publisher(7), number };
        let now = Now { at: Instant::from_nanos(1), wall_ms: 0 };
        let mut hear = |message| {
            let mut out = Effects::default();
            sender.message(now, &me, message, &mut out);
            sender.flush(now, &mut out);
            let words = out.now.into_iter().filter_map(|letter| match letter.message {
                Message::Word(Word::Outcome { call, messages }) => Some((call, messages)),
                _ => None,
            });
            words.collect::<Vec<_>>()
        };
        for (call, stamp) in [(1, 5), (2, 10)] {
            let payload = Bytes::from_static(b"it rains");
            let data = Data { mid: mid(call), stamp: Seq(stamp), lowest_open: 1, payload };
            assert_eq!(hear(SenderMessage::Publish { call, messages: vec![data] }), []);
        }
        let unknown = vec![(mid(1), Outcome::Unknown)];
        assert_eq!(hear(SenderMessage::Skipped(Seq(10))), [(1, unknown)]);
        assert_eq!(hear(SenderMessage::Skipped(Seq(9))), [], "it is behind that");
    }
}
