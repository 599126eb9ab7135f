//! Until the roles are composed here: one node alone, its log in memory. Enough for the command
//! line to be tried against.

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::json;

use super::{
    Ended, ServerError, Service, StopSignal,
    config::NodeConfig,
    http_actors::{self, ActorsHttp},
};
use crate::replicated::{ActorCatalogue, Submit, local::LocalLog};

pub(super) async fn run(
    config: NodeConfig,
    services: Vec<Box<dyn Service>>,
    mut stop: StopSignal,
) -> Result<Ended, ServerError> {
    let log = Arc::new(LocalLog::new());
    let mut descriptors = Vec::new();
    for service in &services {
        descriptors.push(service.machine().descriptor());
        log.host(service.machine());
    }
    let catalogue = ActorCatalogue::new(descriptors);
    let submit: Arc<dyn Submit> = log;
    let status = web::Data::new(json!({
        "cluster": config.cluster, "answered_by": config.name, "halted": "no roles yet",
    }));
    let app = move || {
        let actors = ActorsHttp::new(Arc::clone(&submit), catalogue.clone());
        App::new()
            .app_data(status.clone())
            .route("/healthz", web::get().to(HttpResponse::Ok))
            .route("/readyz", web::get().to(HttpResponse::Ok))
            .route("/status", web::get().to(answer))
            .configure(|routes| http_actors::configure(routes, actors))
    };
    let address = config.listen.http;
    let listen = |source| ServerError::Listen { what: "http", address, source };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(GRACE.as_secs())
        .bind(address)
        .map_err(listen)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        stop.stopped().await;
        handle.stop(true).await;
    });
    server.await.map_err(listen)?;
    Ok(Ended::Stopped)
}

async fn answer(status: web::Data<serde_json::Value>) -> HttpResponse {
    HttpResponse::Ok().json(status)
}

/// Open requests get this long to finish.
const GRACE: Duration = Duration::from_secs(1);
