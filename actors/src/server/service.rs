//! What a program adds to its nodes: a state machine under the log, and its own ways in.

use std::{
    fmt, io,
    marker::PhantomData,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use actix_web::web;
use serde_json::Value;
use synod_runtime::{
    identity::NodeName,
    journal::Durability,
    node::Node,
    telemetry::Metrics,
    world::{Clock, World},
};

use super::{
    Access, StopSignal,
    config::{Limits, NodeRole, WebConfig},
    elections::Elections,
    multicast::Multicast,
    services::{Services, programs::Programs},
    singletons::{HaActor, Hosting, SingletonRef},
};
use crate::replicated::{Host, Replicated, StateMachine, Submit};

/// A state machine and its ways in. Replicated actors come with
/// [`Cli::replicated`](crate::Cli::replicated); the stock key/value service is one written by hand.
pub trait Service: Send + Sync + 'static {
    /// The name of its state machine, as commands are addressed.
    fn name(&self) -> &str;

    /// A fresh state machine: at every start, and again after a panic. Its name is
    /// [`Service::name`].
    fn machine(&self) -> Box<dyn StateMachine>;

    /// Adds routes to the node's HTTP listener; called once for each of its workers. By default
    /// there are none.
    fn http(&self, _routes: &mut web::ServiceConfig, _context: &ServiceContext) {}

    /// The node can use groups, and none is used there yet: says which of them the service follows
    /// ([`Multicast::host`], [`Multicast::follow`]). Called on the node's arbiter, once, before all
    /// else but [`machine`](Self::machine); not at auxiliaries. By default there are none.
    fn groups(&self, _multicast: &Multicast) {}

    /// The way of commands and queries for its state machine that come by the node's HTTP: by default
    /// into `log`.
    fn way_in(&self, log: &Arc<dyn Submit>) -> Arc<dyn Submit> {
        Arc::clone(log)
    }

    /// Whether it serves Redis clients. At most one service of a program does.
    fn speaks_resp(&self) -> bool {
        false
    }

    /// Serves Redis clients on `listener` (bound, non-blocking) until `context.close`: spawns its
    /// accept loop on the current arbiter and returns. Called only when it
    /// [speaks RESP](Service::speaks_resp).
    ///
    /// # Errors
    /// What the system says; then nothing was spawned.
    fn serve_resp(&self, _listener: TcpListener, _context: &ServiceContext) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this service does not speak RESP"))
    }

    /// Whether it puts servers behind the agreed order. At most one service of a program does.
    fn speaks_web(&self) -> bool {
        false
    }

    /// Puts the server of `config` behind the agreed order, for clients of `listener` (bound,
    /// non-blocking), until `context.close`: starts what it needs and returns. Called only when it
    /// [speaks web](Service::speaks_web), at a node that has a server.
    ///
    /// # Errors
    /// What the system says; then nothing was started.
    fn serve_web(
        &self,
        _listener: TcpListener,
        _config: &WebConfig,
        _context: &ServiceContext,
    ) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this service puts no server behind it"))
    }

    /// The servers behind the agreed order as this node knows them, for `web` in
    /// [`ServiceContext::status`]. Must not wait.
    fn sites(&self) -> Vec<Value> {
        Vec::new()
    }

    /// Whether its own ways in serve by now, for `GET /readyz`; else why not, in a few words. What only
    /// people can mend (a server behind it that is down) is no reason: it would keep a node from being
    /// called ready for ever. Must not wait.
    ///
    /// # Errors
    /// What is still to come.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// Commands to try against a running node, for people who just started one.
    fn hints(&self, _at: &NodeAddresses) -> Vec<String> {
        Vec::new()
    }
}

/// What a service may use of its node. Cloning is cheap.
#[derive(Clone)]
pub struct ServiceContext {
    /// The way into the log.
    pub submit: Arc<dyn Submit>,
    /// Who leads in what, and standing for it.
    pub elections: Elections,
    /// Outside programs that the cluster keeps running.
    pub services: Services,
    /// What runs commands of this machine, if anything does.
    pub programs: Option<Arc<dyn Programs>>,
    /// The way to actors on other nodes.
    pub links: Node,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Everything outside of the node; its clock is [`clock`](Self::clock).
    pub world: World,
    /// Where the node keeps its things. A service puts its own into a directory of its name.
    pub data_dir: PathBuf,
    /// What must survive a power loss.
    pub durability: Durability,
    /// What the node counts.
    pub metrics: Metrics,
    /// This node.
    pub node: NodeName,
    /// What it does; members forward.
    pub role: NodeRole,
    /// What clients may ask at most.
    pub limits: Limits,
    /// The document of `GET /status`.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// When to close its ways in. A node that is asked to stop first has answered what was under way,
    /// and has told clients *not applied* for a moment, so that they can go elsewhere.
    pub close: StopSignal,
    /// Ends the node, by a reason that is told: for a service that cannot go on.
    pub fail: Arc<dyn Fn(&str) + Send + Sync>,
    /// Who may come to its listeners: TLS and tokens.
    pub access: Access,
}

impl ServiceContext {
    /// The singleton `name`, to be hosted by this node when its turn comes.
    pub fn singleton<A: HaActor>(&self, name: &str, args: A::Args) -> Hosting<A> {
        self.elections.singleton(name, args)
    }

    /// The way to the singleton `name`, wherever it lives.
    pub fn singleton_ref<A: HaActor>(&self, name: &str) -> SingletonRef<A> {
        self.elections.singleton_ref(name)
    }
}

/// Where a running node is reached.
#[derive(Debug, Clone)]
pub struct NodeAddresses {
    /// The program's name.
    pub program: &'static str,
    /// HTTP.
    pub http: SocketAddr,
    /// Redis clients.
    pub resp: Option<SocketAddr>,
    /// Clients of the server behind it.
    pub web: Option<SocketAddr>,
    /// That server.
    pub upstream: Option<String>,
}

/// A replicated actor as a service: called by `call` and `POST /actors/…`, no ways in of its own.
pub struct Replica<A> {
    name: &'static str,
    actor: PhantomData<fn() -> A>,
}

impl<A: Replicated> Replica<A> {
    /// The actor `A` under the name `name`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, actor: PhantomData }
    }
}

impl<A: Replicated> Service for Replica<A> {
    fn name(&self) -> &str {
        self.name
    }

    fn machine(&self) -> Box<dyn StateMachine> {
        Box::new(Host::<A>::new(self.name))
    }

    fn hints(&self, at: &NodeAddresses) -> Vec<String> {
        let descriptor = self.machine().descriptor();
        let first = descriptor.functions.first();
        let hint = |message: &str| {
            format!("curl -X POST http://{}/actors/{}/{message} -d '{{…}}'", at.http, self.name)
        };
        first.map(|one| hint(one.function.name)).into_iter().collect()
    }
}

impl<A> fmt::Debug for Replica<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServiceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceContext").field("node", &self.node).finish_non_exhaustive()
    }
}
