//! One moment of a cluster as a page of text.

use std::collections::BTreeSet;

use serde_json::Value;
use synod_runtime::identity::NodeName;

use super::{Views, rates::Rates};
use crate::cli::{call::text, table::Table};

/// Actors on the page; those with the longest mailboxes and most restarts first.
const ACTORS_SHOWN: usize = 24;

pub(crate) fn render(views: &Views, rates: &Rates) -> String {
    let mut page = head(views);
    for table in [nodes(views, rates), links(views, rates), actors(views)] {
        page.push('\n');
        page += &table.render();
    }
    page + &dead_letters(views)
}

/// The word of a node that serves counts more than that of one that is halted.
fn head(views: &Views) -> String {
    let said = || views.values().flatten().map(|view| &view["status"]);
    let Some(status) = said().find(|s| s["halted"].is_null()).or_else(|| said().next()) else {
        return "no node answers\n".to_owned();
    };
    let field = |name: &str| text(&status[name]);
    let mut page = format!(
        "cluster {}, leader {}, epoch {}, position {} (says {})\n",
        field("cluster"),
        field("leader"),
        field("epoch"),
        field("position"),
        field("answered_by"),
    );
    if let Some(halted) = status["halted"].as_str() {
        page += &format!("halted: {halted}\n");
    }
    page
}

fn nodes(views: &Views, rates: &Rates) -> Table {
    let head = [
        "NODE", "ROLE", "STATE", "EXECUTED", "LAG", "CMD/S", "P50 ms", "P99 ms", "SYNC/S",
        "SYNC P99", "DISK/S", "RESTARTS",
    ];
    let mut table = Table::new(&head);
    for (name, view) in views {
        // What others say of it when it says nothing itself.
        let voices = view.iter().chain(views.values().flatten());
        let row = voices.flat_map(|view| view["status"]["nodes"].as_array().into_iter().flatten());
        let own = |row: &&Value| row["name"] == name.as_str();
        let row = row.clone().find(own).cloned().unwrap_or_default();
        let state = if view.is_some() { text(&row["state"]) } else { "no answer".to_owned() };
        let restarts = view.as_ref().map(|view| sum(view, "synod_actor_restarts_total"));
        let quantile = |series, share| milliseconds(rates.quantile_ms(name, series, share));
        table.row([
            name.to_string(),
            text(&row["role"]),
            state,
            text(&row["executed"]),
            text(&row["lag"]),
            per_second(rates.metric(name, "synod_commands_applied_total")),
            quantile("synod_command_seconds", 0.5),
            quantile("synod_command_seconds", 0.99),
            per_second(rates.metric(name, "synod_journal_syncs_total")),
            quantile("synod_journal_sync_seconds", 0.99),
            bytes(rates.metric(name, "synod_journal_bytes_total")),
            restarts.map_or_else(|| "-".to_owned(), |restarts| restarts.to_string()),
        ]);
    }
    table
}

fn links(views: &Views, rates: &Rates) -> Table {
    let mut table = Table::new(&["LINK", "STATE", "IN/S", "OUT/S", "MSG IN/S", "MSG OUT/S"]);
    for (name, view) in views {
        for link in view.iter().flat_map(|view| view["links"].as_array().into_iter().flatten()) {
            let peer = text(&link["peer"]);
            let state = match (link["up"].as_bool(), link["error"].as_str()) {
                (Some(true), _) => "up".to_owned(),
                (_, Some(why)) => format!("down: {why}"),
                (_, None) => "down".to_owned(),
            };
            let rate = |number| rates.link(name, &peer, number);
            table.row([
                format!("{name} - {peer}"),
                state,
                bytes(rate("bytes_in")),
                bytes(rate("bytes_out")),
                per_second(rate("frames_in")),
                per_second(rate("frames_out")),
            ]);
        }
    }
    table
}

