//! `recover --force-new-cluster`: the last resort, when a cluster cannot come back. Offline: it reads
//! what one node's disk holds, and makes the beginning of another cluster of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use synod_runtime::{
    identity::ClusterName,
    journal, snapshot,
    world::{Clock as _, Disk as _, RealClock, disk::RealDisk},
};

use super::{
    args::{InitArgs, NamedAddress},
    backup::write_whole,
    failure::{Failure, Fate},
    init, out,
};
use crate::{
    consensus::{
        replica::{MakeMachines, StateImage},
        salvage::{Salvage, salvage},
        timing::Profile,
    },
    election::store::Desk,
    management::store::Desk as ServicesDesk,
    membership::store::Desk as ViewsDesk,
    replicated::Position,
    server::{
        self, Service,
        backup::{self, Head},
        config::{NodeConfig, Overrides},
        machines::built_in,
    },
};

/// `recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Yes: what was acknowledged and is not on this disk is lost, and the old cluster is over
    #[arg(long)]
    pub(crate) force_new_cluster: bool,
    /// The directory of a main (its node must be dead), a snapshot, or a backup
    #[arg(long, value_name = "PATH")]
    pub(crate) from: PathBuf,
    /// Where to write the state, and the new cluster's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The new cluster's name [default: the old one's and the time]
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// A node of the new cluster that keeps all data and serves clients
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1..)]
    pub(crate) main: Vec<NamedAddress>,
    /// A cheap node of it
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1.., requires = "main")]
    pub(crate) auxiliary: Vec<NamedAddress>,
    /// A node of it that never votes
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1.., requires = "main")]
    pub(crate) member: Vec<NamedAddress>,
    /// The position to go on from [default: the seconds since 1970 times 2^20]
    #[arg(long, value_name = "N")]
    pub(crate) above: Option<u64>,
    /// One JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the recovery stands on.
struct Source {
    cluster: String,
    state: Bytes,
    /// For people: what of it is certain, and what may be lost.
    warnings: Vec<String>,
}

/// Makes the new beginning.
pub(crate) fn run(
    program: &str,
    args: &RecoverArgs,
    services: Vec<Box<dyn Service>>,
    with_resp: bool,
) -> Result<(), Failure> {
    if !args.force_new_cluster {
        let why = "it makes a second history out of what one disk holds, and is never undone";
        let hint = "bring back a main, or its disk; if there is none, --force-new-cluster";
        return Err(Failure::usage("recover", why, hint));
    }
    let source = source(&args.from, services)?;
    let image = StateImage::decode(&source.state).map_err(|why| damaged(&args.from, why))?;
    let (last, time_ms) = (image.position, image.time_ms);
    let position = new_position(args, last)?;
    let state = image.continued_at(position).encode();
    let cluster = match &args.cluster {
        Some(name) if name.to_string() == source.cluster => {
            let why =
                "is the old cluster's name: whoever is left of it would be taken for a member";
            return Err(Failure::usage("--cluster", why, "choose another name"));
        }
        Some(name) => name.clone(),
        None => default_name(&source.cluster)?,
    };
    fs::create_dir_all(&args.out).map_err(|e| cannot_write(&args.out, &e))?;
    if !args.main.is_empty() {
        let nodes = InitArgs {
            out: args.out.clone(),
            cluster: Some(cluster.clone()),
            main: args.main.clone(),
            auxiliary: args.auxiliary.clone(),
            member: args.member.clone(),
            add: None,
            client: None,
            profile: Profile::default(),
            open: false,
            role: None,
        };
        init::create(&nodes, &cluster, with_resp)?;
    }
    let file = args.out.join(FILE);
    let head = Head::of(&source.cluster, &state).map_err(|why| damaged(&args.from, why))?;
    write_whole(&file, &[head.line().as_bytes(), &state]).map_err(|e| cannot_write(&file, &e))?;
    shout(program, args, &source, last);
    if args.json {
        let document = json!({
            "event": "recovered",
            "from_cluster": source.cluster,
            "cluster": cluster.to_string(),
            "last_position": last,
            "time_ms": time_ms,
            "position": position,
            "file": file,
            "sha256": head.sha256,
            "warnings": source.warnings,
        });
        out::say(document)?;
    } else {
        out::say(format!(
            "last position {last} at agreed time {time_ms}; the new cluster's begin at {position}"
        ))?;
        out::say(format!("state: {} (sha256 {})", file.display(), head.sha256))?;
        let next = format!("{program} restore {}", file.display());
        out::say(format!("start the nodes of {cluster}, then: {next}"))?;
    }
    Ok(())
}

/// Loud, on standard error, whatever is done with standard output.
fn shout(program: &str, args: &RecoverArgs, source: &Source, last: u64) {
    out::tell(format_args!(
        "{program}: FORCED RECOVERY of cluster {} from {}",
        source.cluster,
        args.from.display()
    ));
    for warning in &source.warnings {
        out::tell(format_args!("{program}: {warning}"));
    }
    out::tell(format_args!("{program}: whatever was acknowledged behind position {last} is LOST"));
    out::tell(format_args!(
        "{program}: no node of cluster {} may ever be started again",
        source.cluster
    ));
}

