//! Carries one call through: asks, waits, asks others, and begins anew when somebody was faster.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rand::RngExt as _;
use synod_runtime::identity::NodeName;

use super::{
    BlockAsk, BlockServer, HolderAsk, RegisterError, RegisterHolder, Registers,
    actors::{block_server, register_holder},
    blocks::Blocks,
    lock,
};
use crate::register::{
    Call, Goal, Outcome, Written,
    disk::{DiskAnswer, DiskAsk, DiskOperation},
    message::{Answer, Ask},
    operation::{Asks, Operation},
};

/// Who is asked, those first that are asked first.
pub(super) enum Seats {
    Holders(Vec<NodeName>),
    Servers(Vec<NodeName>),
    Disks(Vec<Blocks>),
}

impl Registers {
    /// Tries until the call is done, refused, or too late.
    pub(super) async fn carry_through(
        &self,
        register: &str,
        deadline: Duration,
        goal: impl Fn() -> Goal,
    ) -> Result<Vec<u8>, RegisterError> {
        let until = self.0.node.now() + deadline;
        let (mut maybe, mut why) = (false, "too few answered");
        let mut tries = 0;
        loop {
            let left = until.since(self.0.node.now());
            if left.is_zero() {
                let why = why.to_owned();
                return Err(match maybe {
                    true => RegisterError::Unknown(why),
                    false => RegisterError::NotApplied(why),
                });
            }
            let left = left.min(ATTEMPT_MAX);
            let (outcome, may_be) = match &self.0.seats {
                Seats::Holders(_) => self.try_holders(register, left, goal()).await,
                Seats::Servers(_) | Seats::Disks(_) => self.try_disks(register, left, goal()).await,
            };
            maybe |= may_be;
            match outcome {
                Some(Outcome::Value(value)) => return Ok(value),
                Some(Outcome::Refused(refusal)) if !maybe => return Err(refusal.into()),
                Some(Outcome::Refused(refusal)) => {
                    return Err(RegisterError::Unknown(refusal.to_string()));
                }
                Some(Outcome::Aborted { highest, .. }) => {
                    lock(&self.0.stamps).saw(highest);
                    why = "others were faster again and again";
                }
                None => why = "too few answered",
            }
            // Whoever meets somebody else goes out of its way, further each time.
            tries += 1;
            let most = PAUSE * 2_u32.pow(tries.min(5));
            let pause = lock(&self.0.rng).random_range(Duration::ZERO..most);
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_holders(
        &self,
        register: &str,
        patience: Duration,
        goal: Goal,
    ) -> (Option<Outcome>, bool) {
        let reads = matches!(goal, Goal::Read);
        // Taken away: whoever calls meanwhile, or after a call of which nothing is known, orders anew.
        let last = if reads { None } else { lock(&self.0.written).remove(register) };
        let begin = |goal| Operation::begin(self.0.holders, lock(&self.0.stamps).next(), goal);
        let (mut call, asks) = match last {
            Some(last) => Operation::go_on(self.0.holders, &last, goal).unwrap_or_else(begin),
            None => begin(goal),
        };
        let ask = |holder, ask| self.ask_holder(holder, register.to_owned(), ask);
        let done = self.drive(&mut call, asks, patience, ask).await;
        if let (Some(Outcome::Value(value)), _) = &done {
            self.wrote(register, call.written(value), value);
        }
        done
    }

    /// This is in the register, and this node wrote it, or somebody did.
    fn wrote(&self, register: &str, written: Option<Written>, value: &[u8]) {
        let mut last = lock(&self.0.written);
        match (written, last.get(register)) {
            (Some(one), Some(known)) if !one.is_newer(known) => {}
            (Some(one), _) => drop(last.insert(register.to_owned(), one)),
            // Somebody else was there: going on would be in vain.
            (None, Some(known)) if known.value() != value => drop(last.remove(register)),
            (None, _) => {}
        }
    }

    async fn try_disks(
        &self,
        register: &str,
        patience: Duration,
        goal: Goal,
    ) -> (Option<Outcome>, bool) {
        let mine = Arc::clone(lock(&self.0.mine).entry(register.to_owned()).or_default());
        let mut mine = mine.lock().await;
        let stamp = lock(&self.0.stamps).next();
        let (mut call, asks) =
            DiskOperation::begin(self.0.holders, &self.0.me, stamp, goal, mine.clone());
        // Should the call be dropped, its block is found again on the disks.
        *mine = None;
        let ask = |disk, ask| self.ask_disk(disk, register.to_owned(), ask);
        let done = self.drive(&mut call, asks, patience, ask).await;
        *mine = call.mine().cloned();
        done
    }

    /// Puts questions and hands answers over until the call is over, or time is; what it came to, and
    /// whether it may have written without being done.
    async fn drive<C: Call, F: Future<Output = Option<C::Answer>>>(
        &self,
        call: &mut C,
        asks: Asks<C::Ask>,
        patience: Duration,
        ask: impl Fn(usize, C::Ask) -> F,
    ) -> (Option<Outcome>, bool) {
        let outcome = self.outcome(call, asks, patience, ask).await;
        let maybe = match &outcome {
            Some(Outcome::Aborted { maybe, .. }) => *maybe,
            Some(Outcome::Value(_) | Outcome::Refused(_)) => false,
            None => call.may_have_written(),
        };
        (outcome, maybe)
    }

    async fn outcome<C: Call, F: Future<Output = Option<C::Answer>>>(
        &self,
        call: &mut C,
        mut asks: Asks<C::Ask>,
        patience: Duration,
        ask: impl Fn(usize, C::Ask) -> F,
    ) -> Option<Outcome> {
        let mut open = FuturesUnordered::new();
        let over = tokio::time::sleep(patience);
        let hedge = tokio::time::sleep(self.hedge());
        let (mut over, mut hedge) = (std::pin::pin!(over), std::pin::pin!(hedge));
        let mut hedged = false;
        loop {
            if !asks.is_empty() {
                // Each round has its own patience.
                hedge.set(tokio::time::sleep(self.hedge()));
                hedged = false;
            }
            for (to, round, question) in asks.drain(..) {
                let answer = ask(to, question);
                open.push(async move { (to, round, answer.await) });
            }
            let outcome = tokio::select! {
                biased;
                Some((from, round, answer)) = open.next() => match answer {
                    Some(answer) => call.answer(from, round, answer, &mut asks),
                    None => {
                        call.missing(round, &mut asks);
                        None
                    }
                },
                () = &mut hedge, if !hedged => {
                    hedged = true;
                    self.somebody_is_slow();
                    call.widen(&mut asks);
                    None
                }
                () = &mut over => return None,
                else => return None,
            };
            if outcome.is_some() {
                return outcome;
            }
            if open.is_empty() && asks.is_empty() {
                return None; // nobody else is left
            }
        }
    }

    /// How long those that are asked first have before the others are asked too: not so long once
    /// again while one of them was seen to take its time.
    fn hedge(&self) -> Duration {
        let slow = self.0.node.now() < *lock(&self.0.slow_until);
        if slow { HEDGE_SLOW } else { HEDGE }
    }

    fn somebody_is_slow(&self) {
        let now = self.0.node.now();
        let mut until = lock(&self.0.slow_until);
        // Not by the shorter patience, which would prolong itself.
        if *until <= now {
            *until = now + SLOW_FOR;
        }
    }

    async fn ask_holder(&self, holder: usize, register: String, ask: Ask) -> Option<Answer> {
        let Seats::Holders(names) = &self.0.seats else { return None };
        let name = names.get(holder)?;
        let node = &self.0.node;
        let id = if name == node.name() { node.id().clone() } else { node.links().is_up(name)? };
        let there = node.address::<RegisterHolder>(id, &register_holder(name));
        there.send(HolderAsk { register, ask }).timeout(ASK_MAX).await.ok()?
    }

    async fn ask_disk(&self, disk: usize, register: String, ask: DiskAsk) -> Option<DiskAnswer> {
        match &self.0.seats {
            Seats::Holders(_) => None,
            Seats::Disks(disks) => disks.get(disk)?.ask(register, self.0.me.clone(), ask).await,
            Seats::Servers(names) => {
                let name = names.get(disk)?;
                let node = &self.0.node;
                let here = name == node.name();
                let id = if here { node.id().clone() } else { node.links().is_up(name)? };
                let there = node.address::<BlockServer>(id, &block_server(name));
                let ask = BlockAsk { register, client: self.0.me.clone(), ask };
                there.send(ask).timeout(ASK_MAX).await.ok()?
            }
        }
    }
}

/// Whoever is asked first has so long to answer before others are asked too: some syncs of a busy
/// disk.
const HEDGE: Duration = Duration::from_millis(50);

/// …and so long for a while after that. Long enough for one that is only a little late.
const HEDGE_SLOW: Duration = Duration::from_millis(2);

/// For so long.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// A holder that has not answered by then will not.
const ASK_MAX: Duration = Duration::from_millis(500);

/// One attempt takes no longer; the next one asks everybody anew.
const ATTEMPT_MAX: Duration = Duration::from_millis(700);

/// The first pause, at most.
const PAUSE: Duration = Duration::from_millis(4);
