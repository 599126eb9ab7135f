//! Executing steps.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use synod_runtime::identity::NodeId;

use super::{
    REGISTER, Replica,
    guests::Admission as Admitted,
    image::Actors,
    keys::{KEY_REUSED, Mark, Used, split_mark},
    sessions::Admission,
    takeover::TAKE_PIECE,
};
use crate::{
    consensus::{
        ballot::Step,
        configuration::History,
        message::{CommandReply, Gap, HomeMessage, LearnerMessage, Registered, Replies, Resend},
        value::{Batch, Command, Decoded, Value},
    },
    effects::{Effects, To},
    election::{
        message::Epoch,
        store::{check_fence, store_id},
    },
    replicated::{ApplyError, FENCE_REFUSED, FENCED, Fenced, SessionId, Turn},
};

/// What one call of `execute` has to say, by session.
#[derive(Default)]
struct Outbox {
    replies: BTreeMap<u64, Vec<CommandReply>>,
    again: BTreeMap<u64, Vec<CommandReply>>,
}

/// Why execution stopped short.
enum Stop {
    /// The handler at this position panicked.
    Panicked(u64),
    /// This build cannot execute the command.
    Halt(String),
}

impl Replica {
    /// Executes the steps from `first` on; those executed before are passed over.
    pub(super) fn execute(
        &mut self,
        first: Step,
        values: &[Value],
        answer_others: bool,
        out: &mut Effects<Self>,
    ) {
        let executed = self.executed();
        if self.halted.is_some() || self.is_away() {
            return; // halted, or about to be replaced by a newer state
        }
        if first > executed.next() {
            let from = executed.next();
            out.here(LearnerMessage::Resend(Resend { from }));
            return;
        }
        let mut outbox = Outbox::default();
        let skip = usize::try_from(executed.next().beyond(first)).unwrap_or(usize::MAX);
        for value in values.iter().skip(skip) {
            match self.step(value, answer_others, &mut outbox, out) {
                Ok(()) => {}
                Err(Stop::Panicked(position)) => {
                    self.rebuild_without(position, out);
                    break;
                }
                Err(Stop::Halt(why)) => {
                    self.halt(why);
                    break;
                }
            }
        }
        self.post(outbox, answer_others, out);
        self.compare_early(out);
    }

    fn step(
        &mut self,
        value: &Value,
        answer_others: bool,
        outbox: &mut Outbox,
        out: &mut Effects<Self>,
    ) -> Result<(), Stop> {
        let step = self.executed().next();
        self.log_bytes += value.bytes().len() as u64;
        match value.decode() {
            Ok(Decoded::Noop) => self.state.history.execute(step, None),
            Ok(Decoded::Configuration(configuration)) => {
                self.state.history.execute(step, Some(configuration));
                self.tell_roster();
                if let Some(why) = self.is_too_old_for(&self.state.history) {
                    return Err(Stop::Halt(why));
                }
            }
            Ok(Decoded::Batch(batch)) => {
                self.batch(&batch, answer_others, outbox, out)?;
                self.state.history.execute(step, None);
            }
            Err(damaged) => return Err(Stop::Halt(format!("step {step}: {damaged}"))),
        }
        self.state.history.forget_before(step);
        self.mark(step, out);
        Ok(())
    }