/// Above all that the old cluster can have shown, so that epochs and versions never come twice.
fn new_position(args: &RecoverArgs, last: u64) -> Result<u64, Failure> {
    // A cluster that was itself restored within this second is there already.
    let Position(by_time) = Position::above_all_until(RealClock.wall_ms());
    let above_all = by_time.max(last.saturating_add(Position::PER_SECOND));
    let position = args.above.unwrap_or(above_all);
    if position <= last || position >= POSITION_END {
        let why = format!("{position} is not above the last known position {last}, or beyond 2^53");
        return Err(Failure::usage("--above", why, "choose a position between the two"));
    }
    Ok(position)
}

fn default_name(old: &str) -> Result<ClusterName, Failure> {
    let seconds = RealClock.wall_ms() / 1_000;
    format!("{old}-{seconds}").parse().map_err(|e| {
        Failure::usage(
            "--cluster",
            format!("{old} makes no name for a new cluster: {e}"),
            "give one",
        )
    })
}

fn source(from: &Path, services: Vec<Box<dyn Service>>) -> Result<Source, Failure> {
    if from.is_file() {
        return of_file(from);
    }
    let dir = match from.join("synod.toml") {
        file if file.exists() => NodeConfig::load(&file, Overrides::default())?.data_dir,
        _ => from.to_owned(),
    };
    let disk = RealDisk;
    if !dir.join("journal").exists() {
        let hint = "name the directory of a main, a snapshot or a backup";
        return Err(Failure::usage(dir.display(), "holds no journal", hint));
    }
    let _lock = disk
        .lock(&dir)
        .map_err(|e| Failure::usage(dir.display(), e, "stop the node first, it is not dead"))?;
    let records = journal::inspect(&disk, &dir.join("journal")).map_err(|e| {
        let hint = "use its newest snapshot, or a backup";
        Failure::failed(dir.display(), e, hint).with(Fate::NotApplied)
    })?;
    let records: Vec<_> = records.into_iter().map(|located| located.record).collect();
    let survived = server::survived(&records, &disk, &dir.join("snapshots"))
        .map_err(|why| damaged(&dir, why))?;
    let owner = server::owner(&disk, &dir).map_err(|why| damaged(&dir, why))?;
    let desk = Arc::new(Desk::new(Arc::new(RealClock), |_| {}));
    let services_desk = Arc::new(ServicesDesk::new(|| {}));
    let views_desk = Arc::new(ViewsDesk::new(|_| {}));
    let make: MakeMachines = Box::new(move || {
        let ours = built_in(&desk, &services_desk, &views_desk);
        services.iter().map(|service| service.machine()).chain(ours).collect()
    });
    let Salvage { state, step, certain, highest } =
        salvage(&survived, make).map_err(|why| damaged(&dir, why))?;
    if step == 0 {
        let why = "holds nothing of the log: it is an auxiliary's, or never was of a cluster";
        let hint = "name the directory of a main, a snapshot or a backup";
        return Err(Failure::usage(dir.display(), why, hint));
    }
    let mut warnings =
        vec![format!("last step {step} (steps up to {certain} are known to be chosen)")];
    if highest > step {
        warnings.push(format!("steps {} to {highest} are LOST in part", step + 1));
    }
    if step > certain {
        let why = "were voted for here and may have been chosen otherwise";
        warnings.push(format!("steps {} to {step} {why}", certain + 1));
    }
    let node = owner.name;
    warnings.push(format!("if node {node} was voted out before it died, what came after is LOST"));
    Ok(Source { cluster: owner.cluster.to_string(), state, warnings })
}

fn of_file(from: &Path) -> Result<Source, Failure> {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(step) = name.strip_prefix("snapshot-").and_then(|step| step.parse().ok()) {
        let dir = from.parent().unwrap_or_else(|| Path::new(""));
        let found =
            snapshot::read(&RealDisk, dir, step).map_err(|e| damaged(from, e.to_string()))?;
        let warnings = vec![format!("last step {step}; what the journal held behind it is LOST")];
        return Ok(Source { cluster: UNKNOWN.to_owned(), state: found.bytes.into(), warnings });
    }
    let bytes = fs::read(from)
        .map_err(|e| Failure::usage(from.display(), format!("cannot be read: {e}"), "name it"))?;
    let (head, state) = backup::read(&bytes.into()).map_err(|why| damaged(from, why))?;
    let warnings = vec![format!("the backup was taken at position {}", head.position)];
    Ok(Source { cluster: head.cluster, state, warnings })
}

fn damaged(path: &Path, why: String) -> Failure {
    let hint = "use another main's disk, a snapshot or a backup";
    Failure::failed(path.display(), why, hint).with(Fate::NotApplied)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(path.display(), format!("cannot be written: {error}"), "make room for it")
}

/// In the new directory.
const FILE: &str = "recovered.backup";

/// A snapshot does not say whose it is.
const UNKNOWN: &str = "unknown";

/// JSON and JavaScript count exactly to here.
const POSITION_END: u64 = 1 << 53;
