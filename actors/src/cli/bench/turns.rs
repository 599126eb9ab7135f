//! One ask at a time, and its limits, measured in short turns.
//!
//! What is compared here differs by a tenth, and a machine's neighbours change its pace by more than
//! that from one second to the next. So no way has a second of its own: each has a turn of
//! [`TURN`] after the other, until each was measured for its whole time.

use std::time::Duration;

use bytes::Bytes;
use synod_runtime::{
    address::RemoteAddr,
    world::{Clock as _, RealClock},
};

use super::{
    bare::{Over, Reflected},
    listener::{Cpu, Listener, Question},
    meter::{Figures, Meter, Span, warm_up},
    peer::Peer,
};
use crate::cli::{failure::Failure, process};

/// What one way came to.
pub(super) struct Turns {
    /// The limit; `None` for an ask of an actor.
    pub(super) of: Option<Over>,
    pub(super) figures: Figures,
    /// Processor time of both processes in its turns.
    pub(super) cpu: u64,
}

/// A way for a message there and back.
enum Way {
    Bare(Over, Box<Reflected>),
    Ours(RemoteAddr<Listener>, Bytes),
}

/// Messages of `size` bytes over TCP and QUIC, and `with_ours` to the actor, each for `span`.
///
/// # Errors
/// A pipe that broke. Asks of the actor that fail are counted instead.
pub(super) async fn asks(
    peer: &Peer,
    to: &RemoteAddr<Listener>,
    size: usize,
    with_ours: bool,
    span: Duration,
) -> Result<Vec<Turns>, Failure> {
    let done = async {
        let mut ways = Vec::new();
        for over in [Over::Tcp, Over::Quic] {
            let pipe = Reflected::begin(peer, over, size).await?;
            ways.push(Way::Bare(over, Box::new(pipe)));
        }
        if with_ours {
            ways.push(Way::Ours(to.clone(), vec![b'x'; size].into()));
        }
        for way in &mut ways {
            way.turn(&Meter::during(Span::unbounded()), warm_up(span)).await?;
        }
        let mut measured = ways.iter().map(|_| Measured::new()).collect::<Vec<_>>();
        while measured[0].time < span {
            for (way, measured) in ways.iter_mut().zip(&mut measured) {
                let before = cpu(to).await?;
                measured.time += way.turn(&measured.meter, TURN).await?;
                measured.cpu += cpu(to).await? - before;
            }
        }
        let mut turns = Vec::new();
        for (way, measured) in ways.into_iter().zip(measured) {
            turns.push(Turns {
                of: way.end().await?,
                figures: measured.figures(),
                cpu: measured.cpu,
            });
        }
        Ok(turns)
    };
    done.await.map_err(|why: String| Failure::failed("asks in turns", why, "report this"))
}

impl Way {
    /// Asks one after the other for `length`; answers how long it took.
    async fn turn(&mut self, meter: &Meter, length: Duration) -> Result<Duration, String> {
        let begun = RealClock.now();
        let mut now = begun;
        while now < begun + length {
            let sent = now;
            let failed = match self {
                Self::Bare(_, pipe) => {
                    pipe.once().await?;
                    None
                }
                Self::Ours(to, body) => to
                    .send(Question { body: body.clone() })
                    .await
                    .map_or_else(|e| Some(e.to_string()), |_| None),
            };
            now = RealClock.now();
            match failed {
                None => meter.answered(sent, now, 1),
                Some(why) => meter.failed(1, why),
            }
        }
        Ok(now.since(begun))
    }

    /// Which limit it was.
    async fn end(self) -> Result<Option<Over>, String> {
        let Self::Bare(over, pipe) = self else { return Ok(None) };
        pipe.end().await?;
        Ok(Some(over))
    }
}

/// What was measured of one way.
#[derive(Debug)]
struct Measured {
    meter: Meter,
    time: Duration,
    cpu: u64,
}

impl Measured {
    fn new() -> Self {
        Self { meter: Meter::during(Span::unbounded()), time: Duration::ZERO, cpu: 0 }
    }

    fn figures(&self) -> Figures {
        let figures = self.meter.figures();
        #[expect(clippy::cast_precision_loss, reason = "2^53 answers take longer than an hour")]
        let ops_per_s = figures.all as f64 / self.time.as_secs_f64();
        Figures { ops_per_s, ..figures }
    }
}

/// Processor time of both processes so far.
async fn cpu(to: &RemoteAddr<Listener>) -> Result<u64, String> {
    Ok(to.send(Cpu {}).await.map_err(|e| e.to_string())? + process::cpu_nanos())
}

/// A few hundred round trips, and far less than a neighbour's whim lasts.
const TURN: Duration = Duration::from_millis(20);
