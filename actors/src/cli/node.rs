//! `node`: one node of a cluster, until it is told to stop or learns that it was removed.

use std::fs;

use actix_rt::System;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{args::NodeArgs, failure::Failure};
use crate::{
    server::{
        self, ServerError, Service, StopTrigger,
        config::{LogConfig, LogFormat, NodeConfig, Overrides},
        stop_pair,
    },
    trace,
};

/// Runs the node that `args` names.
pub(crate) fn run(
    program: &str,
    args: &NodeArgs,
    services: Vec<Box<dyn Service>>,
) -> Result<(), Failure> {
    let mut config = NodeConfig::load(&args.config, overrides(args)?)?;
    config.consensus.accept_sole = args.accept_sole;
    if args.check {
        println!("{}: good", args.config.display());
        return Ok(());
    }
    let marker = config.data_dir.join(REMOVED_MARKER);
    if marker.exists() {
        eprintln!("{program}: node {} was removed from cluster {}", config.name, config.cluster);
        return Ok(());
    }
    start_log(&config.log);
    let (name, cluster) = (config.name.clone(), config.cluster.clone());
    let what = format!("node {name}");
    let ended = System::new().block_on(async {
        let (trigger, stop) = stop_pair();
        let signals = Signals::listen()?;
        actix_rt::spawn(signals.serve(trigger));
        Ok(server::run(config, services, stop).await)
    });
    let ended = ended.map_err(|e: std::io::Error| Failure::failed(&what, e, "report this"))?;
    match ended {
        Ok(server::Ended::Stopped) => Ok(()),
        Ok(server::Ended::Removed) => {
            eprintln!("{program}: node {name} was removed from cluster {cluster}");
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
        Err(e @ ServerError::Failed(_)) => Err(Failure::failed(what, e, "start it again")),
    }
}

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
