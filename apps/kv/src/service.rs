//! The key/value service as a program adds it to its nodes.

use std::{io, net::TcpListener, sync::Arc};

use actix_web::web;
use synod::{
    replicated::StateMachine,
    server::{NodeAddresses, Service, ServiceContext},
};

use crate::{
    Kv,
    http::{self, KvHttp},
    resp::{AskFacts, Facts, RespListener, RespOptions},
};

/// Keys over RESP and HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvService;

impl Service for KvService {
    fn name(&self) -> &str {
        NAME
    }

    fn machine(&self) -> Box<dyn StateMachine> {
        Box::new(Kv::default())
    }

    fn http(&self, routes: &mut web::ServiceConfig, context: &ServiceContext) {
        http::configure(routes, KvHttp::new(Arc::clone(&context.submit)));
    }

    fn speaks_resp(&self) -> bool {
        true
    }

    fn serve_resp(&self, listener: TcpListener, context: &ServiceContext) -> io::Result<()> {
        let options = RespOptions {
            connections_max: usize::try_from(context.limits.connections_max).unwrap_or(usize::MAX),
            facts: facts(context),
            access: context.access.clone(),
            ..RespOptions::default()
        };
        let listener = RespListener::new(listener, Arc::clone(&context.submit), options)?;
        let handle = listener.start();
        let mut close = context.close.clone();
        actix_rt::spawn(async move {
            close.stopped().await;
            handle.stop().await;
        });
        Ok(())
    }

    fn hints(&self, at: &NodeAddresses) -> Vec<String> {
        let mut hints = Vec::new();
        if let Some(resp) = at.resp {
            hints.push(format!("redis-cli -p {} set greeting hello", resp.port()));
            hints.push(format!("redis-benchmark -p {} -t set,get -q", resp.port()));
        }
        hints.push(format!("curl http://{}/kv/greeting", at.http));
        hints
    }
}

/// What `INFO` and `WAIT` tell of the node.
fn facts(context: &ServiceContext) -> AskFacts {
    let status = Arc::clone(&context.status);
    AskFacts::new(move || {
        let status = status();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        let me = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|node| node["name"] == status["answered_by"]);
        Facts {
            cluster: text("cluster"),
            node: text("answered_by"),
            role: me.and_then(|me| me["role"].as_str()).unwrap_or_default().to_owned(),
            leader: status["leader"].as_str().map(str::to_owned),
            mains: status["mains"].as_array().map_or(0, |mains| mains.len() as u32),
            executed: status["position"].as_u64().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    })
}

/// The name of its state machine.
const NAME: &str = "kv";
