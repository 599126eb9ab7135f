//! What a node knows of its cluster, for people and scripts.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use serde_json::{Value, json};
use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::Journal,
    node::Node,
};
use tokio::sync::Notify;

use super::{clients::no_room, membership::Shown, metrics};
use crate::{
    consensus::{
        ballot::{Ballot, Step},
        configuration::{Configuration, History},
        message::{Leader, Program, ProposerReport, Report, Sign, Standing},
        timing::VoteStyle,
    },
    membership::message::State,
};

/// What the roles reported last.
#[derive(Debug, Default)]
struct Last {
    proposer: Option<ProposerReport>,
    history: Option<History>,
    durable: Step,
    position: u64,
    time_ms: u64,
    digest: u64,
    /// Why the replica executes nothing any more.
    replica_halted: Option<String>,
    auxiliary: Option<Standing>,
    auxiliary_leader: Option<(NodeId, Ballot)>,
    auxiliary_configuration: Option<Configuration>,
    home: Option<Leader>,
}

/// How far a node is, by what its roles reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The last executed step.
    pub step: Step,
    /// Commands executed.
    pub position: u64,
    /// Chain over these commands and their replies: equal at equal positions on every main.
    pub digest: u64,
    /// The newest configuration known, in force or not yet.
    pub configuration: Option<Configuration>,
    /// The highest step an auxiliary holds a vote for.
    pub holds: Option<Step>,
    /// Who leads, as far as is known here, and in which ballot.
    pub leader: (Option<NodeId>, Ballot),
    /// Peers that were not heard of lately.
    pub suspects: Vec<NodeName>,
    /// Whether an auxiliary completes the steps at present, as far as is known here.
    pub bridging: bool,
}

/// See the module's documentation.
pub(super) struct Board {
    node: Node,
    /// The seat that reports.
    me: NodeId,
    journal: Journal,
    /// How a leader's vote travels.
    vote: &'static str,
    last: Mutex<Last>,
    /// What stands in the document of the roles that are led by lease.
    roles: OnceLock<RolesShown>,
    /// What stands in it of managed services.
    services: OnceLock<Box<dyn Fn() -> Vec<Value> + Send + Sync>>,
    /// What stands in it of groups.
    groups: OnceLock<GroupsShown>,
    /// What stands in it of servers behind the agreed order.
    web: OnceLock<Box<dyn Fn() -> Vec<Value> + Send + Sync>>,
    /// Who is there, as the log decided.
    view: OnceLock<ViewShown>,
    /// Wakes who waits for this node to lead the log, or to lead it no more.
    turned: Notify,
    /// Who manages the services.
    manager: OnceLock<Box<dyn Fn() -> Option<NodeName> + Send + Sync>>,
}

/// The groups, as this node sees them.
type GroupsShown = Box<dyn Fn() -> Vec<Value> + Send + Sync>;

/// The newest view, if this node still knows one.
type ViewShown = Box<dyn Fn() -> Option<Shown> + Send + Sync>;

/// The roles, as this node has them; whether that may be old.
type RolesShown = Box<dyn Fn(bool) -> Vec<Value> + Send + Sync>;

impl Board {
    pub(super) fn new(node: Node, me: NodeId, journal: Journal, style: VoteStyle) -> Self {
        let vote = match style {
            VoteStyle::Split => "split",
            VoteStyle::Piggyback => "piggyback",
        };
        Self {
            node,
            me,
            journal,
            vote,
            last: Mutex::default(),
            roles: OnceLock::new(),
            services: OnceLock::new(),
            groups: OnceLock::new(),
            web: OnceLock::new(),
            view: OnceLock::new(),
            turned: Notify::new(),
            manager: OnceLock::new(),
        }
    }

    /// From now on the document shows these services.
    pub(super) fn show_services(&self, services: impl Fn() -> Vec<Value> + Send + Sync + 'static) {
        let _first = self.services.set(Box::new(services));
    }

    /// From now on the document shows these roles.
    pub(super) fn show_roles(&self, roles: impl Fn(bool) -> Vec<Value> + Send + Sync + 'static) {
        let _first = self.roles.set(Box::new(roles));
    }

    /// From now on the document shows these groups.
    pub(super) fn show_groups(&self, groups: impl Fn() -> Vec<Value> + Send + Sync + 'static) {
        let _first = self.groups.set(Box::new(groups));
    }

    /// From now on the document shows these servers.
    pub(super) fn show_web(&self, web: impl Fn() -> Vec<Value> + Send + Sync + 'static) {
        let _first = self.web.set(Box::new(web));
    }

