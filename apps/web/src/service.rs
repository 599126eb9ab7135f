//! The binding as a program adds it to its nodes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, OnceLock},
};

use actix_rt::Arbiter;
use rand::Rng as _;
use serde_json::{Value, json};
use synod::{
    replicated::{Desk, Handle, StateMachine, Submit},
    server::{
        NodeAddresses, Service, ServiceContext,
        config::{WebConfig, WebOrder},
        multicast::{Hosted, Multicast},
    },
};

use crate::{
    Carrier, Form, Order,
    bodies::Store,
    carrier::{Counter, Hooks, Links},
    edge::{self, EdgeOptions},
    metrics::{DIVERGED, WebMetrics},
    order::{Copied, NAME, Rebuild, Site as Known, State, Web},
    resp::{self, RedisAddress, RedisServer},
    site::{Bodies, Parts, Site, Standing, notes::Notes},
    tireless::restarts,
    upstream::{HttpForm, Upstream, UpstreamAddress, UpstreamOptions},
    way::WayIn,
};

/// Servers behind one agreed order. One of these belongs to one node.
#[derive(Debug, Default)]
pub struct WebService {
    /// What the log's table of this node says.
    desk: Arc<Desk<Web>>,
    /// What the group's does.
    of_group: Arc<Desk<Web>>,
    group: OnceLock<Arc<Hosted>>,
    /// The site of this node; none: the node has no site.
    own: OnceLock<Own>,
}

/// The site of a node, as it is seen there whatever the others know of it.
#[derive(Debug)]
struct Own {
    name: String,
    upstream: String,
    standing: Arc<Standing>,
    metrics: WebMetrics,
}

impl WebService {
    /// Where the order is that a node file names: what is seen of it here, the way in, and the log,
    /// where that is not the order.
    fn order(&self, config: &WebConfig, log: &Arc<dyn Submit>) -> io::Result<Ordered> {
        let of = |submit: Arc<dyn Submit>| Handle::new(submit, NAME);
        let log = Arc::clone(log);
        match config.order {
            WebOrder::Paxos => Ok((Arc::clone(&self.desk), of(log), None)),
            WebOrder::Sam => {
                let none = || io::Error::other("this node cannot use groups");
                let group = self.group.get().cloned().ok_or_else(none)?;
                Ok((Arc::clone(&self.of_group), of(group), Some(of(log))))
            }
        }
    }
}

type Ordered = (Arc<Desk<Web>>, Handle<Web>, Option<Handle<Web>>);

impl Service for WebService {
    fn name(&self) -> &str {
        NAME
    }

    fn machine(&self) -> Box<dyn StateMachine> {
        self.desk.machine(NAME)
    }

    fn groups(&self, multicast: &Multicast) {
        let desk = Arc::clone(&self.of_group);
        let hosted = multicast.host(GROUP, WebOrder::SAM_SERVERS, move || desk.machine(NAME));
        // A service belongs to one node, which says this once.
        drop(self.group.set(hosted));
    }

    fn way_in(&self, log: &Arc<dyn Submit>) -> Arc<dyn Submit> {
        let log = Arc::clone(log);
        match self.group.get() {
            Some(group) => Arc::new(WayIn::new(log, Arc::clone(group) as Arc<dyn Submit>)),
            None => log,
        }
    }

    fn speaks_web(&self) -> bool {
        true
    }

