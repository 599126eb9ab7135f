//! One program at its post: its guard, the lease as the guard knows it, and the probe under way.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::future::{LocalBoxFuture, select_all};
use synod_runtime::world::Instant;

use super::programs::{Launch, Order, Programs, Question, Report, Station, Ward};
use crate::{
    management::{
        message::{Probe, Spec, State, WHY_BYTES_MAX},
        run::Act,
    },
    server::elections::Lease,
};

/// See the module's documentation.
pub(super) struct Post {
    spec: Spec,
    ward: Option<Box<dyn Ward>>,
    /// Until when its guard believes that the lease holds.
    extended: Instant,
    asked: Option<LocalBoxFuture<'static, bool>>,
    /// How it is, as the table was told.
    state: State,
    /// What went wrong last.
    pub(super) why: Option<String>,
}

/// What came of a post.
pub(super) enum Came {
    /// The guard's word; `None`: it ended without one.
    Report(Option<Report>),
    /// The answer to a probe.
    Answer(bool),
}

impl Post {
    /// Starts the program.
    pub(super) fn start(
        programs: &Arc<dyn Programs>,
        spec: &Spec,
        station: Station,
        lease: &Lease,
    ) -> Self {
        let launch = Launch {
            station,
            command: spec.command.clone(),
            lease: lease.length(),
            until: lease.deadline(),
            stop_signal: spec.stop_signal,
            stop_within: spec.stop_within(),
        };
        let extended = launch.until;
        let ward = programs
            .start(launch)
            .unwrap_or_else(|error| Box::new(NeverStarted(Some(error.to_string()))));
        Self {
            spec: spec.clone(),
            ward: Some(ward),
            extended,
            asked: None,
            state: State::Starting,
            why: None,
        }
    }

    /// Does to a program that runs what is to be done.
    pub(super) async fn act(&mut self, programs: &Arc<dyn Programs>, station: Station, act: Act) {
        match act {
            Act::End => self.tell(Order::End).await,
            Act::Ready => self.asked = ask(programs, station, self.spec.ready.as_ref()),
            Act::Live => self.asked = ask(programs, station, self.spec.live.as_ref()),
            Act::Start | Act::Tell(_) => {}
        }
    }

    /// The lease holds until then.
    pub(super) async fn extend(&mut self, until: Instant) {
        if until > self.extended {
            self.extended = until;
            self.tell(Order::Until(until)).await;
        }
    }

    pub(super) async fn tell(&mut self, order: Order) {
        if let Some(ward) = &mut self.ward {
            ward.tell(order).await;
        }
    }

    /// The table is told that it is so.
    pub(super) fn told(&mut self, state: State) {
        self.state = state;
        if state == State::Running {
            self.why = None;
        }
    }

    /// Whether its program serves.
    pub(super) fn serves(&self) -> bool {
        self.ward.is_some() && self.state == State::Running
    }

    /// Whether its program serves, or waits for its end and still does.
    pub(super) fn runs(&self) -> bool {
        self.ward.is_some() && matches!(self.state, State::Running | State::Stopping)
    }

    /// Its program is gone, and this is why.
    pub(super) fn leave(&mut self, why: String) {
        (self.ward, self.asked) = (None, None);
        // Of one that was ended for a reason, that counts.
        if self.why.is_none() || self.state != State::Stopping {
            self.note(Some(why));
        }
    }

    /// What went wrong, or that nothing does.
    pub(super) fn note(&mut self, why: Option<String>) {
        let Some(mut why) = why else { return self.why = None };
        let end = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|at| why.is_char_boundary(*at));
        why.truncate(end.unwrap_or_default());
        self.why = Some(why);
    }

    async fn next(&mut self) -> Came {
        let Self { ward, asked, .. } = self;
        let reported = async {
            match ward {
                Some(ward) => ward.next().await,
                None => pending().await,
            }
        };
        let answered = async {
            match asked {
                Some(asked) => asked.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            report = reported => Came::Report(report),
            yes = answered => {
                *asked = None;
                Came::Answer(yes)
            }
        }
    }
}

/// What comes next of any of them.
pub(super) async fn next_of_all(posts: &mut BTreeMap<String, Post>) -> (String, Came) {
    if posts.is_empty() {
        return pending().await;
    }
    let all = posts.iter_mut().map(|(service, post)| {
        Box::pin(async move {
            let came = post.next().await;
            (service.clone(), came)
        })
    });
    select_all(all).await.0
}

fn ask(
    programs: &Arc<dyn Programs>,
    station: Station,
    probe: Option<&Probe>,
) -> Option<LocalBoxFuture<'static, bool>> {
    let probe = probe?;
    let within = Duration::from_millis(probe.within_ms.into());
    Some(programs.ask(Question { station, command: probe.command.clone(), within }))
}

/// What stands for a program whose guard could not be started.
struct NeverStarted(Option<String>);

impl Ward for NeverStarted {
    fn tell(&mut self, _order: Order) -> LocalBoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn next(&mut self) -> LocalBoxFuture<'_, Option<Report>> {
        let why = self.0.take().unwrap_or_default();
        Box::pin(std::future::ready(Some(Report::NotStarted(why))))
    }
}