    /// From now on the document shows this view.
    pub(super) fn show_view(&self, view: impl Fn() -> Option<Shown> + Send + Sync + 'static) {
        let _first = self.view.set(Box::new(view));
    }

    /// From now on the document shows this manager.
    pub(super) fn show_manager(
        &self,
        manager: impl Fn() -> Option<NodeName> + Send + Sync + 'static,
    ) {
        let _first = self.manager.set(Box::new(manager));
    }

    fn roles(&self) -> Vec<Value> {
        let stale = self.ready().is_err();
        self.roles.get().map(|roles| roles(stale)).unwrap_or_default()
    }

    /// Takes a role's word.
    pub(super) fn note(&self, report: Report) {
        let metrics = self.node.metrics();
        let mut last = self.last();
        match report {
            Report::Proposer(report) => {
                let leads = report.leader.as_ref() == Some(&self.me);
                metrics.gauge(&metrics::LEADS, &[]).set(u64::from(leads));
                let led = last.proposer.as_ref().and_then(|proposer| proposer.leader.as_ref());
                if leads != (led == Some(&self.me)) {
                    self.turned.notify_one();
                }
                last.proposer = Some(report);
            }
            Report::Learner { history, durable_upto } => {
                metrics.counter(&metrics::STEPS, &[]).follow(history.executed().0);
                last.history = Some(history);
                last.durable = durable_upto;
            }
            Report::Replica { position, time_ms, digest, halted, differences, .. } => {
                metrics.counter(&metrics::COMMANDS, &[]).follow(position);
                metrics.counter(&metrics::DIFFERENCES, &[]).follow(differences);
                (last.position, last.time_ms, last.digest) = (position, time_ms, digest);
                last.replica_halted = halted;
            }
            Report::Auxiliary { standing, leader, configuration } => {
                let epoch = configuration.as_ref().map_or(0, |c| c.epoch);
                metrics.gauge(&metrics::VIEW, &[]).set(epoch);
                last.auxiliary = Some(standing);
                last.auxiliary_leader = leader;
                last.auxiliary_configuration = configuration;
            }
            Report::Home(leader) => last.home = Some(leader),
            Report::Dismissed => {} // its site stops the node
        }
    }

    /// Whether its state is sound; else what is wrong with it.
    pub(super) fn sound(&self) -> Result<(), String> {
        self.last().replica_halted.clone().map_or(Ok(()), Err)
    }

    /// Whether reads and writes are served here; else why not.
    pub(super) fn ready(&self) -> Result<(), String> {
        let last = self.last();
        let journal = self.journal.stats();
        if let Some(failed) = journal.failed {
            return Err(failed);
        }
        if journal.full {
            self.journal.flush(); // looks whether there is room again
            return Err(no_room(&self.me));
        }
        if last.auxiliary.is_some() {
            return Ok(());
        }
        if let Some(halted) = &last.replica_halted {
            return Err(halted.clone());
        }
        let Some(leader) = &last.home else {
            return Err("the cluster is being founded".to_owned());
        };
        if let Some(halted) = &leader.halted {
            return Err(halted.clone());
        }
        if leader.node.is_none() || !leader.serving {
            return Err("no leader".to_owned());
        }
        if let Some(proposer) = &last.proposer {
            // It would serve, but whoever stops the next node now would stop the cluster.
            if proposer.mending {
                return Err("makes up for the torn end of its journal".to_owned());
            }
            let told = proposer.peers.iter().map(|peer| peer.epoch).max().unwrap_or_default();
            let history = last.history.as_ref();
            if history.is_some_and(|history| history.goes_on_without(&self.me.name, told)) {
                let why = "was voted out while it was away; it catches up to vote again";
                return Err(why.to_owned());
            }
            let executed = last.history.as_ref().map_or(Step(0), History::executed);
            let most = proposer.peers.iter().map(|peer| peer.executed).max().unwrap_or_default();
            if most.beyond(executed) > LAG_READY_MAX {
                return Err(format!("catching up: {} steps behind", most.beyond(executed)));
            }
        }
        Ok(())
    }

    /// How far the roles are.
    pub(super) fn reached(&self) -> Reached {
        let last = self.last();
        let known = last.history.as_ref().and_then(History::newest);
        let proposer = last.proposer.clone().unwrap_or_default();
        let late = proposer.peers.iter().filter(|peer| peer.sign != Sign::Heard);
        Reached {
            step: last.history.as_ref().map_or(Step(0), History::executed),
            position: last.position,
            digest: last.digest,
            configuration: known.or(last.auxiliary_configuration.as_ref()).cloned(),
            holds: last.auxiliary.as_ref().and_then(|standing| standing.holds),
            suspects: late.map(|peer| peer.node.name.clone()).collect(),
            leader: (proposer.leader, proposer.ballot),
            bridging: proposer.bridging,
        }
    }

