//! Composes roles into a node and lets the outside in.
//!
//! # Layout
//! - [`config`]: the node file
//! - [`core`]: the roles of a node, on any world
//! - [`seat`]: the roles one by one, for programs that place and supervise them themselves
//! - [`passive`]: an auxiliary that is an object on shared storage
//! - [`correspondent`]: a word with any role, from outside
//! - [`elections`]: standing for roles; `http_roles`: the same for programs in any language
//! - [`Service`]: what a program adds to a node: a state machine and its ways in
//! - [`registers`]: a few words that a majority keeps, without a log
//! - [`membership`]: who is there, as the log decided
//! - [`multicast`]: groups: publishing and listening; [`Follower`]: what a program adds to a node: a
//!   state that follows one, and its ways in
//! - [`singletons`]: actors of which exactly one lives
//! - [`services`]: outside programs of which exactly one runs; `http_services`: shown and changed
//! - [`Connections`]: of any port; `listener`: the HTTP port of a node; [`turnstile`]: lets the requests of a connection in one by one
//! - [`http_actors`]: replicated actors over HTTP and JSON; `http_guests`: the same for
//!   [`Client`](crate::Client), in MessagePack

mod access;
pub(crate) mod backup;
mod board;
mod clients;
pub mod config;
mod connections;
pub mod core;
pub mod correspondent;
pub mod elections;
mod follower;
mod http;
pub mod http_actors;
pub(crate) mod http_guests;
mod http_roles;
mod http_services;
mod http_state;
mod listener;
pub(crate) mod machines;
mod manager;
mod members;
pub mod membership;
mod memory;
mod metrics;
pub mod multicast;
pub mod passive;
pub(crate) mod patience;
pub mod registers;
mod reload;
mod scrubber;
pub mod seat;
mod service;
pub mod services;
pub mod singletons;
mod site;
mod stop;
pub mod turnstile;
mod view;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{App, middleware::from_fn};
use synod_runtime::{
    journal,
    quic::QuicNetwork,
    world::{RealClock, RealEntropy, World, disk::RealDisk, network::BindError},
};

pub use self::{
    access::Access,
    connections::Connections,
    follower::Follower,
    service::{NodeAddresses, Replica, Service, ServiceContext},
    stop::{StopSignal, StopTrigger, stop_pair},
};
use self::{
    access::guard,
    config::{Durability, NodeConfig, NodeRole, PeerAt},
    core::{Core, CoreConfig, CoreError, Machines},
    http::Looks,
    http_actors::{ActorsHttp, Ways},
    http_guests::GuestsHttp,
    http_state::StateHttp,
    listener::Listening,
    services::{ServiceError, Services, programs::Programs},
    singletons::{AnySingleton, Door},
};
pub(crate) use self::{memory::owner, site::survived};
use crate::{
    consensus::{message, replica::SNAPSHOT_LOG_BYTES, timing},
    management::message::{Refusal, Spec},
    replicated::{ActorCatalogue, Submit, name_hash},
};

/// Why a node ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It learnt that the cluster has removed it; it must not be started again.
    Removed,
}

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot be used on this machine. Nothing was started, nothing changed.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// An address that cannot be listened on.
    #[error("{what} cannot listen on {address}: {source}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] BindError),
    /// The core could not be started.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The node could not go on.
    #[error("{0}")]
    Failed(String),
}

/// What a program runs on each of its nodes. Cloning is cheap.
#[derive(Clone)]
pub struct Program {
    /// State machines under the log, and their ways in.
    pub services: Arc<[Box<dyn Service>]>,
    /// Actors of which exactly one lives; not on auxiliaries.
    pub singletons: Arc<[Box<dyn AnySingleton>]>,
    /// States that follow groups, and their ways in.
    pub followers: Arc<[Box<dyn Follower>]>,
    /// What starts the programs of managed services; none: this node provides none.
    pub programs: Option<Arc<dyn Programs>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|one| one.name()).collect();
        let singletons: Vec<_> = self.singletons.iter().map(|one| one.name()).collect();
        let followers: Vec<_> = self.followers.iter().map(|one| one.group()).collect();
        f.debug_struct("Program")
            .field("services", &services)
            .field("singletons", &singletons)
            .field("followers", &followers)
            .finish()
    }
}

