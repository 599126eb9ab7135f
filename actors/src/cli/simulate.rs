//! `simulate`: whole clusters under simulated time, network and disks.
//!
//! Standard output is a function of the arguments; how fast it goes is said on standard error.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::IsTerminal as _,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use synod_runtime::world::{Clock as _, RealClock};

use super::{args::SimulateArgs, failure::Failure, out};
use crate::sim::{Report, Seen, Trial, never_seen};

pub(super) fn run(program: &str, args: &SimulateArgs) -> Result<(), Failure> {
    start_log();
    let trial = Trial {
        profile: args.profile,
        plan: args.faults.clone(),
        length: Duration::from_secs(60) * args.minutes_each,
        ..Trial::default()
    };
    let progress = progress(args.runs);
    let started = RealClock.now();
    let (mut total, mut printed) = (Total::default(), Ok(()));
    each_in_order(args, &trial, |report| {
        // Whether it can be read or not, the runs go on: the exit code tells of them too.
        let page = out::print(page(program, args, &report)).map(drop);
        if printed.is_ok() {
            printed = page;
        }
        if !report.violations.is_empty() {
            progress.suspend(|| out::tell(format_args!("{}", report.story.join("\n"))));
        }
        total.add(&report);
        progress.inc(1);
    });
    progress.finish_and_clear();
    let last = out::say(format!("{}\n{}", total.line(), total.seen())).map(drop);
    let seconds = RealClock.now().since(started).as_secs_f64().max(f64::EPSILON);
    out::tell(format_args!(
        "{:.1} s: {:.1} runs and {:.0} simulated minutes a second of this machine",
        seconds,
        total.runs as f64 / seconds,
        total.runs as f64 * f64::from(args.minutes_each) / seconds
    ));
    if total.failed == 0 {
        let covered = if args.cover { total.covers(args) } else { Ok(()) };
        return covered.and(printed).and(last);
    }
    let why = format!("{} of {} runs violated a property", total.failed, total.runs);
    Err(Failure::failed("simulation", why, "the lines above say how to replay them"))
}

/// Runs all seeds on a few threads, and gives their reports back in the order of the seeds.
fn each_in_order(args: &SimulateArgs, trial: &Trial, mut each: impl FnMut(Report)) {
    let next = AtomicU64::new(0);
    let (sender, reports) = mpsc::channel();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (next, sender) = (&next, sender.clone());
            let run_one = |seed| {
                let shape = args.shape_of(seed);
                Trial { shape, ..trial.clone() }.run(seed)
            };
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    let seed = args.seed.wrapping_add(number);
                    if number >= args.runs || sender.send((number, run_one(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut early, mut wanted) = (BTreeMap::new(), 0);
        for (number, report) in reports {
            early.insert(number, report);
            while let Some(report) = early.remove(&wanted) {
                each(report);
                wanted += 1;
            }
        }
    });
}

/// What is said of one run.
fn page(program: &str, args: &SimulateArgs, report: &Report) -> String {
    let Report { seed, steps, faults, calls: (made, acknowledged), digest, .. } = report;
    let mut page = format!(
        "seed {seed}  steps {steps}  faults {faults}  calls {acknowledged}/{made}  digest \
         {digest:016x}\n"
    );
    for violation in &report.violations {
        let _ = writeln!(page, "seed {seed}  VIOLATED {violation}");
    }
    if !report.violations.is_empty() {
        let _ = writeln!(
            page,
            "replay: {program} simulate --seed {seed} --runs 1 --minutes-each {} --faults {} \
             --profile {} --shape {}",
            args.minutes_each,
            args.faults,
            args.profile,
            args.shape_of(*seed)
        );
    }
    page
}

/// All runs together.
#[derive(Debug, Default)]
struct Total {
    runs: u64,
    failed: u64,
    steps: u64,
    faults: u64,
    acknowledged: u64,
    seen: Seen,
    digest: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.failed += u64::from(!report.violations.is_empty());
        self.steps += report.steps;
        self.faults += report.faults;
        self.acknowledged += report.calls.1;
        report.seen.iter().for_each(|(what, count)| *self.seen.entry(*what).or_default() += count);
        // Order matters.
        self.digest = self.digest.rotate_left(7) ^ report.digest;
    }

    fn line(&self) -> String {
        let Self { runs, failed, steps, faults, acknowledged, digest, .. } = self;
        format!(
            "total: {runs} runs  {failed} violated  steps {steps}  faults {faults}  calls \
             {acknowledged}  digest {digest:016x}"
        )
    }

    fn seen(&self) -> String {
        let counts = self.seen.iter().map(|(what, count)| format!("{what} {count}"));
        format!("seen: {}", counts.collect::<Vec<_>>().join("  "))
    }

    /// Whether everything happened that may.
    fn covers(&self, args: &SimulateArgs) -> Result<(), Failure> {
        let never = never_seen(&args.faults, &self.seen);
        if never.is_empty() {
            return Ok(());
        }
        let why = format!("never seen in {} runs: {}", self.runs, never.join(", "));
        Err(Failure::failed(
            "simulation",
            why,
            "run more seeds: what never happened was not tested",
        ))
    }
}

/// A bar where somebody looks.
fn progress(runs: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {per_sec}, {eta} left");
    ProgressBar::new(runs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// For whoever replays a seed to see what happens in it.
fn start_log() {
    let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("SYNOD_LOG") else { return };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = lines.without_time().with_ansi(std::io::stderr().is_terminal()).try_init();
}

/// More threads than this help nobody who wants to use the machine meanwhile.
const THREADS_MAX: usize = 2;
