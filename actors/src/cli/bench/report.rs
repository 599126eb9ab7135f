//! How figures are said: a JSON object a row as soon as there is one, or a table at the end.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use actix_rt::time::interval;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use synod_runtime::identity::NodeName;

use super::{
    costs::Costs,
    meter::{Figures, warm_up},
};
use crate::{
    cli::{failure::Failure, table::Table},
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
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_per_sync: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_per_rtt: Option<f64>,
    conditions: Conditions,
}

/// What a row was measured under.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Conditions {
    /// `set`, `get`, `tell` or `ask`.
    pub(super) kind: &'static str,
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
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Raw {
    /// One sync of a small write.
    #[serde(rename = "disk_sync_us", skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "as_micros")]
    pub(super) sync: Option<Duration>,
    /// One small frame there and back.
    #[serde(rename = "quic_rtt_us", skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "as_micros")]
    pub(super) rtt: Option<Duration>,
}

impl Row {
    pub(super) fn new(
        name: String,
        figures: &Figures,
        costs: Costs,
        conditions: Conditions,
    ) -> Self {
        let p50 = figures.p50;
        let per = |raw: Option<Duration>| {
            let raw = raw.filter(|raw| !raw.is_zero() && !p50.is_zero())?;
            Some(rounded(p50.div_duration_f64(raw), 2))
        };
        let each = |map: BTreeMap<NodeName, f64>, digits| {
            map.into_iter().map(|(name, cost)| (name, rounded(cost, digits))).collect()
        };
        Self {
            name,
            ops_per_s: rounded(figures.ops_per_s, 1),
            p50_us: micros(p50),
            p99_us: micros(figures.p99),
            p999_us: micros(figures.p999),
            errors: figures.errors,
            syncs_per_op: each(costs.syncs, 4),
            link_bytes_per_op: each(costs.link_bytes, 1),
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
            let say = || writeln!(std::io::stdout(), "{line}");
            // A reader that closed the pipe has seen enough.
            match &self.bar {
                Some(bar) => bar.suspend(say).ok(),
                None => say().ok(),
            };
        }
        let failed = (row.ops_per_s <= 0.0).then(|| {
            let why = format!("nothing was answered ({})", last_error.unwrap_or("no reason"));
            Failure::failed(&row.name, why, "see that the cluster serves, or measure longer")
        });
        if let Some(why) = last_error.filter(|_| failed.is_none()) {
            let note = || eprintln!("{}: {}: {} errors, {why}", self.program, row.name, row.errors);
            self.bar.as_ref().map_or_else(note, |bar| bar.suspend(note));
        }
        self.rows.push(row);
        failed.map_or(Ok(()), Err)
    }

    /// Says what was measured.
    pub(super) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let (false, Some(first)) = (self.json, self.rows.first()) {
            println!("{}\n", first.conditions.sentence());
            table(&self.rows).print();
        }
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
                parts.push(format!("one {what} {} µs", micros(time)));
            }
        }
        parts.join(", ")
    }
}

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
    let has = |of: fn(&Row) -> Option<f64>| rows.iter().any(|row| of(row).is_some());
    let ratios: [(&str, fn(&Row) -> Option<f64>); 2] =
        [("P50/SYNC", |row| row.p50_per_sync), ("P50/RTT", |row| row.p50_per_rtt)];
    let ratios: Vec<_> = ratios.into_iter().filter(|(_, of)| has(*of)).collect();
    head.extend(ratios.iter().map(|(name, _)| (*name).to_owned()));
    let mut table = Table::new(&head);
    for row in rows {
        let mut cells = vec![row.name.clone(), format!("{:.0}", row.ops_per_s)];
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
            cells.push(of(row).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        table.row(cells);
    }
    table
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6, 1)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (number * unit).round() / unit
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_micros<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(micros).serialize(to)
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
        };
        let clients = Clients { clients: 4, pipeline: 1, node: "a".to_owned() };
        let conditions = Conditions {
            kind: "set",
            size: 256,
            in_flight: 4,
            nodes: 3,
            durability: Some(Durability::Fsync),
            seconds: 1,
            clients: Some(clients),
            raw: Raw { sync: Some(Duration::from_micros(160)), rtt: None },
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
    }
}