    fn serve_web(
        &self,
        listener: TcpListener,
        config: &WebConfig,
        context: &ServiceContext,
    ) -> io::Result<()> {
        check(&config.upstream).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let dir = context.data_dir.join(NAME);
        let notes =
            Notes::open(&context.world, dir, context.durability).map_err(io::Error::other)?;
        let dir = context.data_dir.join(BODIES);
        let store = Store::open(&context.world.disk, dir, context.durability)?;
        let counter = Counter::open(context).map_err(io::Error::other)?;
        let (desk, order, log) = self.order(config, &context.submit)?;
        let name = context.node.to_string();
        count_differences(&desk, &name, context);
        let own = self.own.get_or_init(|| Own {
            name: name.clone(),
            upstream: config.upstream.clone(),
            standing: Arc::default(),
            metrics: WebMetrics::new(&context.metrics),
        });
        let (standing, metrics) = (Arc::clone(&own.standing), own.metrics.clone());
        let (config, context) = (config.clone(), context.clone());
        // An arbiter of its own: what moves bodies does not keep the protocol waiting.
        let arbiter = Arbiter::new();
        arbiter.spawn_fn(move || {
            let behind = match Behind::new(&config, &context) {
                Ok(behind) => behind,
                Err(why) => return (context.fail)(&format!("web: {why}")),
            };
            // Without this arbiter the node would be up without its web port.
            let alarm = Alarm(Arc::clone(&context.fail));
            let carrier = Hooks::new(config.copies.clone(), &store, &context);
            let site = Site::start(Parts {
                name,
                config: config.clone(),
                desk,
                order,
                log,
                server: behind.form(&config),
                bodies: Some(Bodies {
                    store: store.clone(),
                    courier: Rc::new(Links(context.links.clone())),
                }),
                carrier: carrier.map(|carrier| Rc::new(carrier) as Rc<dyn Carrier>),
                notes,
                first_ticket: context.world.entropy.rng("web/tickets").next_u64(),
                clock: Arc::clone(&context.clock),
                metrics,
                standing,
            });
            actix_rt::spawn(counter.serve(site.clone()));
            let options = EdgeOptions { bodies: Some(store), ..EdgeOptions::of(&config, &context) };
            if let Err(error) = behind.serve(listener, Rc::new(site.clone()), options) {
                (context.fail)(&format!("web: the listener cannot be served: {error}"));
            }
            let mut close = context.close;
            actix_rt::spawn(async move {
                close.stopped().await;
                alarm.disarm();
                site.close();
            });
        });
        Ok(())
    }

    fn sites(&self) -> Vec<Value> {
        // One of them has none.
        let of = |desk: &Desk<Web>| -> Vec<Value> {
            let shown = desk.read(|web| {
                let sites = web.sites().iter();
                sites.map(|(name, site)| document(name, site, web.last())).collect()
            });
            shown.unwrap_or_default()
        };
        let mut all = [of(&self.desk), of(&self.of_group)].concat();
        if let Some(own) = self.own.get()
            && let Some(why) = own.standing.away()
            && !all.iter().any(|site| site["site"] == *own.name)
        {
            // Neither order took it in.
            let outside = Known {
                upstream: own.upstream.clone(),
                state: State::Quarantined(why),
                ..Known::default()
            };
            all.push(document(&own.name, &outside, 0));
        }
        if let Some(own) = self.own.get()
            && let Some(site) = all.iter_mut().find(|site| site["site"] == *own.name)
        {
            // Nobody else knows.
            site["order"] = own.metrics.order_lately();
            site["server"] = own.metrics.server_lately();
        }
        all
    }

