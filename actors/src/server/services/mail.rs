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

use super::{
    Services,
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
        Self { checkpoint, courier, state: Bytes::new(), exporting: None, flying }
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

    /// What came of it; what went wrong, if something did.
    pub(super) fn came(&mut self, now: Instant, sent: Sent) -> Result<(), String> {
        match sent {
            Sent::Exported(state) => {
                self.courier.exported(now, state.is_ok());
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
