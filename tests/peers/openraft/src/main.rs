//! A key/value server of three nodes made of openraft, as plain as it can be while it keeps what it
//! acknowledged: `openraft-peer ID DIR RAFT,RAFT,RAFT RESP` with the addresses of all nodes' Raft ports
//! in the order of their numbers (from 1 on), and this node's address for clients.
//!
//! Clients speak RESP: `SET`, `GET` and, for the measuring script, `LEADER`. Every entry is synced before
//! it counts (`log.rs`, one sync for all that waits). Any node takes any call; who does not lead passes
//! it on. Snapshots are not taken: a run is short.

mod log;
mod network;
mod resp;
mod state;

use std::{collections::BTreeMap, env, io::Cursor, path::Path, sync::Arc, time::Duration};

use openraft::{
    BasicNode, Config, SnapshotPolicy,
    error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError},
};
use serde::{Deserialize, Serialize};

use crate::{
    log::Log,
    network::{Ask, Network, Said},
    state::State,
};

pub type NodeId = u64;
pub type Raft = openraft::Raft<TypeConfig>;
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Set {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Set,
        R = (),
);

/// What a client wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    Set(Set),
    Get(Vec<u8>),
}

/// One node.
pub struct Node {
    pub raft: Raft,
    state: State,
    /// To the other nodes.
    ways: BTreeMap<NodeId, Network>,
}

/// How often a call is tried while nobody leads, and how long it waits in between.
const TRIES: u32 = 200;
const BETWEEN: Duration = Duration::from_millis(10);

impl Node {
    /// Does what a client wants, here or at the leader.
    pub async fn call(&self, call: Call) -> Result<Option<Vec<u8>>> {
        for _ in 0..TRIES {
            let leader = match self.lead(&call).await? {
                Ok(answer) => return Ok(answer),
                Err(leader) => leader.leader_id,
            };
            if let Some(way) = leader.and_then(|leader| self.ways.get(&leader))
                && let Ok(Said::Answer(answer)) = way.ask(&Ask::Call(call.clone())).await
            {
                return Ok(answer);
            }
            tokio::time::sleep(BETWEEN).await;
        }
        Err("nobody leads".into())
    }

    /// The same, if this node leads; else who does.
    pub async fn lead(
        &self,
        call: &Call,
    ) -> Result<std::result::Result<Option<Vec<u8>>, ForwardToLeader<NodeId, BasicNode>>> {
        match call {
            Call::Set(set) => match self.raft.client_write(set.clone()).await {
                Ok(_) => Ok(Ok(None)),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Ok(Err(to)),
                Err(error) => Err(error.into()),
            },
            Call::Get(key) => match self.raft.ensure_linearizable().await {
                Ok(_) => Ok(Ok(self.state.get(key))),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => Ok(Err(to)),
                Err(error) => Err(error.into()),
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [id, dir, rafts, resp] = &args[..] else {
        return Err("openraft-peer ID DIR RAFT,RAFT,RAFT RESP".into());
    };
    let id: NodeId = id.parse()?;
    let rafts: Vec<&str> = rafts.split(',').collect();
    let members: BTreeMap<NodeId, BasicNode> =
        (1..).zip(rafts.iter().map(|at| BasicNode::new(at))).collect();
    // Patience like that of Synod's defaults.
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 200,
        election_timeout_max: 300,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let (log, begun) = Log::open(Path::new(dir))?;
    let state = State::default();
    let network = network::Ways::default();
    let raft = Raft::new(id, Arc::new(config.validate()?), network, log, state.clone()).await?;
    let others = members.iter().filter(|(other, _)| **other != id);
    let ways = others.map(|(other, node)| (*other, Network::to(*other, &node.addr))).collect();
    let node = Arc::new(Node { raft, state, ways });
    let served = tokio::spawn(network::serve(node.clone(), rafts[id as usize - 1].to_owned()));
    if !begun && id == 1 {
        node.raft.initialize(members).await?;
    }
    resp::serve(node, resp).await?;
    served.await?
}
