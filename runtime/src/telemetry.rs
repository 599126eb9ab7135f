//! Counters, gauges and histograms of one node, rendered for Prometheus.
//!
//! There are no globals: each node owns one [`Metrics`]. A family is a constant next to the code
//! that counts; a series of it is a cheap handle (an `Arc` and an atomic), taken once and kept in
//! the struct that counts, never looked up per event.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;

/// What is counted: one name, one help text, one kind. Make it a constant.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name, with unit: `synod_command_seconds`; totals end in `_total`.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// How it is read.
    pub kind: Kind,
}

/// How a family is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises while the node lives.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations by [`BUCKETS`].
    Histogram,
}

/// Messages that reached nobody.
pub const DEAD_LETTERS: Family = Family {
    name: "synod_dead_letters_total",
    help: "Messages that could not be delivered, by reason.",
    kind: Kind::Counter,
};

/// Actors rebuilt by supervision.
pub const ACTOR_RESTARTS: Family = Family {
    name: "synod_actor_restarts_total",
    help: "Times an actor was rebuilt after a panic or a stop.",
    kind: Kind::Counter,
};

/// Panics that supervision met.
pub const ACTOR_PANICS: Family = Family {
    name: "synod_actor_panics_total",
    help: "Times any actor panicked.",
    kind: Kind::Counter,
};

/// Bytes over links.
pub const LINK_BYTES: Family = Family {
    name: "synod_link_bytes_total",
    help: "Bytes of frames exchanged with a peer, by direction.",
    kind: Kind::Counter,
};

/// Upper bounds of the buckets of every histogram, in seconds: from a lone journal sync on a fast
/// disk to the longest deadline anybody waits for.
pub const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// All series of one node. Cloning is cheap and gives the same series.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

type Collector = Arc<dyn Fn(&Metrics) + Send + Sync>;

#[derive(Default)]
struct Inner {
    families: Mutex<BTreeMap<&'static str, Series>>,
    collectors: Mutex<Vec<Collector>>,
}

struct Series {
    family: &'static Family,
    /// By the rendered labels, so that a page is the same for the same numbers.
    by_labels: BTreeMap<String, Handle>,
}

#[derive(Clone)]
enum Handle {
    Number(Arc<AtomicU64>),
    Buckets(Arc<Buckets>),
}

impl Metrics {
    /// No series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of `family` with these labels; the same one for the same labels.
    ///
    /// # Panics
    /// When `family` is no counter, or its name belongs to another family: both are mistakes of
    /// the calling code.
    pub fn counter(&self, family: &'static Family, labels: &[(&str, &str)]) -> Counter {
        assert_eq!(family.kind, Kind::Counter, "{} is no counter", family.name);
        Counter(self.number(family, labels))
    }

    /// The gauge of `family` with these labels; the same one for the same labels.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn gauge(&self, family: &'static Family, labels: &[(&str, &str)]) -> Gauge {
        assert_eq!(family.kind, Kind::Gauge, "{} is no gauge", family.name);
        Gauge(self.number(family, labels))
    }

    /// The histogram of `family` with these labels; the same one for the same labels.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn histogram(&self, family: &'static Family, labels: &[(&str, &str)]) -> Histogram {
        assert_eq!(family.kind, Kind::Histogram, "{} is no histogram", family.name);
        match self.handle(family, labels) {
            Handle::Buckets(buckets) => Histogram(buckets),
            Handle::Number(_) => unreachable!("a series has the kind of its family"),
        }
    }

    /// Calls `collect` before every [`Metrics::render`], for numbers that are kept elsewhere.
    pub fn collect(&self, collect: impl Fn(&Self) + Send + Sync + 'static) {
        lock(&self.0.collectors).push(Arc::new(collect));
    }

    /// The present number of a counter or gauge, if there is such a series.
    pub fn value(&self, family: &Family, labels: &[(&str, &str)]) -> Option<u64> {
        let families = lock(&self.0.families);
        match families.get(family.name)?.by_labels.get(&render_labels(labels))? {
            Handle::Number(number) => Some(number.load(Relaxed)),
            Handle::Buckets(buckets) => Some(buckets.count.load(Relaxed)),
        }
    }

    /// Every series by its name with labels, as on the page: `name{label="x"}`.
    pub fn readings(&self) -> BTreeMap<String, Reading> {
        self.refresh();
        let families = lock(&self.0.families);
        let series = families.values().flat_map(|series| {
            let named = |(labels, handle): (&String, &Handle)| {
                (format!("{}{}", series.family.name, braced(labels)), handle.read())
            };
            series.by_labels.iter().map(named).collect::<Vec<_>>()
        });
        series.collect()
    }

    fn refresh(&self) {
        // Copied out, since a collector asks for handles itself.
        let collectors = lock(&self.0.collectors).clone();
        for collect in collectors {
            collect(self);
        }
    }

    /// The page for Prometheus: text format 0.0.4, families and labels in order.
    pub fn render(&self) -> String {
        self.refresh();
        let mut page = String::new();
        for series in lock(&self.0.families).values() {
            series.render(&mut page).expect("writing to a String cannot fail");
        }
        page
    }

    fn number(&self, family: &'static Family, labels: &[(&str, &str)]) -> Arc<AtomicU64> {
        match self.handle(family, labels) {
            Handle::Number(number) => number,
            Handle::Buckets(_) => unreachable!("a series has the kind of its family"),
        }
    }

    fn handle(&self, family: &'static Family, labels: &[(&str, &str)]) -> Handle {
        let mut families = lock(&self.0.families);
        let series = families
            .entry(family.name)
            .or_insert_with(|| Series { family, by_labels: BTreeMap::new() });
        assert_eq!(series.family, family, "two families are called {}", family.name);
        let new = || match family.kind {
            Kind::Counter | Kind::Gauge => Handle::Number(Arc::default()),
            Kind::Histogram => Handle::Buckets(Arc::default()),
        };
        series.by_labels.entry(render_labels(labels)).or_insert_with(new).clone()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What a series shows at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reading {
    /// Of a counter or gauge.
    Number(u64),
    /// Of a histogram.
    Durations {
        /// How many were observed.
        count: u64,
        /// All together, in seconds.
        sum: f64,
        /// How many were in each of [`BUCKETS`] and in no lower one; the rest took longer.
        within: [u64; BUCKETS.len()],
    },
}

impl Handle {
    fn read(&self) -> Reading {
        match self {
            Self::Number(number) => Reading::Number(number.load(Relaxed)),
            Self::Buckets(buckets) => Reading::Durations {
                count: buckets.count.load(Relaxed),
                sum: Duration::from_nanos(buckets.sum_nanos.load(Relaxed)).as_secs_f64(),
                within: buckets.within.each_ref().map(|within| within.load(Relaxed)),
            },
        }
    }
}

/// A number that only rises.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes over a total that is counted elsewhere; never lowers it.
    pub fn follow(&self, total: u64) {
        self.0.fetch_max(total, Relaxed);
    }

    /// The present total.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// It is now `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations, counted in [`BUCKETS`].
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<Buckets>);