/// Runs the node of `config` with `program` until `stop`, on the calling arbiter; several may run
/// on one.
///
/// # Errors
/// Why it could not start or go on; its listeners are closed then.
pub async fn run(
    config: NodeConfig,
    program: Program,
    mut stop: StopSignal,
) -> Result<Ended, ServerError> {
    let world = World {
        clock: Arc::new(RealClock),
        entropy: Arc::new(RealEntropy),
        network: Arc::new(QuicNetwork),
        disk: Arc::new(RealDisk),
    };
    let access = Access::new(&config.cluster, &config.tls)?;
    let core = Core::start(world.clone(), core_config(&config, Arc::clone(&program.services)))?;
    equip(&core, &config, &program, &access);
    let (mut failed, mut removed) = (core.failed(), core.removed());
    let (closing, close) = stop_pair();
    let context = context_of(&config, &core, world, access, &program, close);
    let listeners = listen(&config, &core, &program, &context, &stop);
    let http = match listeners {
        Ok(http) => http,
        Err(error) => {
            core.stop();
            return Err(error);
        }
    };
    if config.role != NodeRole::Auxiliary {
        context.services.in_file(&config.services);
        for singleton in program.singletons.iter() {
            let refused = |why| ServerError::Failed(format!("{}: {why}", singleton.name()));
            singleton.start(&context.elections).map_err(refused)?;
        }
    }
    if let Some(programs) = program.programs.as_ref().filter(|_| config.role != NodeRole::Auxiliary)
    {
        context.services.provide(programs);
        core.node().task(configure(core.services(), config.services.clone()));
    }
    tracing::info!(node = %config.name, http = %config.listen.http, "running");
    let (why, ended) = tokio::select! {
        biased;
        () = stop.stopped() => (None, Ended::Stopped),
        // An error says that the core is gone, which the others tell.
        Ok(_) = removed.wait_for(|removed| *removed) => (None, Ended::Removed),
        failed = failed.wait_for(Option::is_some) => {
            let why = failed.ok().and_then(|why| why.clone()).unwrap_or_default();
            (Some(why), Ended::Stopped)
        }
    };
    core.hand_over().await;
    if why.is_none() {
        tokio::time::sleep(LINGER).await;
    }
    closing.stop();
    http.stop(why.is_none()).await;
    match &why {
        None => core.leave(DRAIN).await,
        // What failed once need not be waited for.
        Some(_) => core.stop(),
    }
    why.map_or(Ok(ended), |why| Err(ServerError::Failed(why)))
}

/// Tells the parts of a node what its file and its program say.
fn equip(core: &Core, config: &NodeConfig, program: &Program, access: &Access) {
    core.board().show_web({
        let services = Arc::clone(&program.services);
        move || services.iter().flat_map(|service| service.sites()).collect()
    });
    core.elections().lease_by_default(config.elections.lease);
    if let Some(multicast) = core.multicast() {
        multicast.measure_new(config.multicast.clone());
        program.services.iter().for_each(|service| service.groups(&multicast));
        for index in 0..program.followers.len() {
            let followers = Arc::clone(&program.followers);
            let group = program.followers[index].group();
            multicast.follow(group, move || followers[index].application());
        }
    }
    let links = core.node().links();
    links.revoke(config.tls.revoked.clone());
    core.node().task(reload::watch(config.clone(), links.clone(), access.clone()));
}