/// Every node lists its own actors best: its mailboxes are its own to see.
fn actors(views: &Views) -> Table {
    let own = |(name, view): (&NodeName, &Option<Value>)| {
        let all = view.iter().flat_map(|view| view["actors"].as_array().into_iter().flatten());
        all.filter(|actor| actor["node"] == name.as_str()).cloned().collect::<Vec<_>>()
    };
    let mut rows: Vec<Value> = views.iter().flat_map(own).collect();
    let number = |actor: &Value, key: &str| actor[key].as_u64().unwrap_or(0);
    rows.sort_by_key(|actor| {
        let busy = number(actor, "mailbox") + number(actor, "restarts");
        (u64::MAX - busy, text(&actor["name"]))
    });
    let mut table = Table::new(&["ACTOR", "NODE", "TYPE", "MAILBOX", "RESTARTS"]);
    for actor in rows.iter().take(ACTORS_SHOWN) {
        table.row(["name", "node", "type", "mailbox", "restarts"].map(|key| text(&actor[key])));
    }
    if rows.len() > ACTORS_SHOWN {
        table.row([format!("… and {} more", rows.len() - ACTORS_SHOWN)]);
    }
    table
}

fn dead_letters(views: &Views) -> String {
    let mut reasons = BTreeSet::new();
    for (name, view) in views {
        let metrics = view.iter().filter_map(|view| view["metrics"].as_object()).flatten();
        for (series, count) in metrics.filter(|(series, _)| series.starts_with(DEAD_LETTERS)) {
            let reason = series.split('"').nth(1).unwrap_or("unknown");
            if count.as_u64().is_some_and(|count| count > 0) {
                reasons.insert(format!("{name}: {reason} {count}"));
            }
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    format!("\ndead letters: {}\n", reasons.into_iter().collect::<Vec<_>>().join(", "))
}

const DEAD_LETTERS: &str = "synod_dead_letters_total";

/// All series of a family together.
fn sum(view: &Value, family: &str) -> u64 {
    let metrics = view["metrics"].as_object().into_iter().flatten();
    let of_family = |series: &str| series.split('{').next() == Some(family);
    metrics.filter(|(series, _)| of_family(series)).filter_map(|(_, n)| n.as_u64()).sum()
}

fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate >= 100_000.0 => format!("{:.0}k", rate / 1_000.0),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn bytes(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate >= 1_048_576.0 => format!("{:.1} MiB", rate / 1_048_576.0),
        Some(rate) if rate >= 1_024.0 => format!("{:.1} KiB", rate / 1_024.0),
        Some(rate) => format!("{rate:.0} B"),
    }
}

fn milliseconds(quantile: Option<f64>) -> String {
    quantile.map_or_else(|| "-".to_owned(), |ms| format!("≤{ms}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_shows_nodes_links_actors_and_what_went_astray() {
        let view = json!({
            "status": {
                "cluster": "shop", "leader": "a", "epoch": 1, "position": 7, "answered_by": "a",
                "halted": null,
                "nodes": [
                    {"name": "a", "role": "main", "state": "up", "executed": 5, "lag": 0},
                    {"name": "b", "role": "main", "state": "down"},
                ],
            },
            "links": [{"peer": "b", "up": false, "error": "refused"}],
            "actors": [{"name": "greeter", "node": "a", "type": "Greeter", "mailbox": 3, "restarts": 1}],
            "metrics": {
                "synod_dead_letters_total{reason=\"no_such_actor\"}": 2,
                "synod_actor_restarts_total{actor=\"greeter\"}": 1,
            },
        });
        let name = |text: &str| text.parse::<NodeName>().expect("a name");
        let views = Views::from([(name("a"), Some(view)), (name("b"), None)]);
        let page = render(&views, &Rates::default());
        for line in [
            "cluster shop, leader a, epoch 1, position 7 (says a)",
            "a     main  up ",
            "b     main  no answer",
            "a - b  down: refused",
            "greeter  a     Greeter  3        1",
            "dead letters: a: no_such_actor 2",
        ] {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
    }
}