    /// Whether this node leads the log, as far as it said.
    pub(super) fn leads(&self) -> bool {
        let proposer = &self.last().proposer;
        proposer.as_ref().is_some_and(|proposer| proposer.leader.as_ref() == Some(&self.me))
    }

    /// Turns when that may have changed. For one who waits.
    pub(super) async fn turned(&self) {
        self.turned.notified().await;
    }

    /// The document of `GET /status`.
    pub(super) fn status(&self) -> Value {
        let roles = self.roles();
        let services = self.services.get().map(|services| services()).unwrap_or_default();
        let groups = self.groups.get().map(|groups| groups()).unwrap_or_default();
        let web = self.web.get().map(|web| web()).unwrap_or_default();
        let view = self.view.get().and_then(|view| view()).filter(|one| !one.view.nodes.is_empty());
        let last = self.last();
        let proposer = last.proposer.clone().unwrap_or_default();
        let history = last.history.as_ref();
        let configuration =
            history.and_then(History::current).or(last.auxiliary_configuration.as_ref()).cloned();
        let (leader, ballot) = match (&last.auxiliary_leader, &last.home) {
            (Some((leader, ballot)), _) => (Some(leader.clone()), *ballot),
            (None, Some(home)) => (home.node.clone(), home.ballot),
            (None, None) => (proposer.leader.clone(), proposer.ballot),
        };
        let names = |nodes: &[NodeId]| nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        let author = configuration
            .iter()
            .flat_map(|c| &c.mains)
            .find(|main| main.incarnation == ballot.node)
            .map_or_else(|| ballot.node.to_string(), |main| main.name.to_string());
        let halted = proposer.halted.clone().or_else(|| last.home.as_ref()?.halted.clone());
        let halted = last.replica_halted.clone().or(halted);
        let epoch = configuration.as_ref().map_or(0, |c| c.epoch);
        let nodes = self.nodes(&last, &proposer, configuration.as_ref(), view.as_ref());
        json!({
            "cluster": self.node.cluster(),
            "answered_by": self.me.name,
            "leader": leader.map(|leader| leader.name),
            "ballot": format!("{}.{author}", ballot.round),
            "view": view.as_ref().map_or(epoch, |shown| shown.view.id.number()),
            "epoch": epoch,
            "version": configuration.as_ref().map_or(0, |c| c.version),
            "position": last.position,
            "digest": format!("{:016x}", last.digest),
            "mains": configuration.as_ref().map_or_else(Vec::new, |c| names(&c.mains)),
            "auxiliaries": configuration.as_ref().map_or_else(Vec::new, |c| names(&c.auxiliaries)),
            "halted": halted,
            "bridging": proposer.bridging,
            "vote": self.vote,
            "web": with_their_mains(web, &nodes),
            "manager": self.manager.get().and_then(|manager| manager()),
            "nodes": nodes,
            "incompatible": self.node.incompatible(),
            "roles": roles, "services": services, "groups": groups,
        })
    }