/// What its services may use of it.
fn context_of(
    config: &NodeConfig,
    core: &Core,
    world: World,
    access: Access,
    program: &Program,
    close: StopSignal,
) -> ServiceContext {
    let board = core.board();
    ServiceContext {
        submit: core.submit(),
        elections: core.elections(),
        services: core.services(),
        programs: program.programs.clone(),
        links: core.node().clone(),
        clock: Arc::clone(core.node().clock()),
        world,
        data_dir: config.data_dir.clone(),
        durability: durability(config),
        metrics: core.node().metrics().clone(),
        node: config.name.clone(),
        role: config.role,
        limits: config.limits,
        status: Arc::new(move || board.status()),
        close,
        fail: core.ender(),
        access,
    }
}

/// Opens the ways in that are the services' own.
fn listen_for_services(
    config: &NodeConfig,
    program: &Program,
    context: &ServiceContext,
) -> Result<(), ServerError> {
    let services = &program.services;
    if let Some(address) = config.listen.resp
        && let Some(service) = services.iter().find(|service| service.speaks_resp())
    {
        let refused = |source| ServerError::Listen { what: "resp", address, source };
        service.serve_resp(bind(address).map_err(refused)?, context).map_err(refused)?;
    }
    if let Some(web) = &config.web {
        let address = web.listen;
        let refused = |source| ServerError::Listen { what: "web", address, source };
        let Some(service) = services.iter().find(|service| service.speaks_web()) else {
            let why = io::Error::new(io::ErrorKind::Unsupported, "this program has no web binding");
            return Err(refused(why));
        };
        service.serve_web(bind(address).map_err(refused)?, web, context).map_err(refused)?;
    }
    Ok(())
}

/// Opens the ways in.
fn listen(
    config: &NodeConfig,
    core: &Core,
    program: &Program,
    context: &ServiceContext,
    stop: &StopSignal,
) -> Result<Listening, ServerError> {
    let services = &program.services;
    let looks = Looks::new(config.role, core, services);
    let machines = services.iter().map(|service| service.machine().descriptor());
    let catalogue = ActorCatalogue::new(machines.collect());
    listen_for_services(config, program, context)?;
    let address = config.listen.http;
    let refused = |source| ServerError::Listen { what: "http", address, source };
    let (services, context) = (Arc::clone(services), context.clone());
    let followers = Arc::clone(&program.followers);
    let tls = context.access.tls().map(|tls| (*tls.config()).clone());
    let (votes_only, most) = (config.role == NodeRole::Auxiliary, config.limits.connections_max);
    let (members, elections) = (members::Members::new(core, &config.peers), core.elections());
    let (managed, multicast) = (core.services(), core.multicast());
    let watchers = view::Watchers::new(stop.clone());
    let doors: Vec<_> =
        program.singletons.iter().map(|one| Door::new(&elections, one.as_ref())).collect();
    let guests = GuestsHttp::new(Arc::clone(&context.submit), &services);
    let ways = ways_in(&services, &context.submit);
    let state = StateHttp {
        submit: Arc::clone(&context.submit),
        cluster: config.cluster.to_string(),
        shelf: core.shelf(),
    };
    let app = move || {
        let body_max = usize::try_from(context.limits.request_bytes_max).unwrap_or(usize::MAX);
        let actors =
            ActorsHttp::new(Arc::clone(&context.submit), catalogue.clone()).body_max(body_max);
        let actors = actors.singletons(doors.clone()).ways(Arc::clone(&ways));
        let access = context.access.clone();
        let door = from_fn(move |request, next| guard(access.clone(), request, next));
        let mut app = App::new().wrap(from_fn(patience::keep)).wrap(door);
        app = app.configure(|routes| http::configure(routes, looks.clone(), watchers.clone()));
        if !votes_only {
            app = app.configure(|routes| http_actors::configure(routes, actors));
            app = app.configure(|routes| http_roles::configure(routes, elections.clone()));
            app = app.configure(|routes| http_services::configure(routes, managed.clone()));
            app = app.configure(|routes| members::configure(routes, members.clone()));
            app = app.configure(|routes| http_guests::configure(routes, guests.clone()));
            app = app.configure(|routes| http_state::configure(routes, state.clone()));
            if let Some(multicast) = &multicast {
                app = app.configure(|routes| multicast::http::configure(routes, multicast.clone()));
                for follower in followers.iter() {
                    app = app.configure(|routes| follower.http(routes, multicast));
                }
            }
            for service in services.iter() {
                app = app.configure(|routes| service.http(routes, &context));
            }
        }
        app
    };
    listener::bind(address)
        .and_then(|listener| listener::serve(listener, tls, most, app))
        .map_err(refused)
}

