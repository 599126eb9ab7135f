//! `web`: the servers behind the agreed order, from any main or member that is up.

use serde_json::{Value, json};

use super::{args::ClientArgs, call::text, client::Cluster, failure::Failure, out, table::Table};

/// Asks and prints.
pub(crate) async fn run(args: &ClientArgs) -> Result<(), Failure> {
    let (_, document) = Cluster::open(args)?.get_known("/status").await?;
    let sites = &document["web"];
    if args.json {
        out::say(json!({ "web": sites })).map(drop)
    } else {
        out::print(render(sites)).map(drop)
    }
}

fn render(sites: &Value) -> String {
    let all = sites.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return "no server is behind any main; see [web] in the node file\n".to_owned();
    }
    let columns = ["site", "upstream", "state", "applied", "lag", "diverged"];
    let mut table = Table::new(&columns.map(str::to_ascii_uppercase));
    for site in all {
        table.row(columns.map(|column| text(&site[column])));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_how_far_each_server_is_and_why_one_does_not_serve() {
        let page = render(&json!([
            { "site": "a", "upstream": "http://h:1", "state": "serving", "applied": 9, "lag": 0,
              "diverged": 0, "reason": null },
            { "site": "b", "upstream": "http://h:2", "state": "quarantined", "applied": 7, "lag": 2,
              "diverged": 1, "reason": "it answered 507", "rebuild": "5 of 9 bytes" },
        ]));
        assert!(page.contains("\nb     http://h:2  quarantined  7        2    1\n"), "{page}");
        assert!(page.ends_with("b: it answered 507\nb: rebuild: 5 of 9 bytes\n"), "{page}");
        assert!(render(&json!([])).starts_with("no server"));
    }
}
