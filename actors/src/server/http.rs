//! The HTTP side of a node: status, readiness, metrics, names.

use std::{fmt, future::ready, sync::Arc};

use actix_web::{
    Error, HttpRequest, HttpResponse, Responder, Route, error::InternalError, guard,
    http::header::RETRY_AFTER, web,
};
use serde_json::json;
use synod_runtime::node::Node;

use super::{
    Service,
    board::Board,
    config::NodeRole,
    core::Core,
    view::{self, Watchers},
};

/// What the handlers look at.
#[derive(Clone)]
pub(super) struct Looks {
    role: NodeRole,
    pub(super) node: Node,
    pub(super) board: Arc<Board>,
    services: Arc<[Box<dyn Service>]>,
}

impl Looks {
    pub(super) fn new(role: NodeRole, core: &Core, services: &Arc<[Box<dyn Service>]>) -> Self {
        let (node, board) = (core.node().clone(), core.board());
        Self { role, node, board, services: Arc::clone(services) }
    }

    /// Whether all is served here that should be; else why not.
    fn ready(&self) -> Result<(), String> {
        self.board.ready()?;
        self.services.iter().try_for_each(|service| service.ready())
    }
}

/// Adds the routes every node has.
pub(super) fn configure(routes: &mut web::ServiceConfig, looks: Looks, watchers: Watchers) {
    routes
        .default_service(nowhere(looks.role == NodeRole::Auxiliary))
        .app_data(web::QueryConfig::default().error_handler(|bad, _| refused(bad)))
        .app_data(web::PathConfig::default().error_handler(|bad, _| refused(bad)))
        .app_data(web::Data::new(looks))
        .app_data(web::Data::new(watchers))
        .route("/healthz", looked_at().to(healthz))
        .route("/readyz", looked_at().to(readyz))
        .route("/status", looked_at().to(status))
        .route("/metrics", looked_at().to(metrics))
        .route("/registry", looked_at().to(registry))
        .route("/view", looked_at().to(view::view))
        .route("/events", web::get().to(view::events))
        .route("/", looked_at().to(dashboard));
}

/// Of a document: whoever asks for its head only is told that.
pub(super) fn looked_at() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn healthz(looks: web::Data<Looks>) -> impl Responder {
    match looks.board.sound() {
        Ok(()) => HttpResponse::Ok().content_type(TEXT).body("alive\n"),
        Err(why) => HttpResponse::ServiceUnavailable().content_type(TEXT).body(why + "\n"),
    }
}

async fn readyz(looks: web::Data<Looks>) -> impl Responder {
    match looks.ready() {
        Ok(()) => HttpResponse::Ok().content_type(TEXT).body("ready\n"),
        Err(why) => HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, "1"))
            .content_type(TEXT)
            .body(why + "\n"),
    }
}

async fn status(looks: web::Data<Looks>) -> impl Responder {
    HttpResponse::Ok().json(looks.board.status())
}

async fn metrics(looks: web::Data<Looks>) -> impl Responder {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(looks.node.metrics().render())
}

async fn registry(looks: web::Data<Looks>) -> impl Responder {
    HttpResponse::Ok().json(json!({ "names": looks.node.registry() }))
}

/// What is said where nothing is: who asks an auxiliary for data has the wrong node.
fn nowhere(votes_only: bool) -> Route {
    web::to(move |request: HttpRequest| {
        let path = request.path();
        let error = match votes_only {
            true => format!("an auxiliary has no {path}: it only votes; ask a main or a member"),
            false => {
                let method = request.method();
                format!("there is no {method} of {path}; see the manual for what a node serves")
            }
        };
        ready(HttpResponse::NotFound().json(json!({ "error": error, "outcome": "not_applied" })))
    })
}

/// What cannot be read of a request's path or of what stands behind its question mark.
fn refused(bad: impl fmt::Display + fmt::Debug + 'static) -> Error {
    let body = json!({ "error": bad.to_string(), "outcome": "not_applied" });
    InternalError::from_response(bad, HttpResponse::BadRequest().json(body)).into()
}

async fn dashboard() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("dashboard.html"))
}

const TEXT: &str = "text/plain; charset=utf-8";
