//! `node`: one node of a cluster, or auxiliaries of several, until it is told to stop or learns that
//! it was removed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use actix_rt::System;
use synod_runtime::quic::check_files;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{args::NodeArgs, failure::Failure, out, resident};
use crate::{
    server::{
        self, Program, ServerError, StopSignal, StopTrigger,
        config::{LogConfig, LogFormat, NodeConfig, NodeRole, Overrides},
        stop_pair,
    },
    trace,
};

/// Runs the node that `args` names, or all of them.
pub(crate) fn run(program: &'static str, args: &NodeArgs, hosted: &Program) -> Result<(), Failure> {
    // Until it is known to be large.
    resident::allow_huge_pages(false);
    let overrides = overrides(args)?;
    let files = files(&args.config)?;
    let mut configs = Vec::with_capacity(files.len());
    for file in &files {
        let mut config = NodeConfig::load(file, overrides.clone())?;
        config.consensus.accept_sole = args.accept_sole;
        configs.push(config);
    }
    check_apart(&configs)?;
    if args.check {
        for (file, config) in files.iter().zip(&configs) {
            check_files(&config.tls.files, &config.name, &config.cluster).map_err(|e| {
                Failure::usage(file.display(), format!("[tls]: {e}"), "name what `init` wrote")
            })?;
            out::say(format!("{}: good", file.display()))?;
            config.multicast.survive().try_for_each(|line| out::say(line).map(drop))?;
        }
        return Ok(());
    }
    configs.retain(|NodeConfig { data_dir, name, cluster, .. }| {
        let removed = data_dir.join(REMOVED_MARKER).exists();
        if removed {
            out::tell(format_args!("{program}: node {name} was removed from cluster {cluster}"));
        }
        !removed
    });
    let Some(first) = configs.first() else { return Ok(()) };
    start_log(&first.log);
    let small = configs.iter().all(|config| config.role == NodeRole::Auxiliary);
    System::new().block_on(async {
        let (trigger, stop) = stop_pair();
        let signals = Signals::listen().map_err(|e| Failure::failed(program, e, "report this"))?;
        actix_rt::spawn(signals.serve(trigger));
        match small {
            true => drop(actix_rt::spawn(resident::keep_small())),
            false => drop(actix_rt::spawn(resident::grow())),
        }
        let mut running = Vec::with_capacity(configs.len());
        for config in configs {
            let (hosted, stop) = (hosted.clone(), stop.clone());
            running.push(actix_rt::spawn(async move {
                let ended = serve(program, config, hosted, stop).await;
                // The others go on, so this one is told of at once.
                ended.inspect_err(|failure| tracing::error!(%failure, "a node ended"))
            }));
        }
        let mut ended = Ok(());
        for node in running {
            let node =
                node.await.unwrap_or_else(|e| Err(Failure::failed(program, e, "report this")));
            ended = ended.and(node);
        }
        ended
    })
}

/// Runs one node to its end.
async fn serve(
    program: &str,
    config: NodeConfig,
    hosted: Program,
    stop: StopSignal,
) -> Result<(), Failure> {
    let (name, cluster) = (config.name.clone(), config.cluster.clone());
    let marker = config.data_dir.join(REMOVED_MARKER);
    let what = format!("node {name} of {cluster}");
    match server::run(config, hosted, stop).await {
        Ok(server::Ended::Stopped) => Ok(()),
        Ok(server::Ended::Removed) => {
            out::tell(format_args!("{program}: node {name} was removed from cluster {cluster}"));
            fs::write(&marker, "").map_err(|e| {
                let why = format!("cannot be written: {e}");
                Failure::failed(marker.display(), why, "do not start this node again")
            })
        }
        Err(ServerError::Config(e)) => Err(e.into()),
        Err(e @ ServerError::Listen { .. }) => {
            Err(Failure::failed(what, e, "free the address or configure another"))
        }
        Err(e @ ServerError::Tls(_)) => Err(Failure::usage(what, e, "name what `init` wrote")),
        Err(e @ ServerError::Core(_)) => Err(Failure::failed(what, e, "see its log")),
        Err(e @ ServerError::Failed(_)) => Err(Failure::failed(what, e, "see its log")),
    }
}