impl Histogram {
    /// One that took `duration`.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(counted) = self.0.within.get(bucket) {
            counted.fetch_add(1, Relaxed);
        }
        self.0.count.fetch_add(1, Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }
}

#[derive(Debug, Default)]
struct Buckets {
    within: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Series {
    fn render(&self, page: &mut String) -> fmt::Result {
        let Family { name, help, kind } = *self.family;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (labels, handle) in &self.by_labels {
            match handle {
                Handle::Number(number) => {
                    writeln!(page, "{name}{} {}", braced(labels), number.load(Relaxed))?;
                }
                Handle::Buckets(buckets) => buckets.render(name, labels, page)?,
            }
        }
        Ok(())
    }
}

impl Buckets {
    fn render(&self, name: &str, labels: &str, page: &mut String) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        // Read first: a later observation may then only make a bucket larger than the total,
        // which is put right by the clamp.
        let count = self.count.load(Relaxed);
        let mut so_far = 0;
        for (bound, within) in BUCKETS.iter().zip(&self.within) {
            so_far = (so_far + within.load(Relaxed)).min(count);
            writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {so_far}")?;
        }
        writeln!(page, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
        let sum = Duration::from_nanos(self.sum_nanos.load(Relaxed)).as_secs_f64();
        let labels = braced(labels);
        writeln!(page, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}")
    }
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn render_labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (at, (key, value)) in labels.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(text, "{comma}{key}=\"{value}\"").expect("writing to a String cannot fail");
    }
    text
}

/// A panic while holding one of these locks leaves whole data behind: every change is one insert.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: Family = Family { name: "calls_total", help: "Calls made.", kind: Kind::Counter };
    const SYNC: Family =
        Family { name: "sync_seconds", help: "Time of a sync.", kind: Kind::Histogram };

    #[test]
    fn every_family_is_rendered_with_help_and_type() {
        let metrics = Metrics::new();
        metrics.counter(&CALLS, &[("role", "a \"b\"")]).add(3);
        metrics.counter(&CALLS, &[("role", "a \"b\"")]).increment();
        let sync = metrics.histogram(&SYNC, &[]);
        sync.observe(Duration::from_micros(200));
        sync.observe(Duration::from_secs(60));
        let page = metrics.render();
        assert!(page.starts_with("# HELP calls_total Calls made.\n# TYPE calls_total counter\n"));
        assert!(page.contains("calls_total{role=\"a \\\"b\\\"\"} 4\n"));
        assert!(page.contains("# TYPE sync_seconds histogram\n"));
        assert!(page.contains("sync_seconds_bucket{le=\"0.0001\"} 0\n"));
        assert!(page.contains("sync_seconds_bucket{le=\"0.00025\"} 1\n"));
        assert!(page.contains("sync_seconds_bucket{le=\"+Inf\"} 2\n"));
        assert!(page.contains("sync_seconds_sum 60.0002\nsync_seconds_count 2\n"));
    }

    #[test]
    fn readings_say_what_the_page_says() {
        let metrics = Metrics::new();
        metrics.counter(&CALLS, &[("role", "a")]).add(3);
        metrics.histogram(&SYNC, &[]).observe(Duration::from_micros(200));
        let readings = metrics.readings();
        assert_eq!(readings["calls_total{role=\"a\"}"], Reading::Number(3));
        let Reading::Durations { count, within, .. } = &readings["sync_seconds"] else {
            panic!("{readings:?}")
        };
        assert_eq!((*count, within[1]), (1, 1), "200 µs is above 100 and within 250");
    }

    #[test]
    fn collectors_run_before_each_page() {
        let metrics = Metrics::new();
        metrics.collect(|m| m.counter(&CALLS, &[]).follow(7));
        assert!(metrics.render().contains("calls_total 7\n"));
        assert_eq!(metrics.value(&CALLS, &[]), Some(7));
    }
}
