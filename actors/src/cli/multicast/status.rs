//! `multicast status`: how the groups stand.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::MulticastArgs;
use crate::cli::{call::text, client::Cluster, failure::Failure, out, table::Table};

/// Prints how the groups stand, as all nodes that are up see them.
pub(crate) async fn run(args: &MulticastArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(args.client())?;
    // Somebody who knows must be there; then each is asked for its own view.
    let (first, its) = cluster.get_known("/multicast").await?;
    let mut views = cluster.each("/multicast").await;
    views.entry(first).or_default().get_or_insert(its);
    let groups = merge(&views);
    if args.client().json {
        return out::say(json!({ "groups": groups })).map(drop);
    }
    let head =
        ["GROUP", "SEQUENCER", "EPOCH", "LARGEST", "NODE", "SERVES", "FED BY", "LAG", "ASKED"];
    let mut table = Table::new(&head);
    for group in &groups {
        for node in group["nodes"].as_array().into_iter().flatten() {
            let of = ["group", "sequencer", "epoch", "largest"].map(|key| text(&group[key]));
            let serves = match node["serves"].as_bool() {
                Some(true) => "yes",
                _ if node["node"] == group["joining"] => "joining",
                _ => "no",
            };
            let asked = ["order_queries", "data_queries"].map(|key| text(&node[key])).join("+");
            let fed_by = node["fed_by"].as_str().unwrap_or("-");
            let here = [text(&node["node"]), serves.to_owned(), fed_by.to_owned()];
            table.row(of.into_iter().chain(here).chain([text(&node["lag"]), asked]));
        }
    }
    table.print()?;
    for group in &groups {
        let [name, servers, survives] =
            ["group", "servers", "survives"].map(|key| text(&group[key]));
        let soon = group["joining"].as_str().map(|node| format!(", soon by {node}"));
        let soon = soon.unwrap_or_default();
        out::say(format!("{name} is served by {servers}{soon}; {survives}"))?;
    }
    Ok(())
}

/// One document a group out of what each node says.
fn merge<N: std::fmt::Display>(views: &BTreeMap<N, Option<Value>>) -> Vec<Value> {
    let mut groups: BTreeMap<String, Value> = BTreeMap::new();
    for (node, view) in views {
        let seen = view.as_ref().and_then(|view| view["groups"].as_array());
        for one in seen.into_iter().flatten() {
            let name = one["group"].as_str().unwrap_or_default().to_owned();
            let group = groups.entry(name).or_insert_with(|| one.clone());
            // The newest word counts.
            let newer = |key: &str| one[key].as_u64() > group[key].as_u64();
            if newer("epoch") || one["epoch"] == group["epoch"] && !one["sequencer"].is_null() {
                group["sequencer"] = one["sequencer"].clone();
                group["epoch"] = one["epoch"].clone();
            }
            if one["version"].as_u64() > group["version"].as_u64() {
                for key in ["version", "servers", "joining", "survives"] {
                    group[key] = one[key].clone();
                }
            }
            for key in ["largest", "checkpoint", "open"] {
                if one[key].as_u64() > group[key].as_u64() {
                    group[key] = one[key].clone();
                }
            }
            let mut here = json!({ "node": node.to_string() });
            for key in OF_ONE_NODE {
                here[key] = one[key].clone();
            }
            if !group["nodes"].is_array() {
                group["nodes"] = json!([]);
            }
            group["nodes"].as_array_mut().into_iter().for_each(|all| all.push(here.clone()));
        }
    }
    for group in groups.values_mut() {
        let largest = group["largest"].as_u64().unwrap_or_default();
        for node in group["nodes"].as_array_mut().into_iter().flatten() {
            let delivered = node["delivered"].as_u64().unwrap_or_default();
            node["lag"] = json!(largest.saturating_sub(delivered));
        }
        if let Some(all) = group.as_object_mut() {
            for of_one_node in OF_ONE_NODE {
                all.remove(of_one_node);
            }
        }
    }
    groups.into_values().collect()
}

/// What differs from node to node.
const OF_ONE_NODE: [&str; 7] =
    ["serves", "fed_by", "feeds", "delivered", "oldest", "order_queries", "data_queries"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_of_any_node_counts_and_each_has_its_lag() {
        let view = |sequencer: Value, epoch: u64, largest: u64, delivered: u64| {
            Some(json!({ "groups": [{
                "group": "g", "sequencer": &sequencer, "epoch": epoch, "largest": largest,
                "delivered": delivered, "servers": ["a", &sequencer], "version": epoch,
            }]}))
        };
        let views = BTreeMap::from([
            ("a", view(json!("a"), 3, 10, 10)),
            ("b", view(json!("b"), 7, 25, 20)),
            ("x", None),
        ]);
        let groups = merge(&views);
        assert_eq!(groups.len(), 1);
        let group = &groups[0];
        assert_eq!((&group["sequencer"], &group["largest"]), (&json!("b"), &json!(25)));
        let lags: Vec<_> = group["nodes"].as_array().unwrap().iter().map(|n| &n["lag"]).collect();
        assert_eq!(lags, [&json!(15), &json!(5)]);
        assert_eq!((&group["servers"], &group["version"]), (&json!(["a", "b"]), &json!(7)));
        assert!(group.get("delivered").is_none());
    }
}