/// The ways to state machines, by the numbers of their names.
fn ways_in(services: &[Box<dyn Service>], log: &Arc<dyn Submit>) -> Arc<Ways> {
    Arc::new(services.iter().map(|one| (name_hash(one.name()), one.way_in(log))).collect())
}

/// A listener as services take it.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What must survive a power loss.
fn durability(config: &NodeConfig) -> journal::Durability {
    match config.consensus.durability {
        Durability::Memory => journal::Durability::Memory,
        Durability::Fsync => journal::Durability::Fsync,
    }
}

/// Tells the cluster of the services of the node file, until it has heard of all.
async fn configure(services: Services, specs: Vec<Spec>) {
    for spec in specs {
        let name = spec.name.clone();
        loop {
            match services.configure(spec.clone()).await {
                Ok(()) => break,
                // What it names may stand in the file of another node.
                Err(ServiceError::Call(_) | ServiceError::Refused(Refusal::Missing { .. })) => {
                    tokio::time::sleep(CONFIGURE_AGAIN).await;
                }
                Err(why) => {
                    tracing::error!(service = name, %why, "the node file's service was refused");
                    break;
                }
            }
        }
    }
}

/// How soon the cluster is told again of what it did not hear.
const CONFIGURE_AGAIN: Duration = Duration::from_secs(1);

fn core_config(config: &NodeConfig, services: Arc<[Box<dyn Service>]>) -> CoreConfig {
    let others = config.peers.iter().filter(|peer| peer.name != config.name);
    let role = |role| match role {
        NodeRole::Main => message::NodeRole::Main,
        NodeRole::Auxiliary => message::NodeRole::Auxiliary,
        NodeRole::Member => message::NodeRole::Member,
    };
    let machines: Machines =
        Arc::new(move || services.iter().map(|service| service.machine()).collect());
    let memory = config.consensus.durability == Durability::Memory;
    CoreConfig {
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        role: role(config.role),
        data_dir: config.data_dir.clone(),
        listen: config.listen.quic,
        tls: Some(config.tls.files.clone()),
        peers: others
            .clone()
            .filter_map(|peer| match &peer.at {
                PeerAt::Quic(quic) => Some((peer.name.clone(), quic.to_string())),
                PeerAt::Shared(_) => None,
            })
            .collect(),
        passive: others
            .filter_map(|peer| match &peer.at {
                PeerAt::Quic(_) => None,
                PeerAt::Shared(dir) => {
                    let object: Arc<dyn passive::SharedObject> =
                        Arc::new(passive::FileObject::new(Arc::new(RealDisk), dir));
                    Some((peer.name.clone(), object))
                }
            })
            .collect(),
        listed: config.peers.iter().map(|p| (p.name.clone(), role(p.role))).collect(),
        durability: durability(config),
        timing: config.consensus.timing(),
        // Without a sync there is nothing to overlap with the wire.
        style: if memory { timing::VoteStyle::Piggyback } else { config.consensus.vote },
        segment_bytes: core::SEGMENT_BYTES,
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        machines,
        roles: config.elections.store.clone(),
    }
}

/// What still runs on the node gets this long, so that all of a stop stays well below the five
/// seconds that whoever stops it waits.
const DRAIN: Duration = Duration::from_secs(2);

/// A node that stops still answers so long after it answered what was under way, saying that it takes
/// no more: a client that is told *not applied* goes elsewhere, where one that is hung up on would
/// have to guess.
const LINGER: Duration = Duration::from_millis(200);
