//! What happened between two looks at the same node.

use std::collections::BTreeMap;

use serde_json::Value;
use synod_runtime::identity::NodeName;

use super::Views;

/// Differences of one node's counters over the time between its two answers.
#[derive(Debug, Default)]
pub(crate) struct Rates(BTreeMap<NodeName, Rate>);

#[derive(Debug)]
struct Rate {
    seconds: f64,
    before: Value,
    now: Value,
}

impl Rates {
    pub(crate) fn between(before: &Views, now: &Views) -> Self {
        let both = now.iter().filter_map(|(name, now)| {
            let (now, before) = (now.as_ref()?, before.get(name)?.as_ref()?);
            let passed = now["at_ms"].as_u64()?.saturating_sub(before["at_ms"].as_u64()?);
            // A wall clock that was set back gives no rates until the next look.
            let seconds = (passed > 0).then_some(passed as f64 / 1_000.0)?;
            Some((name.clone(), Rate { seconds, before: before.clone(), now: now.clone() }))
        });
        Self(both.collect())
    }

    /// A counter's rise per second. A counter that fell belongs to a node that started anew.
    pub(crate) fn metric(&self, node: &NodeName, series: &str) -> Option<f64> {
        let rate = self.0.get(node)?;
        let of = |view: &Value| view["metrics"][series].as_u64();
        rate.per_second(of(&rate.before), of(&rate.now))
    }

    /// The rise per second of a number of the link to `peer`.
    pub(crate) fn link(&self, node: &NodeName, peer: &str, number: &str) -> Option<f64> {
        let rate = self.0.get(node)?;
        let of = |view: &Value| {
            let mut links = view["links"].as_array()?.iter();
            links.find(|link| link["peer"] == peer)?[number].as_u64()
        };
        rate.per_second(of(&rate.before), of(&rate.now))
    }

    /// The duration that `share` of the observations between the looks did not exceed, in
    /// milliseconds: the upper bound of its bucket. `None` when there were none.
    pub(crate) fn quantile_ms(&self, node: &NodeName, series: &str, share: f64) -> Option<f64> {
        let rate = self.0.get(node)?;
        let count = |view: &Value| view["metrics"][series]["count"].as_u64();
        let all = count(&rate.now)?.checked_sub(count(&rate.before).unwrap_or(0))?;
        let wanted = (share * all as f64).ceil().max(1.0) as u64;
        let within = |view: &Value, at: usize| view["metrics"][series]["within"][at].as_u64();
        let mut seen = 0;
        for (at, bound) in rate.now["buckets"].as_array()?.iter().enumerate() {
            let before = within(&rate.before, at).unwrap_or(0);
            seen += within(&rate.now, at)?.saturating_sub(before);
            if all > 0 && seen >= wanted {
                return bound.as_f64().map(|seconds| seconds * 1_000.0);
            }
        }
        None
    }
}

impl Rate {
    fn per_second(&self, before: Option<u64>, now: Option<u64>) -> Option<f64> {
        let rise = now?.checked_sub(before.unwrap_or(0))?;
        Some(rise as f64 / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn views(view: Value) -> Views {
        [("a".parse().expect("a name"), Some(view))].into()
    }

    #[test]
    fn rates_are_differences_by_the_node_s_own_clock() {
        let view = |at_ms: u64, commands: u64, frames: u64| {
            views(json!({
                "at_ms": at_ms,
                "metrics": {"c": commands},
                "links": [{"peer": "b", "frames_in": frames}],
            }))
        };
        let a = "a".parse().expect("a name");
        let rates = Rates::between(&view(1_000, 10, 5), &view(3_000, 30, 6));
        assert_eq!(rates.metric(&a, "c"), Some(10.0));
        assert_eq!(rates.link(&a, "b", "frames_in"), Some(0.5));
        assert_eq!(rates.link(&a, "x", "frames_in"), None);
        let restarted = Rates::between(&view(1_000, 10, 5), &view(3_000, 1, 0));
        assert_eq!(restarted.metric(&a, "c"), None, "no negative rate");
        let set_back = Rates::between(&view(3_000, 10, 5), &view(1_000, 30, 6));
        assert_eq!(set_back.metric(&a, "c"), None);
    }

    #[test]
    fn quantiles_are_of_what_happened_between_the_looks() {
        let view = |at_ms: u64, within: [u64; 3], count: u64| {
            let series = json!({"count": count, "sum": 0.0, "within": within});
            let buckets = [0.001, 0.01, 0.1];
            views(json!({"at_ms": at_ms, "metrics": {"s": series}, "buckets": buckets}))
        };
        let a = "a".parse().expect("a name");
        let rates = Rates::between(&view(0, [100, 0, 0], 100), &view(1_000, [100, 98, 1], 200));
        assert_eq!(rates.quantile_ms(&a, "s", 0.5), Some(10.0));
        assert_eq!(rates.quantile_ms(&a, "s", 0.99), Some(100.0));
        assert_eq!(rates.quantile_ms(&a, "s", 1.0), None, "beyond the last bucket");
    }
}
