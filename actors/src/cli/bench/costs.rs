//! What commands cost the nodes: the difference of their own counters before and after.

use std::{collections::BTreeMap, time::Duration};

use awc::http::Method;
use futures_util::future::join_all;
use synod_runtime::identity::NodeName;

use crate::client::{ClientNode, Http};

/// Reads the counters of some nodes.
pub(super) struct Counters {
    http: Http,
    nodes: Vec<ClientNode>,
}

/// What the nodes had counted at one moment; a node that did not answer is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted(BTreeMap<NodeName, Numbers>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    syncs: u64,
    bytes_out: u64,
}

/// Per command, at each node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Costs {
    pub(super) syncs: BTreeMap<NodeName, f64>,
    /// Bytes of frames it sent to its peers.
    pub(super) link_bytes: BTreeMap<NodeName, f64>,
    /// Processor time of all processes, in nanoseconds.
    pub(super) cpu_nanos: Option<f64>,
    /// The rate of what this row cannot be faster than.
    pub(super) limit: Option<f64>,
    /// The most memory that each node had.
    pub(super) peak_bytes: BTreeMap<NodeName, u64>,
}

impl Counters {
    pub(super) fn new(nodes: Vec<ClientNode>) -> Self {
        Self { http: Http::plain(), nodes }
    }

    pub(super) async fn read(&self) -> Counted {
        let all = self.nodes.iter().map(|node| async {
            let page = self.http.request(Method::GET, &node.http, "/metrics", String::new(), TIME);
            let page = page.await.ok().filter(|answer| answer.status.is_success())?;
            let numbers = read_page(&String::from_utf8_lossy(&page.body))?;
            Some((node.name.clone(), numbers))
        });
        Counted(join_all(all).await.into_iter().flatten().collect())
    }
}

impl Counted {
    /// What each of `commands` cost since `before`. A node that started anew in between is left
    /// out: its counters did too.
    pub(super) fn since(&self, before: &Self, commands: u64) -> Costs {
        let mut costs = Costs::default();
        if commands == 0 {
            return costs;
        }
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 a ratio is as good")]
        let each = |more: u64| more as f64 / commands as f64;
        for (name, after) in &self.0 {
            let Some(before) = before.0.get(name) else { continue };
            let syncs = after.syncs.checked_sub(before.syncs);
            let bytes = after.bytes_out.checked_sub(before.bytes_out);
            if let (Some(syncs), Some(bytes)) = (syncs, bytes) {
                costs.syncs.insert(name.clone(), each(syncs));
                costs.link_bytes.insert(name.clone(), each(bytes));
            }
        }
        costs
    }
}

/// `None` when it is no page of ours.
fn read_page(page: &str) -> Option<Numbers> {
    let (mut syncs, mut bytes_out) = (None, 0);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        if series == "synod_journal_syncs_total" {
            syncs = value.parse().ok();
        } else if series.starts_with("synod_link_bytes_total{")
            && series.contains("direction=\"out\"")
        {
            bytes_out += value.parse::<u64>().unwrap_or(0);
        }
    }
    Some(Numbers { syncs: syncs?, bytes_out })
}

/// A page takes a millisecond; a node this late is left out.
const TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences_per_command_of_nodes_that_stayed() {
        let page = "# HELP synod_journal_syncs_total Syncs of the journal.\n\
            synod_journal_syncs_total 10\n\
            synod_link_bytes_total{peer=\"b\",direction=\"in\"} 7\n\
            synod_link_bytes_total{peer=\"b\",direction=\"out\"} 300\n\
            synod_link_bytes_total{peer=\"x\",direction=\"out\"} 20\n";
        let read = read_page(page).unwrap();
        assert_eq!(read, Numbers { syncs: 10, bytes_out: 320 });
        assert_eq!(read_page("nothing of ours"), None);
        let [a, b]: [NodeName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let zero = Numbers { syncs: 0, bytes_out: 0 };
        let before = Counted(BTreeMap::from([(a.clone(), zero), (b.clone(), read)]));
        let after = Counted(BTreeMap::from([(a.clone(), read), (b, zero)]));
        let costs = after.since(&before, 20);
        assert_eq!(costs.syncs, BTreeMap::from([(a.clone(), 0.5)]));
        assert_eq!(costs.link_bytes, BTreeMap::from([(a, 16.0)]));
        assert_eq!(after.since(&before, 0), Costs::default());
    }
}