    fn ready(&self) -> Result<(), String> {
        match self.own.get() {
            Some(own) if !own.standing.is_placed() => {
                Err("the site of this node is about to join the others".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn hints(&self, at: &NodeAddresses) -> Vec<String> {
        let redis = at.upstream.as_deref().is_some_and(RedisAddress::is_meant);
        let hint = |web: &SocketAddr| match redis {
            true => {
                format!("redis-cli -p {0} SET name value; redis-cli -p {0} GET name", web.port())
            }
            false => format!("curl -T FILE http://{web}/name; curl http://{web}/name"),
        };
        at.web.iter().map(hint).collect()
    }
}

/// The server behind a site, by what it speaks.
enum Behind {
    Http(Upstream),
    Redis(RedisServer),
}

impl Behind {
    /// # Errors
    /// What is wrong with its address.
    fn new(config: &WebConfig, context: &ServiceContext) -> Result<Self, String> {
        if RedisAddress::is_meant(&config.upstream) {
            let restarts = restarts(&context.metrics, "web/redis");
            return Ok(Self::Redis(RedisServer::start(
                RedisAddress::parse(&config.upstream)?,
                restarts,
            )));
        }
        let options = UpstreamOptions::new(Arc::clone(&context.clock));
        let upstream = Upstream::new(&config.upstream, options);
        upstream.map(Self::Http).map_err(|why| why.to_string())
    }

    fn form(&self, config: &WebConfig) -> Rc<dyn Form> {
        match self {
            Self::Http(upstream) => Rc::new(HttpForm::new(upstream.clone(), config.clone())),
            Self::Redis(server) => Rc::new(server.clone()),
        }
    }

    fn serve(
        self,
        listener: TcpListener,
        order: Rc<dyn Order>,
        options: EdgeOptions,
    ) -> io::Result<()> {
        match self {
            Self::Http(upstream) => edge::serve(listener, order, upstream, options),
            Self::Redis(server) => resp::serve(listener, order, server, options),
        }
    }
}

/// Whether a server's address is one.
fn check(upstream: &str) -> Result<(), String> {
    match RedisAddress::is_meant(upstream) {
        true => RedisAddress::parse(upstream).map(drop),
        false => UpstreamAddress::parse(upstream).map(drop).map_err(|why| why.to_string()),
    }
}

/// Ends the node when it is dropped before its time.
struct Alarm(Arc<dyn Fn(&str) + Send + Sync>);

impl Alarm {
    fn disarm(mut self) {
        self.0 = Arc::new(|_| ());
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        (self.0)("web: the arbiter of the web port ended");
    }
}

/// What `status` shows of a site.
fn document(name: &str, site: &Known, last: u64) -> Value {
    let (state, reason) = match (site.quarantined(), &site.down) {
        (Some(why), _) => ("quarantined", Some(why)),
        (None, Some(why)) => ("down", Some(why.as_str())),
        (None, None) if site.held => ("catching_up", Some(HELD)),
        (None, None) if site.applied < site.until => ("catching_up", None),
        (None, None) => ("serving", None),
    };
    json!({
        "site": name,
        "upstream": site.upstream,
        "applied": site.applied,
        "lag": last.saturating_sub(site.applied),
        "state": state,
        "reason": reason,
        "diverged": site.diverged,
        "rebuild": rebuild(site),
        "order": null,
        "server": null,
    })
}

/// How far the rebuild of a site is, in words; null where there is none.
fn rebuild(site: &Known) -> Option<String> {
    site.quarantined()?;
    let Some(Rebuild { from, copy, came, .. }) = &site.rebuild else {
        return site.trouble.as_ref().map(|why| format!("it came to nothing: {why}"));
    };
    Some(match copy {
        None => format!("the server of {from} is being copied"),
        Some(Copied { at, bytes, .. }) => {
            format!("{came} of {bytes} bytes came from {from}, as it was after {at}")
        }
    })
}

/// Shows what the order found of this main's server.
fn count_differences(desk: &Arc<Desk<Web>>, name: &str, context: &ServiceContext) {
    let (desk, name) = (Arc::clone(desk), name.to_owned());
    context.metrics.collect(move |metrics| {
        let diverged = desk.read(|web| web.sites().get(&name).map(|site| site.diverged)).flatten();
        metrics.counter(&DIVERGED, &[]).follow(diverged.unwrap_or_default());
    });
}

/// Why a site performs nothing that is quite well.
const HELD: &str = "an operator holds its server: it is sent nothing until the wish `release`";

/// The group that orders requests where the log does not.
const GROUP: &str = "synod.web";

/// Where large bodies are kept.
const BODIES: &str = "web.bodies";
