//! Actors of the program as services: hosts ask here where they may stand, and say what they do.
//!
//! A host that knows no services, or whose actor the table does not have yet, stands as if there were
//! no table: then nobody has said anything of it.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use synod_runtime::watch;

use super::{Inner, ServiceError, Services};
use crate::{
    election::message::Epoch,
    management::{
        message::{Refusal, Report, Spec, State},
        table::Service,
    },
};

/// The way to the services of a node, for parts that services know themselves.
pub(in crate::server) struct ToServices(Weak<Inner>);

impl ToServices {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        Self(Arc::downgrade(inner))
    }

    /// None once the node is gone.
    pub(in crate::server) fn get(&self) -> Option<Services> {
        self.0.upgrade().map(Services)
    }
}

/// How a node is to stand for an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Stand {
    /// It may live here.
    pub(in crate::server) here: bool,
    /// Somebody said that it shall.
    pub(in crate::server) preferred: bool,
}

impl Services {
    /// Of these the node file says how they are to be.
    pub(in crate::server) fn in_file(&self, specs: &[Spec]) {
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        // A node has one file.
        drop(self.0.in_file.set(names));
    }

    /// This node hosts that actor: the table shall know of it, unless the node file says more.
    pub(in crate::server) fn declare(&self, spec: Spec) {
        if self.0.in_file.get().is_some_and(|names| names.contains(&spec.name)) {
            return;
        }
        let services = self.clone();
        self.0.node.task(async move {
            services.caught_up().await;
            while !services.is_declared(&spec).await {
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// Whether the table knows of it by now, or never will.
    async fn is_declared(&self, spec: &Spec) -> bool {
        if self.desk().read(|table| table.named(&spec.name).is_some()) {
            return true;
        }
        match self.configure(spec.clone()).await {
            Ok(()) => true,
            Err(ServiceError::Refused(why)) => {
                tracing::warn!(actor = spec.name, %why, "is shown among no services");
                true
            }
            Err(_) => false,
        }
    }

    /// Waits until this node has executed what was decided before it started, so that it does not
    /// host what people took from it.
    pub(in crate::server) async fn caught_up(&self) {
        while !self.is_fresh().await {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// How this node is to stand for that actor.
    pub(in crate::server) fn stand(&self, actor: &str) -> Stand {
        self.of_actor(actor, |service, nodes| Stand {
            here: !service.frozen && nodes.is_none_or(|nodes| nodes.contains(self.me())),
            preferred: service.preferred.as_deref() == Some(self.me()),
        })
        .unwrap_or(Stand { here: true, preferred: false })
    }

    /// Whether another node shall have it, and has it as soon as this one gives it up.
    pub(in crate::server) fn shall_pass_on(&self, actor: &str) -> bool {
        let preferred = self.of_actor(actor, |service, _| service.preferred.clone()).flatten();
        preferred.is_some_and(|node| node != self.me() && self.next_in_line(actor) == Some(node))
    }

    /// Whether anything may have changed for an actor since this was marked as seen.
    pub(in crate::server) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Whether the table knows how that actor is in that epoch, or does not know it at all.
    pub(in crate::server) fn knows_primary(&self, actor: &str, epoch: Epoch) -> bool {
        let told = |service: &Service| service.report.as_ref().map(|report| report.epoch);
        self.of_actor(actor, |service, _| told(service) >= Some(epoch)).unwrap_or(true)
    }

    /// This node, which has it in that epoch, says how it is. Lost, it is only not shown.
    pub(in crate::server) fn tell(
        &self,
        actor: &str,
        epoch: Epoch,
        state: State,
        why: Option<&str>,
    ) {
        if self.of_actor(actor, |_, _| ()).is_some() {
            let (service, node) = (actor.to_owned(), self.me().to_owned());
            self.report(Report { service, node, epoch, state, why: why.map(str::to_owned) });
        }
    }

    /// Whether it can be removed, if it is an actor.
    pub(super) fn check_not_hosted(&self, service: &str) -> Result<(), Refusal> {
        let Some(frozen) = self.of_actor(service, |one, _| one.frozen) else { return Ok(()) };
        let tied = |why: String| Err(Refusal::Tied(format!("service {service}: {why}")));
        if frozen {
            return tied(
                "it is frozen, and removed it would live again; unfreeze it first".to_owned(),
            );
        }
        let role = self.role(service);
        let holder = role.iter().flat_map(|role| &role.holder).map(|holder| &holder.client);
        let standing = role.iter().flat_map(|role| &role.volunteers);
        let hosts: BTreeSet<_> = holder.chain(standing).map(|one| one.node.as_str()).collect();
        match hosts.is_empty() {
            true => Ok(()),
            false => {
                let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
                tied(format!("it is an actor of the program at {hosts}; `freeze` ends it"))
            }
        }
    }

    fn of_actor<T>(
        &self,
        actor: &str,
        look: impl FnOnce(&Service, Option<&BTreeSet<String>>) -> T,
    ) -> Option<T> {
        self.desk().read(|table| {
            let service = table.named(actor).filter(|one| one.spec.actor)?;
            Some(look(service, table.nodes(actor).as_ref()))
        })
    }
}

/// Until this node is up to date, and the table knows of an actor, it is tried again so often.
const AGAIN: Duration = Duration::from_millis(250);

impl fmt::Debug for ToServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ToServices").finish()
    }
}
