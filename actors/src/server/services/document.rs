//! Services as people and programs are shown them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Services;
use crate::{
    election::message::Holder,
    management::{
        message::State,
        table::{Service, Services as Table},
    },
};

/// All of them, by name.
pub(super) fn all(services: &Services, stale: bool) -> Vec<Value> {
    // Nothing else is asked while the table is held.
    let parts: Vec<_> =
        services.desk().read(|table| table.iter().map(|one| Part::of(table, one)).collect());
    parts.into_iter().map(|part| document(services, &part, stale)).collect()
}

/// What the table says of a service.
struct Part {
    service: Service,
    root: Service,
    may_run: bool,
    waits_for: Vec<String>,
}

impl Part {
    fn of(table: &Table, service: &Service) -> Self {
        let root = table.named(table.root(&service.spec.name)).unwrap_or(service);
        let serves = |name: &&String| !table.named(name).is_some_and(Service::serves);
        Self {
            service: service.clone(),
            root: root.clone(),
            may_run: table.task(service).may_run,
            waits_for: service.spec.needs.iter().filter(serves).cloned().collect(),
        }
    }
}

fn document(services: &Services, part: &Part, stale: bool) -> Value {
    let Part { service, root, waits_for, .. } = part;
    let Service { spec, frozen, report, .. } = service;
    let view = services.role(&root.spec.name);
    let holder = view.as_ref().and_then(|view| view.holder.as_ref());
    let primary = holder.map(|holder| holder.client.node.clone());
    let standing: BTreeSet<_> =
        view.iter().flat_map(|view| &view.volunteers).map(|one| one.node.clone()).collect();
    let is_up = |node: &&String| standing.contains(*node);
    let secondaries: Vec<_> = match spec.actor {
        false => root.secondaries.iter().filter(is_up).cloned().collect(),
        // They have no state of their own: whoever is next in line is.
        true => {
            let next = view.iter().flat_map(|view| &view.volunteers).map(|one| one.node.clone());
            next.filter(|node| Some(node) != primary.as_ref())
                .take(spec.secondaries as usize)
                .collect()
        }
    };
    let spares: Vec<_> = standing
        .iter()
        .filter(|node| !secondaries.contains(*node) && Some(*node) != primary.as_ref())
        .collect();
    // Nobody stands for what runs nowhere.
    let nodes = match primary.is_none() && *frozen {
        true => Vec::new(),
        false => services.nodes_of(&root.spec.name),
    };
    // Not every node hosts every actor.
    let up = if spec.actor { services.up_among(nodes.clone()) } else { Vec::new() };
    let down: Vec<_> = nodes
        .iter()
        .filter(|node| !standing.contains(*node) && Some(*node) != primary.as_ref())
        .filter(|node| !up.contains(node))
        .collect();
    let state = state(part, holder);
    let why = report.as_ref().and_then(|report| report.why.clone());
    let why = why.or_else(|| {
        let waits = state == "waiting" && !waits_for.is_empty();
        waits.then(|| format!("it needs {}", waits_for.join(", ")))
    });
    json!({
        "service": spec.name,
        "kind": if spec.actor { "actor" } else { "command" },
        "primary": primary,
        "secondaries": secondaries,
        "spares": spares,
        "down": down,
        "epoch": holder.map(|holder| holder.epoch),
        "state": state,
        "why": why,
        "frozen": frozen,
        "preferred": root.preferred,
        "wanted_secondaries": root.spec.secondaries,
        "checkpoint_every_ms": spec.checkpoint.as_ref().map(|one| one.every_ms),
        "freshest": spec.checkpoint.as_ref().is_some_and(|one| one.freshest),
        "with": spec.with,
        "needs": spec.needs,
        "command": spec.command,
        "stale": stale,
    })
}

fn state(part: &Part, holder: Option<&Holder>) -> Value {
    let Part { service: Service { frozen, report, .. }, may_run, .. } = part;
    let current =
        report.as_ref().filter(|report| holder.is_none_or(|holder| holder.epoch == report.epoch));
    match (holder, current.map(|report| report.state)) {
        (None, _) | (Some(_), Some(State::Stopped)) if *frozen => json!("frozen"),
        (None, Some(State::Failed)) => json!(State::Failed),
        (None, _) => json!("waiting"),
        (Some(_), Some(State::Stopped)) if !may_run => json!("waiting"),
        (Some(_), Some(state)) => json!(state),
        (Some(_), None) => json!(State::Starting),
    }
}
