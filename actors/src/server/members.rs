//! `POST /members`: what operators want of the members.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::json;
use synod_runtime::identity::NodeName;
use tokio::sync::oneshot;

use super::clients::Clients;
use crate::{consensus::message::Wish, replicated::Outcome};

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
enum Asked {
    /// A main shall lead.
    Lead {
        /// Which.
        name: NodeName,
    },
}

impl From<Asked> for Wish {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Lead { name } => Self::Lead(name),
        }
    }
}

/// Adds the route.
pub(super) fn configure(routes: &mut web::ServiceConfig, clients: Arc<Clients>) {
    routes.app_data(web::Data::from(clients)).route("/members", web::post().to(post));
}

async fn post(clients: web::Data<Clients>, body: web::Bytes) -> HttpResponse {
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(why) => return answer(StatusCode::BAD_REQUEST, "not_applied", &why.to_string()),
    };
    let (tell, told) = oneshot::channel();
    // Nobody listens any more when the client has hung up.
    clients.wish(asked.into(), PATIENCE, Box::new(move |outcome| drop(tell.send(outcome))));
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
