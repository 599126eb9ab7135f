//! The clients' side of a site: hears HTTP, hands what changes something to the order, reads the
//! rest from the server behind (R5.1–R5.5, R5.17–R5.26).
//!
//! An unsafe request is read whole, brought into one form ([`canonical`]), ordered, and answered
//! with what this site's server answered to it. A safe one waits until this site has performed what
//! it must see, and its answer passes through as it comes, so that memory stays flat.

mod answer;
mod canonical;
mod drain;
mod forwards;
mod intake;
mod listener;
mod ready;
mod service;
mod session;
mod tunnel;

use std::{cell::Cell, io, net::TcpListener, rc::Rc, sync::Arc};

use synod::{
    runtime::{telemetry::Metrics, world::Clock},
    server::{Access, ServiceContext, StopSignal, config::WebConfig},
};

use self::{
    intake::Budget,
    listener::Listener,
    service::{Counters, Edge},
    tunnel::Tunnels,
};
use crate::{Order, bodies::Store, log::Log, tireless::restarts, upstream::Upstream};

pub use canonical::canonical;

/// How the clients of a site are treated.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Limits and routes.
    pub web: WebConfig,
    /// Who may come: TLS and tokens.
    pub access: Access,
    /// The site's name, as metrics show it.
    pub site: String,
    /// What the node counts.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// More connections than this wait to be taken.
    pub connections_max: usize,
    /// Where large bodies of requests are kept on their way; none: in memory.
    pub bodies: Option<Store>,
    /// When to end.
    pub stop: StopSignal,
}

impl EdgeOptions {
    /// As a node's configuration says.
    pub fn of(web: &WebConfig, context: &ServiceContext) -> Self {
        Self {
            web: web.clone(),
            access: context.access.clone(),
            site: context.node.to_string(),
            metrics: context.metrics.clone(),
            clock: Arc::clone(&context.clock),
            connections_max: CONNECTIONS_MAX,
            bodies: None,
            stop: context.close.clone(),
        }
    }
}

/// Serves the clients of a site on `listener` until `options.stop`: spawns its accept loop on the
/// current arbiter and returns.
///
/// # Errors
/// What the system says; then nothing was spawned.
pub fn serve(
    listener: TcpListener,
    order: Rc<dyn Order>,
    upstream: Upstream,
    options: EdgeOptions,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let EdgeOptions { web, access, site, metrics, clock, connections_max, bodies, stop } = options;
    let acceptor = access.acceptor();
    let budget = Budget::new(web.body_bytes_max, bodies);
    let open = Cell::new(0);
    let counters = Counters::new(&metrics, &site);
    let tunnels = Tunnels::default();
    let log = Log::new(clock);
    let edge = Edge { order, upstream, web, access, counters, log, budget, tunnels, open };
    let listener = Listener { listener: Some(listener), acceptor, connections_max, stop };
    actix_rt::spawn(listener.run(Rc::new(edge), restarts(&metrics, "web/listener")));
    Ok(())
}

/// Enough for thousands of clients, few enough for the file descriptors a process usually has.
const CONNECTIONS_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
