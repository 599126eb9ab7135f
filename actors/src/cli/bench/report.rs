//! How figures are said: a JSON object a row as soon as there is one, or a table at the end.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use actix_rt::time::interval;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use synod_runtime::identity::NodeName;

use super::{
    costs::Costs,
    meter::{Figures, warm_up},
    raw::Sample,
};
use crate::{
    cli::{failure::Failure, out, table::Table},
    server::config::Durability,
};

/// Collects rows and says them.
pub(super) struct Report {
    program: String,
    json: bool,
    rows: Vec<Row>,
    bar: Option<ProgressBar>,
}

/// One measured row.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    errors: u64,
    /// Syncs of its journal, at each main.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    syncs_per_op: BTreeMap<NodeName, f64>,
    /// Bytes of frames sent to peers, at each main.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    link_bytes_per_op: BTreeMap<NodeName, f64>,
    /// Of both processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ns_per_op: Option<f64>,
    /// Beside the limit of its kind: actix's own address, or bare QUIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_limit: Option<f64>,
    /// The most that was resident, of each node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    peak_bytes: BTreeMap<NodeName, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_per_sync: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_per_rtt: Option<f64>,
    conditions: Conditions,
}

/// What a row was measured under.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Conditions {
    /// `set`, `get`, `tell` or `ask`; of a limit, with its name before it.
    pub(super) kind: String,
    /// Bytes of a value or of a message.
    pub(super) size: usize,
    /// Commands or messages without an answer at any time.
    pub(super) in_flight: usize,
    pub(super) nodes: usize,
    /// `None`: nothing is kept, or nobody here knows.
    pub(super) durability: Option<Durability>,
    /// How long it was measured, after the warm-up.
    pub(super) seconds: u64,
    #[serde(flatten)]
    pub(super) clients: Option<Clients>,
    #[serde(flatten)]
    pub(super) raw: Raw,
}

/// How commands come.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Clients {
    /// Connections.
    pub(super) clients: usize,
    /// Commands that each sends together.
    pub(super) pipeline: usize,
    /// The nodes they connect to.
    pub(super) node: String,
}

/// What the machine itself needs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raw {
    /// One sync of a small write.
    pub(super) sync: Option<Sample>,
    /// One small frame there and back.
    pub(super) rtt: Option<Sample>,
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (sample, median, quick) in [
            (self.sync, "disk_sync_us", "disk_sync_quick_us"),
            (self.rtt, "quic_rtt_us", "quic_rtt_quick_us"),
        ] {
            if let Some(sample) = sample {
                map.serialize_entry(median, &micros(sample.median))?;
                map.serialize_entry(quick, &micros(sample.quick))?;
            }
        }
        map.end()
    }
}

impl Row {
    pub(super) fn new(
        name: String,
        figures: &Figures,
        costs: Costs,
        conditions: Conditions,
    ) -> Self {
        let p50 = figures.p50;
        let per = |raw: Option<Sample>| {
            let raw = raw.map(|raw| raw.median).filter(|raw| !raw.is_zero() && !p50.is_zero())?;
            Some(rounded(p50.div_duration_f64(raw), 2))
        };
        let each = |map: BTreeMap<NodeName, f64>, digits| {
            map.into_iter().map(|(name, cost)| (name, rounded(cost, digits))).collect()
        };
        Self {
            name,
            ops_per_s: rounded(figures.ops_per_s, if is_slow(figures.ops_per_s) { 3 } else { 1 }),
            p50_us: micros(p50),
            p99_us: micros(figures.p99),
            p999_us: micros(figures.p999),
            errors: figures.errors,
            syncs_per_op: each(costs.syncs, 4),
            link_bytes_per_op: each(costs.link_bytes, 1),
            cpu_ns_per_op: costs.cpu_nanos.map(|nanos| rounded(nanos, 0)),
            rate_per_limit: costs.limit.map(|limit| rounded(figures.ops_per_s / limit, 2)),
            peak_bytes: costs.peak_bytes,
            p50_per_sync: per(conditions.raw.sync),
            p50_per_rtt: per(conditions.raw.rtt),
            conditions,
        }
    }
}

impl Report {
    pub(super) fn new(program: &str, json: bool) -> Self {
        Self { program: program.to_owned(), json, rows: Vec::new(), bar: None }
    }

