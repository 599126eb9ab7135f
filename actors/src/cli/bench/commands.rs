//! `bench commands`: Redis clients against a cluster.

use std::{path::Path, time::Duration};

use actix_rt::time::{sleep, timeout};
use synod_runtime::world::{Clock as _, Entropy as _, RealClock, RealEntropy};

use super::{
    costs::Counters,
    meter::{Figures, Meter},
    pair::Pair,
    raw::{Sample, disk_sync},
    report::{Clients, Conditions, Raw, Report, Row},
    resp::{Command, Connection, Request},
    target::{OwnCluster, Target},
    unless_stopped,
};
use crate::{
    cli::{args::BenchArgs, failure::Failure},
    server::{
        StopSignal,
        config::{Durability, HostPort},
    },
};

/// How one row is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    command: Command,
    clients: usize,
    pipeline: usize,
}

/// What all rows have in common.
struct Bench<'a> {
    args: &'a BenchArgs,
    target: Target,
    counters: Counters,
    raw: Raw,
    size: usize,
    keys: u32,
}

/// Measures the rows that `args` asks for.
pub(super) async fn run(
    args: &BenchArgs,
    report: &mut Report,
    stop: StopSignal,
) -> Result<(), Failure> {
    if let Some(file) = &args.cluster {
        return unless_stopped(stop, on_cluster(args, file, report)).await;
    }
    // Before anything else runs: they are told as what the machine itself can do.
    let raw = unless_stopped(stop.clone(), async {
        let sync = Some(disk_sync(&std::env::temp_dir())?);
        Ok(Raw { sync, rtt: round_trip().await? })
    });
    let raw = raw.await?;
    let durability = args.durability.unwrap_or(Durability::Fsync);
    let own = unless_stopped(stop.clone(), OwnCluster::start(durability, &[])).await?;
    let done = unless_stopped(stop, async {
        let target = Target::find(own.client_file(), &args.node).await?;
        drive(args, target, raw, report).await
    });
    let done = done.await;
    own.stop().await;
    done
}

/// Measures somebody's cluster, which must be there before anything is measured.
async fn on_cluster(args: &BenchArgs, file: &Path, report: &mut Report) -> Result<(), Failure> {
    let target = Target::find(file, &args.node).await?;
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Beside its client file a cluster on this machine keeps its data. One on other machines has
    // other disks, and its client file may lie where nobody may write.
    let sync = match disk_sync(beside.unwrap_or_else(|| Path::new("."))) {
        Ok(sync) => Some(sync),
        Err(why) => {
            report.note(&format!("no disk sync is measured: {why}"));
            None
        }
    };
    drive(args, target, Raw { sync, rtt: round_trip().await? }, report).await
}

async fn round_trip() -> Result<Option<Sample>, Failure> {
    Ok(Some(Pair::start().await?.round_trip().await?))
}

async fn drive(
    args: &BenchArgs,
    target: Target,
    raw: Raw,
    report: &mut Report,
) -> Result<(), Failure> {
    report.warn_if_busy(raw);
    let size = args.size.map_or(SIZE, |size| size as usize);
    let keys = keys(size);
    let counters = Counters::new(target.mains.clone());
    let bench = Bench { args, target, counters, raw, size, keys };
    bench.over_all_keys(Command::Set).await?;
    let shapes = grid(args.clients);
    report.expect(shapes.len(), bench.span());
    let mut done = Ok(());
    for shape in shapes {
        done = bench.row(shape, report).await;
        if done.is_err() {
            break;
        }
    }
    if args.cluster.is_some() {
        // Somebody else's cluster is left as it was found; first things first, though.
        let cleared = bench.over_all_keys(Command::Del).await;
        return done.and(cleared);
    }
    done
}

/// The rows without options, or those with `clients` in flight.
fn grid(clients: Option<u32>) -> Vec<Shape> {
    let counts = match clients {
        Some(clients) => vec![(clients as usize, 1)],
        None => STANDARD_GRID.to_vec(),
    };
    let shapes = [Command::Set, Command::Get].into_iter().flat_map(|command| {
        counts.iter().map(move |&(clients, pipeline)| Shape { command, clients, pipeline })
    });
    shapes.collect()
}

/// As many keys as fit the space, so that large values do not fill the machine.
fn keys(size: usize) -> u32 {
    let fit = VALUES_BYTES_MAX / size;
    u32::try_from(fit).unwrap_or(KEYS_MAX).clamp(KEYS_MIN, KEYS_MAX)
}

