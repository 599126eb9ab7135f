//! The table of services: what every main and member comes to from the same commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::message::{Op, Refusal, Report, Said, Spec, State};
use crate::election::message::Epoch;

/// All services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    services: BTreeMap<String, Service>,
    /// Counts the changes that are not reports.
    changes: u64,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What it is.
    pub spec: Spec,
    /// Who shall be its primary, if it was moved and is not there yet.
    pub preferred: Option<String>,
    /// Who is next in line, first come first, as its primary said.
    pub secondaries: Vec<String>,
    /// It is to run nowhere.
    pub frozen: bool,
    /// How it is, as its newest primary said.
    pub report: Option<Report>,
    /// Which change made it: one of the same name that is made anew has another.
    pub made: u64,
}

/// What a node that leads in a service is to do about its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it is.
    pub spec: Spec,
    /// See [`Service::made`].
    pub made: u64,
    /// It may run: it is not frozen, and all it needs serve.
    pub may_run: bool,
    /// Others that need it have not ended yet, and have so long to do so.
    pub needed: Option<Duration>,
}

/// Nodes that may run something; `None`: every main and member.
pub type Nodes = Option<BTreeSet<String>>;

impl Services {
    /// Executes one request. One that is refused changes nothing (G2).
    pub fn apply(&mut self, op: Op) -> Said {
        let is_report = matches!(op, Op::Report(_) | Op::Secondaries { .. });
        let done = match op {
            Op::Add { spec, configured } => self.add(spec, configured),
            Op::Remove(name) => self.remove(&name),
            Op::Move { service, node } => self.move_to(&service, node),
            Op::Freeze { service, frozen } => {
                self.service(&service).map(|service| service.frozen = frozen)
            }
            Op::Providers { service, add, remove } => self.providers(&service, &add, &remove),
            Op::Set { service, secondaries } => self.set(&service, secondaries),
            Op::Report(report) => self.report(report),
            Op::Secondaries { service, epoch, nodes } => self.next_in_line(&service, epoch, nodes),
        };
        match done {
            Ok(()) => {
                self.changes += u64::from(!is_report);
                Said::Done
            }
            Err(refusal) => Said::Refused(refusal),
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// One of them.
    pub fn named(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// Whether that is an actor of the program.
    fn is_actor(&self, name: &str) -> bool {
        self.named(name).is_some_and(|service| service.spec.actor)
    }

    /// The service that this one is placed with, whose role they share; often itself.
    pub fn root<'a>(&'a self, name: &'a str) -> &'a str {
        let mut at = name;
        // No circles: whoever is placed with another came later.
        while let Some(with) = self.named(at).and_then(|service| service.spec.with.as_deref()) {
            at = with;
        }
        at
    }

    /// All that are placed with this one, itself included.
    pub fn placed_with<'a>(&'a self, root: &'a str) -> impl Iterator<Item = &'a Service> {
        self.iter().filter(move |service| self.root(&service.spec.name) == root)
    }

    /// Who may run all that are placed with it.
    pub fn nodes(&self, root: &str) -> Nodes {
        let mut nodes: Nodes = None;
        for service in self.placed_with(root).filter(|one| !one.spec.providers.is_empty()) {
            let own: BTreeSet<_> = service.spec.providers.iter().cloned().collect();
            nodes = Some(match nodes {
                Some(nodes) => &nodes & &own,
                None => own,
            });
        }
        nodes
    }

    /// What is to be done about it where it is led.
    pub fn task(&self, service: &Service) -> Task {
        let (spec, made) = (service.spec.clone(), service.made);
        let serves = |name: &String| self.named(name).is_some_and(Service::serves);
        let needs = |other: &Service| other.spec.needs.contains(&service.spec.name);
        let may_run = !service.frozen && service.spec.needs.iter().all(serves);
        let still = self.iter().filter(|other| needs(other) && other.runs());
        let needed = still.map(|other| other.spec.stop_within() + TOLD_WITHIN).max();
        Task { spec, made, may_run, needed }
    }

    fn add(&mut self, spec: Spec, configured: bool) -> Result<(), Refusal> {
        spec.check()?;
        if self.services.contains_key(&spec.name) {
            return if configured { Ok(()) } else { Err(Refusal::There(spec.name)) };
        }
        if self.services.len() >= SERVICES_MAX {
            return Err(Refusal::Full(format!("there are {SERVICES_MAX} services, and no more")));
        }
        // So there are no circles: whoever needs another, or is placed with it, came later.
        let missing = spec.needs.iter().chain(&spec.with).find(|other| self.named(other).is_none());
        if let Some(other) = missing {
            return Err(Refusal::Missing { service: spec.name, other: other.clone() });
        }
        if let Some(with) = spec.with.iter().find(|with| self.is_actor(with)) {
            let why = format!("service {}: {with} is an actor of the program", spec.name);
            return Err(Refusal::Tied(format!("{why}; only programs are placed together")));
        }
        let (name, made) = (spec.name.clone(), self.changes);
        let service = Service {
            spec,
            preferred: None,
            secondaries: Vec::new(),
            frozen: false,
            report: None,
            made,
        };
        self.services.insert(name.clone(), service);
        self.check_nodes(&name).inspect_err(|_| {
            self.services.remove(&name);
        })?;
        self.keep_to_nodes(&name);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.service(name)?;
        let needs = |other: &&Service| other.spec.needs.iter().any(|needed| needed == name);
        let with = |other: &&Service| other.spec.with.as_deref() == Some(name);
        if let Some(other) = self.iter().find(|other| needs(other) || with(other)) {
            let (how, other) = match needs(&other) {
                true => ("needs it", &other.spec.name),
                false => ("is placed with it", &other.spec.name),
            };
            let why = format!("service {name}: {other} {how}; remove {other} first");
            return Err(Refusal::Tied(why));
        }
        self.services.remove(name);
        Ok(())
    }

    fn move_to(&mut self, name: &str, node: String) -> Result<(), Refusal> {
        self.service(name)?;
        let root = self.root(name).to_owned();
        if let Some(nodes) = self.nodes(&root).filter(|nodes| !nodes.contains(&node)) {
            let providers = listed(&nodes);
            return Err(Refusal::NoProvider { service: name.to_owned(), node, providers });
        }
        let service = self.service(&root)?;
        let is_there = service.runs() && service.report.iter().any(|report| report.node == node);
        service.preferred = Some(node).filter(|_| !is_there);
        Ok(())
    }

    fn providers(&mut self, name: &str, add: &[String], remove: &[String]) -> Result<(), Refusal> {
        let before = self.service(name)?.spec.clone();
        let mut spec = before.clone();
        for node in remove {
            if !spec.providers.contains(node) {
                let providers = match spec.providers.is_empty() {
                    true => "all mains and members: name those that stay".to_owned(),
                    false => spec.providers.join(", "),
                };
                let (service, node) = (name.to_owned(), node.clone());
                return Err(Refusal::NoProvider { service, node, providers });
            }
            spec.providers.retain(|provider| provider != node);
        }
        spec.providers.extend(add.iter().cloned());
        if spec.providers.is_empty() && !remove.is_empty() {
            let why = format!("service {name}: {} is its last provider", remove.join(", "));
            return Err(Refusal::Bad(format!("{why}; add another, or remove the service")));
        }
        spec.check_providers()?;
        self.service(name)?.spec = spec;
        if let Err(refusal) = self.check_nodes(name) {
            self.service(name)?.spec = before;
            return Err(refusal);
        }
        self.keep_to_nodes(name);
        Ok(())
    }

    fn set(&mut self, name: &str, secondaries: u32) -> Result<(), Refusal> {
        let before = self.service(name)?.spec.secondaries;
        if let Some(with) = self.named(name).and_then(|service| service.spec.with.clone()) {
            let root = self.root(&with);
            let why = format!("service {name} is placed with {root}; set {root} instead");
            return Err(Refusal::Tied(why));
        }
        self.service(name)?.spec.secondaries = secondaries;
        if let Err(refusal) = self.check_nodes(name) {
            self.service(name)?.spec.secondaries = before;
            return Err(refusal);
        }
        Ok(())
    }

    /// Whether some node may run all that are placed together, and enough for the secondaries.
    fn check_nodes(&self, name: &str) -> Result<(), Refusal> {
        let root = self.root(name);
        let Some(nodes) = self.nodes(root) else { return Ok(()) };
        if nodes.is_empty() {
            let all = self.placed_with(root).filter(|one| !one.spec.providers.is_empty());
            let mut parts = all.map(|one| {
                let Spec { name, providers, .. } = &one.spec;
                format!("{name} has {}", providers.join(", "))
            });
            let first = parts.next().unwrap_or_default();
            let all = parts.fold(first, |all, part| format!("{all}; {part}"));
            let why = format!("service {name}: no node provides all that are placed together");
            return Err(Refusal::Bad(format!("{why} ({all}); give them a common provider")));
        }
        self.named(root).map_or(Ok(()), |root| root.spec.check_secondaries(nodes.len()))
    }

    /// Whoever may not run it any more is neither preferred nor next in line.
    fn keep_to_nodes(&mut self, name: &str) {
        let root = self.root(name).to_owned();
        let Some(nodes) = self.nodes(&root) else { return };
        if let Some(service) = self.services.get_mut(&root) {
            service.preferred.take_if(|node| !nodes.contains(node));
            service.secondaries.retain(|node| nodes.contains(node));
        }
    }

    fn report(&mut self, report: Report) -> Result<(), Refusal> {
        let service = self.service(&report.service)?;
        let known = service.report.as_ref().map(|known| known.epoch);
        if known.is_some_and(|known| report.epoch < known) {
            return Err(Refusal::Stale { service: report.service, epoch: report.epoch }); // G3
        }
        let (name, node) = (report.service.clone(), report.node.clone());
        let last = service.report.replace(report);
        if self.root(&name) != name {
            return Ok(());
        }
        let service = self.service(&name)?;
        // It is there. Were it still preferred when it comes back one day, a live primary would lose
        // its service.
        service.preferred.take_if(|preferred| *preferred == node);
        service.secondaries.retain(|one| *one != node);
        // Whoever gave it up in order knows most of it.
        if let Some(last) = last.filter(|last| last.node != node && last.state == State::Stopped)
            && service.spec.secondaries > 0
        {
            service.secondaries.retain(|one| *one != last.node);
            service.secondaries.insert(0, last.node);
            service.secondaries.truncate(service.spec.secondaries as usize);
            self.keep_to_nodes(&name);
        }
        Ok(())
    }

    fn next_in_line(
        &mut self,
        name: &str,
        epoch: Epoch,
        nodes: Vec<String>,
    ) -> Result<(), Refusal> {
        let service = self.service(name)?;
        if service.report.as_ref().is_none_or(|report| report.epoch != epoch) {
            return Err(Refusal::Stale { service: name.to_owned(), epoch }); // G3
        }
        service.secondaries = nodes;
        self.keep_to_nodes(name);
        Ok(())
    }

    fn service(&mut self, name: &str) -> Result<&mut Service, Refusal> {
        let unknown = || Refusal::Unknown(name.to_owned());
        self.services.get_mut(name).ok_or_else(unknown)
    }
}

impl Service {
    /// Whether what needs it may run.
    pub fn serves(&self) -> bool {
        !self.frozen && self.report.as_ref().is_some_and(|report| report.state == State::Running)
    }

    /// Whether it has a program, as far as its primary said.
    pub fn runs(&self) -> bool {
        self.report.as_ref().is_some_and(|report| match report.state {
            State::Starting | State::Running | State::Restarting | State::Stopping => true,
            State::Stopped | State::Failed => false,
        })
    }
}

fn listed(nodes: &BTreeSet<String>) -> String {
    nodes.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// That a program is to end, and that it has, is told by way of the log.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Each has a role, and at each provider somebody who looks after it.
pub const SERVICES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Services {
        let mut table = Services::default();
        let providers = ["a", "b", "m1"].map(str::to_owned).to_vec();
        let spec = Spec { providers, ..Spec::new("web", &["nginx"]) };
        assert_eq!(table.apply(Op::Add { spec, configured: false }), Said::Done);
        table
    }

    fn refused(table: &mut Services, op: Op, part: &str) {
        let before = table.clone();
        let Said::Refused(refusal) = table.apply(op) else { panic!("{part}: it was done") };
        assert!(refusal.to_string().contains(part), "{refusal}");
        assert_eq!(*table, before, "{part}: half of it was done");
    }

    fn providers(add: &[&str], remove: &[&str]) -> Op {
        let names = |list: &[&str]| list.iter().map(|&node| node.to_owned()).collect();
        Op::Providers { service: "web".into(), add: names(add), remove: names(remove) }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_wrong_and_changes_nothing() {
        let mut table = table();
        let add = |spec| Op::Add { spec, configured: false };
        refused(&mut table, add(Spec::new("web", &["nginx"])), "already");
        refused(&mut table, add(Spec::new("a b", &["x"])), "without spaces");
        refused(&mut table, add(Spec::new("db", &[])), "name a program");
        let twice = Spec { providers: vec!["a".into(), "a".into()], ..Spec::new("db", &["x"]) };
        refused(&mut table, add(twice), "twice");
        let short = Spec { lease_ms: 10, ..Spec::new("db", &["x"]) };
        refused(&mut table, add(short), "300ms");
        refused(&mut table, Op::Remove("db".into()), "no service db");
        let to = |node: &str| Op::Move { service: "web".into(), node: node.into() };
        refused(&mut table, to("c"), "its providers are a, b, m1");
        refused(&mut table, providers(&["a"], &[]), "twice");
        refused(&mut table, providers(&[], &["c"]), "does not provide");
        refused(&mut table, providers(&["c"], &["a", "x"]), "does not provide");
        refused(&mut table, providers(&[], &["a", "b", "m1"]), "last provider");
        let set = |secondaries| Op::Set { service: "web".into(), secondaries };
        refused(&mut table, set(3), "3 secondaries, and 2 other nodes");
        assert_eq!(table.apply(set(2)), Said::Done);
        // What a node file says does not undo what people said since.
        let again = Op::Add { spec: Spec::new("web", &["other"]), configured: true };
        assert_eq!(table.apply(again), Said::Done);
        assert_eq!(table.named("web").unwrap().spec.command, ["nginx"]);
    }

    #[test]
    fn a_preferred_node_that_provides_no_more_is_preferred_no_more() {
        let mut table = table();
        let to = Op::Move { service: "web".into(), node: "b".into() };
        assert_eq!(table.apply(to), Said::Done);
        assert_eq!(table.apply(providers(&["c"], &["b"])), Said::Done);
        let web = table.named("web").unwrap();
        assert_eq!(
            (web.preferred.as_deref(), table.nodes("web").unwrap().contains("b")),
            (None, false)
        );
        assert!(table.nodes("web").unwrap().contains("c"));
    }

    fn report(service: &str, node: &str, epoch: u64, state: State) -> Op {
        let (service, node, epoch) = (service.to_owned(), node.to_owned(), Epoch(epoch));
        Op::Report(Report { service, node, epoch, state, why: None })
    }

    fn add(table: &mut Services, spec: Spec) {
        assert_eq!(table.apply(Op::Add { spec, configured: false }), Said::Done);
    }

    #[test]
    fn what_needs_another_runs_only_while_that_serves_and_that_is_needed_until_it_ended() {
        let mut table = table();
        let app = || Spec { needs: vec!["web".into()], ..Spec::new("app", &["app"]) };
        let missing = Spec { needs: vec!["db".into()], ..app() };
        refused(&mut table, Op::Add { spec: missing, configured: false }, "there is no service db");
        let own = Spec { needs: vec!["app".into()], ..app() };
        refused(&mut table, Op::Add { spec: own, configured: false }, "names itself");
        add(&mut table, app());
        let task = |table: &Services, name| table.task(table.named(name).unwrap());
        assert!(task(&table, "web").may_run && !task(&table, "app").may_run);
        assert_eq!(table.apply(report("web", "a", 5, State::Running)), Said::Done);
        assert!(task(&table, "app").may_run && task(&table, "web").needed.is_none());
        assert_eq!(table.apply(report("app", "b", 6, State::Running)), Said::Done);
        assert!(task(&table, "web").needed.is_some());
        assert_eq!(table.apply(report("web", "a", 5, State::Stopping)), Said::Done);
        assert!(!task(&table, "app").may_run && task(&table, "web").needed.is_some());
        assert_eq!(table.apply(report("app", "b", 6, State::Stopped)), Said::Done);
        assert!(task(&table, "web").needed.is_none());
        refused(&mut table, Op::Remove("web".into()), "app needs it; remove app first");
        assert_eq!(table.apply(Op::Remove("app".into())), Said::Done);
        assert_eq!(table.apply(Op::Remove("web".into())), Said::Done);
    }

    #[test]
    fn what_is_placed_together_has_one_root_and_common_providers() {
        let mut table = table();
        let log = |providers: &[&str]| Spec {
            with: Some("web".into()),
            providers: providers.iter().map(|&node| node.to_owned()).collect(),
            ..Spec::new("log", &["log"])
        };
        let op = |spec| Op::Add { spec, configured: false };
        refused(&mut table, op(log(&["c"])), "log has c; web has a, b, m1");
        add(&mut table, log(&["b", "m1", "c"]));
        add(&mut table, Spec { with: Some("log".into()), ..Spec::new("top", &["top"]) });
        assert_eq!((table.root("top"), table.root("web")), ("web", "web"));
        assert_eq!(table.nodes("web"), Some(["b", "m1"].map(str::to_owned).into()));
        let to = |node: &str| Op::Move { service: "top".into(), node: node.into() };
        refused(&mut table, to("a"), "its providers are b, m1");
        assert_eq!(table.apply(to("m1")), Said::Done);
        assert_eq!(table.named("web").unwrap().preferred.as_deref(), Some("m1"));
        refused(&mut table, Op::Set { service: "top".into(), secondaries: 1 }, "set web");
        refused(&mut table, Op::Remove("web".into()), "log is placed with it");
        refused(&mut table, providers(&[], &["b", "m1"]), "give them a common provider");
    }

    #[test]
    fn whoever_gave_it_up_in_order_is_next_and_a_new_primary_is_next_no_more() {
        let mut table = table();
        let line = |table: &Services| table.named("web").unwrap().secondaries.join(" ");
        let secondaries = |epoch, nodes: &[&str]| Op::Secondaries {
            service: "web".into(),
            epoch: Epoch(epoch),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        };
        refused(&mut table, secondaries(5, &["b"]), "epoch 5");
        assert_eq!(table.apply(report("web", "a", 5, State::Running)), Said::Done);
        assert_eq!(table.apply(secondaries(5, &["b", "z"])), Said::Done);
        assert_eq!(line(&table), "b", "z may not run it");
        assert_eq!(table.apply(report("web", "b", 8, State::Running)), Said::Done);
        assert_eq!(line(&table), "", "a died");
        refused(&mut table, secondaries(5, &["a"]), "epoch 5");
        let to = Op::Move { service: "web".into(), node: "m1".into() };
        assert_eq!(table.apply(to), Said::Done);
        assert_eq!(table.apply(report("web", "b", 8, State::Stopped)), Said::Done);
        assert_eq!(table.apply(report("web", "m1", 9, State::Starting)), Said::Done);
        assert_eq!(line(&table), "b");
        assert_eq!(table.named("web").unwrap().preferred, None, "it is there");
    }

    #[test]
    fn a_stale_primary_is_not_believed() {
        let mut table = table();
        let report = |epoch, state| {
            let (service, node) = ("web".to_owned(), "a".to_owned());
            Op::Report(Report { service, node, epoch: Epoch(epoch), state, why: None })
        };
        assert_eq!(table.apply(report(9, State::Running)), Said::Done);
        refused(&mut table, report(8, State::Stopped), "epoch 8");
        assert_eq!(table.named("web").unwrap().report.as_ref().unwrap().state, State::Running);
    }
}