    /// `rows` of `span` each are to come.
    pub(super) fn expect(&mut self, rows: usize, span: Duration) {
        let each = span + warm_up(span);
        let total = u64::try_from(each.as_millis()).unwrap_or(u64::MAX).saturating_mul(rows as u64);
        // On a terminal only: a log has no use for it.
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            self.bar = Some(bar.with_style(style.expect("a template that holds")));
        }
    }

    /// Warns, on standard error, when ratios of `raw` would mislead.
    pub(super) fn warn_if_busy(&self, raw: Raw) {
        for (what, sample) in [("disk sync", raw.sync), ("QUIC round trip", raw.rtt)] {
            let Some(sample) = sample.filter(|sample| !sample.is_steady()) else { continue };
            let (median, quick) = (micros(sample.median), micros(sample.quick));
            self.note(&format!(
                "one {what} took {median} µs, and the quickest {quick} µs: this machine is busy, \
                 so the figures say little and the ratios mislead"
            ));
        }
    }

    /// For people, on standard error.
    pub(super) fn note(&self, text: &str) {
        let say = || out::tell(format_args!("{}: {text}", self.program));
        self.bar.as_ref().map_or_else(say, |bar| bar.suspend(say));
    }

    /// Does `work`, which measures the row called `name`, and shows how far it is.
    pub(super) async fn during<T>(&self, name: &str, work: impl Future<Output = T>) -> T {
        let Some(bar) = &self.bar else { return work.await };
        bar.set_message(name.to_owned());
        let mut work = std::pin::pin!(work);
        let mut tick = interval(TICK);
        // The first tick is now.
        tick.tick().await;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = tick.tick() => bar.inc(TICK_MS),
            }
        }
    }

    /// Takes a row. One without a single answer is a failure: the figures would mean nothing.
    pub(super) fn row(&mut self, row: Row, last_error: Option<&str>) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(&row).expect("texts and numbers");
            match &self.bar {
                Some(bar) => bar.suspend(|| out::say(line))?,
                None => out::say(line)?,
            };
        }
        let failed = (row.ops_per_s <= 0.0).then(|| {
            let why = format!("nothing was answered ({})", last_error.unwrap_or("no reason"));
            Failure::failed(&row.name, why, "see that the cluster serves, or measure longer")
        });
        if let Some(why) = last_error.filter(|_| failed.is_none()) {
            self.note(&format!("{}: {} errors, {why}", row.name, row.errors));
        }
        self.rows.push(row);
        failed.map_or(Ok(()), Err)
    }

    /// Says what was measured.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let (false, Some(first)) = (self.json, self.rows.first()) {
            out::say(format!("{}\n", first.conditions.sentence()))?;
            table(&self.rows).print()?;
        }
        Ok(())
    }
}

impl Conditions {
    /// What holds for all rows, for people.
    fn sentence(&self) -> String {
        let mut parts = vec![format!("{} s a row", self.seconds), format!("{} nodes", self.nodes)];
        if let Some(durability) = self.durability {
            parts.push(format!("durability {durability}"));
        }
        if let Some(clients) = &self.clients {
            parts.push(format!("values of {} B", self.size));
            parts.push(format!("clients at {}", clients.node));
        }
        let raw = [("disk sync", self.raw.sync), ("QUIC round trip", self.raw.rtt)];
        for (what, time) in raw {
            if let Some(time) = time {
                parts.push(format!("one {what} {} µs", micros(time.median)));
            }
        }
        parts.join(", ")
    }
}

type Ratio = fn(&Row) -> Option<f64>;