impl Bench<'_> {
    const fn span(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    /// Sets, or deletes, every key once.
    async fn over_all_keys(&self, command: Command) -> Result<(), Failure> {
        let (node, at) = &self.target.ports[0];
        let failed = |why: String| {
            let hint = "see that the cluster serves writes";
            Failure::failed(format!("{node} at {at}"), why, hint)
        };
        let together = (FILL_BYTES / self.size).clamp(1, FILL_PIPELINE_MAX);
        let mut request = Request::new(command, self.size, together);
        let all = async {
            let mut connection = Connection::open(at).await?;
            for first in (0..self.keys).step_by(together) {
                request.enumerate(first, self.keys);
                if let Some((_, why)) = connection.ask(&request).await? {
                    return Ok(Some(why));
                }
            }
            Ok(None)
        };
        match timeout(FILL_TIME_MAX, all).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(why))) => Err(failed(why)),
            Ok(Err(e)) => Err(failed(std::io::Error::to_string(&e))),
            Err(_elapsed) => Err(failed("the keys were not written in time".to_owned())),
        }
    }

    async fn row(&self, shape: Shape, report: &mut Report) -> Result<(), Failure> {
        let Shape { command, clients, pipeline } = shape;
        let kind = match command {
            Command::Set => "set",
            Command::Get => "get",
            Command::Del => unreachable!("not measured"),
        };
        let name = match pipeline {
            1 => format!("{kind}-{clients}"),
            _ => format!("{kind}-{clients}x{pipeline}"),
        };
        let before = self.counters.read().await;
        let figures = report.during(&name, self.measure(shape)).await;
        let costs = self.counters.read().await.since(&before, figures.all);
        let nodes: Vec<&str> = self.target.ports.iter().map(|(name, _)| name.as_str()).collect();
        let conditions = Conditions {
            kind: kind.to_owned(),
            size: self.size,
            in_flight: clients * pipeline,
            nodes: self.target.nodes,
            durability: self.target.durability,
            seconds: self.args.seconds,
            clients: Some(Clients { clients, pipeline, node: nodes.join(",") }),
            raw: self.raw,
        };
        let row = Row::new(name, &figures, costs, conditions);
        report.row(row, figures.last_error.as_deref())
    }

    async fn measure(&self, shape: Shape) -> Figures {
        let Shape { command, clients, pipeline } = shape;
        let meter = Meter::start(self.span());
        let request = Request::new(command, self.size, pipeline);
        let tasks = (0..clients).zip(self.target.ports.iter().cycle()).map(|(_, (_, at))| {
            actix_rt::spawn(client(at.clone(), request.clone(), self.keys, meter.clone()))
        });
        let tasks = tasks.collect();
        meter.finish(tasks, pipeline as u64).await
    }
}

/// One client: asks, waits, asks again until the time is over; connects anew when it must.
async fn client(at: HostPort, mut request: Request, keys: u32, meter: Meter) {
    let mut rng = RealEntropy.rng("bench");
    let mut connection = None;
    let mut now = RealClock.now();
    while !meter.is_over(now) {
        let sent = now;
        request.draw(&mut rng, keys);
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(&at).await,
        };
        let asked = match open {
            Ok(mut open) => open.ask(&request).await.map(|refused| (open, refused)),
            Err(e) => Err(e),
        };
        now = RealClock.now();
        let all = request.len() as u64;
        match asked {
            Ok((open, refused)) => {
                connection = Some(open);
                let errors = refused.as_ref().map_or(0, |(errors, _)| *errors);
                if errors < all {
                    meter.answered(sent, now, all - errors);
                }
                if let Some((errors, why)) = refused {
                    meter.failed(errors, why);
                    // A refusal comes at once; asking again as fast would only heat the room.
                    sleep(PAUSE).await;
                    now = RealClock.now();
                }
            }
            Err(e) => {
                meter.failed(all, e.to_string());
                sleep(PAUSE).await;
                now = RealClock.now();
            }
        }
    }
}

/// Clients, and commands that each sends together: one alone for the latency, then two loads, then
/// what pipelining gives.
const STANDARD_GRID: [(usize, usize); 4] = [(1, 1), (64, 1), (256, 1), (64, 16)];

/// Bytes of a value by default.
const SIZE: usize = 256;

/// Enough that clients seldom meet at one key.
const KEYS_MAX: u32 = 10_000;

/// So many must there be, however large the values.
const KEYS_MIN: u32 = 16;

/// All values together, on each main and in each snapshot.
const VALUES_BYTES_MAX: usize = 64 << 20;

/// Values set together while the keys are made: about one step of the log.
const FILL_BYTES: usize = 256 << 10;

/// Commands sent together while the keys are made.
const FILL_PIPELINE_MAX: usize = 64;

/// A slow disk takes 64 MiB in this time.
const FILL_TIME_MAX: Duration = Duration::from_secs(60);

/// After an error, before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_clients_the_standard_grid_is_run() {
        let all = grid(None);
        assert_eq!(all.len(), 8);
        assert_eq!(all[3], Shape { command: Command::Set, clients: 64, pipeline: 16 });
        assert_eq!(all[4], Shape { command: Command::Get, clients: 1, pipeline: 1 });
        let two = grid(Some(7));
        assert_eq!(two.iter().map(|s| (s.clients, s.pipeline)).collect::<Vec<_>>(), [(7, 1); 2]);
    }

    #[test]
    fn large_values_get_fewer_keys() {
        assert_eq!((keys(256), keys(64 << 10), keys(1 << 20)), (10_000, 1024, 64));
    }
}
