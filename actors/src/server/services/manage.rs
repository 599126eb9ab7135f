//! What the manager does for all services: says of each whose primary's node is down, and whose lease
//! has run out, that it runs no more. Its primary cannot say so itself.
//!
//! So what needs the service ends even if no other provider is up, and `services` shows what is. The
//! word names the epoch it is about: once another leads it changes nothing (G3).

use std::time::Duration;

use super::{Services, is_up, role_of};
use crate::management::message::{Report, State};

/// Runs until the node stops.
pub(super) async fn manage(services: Services) {
    let mut views = services.0.views.watch();
    loop {
        let waits = match services.0.managers.is_here() {
            true => look(&services),
            false => false,
        };
        let again = async {
            match waits {
                true => tokio::time::sleep(LOOK).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = services.0.managers.changed() => {}
            () = again => {}
        }
    }
}

/// Says what can be said now; whether there is more to come.
fn look(services: &Services) -> bool {
    let view = services.0.views.now();
    let gone: Vec<_> = services.desk().read(|table| {
        let reports = table.iter().filter(|one| one.runs()).filter_map(|one| {
            let report = one.report.clone()?;
            Some((table.root(&one.spec.name).to_owned(), report))
        });
        reports.filter(|(_, report)| !is_up(&view, &report.node)).collect()
    });
    for (root, report) in &gone {
        // In a register it was not seen yet: the next look shows it.
        let Some(role) = services.elections().seen(&role_of(root)) else { continue };
        let holds = role.holder.is_some_and(|holder| holder.epoch <= report.epoch);
        if !holds && role.epoch >= report.epoch {
            tracing::info!(service = report.service, node = report.node, "runs no more");
            let why = Some(format!("{} is down", report.node));
            services.report(Report { state: State::Failed, why, ..report.clone() });
        }
    }
    !gone.is_empty()
}

/// While a lease runs out, or a word may be lost, it is looked again after this.
const LOOK: Duration = Duration::from_millis(500);
