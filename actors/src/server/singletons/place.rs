//! Where a singleton shall live, as people say with the table of services.

use std::time::Duration;

use crate::{
    management::message::State,
    server::{
        elections::Lease,
        services::{Services, Stand},
    },
};

/// Where an actor shall live, as the table of services says, and what that is told.
pub(super) struct Place {
    actor: String,
    services: Option<Services>,
}

impl Place {
    pub(super) fn new(actor: &str, services: Option<Services>) -> Self {
        Self { actor: actor.to_owned(), services }
    }

    /// How this node is to stand now.
    pub(super) fn stand(&self) -> Stand {
        let anywhere = Stand { here: true, preferred: false };
        self.services.as_ref().map_or(anywhere, |services| services.stand(&self.actor))
    }

    /// Waits until it is known what people said before this node started.
    pub(super) async fn known(&self) {
        if let Some(services) = &self.services {
            services.caught_up().await;
        }
    }

    /// Waits until that holds of how it is to stand.
    pub(super) async fn wait(&self, wanted: impl Fn(Stand) -> bool) {
        let mut changes = self.services.as_ref().map(Services::changes);
        while !wanted(self.stand()) {
            let nobody_says = match &mut changes {
                Some(changes) => changes.changed().await.is_err(),
                None => true,
            };
            if nobody_says {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns once it must not live here any more, or shall live elsewhere and can at once. Until
    /// then it sees to it that the table knows where it is.
    pub(super) async fn unwanted(&self, lease: &Lease) {
        let Some(services) = &self.services else { return std::future::pending().await };
        let mut changes = services.changes();
        let mut tells = lease.length();
        while self.stand().here && !services.shall_pass_on(&self.actor) {
            if !services.knows_primary(&self.actor, lease.epoch()) && tells >= lease.length() {
                self.tell(lease, State::Running, None);
                tells = Duration::ZERO;
            }
            // Nobody tells of who stands.
            let look = lease.length() / LOOKS;
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(look) => tells += look,
            }
        }
    }

    pub(super) fn tell(&self, lease: &Lease, state: State, why: Option<&str>) {
        if let Some(services) = &self.services {
            services.tell(&self.actor, lease.epoch(), state, why);
        }
    }
}

/// While it lives, who stands is looked at so often in a lease's length.
const LOOKS: u32 = 20;
