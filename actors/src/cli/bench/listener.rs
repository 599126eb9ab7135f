//! The actor that tells and asks are measured with.

use actix::{Actor, Context, Handler, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    message::{RemoteActor, RemoteMessage},
    world::{Clock as _, Instant, RealClock},
};

use super::meter::{Figures, Meter, Span};
use crate::cli::process;

/// The name of the actor.
pub(super) const LISTENER: &str = "bench.listener";

/// One note of so many carries the time: reading a clock costs as much as sending one.
pub(super) const SAMPLE: u64 = 64;

/// Nothing is answered.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "bench.note", crate = "synod_runtime")]
pub(super) struct Note {
    /// When it was sent, in one of every [`SAMPLE`]; the processes of a machine see one clock.
    pub(super) sent_nanos: u64,
    pub(super) body: Bytes,
}

/// Answered with its length.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "bench.question", crate = "synod_runtime")]
pub(super) struct Question {
    pub(super) body: Bytes,
}

/// A row of notes begins: those sent in this span count.
#[derive(Debug, Clone, Copy, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "bench.begin", crate = "synod_runtime")]
pub(super) struct Begin {
    pub(super) span: Span,
}

/// Answered with how many notes arrived in all, when those before it have been handled.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "bench.arrived", crate = "synod_runtime")]
pub(super) struct Arrived {}

/// The row is over: answered with what was measured.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Figures")]
#[remote(name = "bench.end", crate = "synod_runtime")]
pub(super) struct End {}

/// Answered with the processor time that the process has had, in nanoseconds.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "bench.cpu", crate = "synod_runtime")]
pub(super) struct Cpu {}

/// Takes them all.
#[derive(Default, RemoteActor)]
#[remote(
    name = "bench.listener",
    handles(Note, Question, Begin, Arrived, End, Cpu),
    crate = "synod_runtime"
)]
pub(super) struct Listener {
    arrived: u64,
    meter: Option<Meter>,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Note> for Listener {
    type Result = ();

    fn handle(&mut self, note: Note, _: &mut Self::Context) {
        self.arrived += 1;
        if let (Some(meter), true) = (&self.meter, note.sent_nanos > 0) {
            let sent = Instant::from_nanos(note.sent_nanos);
            meter.answered(sent, RealClock.now(), SAMPLE);
        }
    }
}

impl Handler<Question> for Listener {
    type Result = u64;

    fn handle(&mut self, question: Question, _: &mut Self::Context) -> u64 {
        question.body.len() as u64
    }
}

impl Handler<Begin> for Listener {
    type Result = ();

    fn handle(&mut self, begin: Begin, _: &mut Self::Context) {
        self.meter = Some(Meter::during(begin.span));
    }
}

impl Handler<Arrived> for Listener {
    type Result = u64;

    fn handle(&mut self, _: Arrived, _: &mut Self::Context) -> u64 {
        self.arrived
    }
}

impl Handler<End> for Listener {
    type Result = actix::MessageResult<End>;

    fn handle(&mut self, _: End, _: &mut Self::Context) -> Self::Result {
        let meter = self.meter.take();
        actix::MessageResult(meter.map_or_else(Figures::default, |meter| meter.figures()))
    }
}

impl Handler<Cpu> for Listener {
    type Result = u64;

    fn handle(&mut self, _: Cpu, _: &mut Self::Context) -> u64 {
        process::cpu_nanos()
    }
}
