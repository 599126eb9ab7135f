//! `status`: how the cluster is, from any node that is up.

use serde_json::Value;

use super::{args::ClientArgs, call::text, client::Cluster, failure::Failure, out, table::Table};

/// Asks and prints.
pub(crate) async fn run(args: &ClientArgs) -> Result<(), Failure> {
    let (node, mut document) = Cluster::open(args)?.get("/status").await?;
    if let Some(fields) = document.as_object_mut() {
        fields.entry("answered_by").or_insert_with(|| node.as_str().into());
    }
    if args.json { out::say(document).map(drop) } else { out::print(render(&document)).map(drop) }
}

fn render(document: &Value) -> String {
    let field = |name: &str| text(&document[name]);
    let mut page = format!(
        "cluster {}, leader {}, ballot {}, view {}, epoch {} (says {})\n",
        field("cluster"),
        field("leader"),
        field("ballot"),
        field("view"),
        field("epoch"),
        field("answered_by"),
    );
    page += &format!("mains {}; auxiliaries {}\n", field("mains"), field("auxiliaries"));
    if let Some(halted) = document["halted"].as_str() {
        page += &format!("halted: {halted}\n");
    }
    for one in document["incompatible"].as_array().into_iter().flatten() {
        let [message, peer, why] = ["message", "peer", "why"].map(|key| text(&one[key]));
        page += &format!("refused: {message} between {} and {peer}: {why}\n", field("answered_by"));
    }
    let columns = ["name", "role", "state", "executed", "durable", "lag", "incarnation", "version"];
    let mut table = Table::new(&columns.map(str::to_ascii_uppercase));
    for node in document["nodes"].as_array().into_iter().flatten() {
        table.row(columns.map(|column| text(&node[column])));
    }
    page + "\n" + &table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_who_leads_and_what_is_waited_for() {
        let page = render(&serde_json::json!({
            "cluster": "shop", "leader": null, "ballot": "3.a", "view": 2, "epoch": 7,
            "answered_by": "b", "mains": ["a", "b"], "auxiliaries": [], "halted": "needs main a",
            "incompatible": [{"peer": "a", "message": "m", "why": "`x` is u8 here"}],
            "nodes": [{"name": "b", "role": "main", "state": "up", "executed": 12}],
        }));
        assert!(page.starts_with("cluster shop, leader -, ballot 3.a, view 2, epoch 7 (says b)\n"));
        assert!(page.contains("mains a, b; auxiliaries -\nhalted: needs main a\n"), "{page}");
        assert!(page.contains("\nrefused: m between b and a: `x` is u8 here\n"), "{page}");
        assert!(page.contains("\nb     main  up     12"), "{page}");
    }
}
