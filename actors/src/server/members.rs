//! `POST /members`: what operators want of the members.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::json;
use synod_runtime::identity::NodeName;
use tokio::sync::oneshot;

use super::{
    board::Board,
    clients::Clients,
    config::{HostPort, Peer, PeerAt},
    core::Core,
    patience::at_most,
};
use crate::{
    consensus::message::{NodeRole, Wish},
    replicated::Outcome,
};

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
enum Asked {
    /// A main shall lead.
    Lead {
        /// Which.
        name: NodeName,
    },
    /// A node shall belong to the cluster.
    Add {
        /// Its name.
        name: NodeName,
        /// What it is to be.
        role: NodeRole,
        /// Where its peers reach it.
        quic: String,
    },
    /// A node shall not.
    Remove {
        /// Which.
        name: NodeName,
    },
    /// A main shall be a member, or a member a main.
    Set {
        /// Which.
        name: NodeName,
        /// What it is to be.
        role: NodeRole,
    },
}

impl Asked {
    /// As the leader is told.
    ///
    /// # Errors
    /// What is wrong with it.
    fn wish(self) -> Result<Wish, String> {
        Ok(match self {
            Self::Lead { name } => Wish::Lead(name),
            Self::Remove { name } => Wish::Remove(name),
            Self::Set { name, role } => Wish::Set { name, role },
            Self::Add { name, role, quic } => {
                let address = quic.parse::<HostPort>()?.to_string();
                Wish::Add { name, role, address }
            }
        })
    }
}

/// What the route looks at.
#[derive(Clone)]
pub(super) struct Members {
    clients: Arc<Clients>,
    board: Arc<Board>,
    /// Where those are reached who founded the cluster: no configuration says it.
    founders: Arc<BTreeMap<NodeName, String>>,
}

impl Members {
    pub(super) fn new(core: &Core, peers: &[Peer]) -> Self {
        let founder = |peer: &Peer| match &peer.at {
            PeerAt::Quic(at) => Some((peer.name.clone(), at.to_string())),
            PeerAt::Shared(_) => None,
        };
        let founders = Arc::new(peers.iter().filter_map(founder).collect());
        Self { clients: core.clients(), board: core.board(), founders }
    }

    /// What speaks against it, beyond what the leader of the log knows.
    fn refused(&self, wish: &Wish) -> Option<String> {
        let Wish::Add { name, address, .. } = wish else { return None };
        let configuration = self.board.reached().configuration?;
        let founder = configuration.role_of(name).is_some()
            && !configuration.addresses.iter().any(|(known, _)| known == name);
        let known = self.founders.get(name).filter(|known| founder && *known != address)?;
        Some(format!("{name} is there already, at {known}; remove it first"))
    }
}

/// Adds the route.
pub(super) fn configure(routes: &mut web::ServiceConfig, members: Members) {
    routes.app_data(web::Data::new(members)).route("/members", web::post().to(post));
}

async fn post(members: web::Data<Members>, body: web::Bytes) -> HttpResponse {
    let asked = serde_json::from_slice(&body).map_err(|error| error.to_string());
    let wish = match asked.and_then(Asked::wish) {
        Ok(wish) => wish,
        Err(why) => return answer(StatusCode::BAD_REQUEST, "not_applied", &why),
    };
    if let Some(why) = members.refused(&wish) {
        return answer(StatusCode::CONFLICT, "not_applied", &why);
    }
    let (tell, told) = oneshot::channel();
    // Nobody listens any more when the client has hung up.
    members.clients.wish(
        wish,
        at_most(PATIENCE),
        Box::new(move |outcome| drop(tell.send(outcome))),
    );
    match told.await {
        Ok(Outcome::Applied { .. }) => HttpResponse::Ok().json(json!({ "outcome": "applied" })),
        Ok(Outcome::Failed(why)) => answer(StatusCode::CONFLICT, "not_applied", &why),
        Ok(Outcome::NotApplied(why)) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, "not_applied", &why.text)
        }
        Ok(Outcome::SessionExpired(why) | Outcome::Unknown(why)) => {
            answer(StatusCode::GATEWAY_TIMEOUT, "unknown", &why)
        }
        Err(_) => answer(StatusCode::GATEWAY_TIMEOUT, "unknown", "this node stopped meanwhile"),
    }
}

fn answer(status: StatusCode, outcome: &str, error: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": error, "outcome": outcome }))
}

/// Below what the command line waits for by default, so that it hears the answer.
const PATIENCE: Duration = Duration::from_secs(4);