    fn nodes(
        &self,
        last: &Last,
        proposer: &ProposerReport,
        configuration: Option<&Configuration>,
        view: Option<&Shown>,
    ) -> Vec<Value> {
        let mut rows: BTreeMap<NodeName, Row> = BTreeMap::new();
        for peer in self.node.peers_up() {
            let row = Row { role: peer.role.clone(), sign: Sign::Heard, ..Row::new(&peer.id) };
            rows.insert(peer.id.name.clone(), row);
        }
        for peer in &proposer.peers {
            let id = &peer.node;
            let row = rows
                .entry(id.name.clone())
                .or_insert_with(|| Row { role: peer.role.as_str().to_owned(), ..Row::new(id) });
            // An auxiliary executes nothing.
            let executes = peer.executed > Step(0);
            row.executed = executes.then_some(peer.executed);
            row.durable = executes.then_some(peer.durable);
            row.sign = peer.sign;
            row.program = peer.program;
        }
        let me = rows.entry(self.me.name.clone()).or_insert_with(|| Row::new(&self.me));
        me.role = self.node.role().to_owned();
        me.sign = Sign::Heard;
        me.executed = last.history.as_ref().map(History::executed);
        me.durable = last.history.is_some().then_some(last.durable);
        me.program = Some((Program::THIS, last.history.is_some().then_some(proposer.knows)));
        let most = rows.values().filter_map(|row| row.executed).max().unwrap_or_default();
        if let Some(configuration) = configuration {
            place(&mut rows, configuration, last.history.is_some());
        }
        view.into_iter().for_each(|view| judge(&mut rows, view));
        rows.into_iter().map(|(name, row)| row.json(&name, most)).collect()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server is as far away as the main before it.
fn with_their_mains(mut sites: Vec<Value>, nodes: &[Value]) -> Vec<Value> {
    for site in &mut sites {
        let main = nodes.iter().find(|node| node["name"] == site["site"]);
        let state = main.and_then(|main| main["state"].as_str()).unwrap_or("removed");
        if ["down", "removed"].contains(&state) && site["state"] != "quarantined" {
            site["state"] = json!("down");
            site["reason"] =
                json!(format!("node {} is {state}", site["site"].as_str().unwrap_or("?")));
        }
    }
    sites
}

/// Says what the configuration makes of each node; `follows`: whether this one follows the log, and is
/// told how far others are. An auxiliary is not.
fn place(rows: &mut BTreeMap<NodeName, Row>, configuration: &Configuration, follows: bool) {
    let members = configuration.mains.iter().map(|node| (node, "main"));
    for (node, role) in members.chain(configuration.auxiliaries.iter().map(|n| (n, "auxiliary"))) {
        let row = rows.entry(node.name.clone()).or_insert_with(|| Row::new(node));
        role.clone_into(&mut row.role);
        row.state = match (row.sign, row.incarnation == node.incarnation.to_string()) {
            (Sign::Heard, false) => "rejoining",
            (sign, _) => state(sign),
        };
    }
    for (name, role) in &configuration.expected {
        let row = rows.entry(name.clone()).or_default();
        role.as_str().clone_into(&mut row.role);
        row.state = "joining";
    }
    for name in &configuration.members {
        let row = rows.entry(name.clone()).or_default();
        "member".clone_into(&mut row.role);
        // It has none of the log yet, or was never seen.
        let nothing = follows && row.executed.is_none() && row.sign == Sign::Heard;
        if nothing || row.incarnation.is_empty() {
            row.state = "joining";
        }
    }
    for node in &configuration.removed {
        let row = rows.get_mut(&node.name);
        let same = row.filter(|row| row.incarnation == node.incarnation.to_string());
        same.into_iter().for_each(|row| row.state = "removed");
    }
    for name in &configuration.absent {
        let row = rows.entry(name.clone()).or_default();
        "main".clone_into(&mut row.role);
        row.state = match row.sign {
            Sign::Heard => "rejoining",
            Sign::Late | Sign::Silent => "down",
        };
    }
}

/// Says what was decided on each node, where that is more than what this one sees.
fn judge(rows: &mut BTreeMap<NodeName, Row>, shown: &Shown) {
    for (name, place) in &shown.view.nodes {
        let Some(row) = rows.get_mut(name) else { continue };
        row.state = match place.state {
            State::Up => continue,
            State::Halted => "halted",
            State::Down if shown.returning.contains(name) || row.state == "rejoining" => {
                "rejoining"
            }
            State::Down => "down",
        };
    }
}

fn state(sign: Sign) -> &'static str {
    match sign {
        Sign::Heard => "up",
        Sign::Late => "suspect",
        Sign::Silent => "down",
    }
}

/// One node of the status document.
#[derive(Debug, Default)]
struct Row {
    role: String,
    state: &'static str,
    sign: Sign,
    incarnation: String,
    executed: Option<Step>,
    durable: Option<Step>,
    /// What it runs, and the highest cluster version it can execute, where it executes.
    program: Option<(Program, Option<u32>)>,
}

impl Row {
    fn new(id: &NodeId) -> Self {
        Self { incarnation: id.incarnation.to_string(), ..Self::default() }
    }

    fn json(&self, name: &NodeName, most: Step) -> Value {
        let state = if self.state.is_empty() { state(self.sign) } else { self.state };
        json!({
            "name": name,
            "role": self.role,
            "state": state,
            "incarnation": self.incarnation,
            "executed": self.executed,
            "durable": self.durable,
            "lag": self.executed.map(|step| most.beyond(step)),
            "version": self.program.map(|(program, _)| program.to_string()),
            "knows_version": self.program.and_then(|(_, knows)| knows),
        })
    }
}

/// A main this many steps behind another is still catching up, not ready.
const LAG_READY_MAX: u64 = 1_000;

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("node", &self.node).finish_non_exhaustive()
    }
}