/// The node files: those named, and in directories those of the nodes in it.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable =
            |e| Failure::usage(path.display(), format!("cannot be read: {e}"), "name a node file");
        let inside = fs::read_dir(path).map_err(unreadable)?;
        let mut found: Vec<PathBuf> = inside
            .filter_map(|entry| Some(entry.ok()?.path().join(NODE_FILE)))
            .filter(|file| file.is_file())
            .collect();
        if found.is_empty() {
            let why = format!("no directory in it has a {NODE_FILE}");
            return Err(Failure::usage(path.display(), why, "name a node file"));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// Several nodes of one process are auxiliaries, and share nothing.
fn check_apart(configs: &[NodeConfig]) -> Result<(), Failure> {
    let [_, _, ..] = configs else { return Ok(()) };
    let mut taken: BTreeMap<String, &Path> = BTreeMap::new();
    for config in configs {
        let file = config.file.as_path();
        if config.role != NodeRole::Auxiliary {
            let why =
                format!("{} is a {}, which has a process of its own", config.name, config.role);
            return Err(Failure::usage(file.display(), why, "share one among auxiliaries only"));
        }
        let listen = config.listen;
        for (what, value) in [
            ("data_dir", config.data_dir.display().to_string()),
            ("[listen] quic", listen.quic.to_string()),
            ("[listen] http", listen.http.to_string()),
        ] {
            // What the environment or a flag gives to all of them shows here too.
            if let Some(other) = taken.insert(format!("{what} {value}"), file) {
                let why = format!("`{what}` is {value}, as in {}", other.display());
                return Err(Failure::usage(file.display(), why, "give each node its own"));
            }
        }
    }
    Ok(())
}

/// The file of a node in its directory, as `init` writes it.
const NODE_FILE: &str = "synod.toml";

/// In the data directory of a node that was removed: it is not to be started again.
pub(crate) const REMOVED_MARKER: &str = "removed";

fn overrides(args: &NodeArgs) -> Result<Overrides, Failure> {
    let variables = std::env::vars_os();
    // What is not text cannot be a value of ours.
    let texts = variables.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut overrides = Overrides::from_env(texts)?;
    for (path, flag, value) in [
        ("data_dir", "--data-dir", &args.data_dir),
        ("listen.quic", "--listen-quic", &args.listen_quic),
        ("listen.http", "--listen-http", &args.listen_http),
        ("listen.resp", "--listen-resp", &args.listen_resp),
        ("consensus.durability", "--durability", &args.durability),
        ("consensus.profile", "--profile", &args.profile),
        ("log.filter", "--log", &args.log),
    ] {
        if let Some(value) = value {
            overrides.set(path, flag, value);
        }
    }
    Ok(overrides)
}

/// Logs go to standard error only.
fn start_log(config: &LogConfig) {
    let filter = EnvFilter::new(&config.filter);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // What cannot be written is told of on the same standard error, which would be a panic.
    let lines = lines.log_internal_errors(false);
    // A program that embeds us may have its own subscriber already; then that one stays.
    let _ = match config.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(colour).finish().with(trace::layer()).try_init()
        }
        LogFormat::Json => lines.json().finish().with(trace::layer()).try_init(),
    };
}

/// What people and service managers stop processes with.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }

    /// The first signal asks for an orderly stop, the second ends the process.
    pub(crate) async fn serve(mut self, trigger: StopTrigger) {
        self.next().await;
        tracing::info!("stopping; once more to stop at once");
        trigger.stop();
        self.next().await;
        stop_at_once();
    }
}

/// The second signal: nothing is waited for.
#[expect(clippy::exit, reason = "whoever asks twice wants no more cleaning up")]
pub(crate) fn stop_at_once() -> ! {
    std::process::exit(1)
}
