//! What sends letters to a group, some at a time, and waits until they have their numbers.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, RngExt as _};
use synod_runtime::world::{Instant, Rng};
use tokio::time::sleep;

use super::{
    super::{CallFailed, Joined},
    Hosted,
    letter::Letter,
    waiting::{Call, Waiting},
};
use crate::{
    multicast::message::{Data, Mid, Outcome, Publisher, Seq},
    replicated::{Inquiry, Submission},
};

/// One publisher after the other, each with one batch on its way at a time.
pub(super) struct Carrier {
    hosted: Arc<Hosted>,
    rng: Rng,
    publisher: Publisher,
    /// The last letter of this publisher.
    number: u64,
    stamp: Seq,
}

/// Letters, and who waits for which.
#[derive(Default)]
struct Batch {
    letters: Vec<Letter>,
    /// Each with the place of the letter in the batch.
    waiting: Vec<(usize, Waiting)>,
}

impl Carrier {
    pub(super) fn new(hosted: Arc<Hosted>, number: u64) -> Self {
        let mut rng = hosted.node.rng(&format!("multicast/{}/carrier/{number}", hosted.group));
        let publisher = Publisher(rng.random());
        Self { hosted, rng, publisher, number: 0, stamp: Seq(0) }
    }

    /// Until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            self.hosted.desk.wanted().await;
            let joined = match self.hosted.joined().await {
                Ok(joined) => joined,
                Err(why) => {
                    tracing::debug!(group = self.hosted.group, %why, "the group cannot be used yet");
                    self.hosted.desk.set_trouble(why.to_string());
                    sleep(OPEN_AGAIN).await;
                    continue;
                }
            };
            // What is not sent can be refused; nobody would know what became of it otherwise.
            self.hosted.desk.set_trouble("the group orders nothing at present".to_owned());
            if !joined.0.hears() {
                sleep(HEAR_AGAIN).await;
                continue;
            }
            let calls = self.hosted.desk.next();
            let batch = self.batch(calls);
            if !batch.letters.is_empty() {
                self.carry(&joined, batch).await;
            }
        }
    }

    /// Calls as letters. Questions are answered behind the commands that were asked beside them, or
    /// behind a mark.
    fn batch(&mut self, calls: Vec<(Instant, Call)>) -> Batch {
        let clock = self.hosted.node.clock();
        let (now, time_ms) = (clock.now(), clock.wall_ms());
        let mut batch = Batch::default();
        let mut asked: Vec<(Instant, Inquiry)> = Vec::new();
        for (until, call) in calls {
            if until <= now {
                call.refuse("its time was over before it could be sent");
                continue;
            }
            match call {
                Call::Question(inquiry) => asked.push((until, inquiry)),
                Call::Command(Submission { function, args, done, .. }) => {
                    let told = (time_ms, self.rng.next_u64());
                    batch.letters.extend(Letter::command(told, function, args));
                    let waiting =
                        Waiting { until: Some(until), done: Some(done), ..Waiting::default() };
                    batch.waiting.push((batch.letters.len() - 1, waiting));
                }
            }
        }
        if !asked.is_empty() {
            // A mark of their own: they may wait for another time than the last command's caller.
            batch.letters.push(Letter::mark(time_ms));
            let until = asked.iter().map(|(until, _)| *until).max();
            let inquiries = asked.into_iter().map(|(_, inquiry)| inquiry).collect();
            let waiting = Waiting { until, inquiries, ..Waiting::default() };
            batch.waiting.push((batch.letters.len() - 1, waiting));
        }
        batch
    }

    /// Sends a batch and waits until all of it has its numbers here.
    async fn carry(&mut self, joined: &Joined, Batch { letters, waiting }: Batch) {
        let desk = Arc::clone(&self.hosted.desk);
        let (publisher, first) = (self.publisher, self.number + 1);
        self.stamp = self.stamp.max(joined.largest());
        self.number += letters.len() as u64;
        let mid = |at: usize| Mid { publisher, number: first + at as u64 };
        // Everything before has its number: a batch is sent when the one before it is through.
        let (stamp, lowest_open) = (self.stamp, first);
        let data = |(at, letter): (usize, &Letter)| Data {
            mid: mid(at),
            stamp,
            lowest_open,
            payload: letter.write(),
        };
        let messages: Vec<_> = letters.iter().enumerate().map(data).collect();
        drop(letters);
        let mids: Vec<Mid> = waiting.iter().map(|(at, _)| mid(*at)).collect();
        for ((_, waiting), mid) in waiting.into_iter().zip(&mids) {
            desk.expect(*mid, waiting);
        }
        match joined.send(messages, PATIENCE).await {
            Ok(told) => {
                for (mid, outcome) in told {
                    let over = matches!(outcome, Outcome::Expired | Outcome::Unknown);
                    if over && let Some(waiting) = desk.take(mid) {
                        waiting.tell_unknown("its place in the order is not known here");
                    }
                }
            }
            Err(CallFailed::Overloaded) => {
                let waiting = mids.into_iter().filter_map(|mid| desk.take(mid));
                waiting.for_each(|one| one.refuse("too many publish at this node"));
                self.begin_anew();
                sleep(HEAR_AGAIN).await;
            }
            // Some may yet have numbers, and whoever waits for one that comes in time is told.
            Err(CallFailed::Unknown | CallFailed::Expired) => self.begin_anew(),
        }
    }

    /// As another publisher: nothing waits for what the old one left open.
    fn begin_anew(&mut self) {
        self.publisher = Publisher(self.rng.random());
        self.number = 0;
    }
}

/// A group that cannot be opened is asked for again then.
const OPEN_AGAIN: Duration = Duration::from_millis(200);

/// It is looked again then whether anybody orders.
const HEAR_AGAIN: Duration = Duration::from_millis(20);

/// Longer than any fail-over that ends; callers wait as long as they like themselves.
const PATIENCE: Duration = Duration::from_secs(30);
