//! Who waits at this node for what the order will bring.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Mutex,
};

use synod_runtime::world::Instant;
use tokio::sync::Notify;

use super::super::lock;
use crate::{
    multicast::message::{Mid, Seq},
    replicated::{Done, Inquiry, Outcome, Refusal, Submission},
};

/// Where callers, the carriers of letters and the state machine of one node meet.
#[derive(Default)]
pub(super) struct Desk {
    queue: Mutex<Queue>,
    /// By the message that they wait for.
    sent: Mutex<BTreeMap<Mid, Waiting>>,
    /// Commands at which the machine panicked: it was built again to go on without them.
    left_out: Mutex<BTreeSet<Seq>>,
    /// Told to whoever gave up before anything was sent.
    trouble: Mutex<String>,
    /// Something is in the queue.
    wanted: Notify,
    /// Somebody waits.
    waited_for: Notify,
}

/// What is not sent yet, in order.
#[derive(Default)]
struct Queue {
    calls: VecDeque<(Instant, Call)>,
    bytes: usize,
    /// The node stops.
    closed: bool,
}

/// What is asked of the order.
pub(super) enum Call {
    /// To be executed.
    Command(Submission),
    /// To be answered after all that was answered before.
    Question(Inquiry),
}

/// Somebody who waits for a message to be delivered here.
#[derive(Default)]
pub(super) struct Waiting {
    /// Until then.
    pub(super) until: Option<Instant>,
    /// Who wants to know what the command did that ends there.
    pub(super) done: Option<Done>,
    /// Who asks what is so there.
    pub(super) inquiries: Vec<Inquiry>,
}

impl Desk {
    /// Puts a call into the queue; told at once if there is no room.
    pub(super) fn put(&self, until: Instant, call: Call) {
        let mut queue = lock(&self.queue);
        let bytes = call.bytes();
        if queue.closed {
            drop(queue);
            return call.refuse("the node stops");
        }
        if queue.calls.len() >= QUEUE_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            drop(queue);
            return call.refuse("too many commands are on their way at this node");
        }
        queue.bytes += bytes;
        queue.calls.push_back((until, call));
        drop(queue);
        self.wanted.notify_one();
        self.waited_for.notify_one();
    }

    /// Waits until there is something to send.
    pub(super) async fn wanted(&self) {
        while lock(&self.queue).calls.is_empty() {
            self.wanted.notified().await;
        }
    }

    /// The next calls, as many as are sent together.
    pub(super) fn next(&self) -> Vec<(Instant, Call)> {
        let mut queue = lock(&self.queue);
        let (mut bytes, mut calls) = (0, Vec::new());
        while let Some((_, call)) = queue.calls.front() {
            bytes += call.bytes();
            if !calls.is_empty() && (bytes > BATCH_BYTES || calls.len() >= BATCH_CALLS) {
                break;
            }
            calls.extend(queue.calls.pop_front());
        }
        queue.bytes -= calls.iter().map(|(_, call)| call.bytes()).sum::<usize>();
        if !queue.calls.is_empty() {
            // Another carrier may be free.
            self.wanted.notify_one();
        }
        calls
    }

    /// Somebody waits for that message, which is about to be sent.
    pub(super) fn expect(&self, mid: Mid, waiting: Waiting) {
        lock(&self.sent).insert(mid, waiting);
        self.waited_for.notify_one();
    }

    /// Who waits for it.
    pub(super) fn take(&self, mid: Mid) -> Option<Waiting> {
        lock(&self.sent).remove(&mid)
    }

    /// Why nothing can be sent at present.
    pub(super) fn set_trouble(&self, why: String) {
        *lock(&self.trouble) = why;
    }

    /// Waits until somebody does.
    pub(super) async fn waited_for(&self) {
        while lock(&self.queue).calls.is_empty() && lock(&self.sent).is_empty() {
            self.waited_for.notified().await;
        }
    }

    /// Tells those whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        let mut late = VecDeque::new();
        let mut queue = lock(&self.queue);
        if queue.calls.iter().any(|(until, _)| *until <= now) {
            let (over, rest): (VecDeque<_>, _) =
                queue.calls.drain(..).partition(|(until, _)| *until <= now);
            (late, queue.calls) = (over, rest);
            queue.bytes -= late.iter().map(|(_, call)| call.bytes()).sum::<usize>();
        }
        drop(queue);
        let trouble = lock(&self.trouble).clone();
        late.into_iter().for_each(|(_, call)| call.refuse(&trouble));
        let is_late = |_: &Mid, one: &mut Waiting| one.until.is_none_or(|until| until <= now);
        let over: Vec<_> = lock(&self.sent).extract_if(.., is_late).collect();
        for (_, waiting) in over {
            waiting.tell_unknown("not known to be in the order in time");
        }
    }

    /// The node stops: nobody waits any more.
    pub(super) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let calls = std::mem::take(&mut queue.calls);
        drop(queue);
        calls.into_iter().for_each(|(_, call)| call.refuse("the node stops"));
        let sent = std::mem::take(&mut *lock(&self.sent));
        sent.into_values().for_each(|waiting| waiting.tell_unknown("the node stops"));
    }

    /// The machine goes on without that command.
    pub(super) fn leave_out(&self, seq: Seq) {
        let mut left_out = lock(&self.left_out);
        left_out.insert(seq);
        while left_out.len() > LEFT_OUT_MAX {
            left_out.pop_first();
        }
    }

    /// Whether it does.
    pub(super) fn is_left_out(&self, seq: Seq) -> bool {
        lock(&self.left_out).contains(&seq)
    }
}

impl Call {
    fn bytes(&self) -> usize {
        match self {
            Self::Command(Submission { args, .. }) | Self::Question(Inquiry { args, .. }) => {
                args.len()
            }
        }
    }

    /// It was not sent.
    pub(super) fn refuse(self, why: &str) {
        let (Self::Command(Submission { done, .. }) | Self::Question(Inquiry { done, .. })) = self;
        done(Outcome::NotApplied(Refusal::from(why)));
    }
}

impl Waiting {
    /// Nobody knows what became of the message.
    pub(super) fn tell_unknown(self, why: &str) {
        if let Some(done) = self.done {
            done(Outcome::Unknown(why.to_owned()));
        }
        // Questions change nothing.
        for Inquiry { done, .. } in self.inquiries {
            done(Outcome::NotApplied(Refusal::from(why)));
        }
    }

    /// It was not sent.
    pub(super) fn refuse(self, why: &str) {
        let questions = self.inquiries.into_iter().map(|inquiry| inquiry.done);
        for done in self.done.into_iter().chain(questions) {
            done(Outcome::NotApplied(Refusal::from(why)));
        }
    }
}

/// More than a site's clients have under way at once; beyond it they are refused.
const QUEUE_MAX: usize = 20_000;

/// Some bodies of the largest kind, in parts.
const QUEUE_BYTES_MAX: usize = 128 << 20;

/// Sent together: what a sender puts into one message to a server.
const BATCH_BYTES: usize = 1 << 20;

/// Likewise.
const BATCH_CALLS: usize = 500;

/// Each was a handler's panic.
const LEFT_OUT_MAX: usize = 10_000;
