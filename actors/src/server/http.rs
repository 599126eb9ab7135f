//! The HTTP side of a node: status, readiness, metrics, names.

use std::sync::Arc;

use actix_web::{HttpResponse, Responder, http::header::RETRY_AFTER, web};
use serde_json::json;
use synod_runtime::node::Node;

use super::{
    Service,
    board::Board,
    view::{self, Watchers},
};

/// What the handlers look at.
#[derive(Clone)]
pub(super) struct Looks {
    pub(super) node: Node,
    pub(super) board: Arc<Board>,
    pub(super) services: Arc<[Box<dyn Service>]>,
}

impl Looks {
    /// Whether all is served here that should be; else why not.
    fn ready(&self) -> Result<(), String> {
        self.board.ready()?;
        self.services.iter().try_for_each(|service| service.ready())
    }
}

/// Adds the routes every node has.
pub(super) fn configure(routes: &mut web::ServiceConfig, looks: Looks, watchers: Watchers) {
    routes
        .app_data(web::Data::new(looks))
        .app_data(web::Data::new(watchers))
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/status", web::get().to(status))
        .route("/metrics", web::get().to(metrics))
        .route("/registry", web::get().to(registry))
        .route("/view", web::get().to(view::view))
        .route("/events", web::get().to(view::events))
        .route("/", web::get().to(dashboard));
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

async fn dashboard() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("dashboard.html"))
}

const TEXT: &str = "text/plain; charset=utf-8";