    fn batch(
        &mut self,
        batch: &Batch,
        answer_others: bool,
        outbox: &mut Outbox,
        out: &mut Effects<Self>,
    ) -> Result<(), Stop> {
        self.state.time_ms = self.state.time_ms.max(batch.time_ms);
        for (index, command) in (0u32..).zip(&batch.commands) {
            self.state.position += 1;
            self.command(command, batch.seed, index, answer_others, outbox, out)?;
        }
        self.pass_time(batch.seed, u32::try_from(batch.commands.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Lets agreed time reach the actors that wait for it.
    fn pass_time(&mut self, seed: u64, index: u32) {
        self.forget_pieces();
        let at = self.moment();
        let version = self.version();
        for machine in self.machines.values_mut() {
            if machine.next_expiry_ms().is_some_and(|due| due <= at.time_ms) {
                machine.tick(&mut Turn::new(at, SessionId(0), seed, index).at_version(version));
            }
        }
    }

    fn command(
        &mut self,
        command: &Command,
        seed: u64,
        index: u32,
        answer_others: bool,
        outbox: &mut Outbox,
        out: &mut Effects<Self>,
    ) -> Result<(), Stop> {
        if command.session == 0 {
            self.register(command, answer_others, out);
            return Ok(());
        }
        match self.state.sessions.admit(command.session, command.seq) {
            Admission::Next => {
                let (position, result) = self.run(command, seed, index)?;
                let reply = CommandReply { seq: command.seq, position, result };
                self.chain(command, &reply);
                self.state.sessions.answered(command.session, self.state.position, reply.clone());
                outbox.replies.entry(command.session).or_default().push(reply);
            }
            Admission::Repeated(Some(reply)) => {
                outbox.again.entry(command.session).or_default().push(reply);
            }
            // Its home was told long ago, or nobody waits for it any more.
            Admission::Repeated(None) => {}
            Admission::Gap(expected) => self.refuse(command.session, expected, false, out),
            Admission::Expired => self.refuse(command.session, 0, true, out),
        }
        Ok(())
    }

    fn register(&mut self, command: &Command, answer_others: bool, out: &mut Effects<Self>) {
        let Ok(home) = rmp_serde::from_slice::<NodeId>(&command.args) else { return };
        if command.function != REGISTER {
            return;
        }
        let position = self.state.position;
        let session = self.state.sessions.register(position, home.clone(), command.seq);
        if home == self.me || answer_others {
            let registered = Registered { nonce: command.seq, session };
            out.send(self.to(&home), HomeMessage::Registered(registered));
        }
    }

    fn refuse(&self, session: u64, expected: u64, expired: bool, out: &mut Effects<Self>) {
        let gap = HomeMessage::Gap(Gap { session, expected, expired });
        match self.state.sessions.home(session) {
            Some(home) => out.send(self.to(home), gap),
            None => out.here(gap), // at most one home knows it; each replica tells its own
        }
    }

    /// Runs one command, or answers what it answered before under its key or number.
    fn run(
        &mut self,
        command: &Command,
        seed: u64,
        index: u32,
    ) -> Result<(u64, Result<Bytes, String>), Stop> {
        let position = self.state.position;
        if !command.keyed {
            return Ok((position, self.apply(command, &command.args, seed, index)?));
        }
        let Some((mark, args)) = split_mark(command.args.clone()) else {
            return Ok((position, Err("bad arguments: no idempotency key".to_owned())));
        };
        let request = mix(mix(command.actor, command.function), digest(&args));
        let time_ms = self.state.time_ms;
        match mark {
            Mark::Opening(nonce) => {
                let session = self.state.guests.open(position, nonce, time_ms);
                let reply = rmp_serde::to_vec(&session).expect("a number encodes");
                Ok((position, Ok(reply.into())))
            }
            Mark::Guest(call) => match self.state.guests.admit(call, request, time_ms) {
                Admitted::Known(position, result) => Ok((position, result)),
                Admitted::Refused(why) => Ok((position, Err(why))),
                Admitted::New => {
                    let result = self.apply(command, &args, seed, index)?;
                    self.state.guests.answered(call, request, position, result.clone());
                    Ok((position, result))
                }
            },
            Mark::Key(key) => {
                if let Some(used) = self.state.keys.get(&key) {
                    if used.request != request {
                        let why = format!("{KEY_REUSED}it was used for another request");
                        return Ok((position, Err(why)));
                    }
                    return Ok((used.position, used.result.clone()));
                }
                let result = self.apply(command, &args, seed, index)?;
                let used = Used { request, position, time_ms, result: result.clone() };
                self.state.keys.insert(key, used);
                Ok((position, result))
            }
        }
    }

    fn apply(
        &mut self,
        command: &Command,
        args: &Bytes,
        seed: u64,
        index: u32,
    ) -> Result<Result<Bytes, String>, Stop> {
        let moment = self.moment();
        let position = self.state.position;
        if self.poison.contains(&position) {
            return Ok(Err(format!("panicked at position {position}; it changed nothing")));
        }
        if command.actor == 0 && command.function == TAKE_PIECE {
            return Ok(self.take_piece(args));
        }
        if command.actor == 0 && command.function == FENCED {
            return self.apply_fenced(command, args, seed, index);
        }
        let version = self.version();
        let Some(machine) = self.machines.get_mut(&command.actor) else {
            let why = format!("position {position} is for an actor this build does not have");
            return Err(Stop::Halt(why));
        };
        let session = SessionId(command.session);
        let mut turn = Turn::new(moment, session, seed, index).at_version(version);
        let done =
            catch_unwind(AssertUnwindSafe(|| machine.apply(command.function, args, &mut turn)));
        match done {
            Ok(Ok(reply)) => Ok(Ok(self.shared(reply))),
            Ok(Err(ApplyError::BadArguments(why))) => Ok(Err(format!("bad arguments: {why}"))),
            Ok(Err(unknown @ ApplyError::UnknownFunction { .. })) => {
                Err(Stop::Halt(format!("position {position}: {unknown} in this build")))
            }
            Err(_panic) => Err(Stop::Panicked(position)),
        }
    }

    /// Runs what stands behind a fence, if that holds at this position.
    fn apply_fenced(
        &mut self,
        command: &Command,
        args: &Bytes,
        seed: u64,
        index: u32,
    ) -> Result<Result<Bytes, String>, Stop> {
        let Some(Fenced { fence, actor, function, args }) = Fenced::read(args) else {
            return Ok(Err("bad arguments: no command behind the fence".to_owned()));
        };
        let moment = self.moment();
        let mut turn = Turn::new(moment, SessionId(command.session), seed, index);
        if let Some(roles) = self.machines.get_mut(&store_id())
            && let Err(why) =
                check_fence(roles.as_mut(), fence.role(), Epoch(fence.epoch()), &mut turn)
        {
            return Ok(Err(format!("{FENCE_REFUSED}{why}")));
        }
        let command = Command { actor, function, ..command.clone() };
        self.apply(&command, &args, seed, index)
    }

    /// The cluster version in force.
    fn version(&self) -> u32 {
        self.state.history.current().map_or(0, |configuration| configuration.version)
    }

    /// Whether the cluster agreed on a version that this build cannot execute; then why.
    pub(super) fn is_too_old_for(&self, history: &History) -> Option<String> {
        too_old_for(&self.machines, history)
    }

    /// Most commands answer what the one before them did: such replies are kept once.
    fn shared(&mut self, reply: Vec<u8>) -> Bytes {
        if self.last_reply != reply {
            self.last_reply = reply.into();
        }
        self.last_reply.clone()
    }

    /// A handler panicked half way: the state is rebuilt without that command. Every replica does the
    /// same, so all stay equal.
    fn rebuild_without(&mut self, position: u64, out: &mut Effects<Self>) {
        tracing::error!(position, "a handler panicked; rebuilding the state without that command");
        self.poison.insert(position);
        self.rebuild(out);
    }

    pub(super) fn halt(&mut self, why: String) {
        tracing::error!(%why, "this replica halts");
        self.halted = Some(why);
    }

    /// Chains the digest over position, command and reply.
    fn chain(&mut self, command: &Command, reply: &CommandReply) {
        let answer = match &reply.result {
            Ok(bytes) => digest(bytes),
            Err(why) => !digest(why.as_bytes()),
        };
        let said = mix(mix(command.session, command.seq), digest(&command.args));
        self.state.digest = mix(mix(self.state.digest, self.state.position), mix(said, answer));
    }

    pub(super) fn to(&self, home: &NodeId) -> To {
        if *home == self.me { To::Here } else { To::Node(home.clone()) }
    }

    /// Tells each home what its commands answered: always the own one, another only where this
    /// node is the one to answer (R1.6), or when the home asked again.
    fn post(&self, outbox: Outbox, answer_others: bool, out: &mut Effects<Self>) {
        for (session, replies) in outbox.replies {
            let Some(home) = self.state.sessions.home(session) else { continue };
            if *home == self.me || answer_others {
                out.send(self.to(home), HomeMessage::Replies(Replies { session, replies }));
            }
        }
        for (session, replies) in outbox.again {
            let Some(home) = self.state.sessions.home(session) else { continue };
            out.send(self.to(home), HomeMessage::Replies(Replies { session, replies }));
        }
    }
}

/// Whether the cluster agreed on a version that a build with these actors cannot execute; then why.
pub(super) fn too_old_for(machines: &Actors, history: &History) -> Option<String> {
    let agreed = history.newest().map_or(0, |configuration| configuration.version);
    let known = machines.values().flat_map(|machine| machine.functions());
    let known = known.map(|function| function.since).max().unwrap_or(0);
    (agreed > known).then(|| {
        format!(
            "the cluster is at version {agreed}, and this build knows up to {known}: install the \
             newer build here"
        )
    })
}

pub(super) fn digest(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) << 32 | u64::from(bytes.len() as u32)
}

/// Order matters, and every bit of both counts.
pub(super) fn mix(one: u64, two: u64) -> u64 {
    (one.rotate_left(23) ^ two).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
}
