//! A runner for each role that this node stands for, as the table says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use synod_runtime::{telemetry::Counter, watch};

use super::{
    Services, is_up,
    programs::Programs,
    runner::{Runner, Wanted},
};
use crate::{
    management::{
        hold::Holds,
        table::{Service, Services as Table},
    },
    server::metrics,
};

/// Runs until the node stops.
pub(super) async fn keep(services: Services, programs: Arc<dyn Programs>) {
    let mut changed = services.0.changed.subscribe();
    let mut runners: BTreeMap<String, (u64, watch::Sender<Wanted>)> = BTreeMap::new();
    let mut views = services.0.views.watch();
    let (mut moves, mut holds) = (Moves::default(), Holds::default());
    loop {
        let (roots, all) = services.desk().read(|table| {
            // Actors have hosts of their own.
            let is_root =
                |one: &&Service| !one.spec.actor && table.root(&one.spec.name) == one.spec.name;
            let root = |one: &Service| (one.spec.name.clone(), (one.made, wanted(table, one)));
            let roots = table.iter().filter(is_root).map(root).collect::<BTreeMap<_, _>>();
            (roots, table.iter().map(Primary::of).collect::<Vec<_>>())
        });
        measure(&services, &mut holds);
        moves.count(&services, all);
        // Those that are gone, or are others by now, end with their senders.
        runners.retain(|name, (made, _)| roots.get(name).is_some_and(|(now, _)| now == made));
        for (root, (made, mut wanted)) in roots {
            wanted.here &= wanted.nodes.as_ref().is_none_or(|nodes| nodes.contains(services.me()));
            let Some((_, known)) = runners.get(&root) else {
                let (sender, wanted) = watch::channel(wanted);
                runners.insert(root.clone(), (made, sender));
                let runner = Runner {
                    services: services.clone(),
                    programs: Arc::clone(&programs),
                    root,
                    wanted,
                    leaving: services.elections().hosts().leaving(),
                    yields_until: None,
                };
                services.0.node.task(runner.run());
                continue;
            };
            known.send_if_modified(|known| {
                let other = *known != wanted;
                *known = wanted;
                other
            });
        }
        let goes_on = tokio::select! {
            biased;
            changed = changed.changed() => changed.is_ok(),
            viewed = views.changed() => viewed.is_ok(),
        };
        if !goes_on {
            return;
        }
    }
}

/// Notes how long services were held off that serve again. One does not serve whose primary's node
/// is down, whatever it said last; one that is frozen is not waited for.
fn measure(services: &Services, holds: &mut Holds) {
    let view = services.0.views.now();
    let serves = |one: &Service| {
        let there = |node: &str| view.nodes.is_empty() || is_up(&view, node);
        one.serves() && one.report.as_ref().is_some_and(|report| there(&report.node))
    };
    let all: Vec<_> = services.desk().read(|table| {
        let wanted = table.iter().filter(|one| !one.frozen);
        wanted.map(|one| (one.spec.name.clone(), serves(one))).collect()
    });
    for (service, held) in holds.look(services.now(), &all) {
        let labels = [("service", service.as_str())];
        let histogram = services.0.node.metrics().histogram(&metrics::HOLDOFF_SECONDS, &labels);
        histogram.observe(held);
    }
}

/// What any node is to do about a role.
fn wanted(table: &Table, root: &Service) -> Wanted {
    let placed: Vec<_> = table.placed_with(&root.spec.name).collect();
    Wanted {
        here: placed.iter().any(|one| !one.frozen),
        nodes: table.nodes(&root.spec.name),
        preferred: root.preferred.clone(),
        secondaries: root.secondaries.clone(),
        lease: root.spec.lease(),
        fresh: root.report.is_none(),
        tasks: placed.into_iter().map(|one| table.task(one)).collect(),
    }
}

/// Who is the primary of a service, as far as the table knows.
struct Primary {
    service: String,
    node: Option<String>,
}

impl Primary {
    fn of(service: &Service) -> Self {
        let node = service.report.as_ref().map(|report| report.node.clone());
        Self { service: service.spec.name.clone(), node }
    }
}

/// Counts how often services went from one node to another.
#[derive(Default)]
struct Moves(BTreeMap<String, (Option<String>, Counter)>);

impl Moves {
    fn count(&mut self, services: &Services, now: Vec<Primary>) {
        let names: BTreeSet<_> = now.iter().map(|one| one.service.clone()).collect();
        self.0.retain(|name, _| names.contains(name));
        for Primary { service, node } in now {
            let known = self.0.entry(service).or_insert_with_key(|service| {
                let labels = [("service", service.as_str())];
                // What this node finds when it starts is no move.
                let counter = services.0.node.metrics().counter(&metrics::SERVICE_MOVES, &labels);
                (node.clone(), counter)
            });
            if node.is_some() && known.0 != node {
                if known.0.is_some() {
                    known.1.increment();
                }
                known.0 = node;
            }
        }
    }
}