fn table(rows: &[Row]) -> Table {
    let mains: Vec<&str> = rows
        .first()
        .into_iter()
        .flat_map(|row| row.syncs_per_op.keys())
        .map(|n| n.as_str())
        .collect();
    let mains = mains.join("/");
    let mut head: Vec<String> =
        ["ROW", "OPS/S", "P50 µs", "P99 µs", "P99.9 µs", "ERRORS"].map(str::to_owned).into();
    if !mains.is_empty() {
        head.extend([format!("SYNCS/OP {mains}"), format!("LINK B/OP {mains}")]);
    }
    let has = |of: Ratio| rows.iter().any(|row| of(row).is_some());
    let ratios: [(&str, Ratio); 4] = [
        ("CPU ns", |row| row.cpu_ns_per_op),
        ("RATE/LIMIT", |row| row.rate_per_limit),
        ("P50/SYNC", |row| row.p50_per_sync),
        ("P50/RTT", |row| row.p50_per_rtt),
    ];
    let ratios: Vec<_> = ratios.into_iter().filter(|(_, of)| has(*of)).collect();
    head.extend(ratios.iter().map(|(name, _)| (*name).to_owned()));
    let with_peaks = rows.iter().find(|row| !row.peak_bytes.is_empty());
    head.extend(with_peaks.map(|_| "PEAK MiB".to_owned()));
    let mut table = Table::new(&head);
    for row in rows {
        let digits = if is_slow(row.ops_per_s) { 2 } else { 0 };
        let mut cells = vec![row.name.clone(), format!("{:.digits$}", row.ops_per_s)];
        cells.extend([row.p50_us, row.p99_us, row.p999_us].map(|time| format!("{time:.0}")));
        cells.push(row.errors.to_string());
        if !mains.is_empty() {
            let join = |costs: &BTreeMap<_, f64>, digits: usize| {
                let all = costs.values().map(|cost| format!("{cost:.digits$}"));
                all.collect::<Vec<_>>().join("/")
            };
            cells.extend([join(&row.syncs_per_op, 3), join(&row.link_bytes_per_op, 0)]);
        }
        for (_, of) in &ratios {
            // Two digits for a ratio, none for a large number.
            let say = |number: f64| match number < 100.0 {
                true => format!("{number:.2}"),
                false => format!("{number:.0}"),
            };
            cells.push(of(row).map_or_else(|| "-".to_owned(), say));
        }
        if with_peaks.is_some() {
            let mib: Vec<_> = row.peak_bytes.values().map(|b| (b >> 20).to_string()).collect();
            cells.push(if mib.is_empty() { "-".to_owned() } else { mib.join("/") });
        }
        table.row(cells);
    }
    table
}

/// Whether the digits behind the point say something of this rate.
fn is_slow(ops_per_s: f64) -> bool {
    ops_per_s < 10.0
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6, 1)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (number * unit).round() / unit
}

/// Between two movements of the bar.
const TICK_MS: u64 = 200;
const TICK: Duration = Duration::from_millis(TICK_MS);

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let figures = Figures {
            ops_per_s: 1234.56,
            p01: Duration::from_micros(300),
            p50: Duration::from_micros(400),
            p99: Duration::from_micros(900),
            p999: Duration::from_nanos(1_234_560),
            all: 1500,
            errors: 0,
            last_error: None,
        };
        let [a, b]: [NodeName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let costs = Costs {
            syncs: BTreeMap::from([(a.clone(), 1.0), (b.clone(), 0.98)]),
            link_bytes: BTreeMap::from([(a, 320.0), (b, 60.0)]),
            ..Costs::default()
        };
        let clients = Clients { clients: 4, pipeline: 1, node: "a".to_owned() };
        let conditions = Conditions {
            kind: "set".to_owned(),
            size: 256,
            in_flight: 4,
            nodes: 3,
            durability: Some(Durability::Fsync),
            seconds: 1,
            clients: Some(clients),
            raw: Raw {
                sync: Some(Sample {
                    median: Duration::from_micros(160),
                    quick: Duration::from_micros(150),
                }),
                rtt: None,
            },
        };
        Row::new("set-4".to_owned(), &figures, costs, conditions)
    }

    #[test]
    fn a_row_is_one_object_with_its_conditions() {
        let json = serde_json::to_value(row()).unwrap();
        let expected = serde_json::json!({
            "name": "set-4", "ops_per_s": 1234.6, "p50_us": 400.0, "p99_us": 900.0,
            "p999_us": 1234.6, "errors": 0, "syncs_per_op": {"a": 1.0, "b": 0.98},
            "link_bytes_per_op": {"a": 320.0, "b": 60.0}, "p50_per_sync": 2.5,
            "conditions": {
                "kind": "set", "size": 256, "in_flight": 4, "nodes": 3, "durability": "fsync",
                "seconds": 1, "clients": 4, "pipeline": 1, "node": "a", "disk_sync_us": 160.0,
                "disk_sync_quick_us": 150.0,
            },
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn people_get_columns_for_what_was_measured() {
        let page = table(&[row()]).render();
        assert!(page.contains("SYNCS/OP a/b  LINK B/OP a/b  P50/SYNC\n"), "{page}");
        assert!(page.contains("set-4  1235   400     900     1235      0"), "{page}");
        assert!(page.contains("1.000/0.980   320/60         2.50\n"), "{page}");
        let mut slow = row();
        slow.ops_per_s = 0.234;
        slow.peak_bytes = slow.syncs_per_op.keys().map(|name| (name.clone(), 9 << 20)).collect();
        let page = table(&[row(), slow]).render();
        assert!(page.contains("P50/SYNC  PEAK MiB\n"), "{page}");
        assert!(page.contains("2.50      -\n") && page.contains("2.50      9/9\n"), "{page}");
        assert!(page.contains("set-4  0.23   400"), "{page}");
    }
}
