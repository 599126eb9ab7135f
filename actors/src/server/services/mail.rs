//! The checkpoints of one service on their way from its primary; when and to whom is for
//! [`courier`](crate::management::courier).

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{LocalBoxFuture, select_all},
    stream::FuturesUnordered,
};
use synod_runtime::world::Instant;
use tokio::sync::oneshot;

use super::{
    Services,
    asked::{ASKED_MAX, Answer, Why},
    checkpoints::{self, PASS_WITHIN},
    programs::{Passed, Programs, Question, Station},
};
use crate::management::{
    courier::{Courier, Errand},
    message::Checkpoint,
};

/// See the module's documentation.
pub(super) struct Mail {
    checkpoint: Checkpoint,
    courier: Courier,
    /// The newest.
    state: Bytes,
    exporting: Option<Passed<Vec<u8>>>,
    flying: FuturesUnordered<LocalBoxFuture<'static, Arrived>>,
    /// Who asked, and which number will do.
    asking: Vec<(u64, oneshot::Sender<Answer>)>,
}

struct Arrived {
    node: String,
    number: u64,
    taken: Result<(), String>,
}

/// What came of the mail.
pub(super) enum Sent {
    /// A checkpoint was taken, or why not.
    Exported(Result<Vec<u8>, String>),
    /// One arrived somewhere, or why not.
    Arrived(String, u64, Result<(), String>),
}

impl Mail {
    pub(super) fn new(checkpoint: Checkpoint, now: Instant) -> Self {
        let every = Duration::from_millis(checkpoint.every_ms.into());
        let courier = Courier::new(every, now);
        let flying = FuturesUnordered::new();
        let (state, asking) = (Bytes::new(), Vec::new());
        Self { checkpoint, courier, state, exporting: None, flying, asking }
    }

    /// Takes and sends what is to be, for those next in line.
    pub(super) fn look(
        &mut self,
        services: &Services,
        programs: &Arc<dyn Programs>,
        station: &Station,
        line: &[String],
    ) {
        for errand in self.courier.errands(services.now(), line) {
            match errand {
                Errand::Export => {
                    let (station, command) = (station.clone(), self.checkpoint.export.clone());
                    let question = Question { station, command, within: PASS_WITHIN };
                    self.exporting = Some(programs.export(question));
                }
                Errand::Send(node, number) => {
                    let (to, state) = (node.clone(), self.state.clone());
                    let sent =
                        checkpoints::send(services.clone(), to, station.clone(), number, state);
                    self.flying.push(Box::pin(async move {
                        let taken = sent.await;
                        Arrived { node, number, taken }
                    }));
                }
            }
        }
    }

    /// Somebody asks for a checkpoint that is taken from now on, and waits.
    pub(super) fn ask(&mut self, answer: oneshot::Sender<Answer>) {
        if self.asking.len() >= ASKED_MAX {
            let why = format!("{ASKED_MAX} wait for checkpoints already");
            return drop(answer.send(Err(Why::NotTaken(why))));
        }
        self.asking.push((self.courier.ask(), answer));
    }

    /// Tells those who asked whose checkpoint all of these have by now: they are the secondaries as
    /// the log has them, of whom one takes over. Without any nobody can be told so.
    pub(super) fn settle(&mut self, secondaries: &[String]) {
        if secondaries.is_empty() && !self.asking.is_empty() {
            let why = "it has no secondary; see `services` for who may be one".to_owned();
            return self.disappoint(&Why::NotTaken(why));
        }
        let reached = self.courier.reached(secondaries);
        for (_, answer) in self.asking.extract_if(.., |(number, _)| *number <= reached) {
            // Whoever does not wait any more has heard that it is not known.
            let _gone = answer.send(Ok(secondaries.to_vec()));
        }
    }

    fn disappoint(&mut self, why: &Why) {
        for (_, answer) in self.asking.drain(..) {
            let _gone = answer.send(Err(why.clone()));
        }
    }

    /// What came of it; what went wrong, if something did.
    pub(super) fn came(&mut self, now: Instant, sent: Sent) -> Result<(), String> {
        match sent {
            Sent::Exported(state) => {
                self.courier.exported(now, state.is_ok());
                if let Err(why) = &state {
                    self.disappoint(&Why::NotTaken(why.clone()));
                }
                self.state = state?.into();
            }
            Sent::Arrived(node, number, taken) => {
                self.courier.sent(now, &node, number, taken.is_ok());
                taken.map_err(|why| format!("checkpoint to {node}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Whether that node has what the others have.
    pub(super) fn has(&self, node: &str) -> bool {
        self.courier.has(node)
    }

    /// The number of the newest; 0: none was taken.
    pub(super) const fn newest(&self) -> u64 {
        self.courier.newest()
    }

    /// The service is given up: a last checkpoint is taken.
    pub(super) fn finish(&mut self) {
        self.courier.finish();
    }

    /// Whether that is over.
    pub(super) fn is_finished(&self, line: &[String]) -> bool {
        self.courier.is_finished(line)
    }

    async fn next(&mut self) -> Sent {
        let Self { exporting, flying, .. } = self;
        let exported = async {
            match exporting {
                Some(exporting) => exporting.await,
                None => pending().await,
            }
        };
        let arrived = async {
            match flying.next().await {
                Some(arrived) => arrived,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            state = exported => {
                *exporting = None;
                Sent::Exported(state)
            }
            Arrived { node, number, taken } = arrived => Sent::Arrived(node, number, taken),
        }
    }
}

/// What comes next of any of them.
pub(super) async fn next_of_all(mails: &mut BTreeMap<String, Mail>) -> (String, Sent) {
    if mails.is_empty() {
        return pending().await;
    }
    let all = mails.iter_mut().map(|(service, mail)| {
        Box::pin(async move {
            let sent = mail.next().await;
            (service.clone(), sent)
        })
    });
    select_all(all).await.0
}
