//! `web`: the servers behind the agreed order, from any main or member that is up.

use serde_json::{Value, json};

use super::{args::ClientArgs, call::text, client::Cluster, failure::Failure, out, table::Table};

/// Asks and prints.
pub(crate) async fn run(args: &ClientArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(args)?;
    let (_, document) = cluster.get_known("/status").await?;
    // How fast a site is, and one that its order did not take in, is known at its own node only.
    let others = cluster.each("/status").await;
    let sites = merge(&document["web"], others.into_values().flatten());
    if args.json {
        out::say(json!({ "web": sites })).map(drop)
    } else {
        out::print(render(&sites)).map(drop)
    }
}

/// What the first node knows, and what others do of further sites, and of their own.
fn merge(first: &Value, others: impl Iterator<Item = Value>) -> Value {
    let mut all = first.as_array().cloned().unwrap_or_default();
    for status in others {
        for site in status["web"].as_array().into_iter().flatten() {
            match all.iter_mut().find(|known| known["site"] == site["site"]) {
                None => all.push(site.clone()),
                Some(known) => {
                    for speed in SPEEDS.iter().filter(|&&speed| !site[speed].is_null()) {
                        known[*speed] = site[*speed].clone();
                    }
                }
            }
        }
    }
    all.sort_by_key(|site| text(&site["site"]));
    Value::Array(all)
}

fn render(sites: &Value) -> String {
    let all = sites.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return "no server is behind any main; see [web] in the node file\n".to_owned();
    }
    let mut table = Table::new(&COLUMNS.map(str::to_ascii_uppercase));
    for site in all {
        table.row(COLUMNS.map(|column| match SPEEDS.contains(&column) {
            true => speed(&site[column]),
            false => text(&site[column]),
        }));
    }
    let mut page = table.render();
    for site in all {
        if let Some(reason) = site["reason"].as_str() {
            page += &format!("{}: {reason}\n", text(&site["site"]));
        }
        if let Some(rebuild) = site["rebuild"].as_str() {
            page += &format!("{}: rebuild: {rebuild}\n", text(&site["site"]));
        }
    }
    page
}

/// The median, and what one of a hundred exceeds.
fn speed(lately: &Value) -> String {
    match lately {
        Value::Null => "-".to_owned(),
        lately => format!("{} ({}) ms", lately["median_ms"], lately["p99_ms"]),
    }
}

const COLUMNS: [&str; 8] =
    ["site", "upstream", "state", "applied", "lag", "diverged", "order", "server"];

/// How long the last requests took, to have their places and at the server.
const SPEEDS: [&str; 2] = ["order", "server"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_how_far_each_server_is_and_why_one_does_not_serve() {
        let page = render(&json!([
            { "site": "a", "upstream": "http://h:1", "state": "serving", "applied": 9, "lag": 0,
              "diverged": 0, "reason": null, "order": { "median_ms": 0.71, "p99_ms": 4.0 } },
            { "site": "b", "upstream": "http://h:2", "state": "quarantined", "applied": 7, "lag": 2,
              "diverged": 1, "reason": "it answered 507", "rebuild": "5 of 9 bytes" },
        ]));
        assert!(page.contains("  0.71 (4.0) ms  -\n"), "{page}");
        let away = "\nb     http://h:2  quarantined  7        2    1         -              -\n";
        assert!(page.contains(away), "{page}");
        assert!(page.ends_with("b: it answered 507\nb: rebuild: 5 of 9 bytes\n"), "{page}");
        assert!(render(&json!([])).starts_with("no server"));
    }

    #[test]
    fn a_site_that_only_its_own_node_knows_is_shown_too() {
        let site = |name: &str, state: &str| json!({ "site": name, "state": state });
        let others = [
            json!({ "web": [site("c", "quarantined"), site("a", "down")] }),
            json!({ "nodes": [] }),
        ];
        let all = merge(&json!([site("b", "serving"), site("a", "serving")]), others.into_iter());
        let expected = [site("a", "serving"), site("b", "serving"), site("c", "quarantined")];
        assert_eq!(all, json!(expected));
        let known = json!([{ "site": "a", "order": null, "server": null }]);
        let own = json!({ "web": [{ "site": "a", "order": { "median_ms": 1 }, "server": null }] });
        let all = merge(&known, [own].into_iter());
        assert_eq!(all, json!([{ "site": "a", "order": { "median_ms": 1 }, "server": null }]));
        assert_eq!(merge(&Value::Null, [].into_iter()), json!([]));
    }
}
