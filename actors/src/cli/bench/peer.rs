//! The other process of `bench remote`: a node with the listener, and the far ends of the limits.

use std::{
    io::{BufRead as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use actix_rt::{
    System,
    time::{sleep, timeout},
};
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::NodeId,
    node::Node,
    quic::{Settings, bare::BareQuic},
    world::network::TlsFiles,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use super::{
    bare::{Over, Pipe, serve},
    listener::{LISTENER, Listener},
    pair::{authority, cluster, config, issue, start},
};
use crate::cli::{failure::Failure, process};

/// The verb that starts it; people have no use for it.
pub(in crate::cli) const VERB: &str = "bench-peer";

/// What it needs to begin with, on standard input.
#[derive(Serialize, Deserialize)]
struct Begin {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Where it listens, on standard output.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    node: SocketAddr,
    quic: SocketAddr,
    tcp: SocketAddr,
}

/// The process, and the node here that is linked to its.
pub(super) struct Peer {
    pub(super) node: Node,
    /// Its node.
    pub(super) id: NodeId,
    ready: Ready,
    quic: BareQuic,
    child: Child,
}

impl Peer {
    /// Starts it and links a node of this process to it.
    pub(super) async fn start() -> Result<Self, Failure> {
        let cannot = |e: std::io::Error| Failure::failed("the other process", e, "report this");
        let authority = authority()?;
        let theirs = issue(&authority, "b")?;
        let begin = Begin { ca: theirs.ca, cert: theirs.cert, key: theirs.key };
        let mut line = serde_json::to_vec(&begin).expect("bytes");
        line.push(b'\n');

        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg(VERB).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        process::tie_to_us(command.as_std_mut());
        let mut child = command.spawn().map_err(cannot)?;
        let mut input = child.stdin.take().expect("asked for above");
        input.write_all(&line).await.map_err(cannot)?;
        let mut said = BufReader::new(child.stdout.take().expect("asked for above")).lines();
        let late = || Failure::failed("the other process", "did not start in time", "report this");
        let said = timeout(START_TIME_MAX, said.next_line()).await.map_err(|_| late())?;
        let said = said.map_err(cannot)?.ok_or_else(late)?;
        let ready: Ready = serde_json::from_str(&said).map_err(|_| late())?;

        let mine = issue(&authority, "a")?;
        let bare = BareQuic::bind(&cluster(), &mine, &Settings::default());
        let quic = bare.map_err(|e| Failure::failed("bare QUIC", e, "report this"))?;
        let node = start(config("a", mine))?;
        node.links().connect(&"b".parse().expect("a letter"), &ready.node.to_string());
        let listener = async {
            loop {
                match node.lookup::<Listener>(LISTENER) {
                    Ok(found) => break found.node().clone(),
                    Err(_) => sleep(LOOK_AGAIN).await,
                }
            }
        };
        let id = timeout(START_TIME_MAX, listener).await.map_err(|_| late())?;
        Ok(Self { node, id, ready, quic, child })
    }

    /// A pipe to it.
    pub(super) async fn pipe(&self, over: Over) -> Result<Pipe, String> {
        match over {
            Over::Tcp => Pipe::tcp(self.ready.tcp).await,
            Over::Quic => {
                let pipe = self.quic.dial(&"b".parse().expect("a letter"), self.ready.quic).await?;
                Ok(Pipe::Quic(Box::new(pipe)))
            }
        }
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        self.node.shutdown();
        self.child.kill().await.ok();
    }
}

/// The process itself. Ends with the one that started it.
pub(in crate::cli) fn run() -> Result<(), Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::usage(VERB, e.to_string(), "use `bench remote`, which starts it")
    };
    let mut line = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut line).map_err(|e| wrong(&e))?;
    let Begin { ca, cert, key } = serde_json::from_slice(&line).map_err(|e| wrong(&e))?;
    let files = TlsFiles { ca, cert, key };
    System::new().block_on(async {
        let cannot = |e: std::io::Error| Failure::failed(VERB, e, "report this");
        let bare = BareQuic::bind(&cluster(), &files, &Settings::default());
        let quic = bare.map_err(|e| Failure::failed(VERB, e, "report this"))?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
        let node = start(config("b", files))?;
        let addr = node.spawn(LISTENER, Listener::default);
        node.register(LISTENER, addr).map_err(|e| Failure::failed(LISTENER, e, "report this"))?;
        let ready = Ready {
            node: node.links().local_addr(),
            quic: quic.local_addr().map_err(cannot)?,
            tcp: tcp.local_addr().map_err(cannot)?,
        };
        let said = serde_json::to_string(&ready).expect("addresses");
        writeln!(std::io::stdout(), "{said}").map_err(cannot)?;
        serve(quic, tcp).await;
        Ok(())
    })
}

/// Both start in a few milliseconds; a busy machine takes longer.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether the listener is known here.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
