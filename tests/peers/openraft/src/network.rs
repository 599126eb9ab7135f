//! Between nodes: one connection a target, frames of MessagePack behind their length, one question at a
//! time.

use std::{io, sync::Arc};

use openraft::{
    BasicNode,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use crate::{Call, Node, NodeId, Result, TypeConfig};

/// What one node asks of another.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<NodeId>),
    Install(InstallSnapshotRequest<TypeConfig>),
    Call(Call),
}

/// What is said to it.
#[derive(Serialize, Deserialize)]
pub enum Said {
    Append(std::result::Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(std::result::Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Install(
        std::result::Result<
            InstallSnapshotResponse<NodeId>,
            RaftError<NodeId, InstallSnapshotError>,
        >,
    ),
    Answer(Option<Vec<u8>>),
    /// This node does not lead.
    Elsewhere,
}

/// A way to a node.
#[derive(Clone)]
pub struct Network {
    target: NodeId,
    at: Arc<str>,
    /// As many as were ever needed at once.
    idle: Arc<Mutex<Vec<BufStream<TcpStream>>>>,
}

impl Network {
    pub fn to(target: NodeId, at: &str) -> Self {
        Self { target, at: at.into(), idle: Arc::default() }
    }

    pub async fn ask(&self, ask: &Ask) -> io::Result<Said> {
        let idle = self.idle.lock().await.pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => connected(TcpStream::connect(&*self.at).await?)?,
        };
        write_frame(&mut stream, ask).await?;
        let said = read_frame(&mut stream).await?;
        self.idle.lock().await.push(stream);
        Ok(said)
    }

    async fn rpc<T, E: std::error::Error>(
        &self,
        ask: Ask,
        pick: impl Fn(Said) -> Option<std::result::Result<T, RaftError<NodeId, E>>>,
    ) -> std::result::Result<T, RPCError<NodeId, BasicNode, RaftError<NodeId, E>>> {
        let said = self.ask(&ask).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => RPCError::Unreachable(Unreachable::new(&error)),
            _ => RPCError::Network(NetworkError::new(&error)),
        })?;
        let odd = io::Error::other("it answered something else");
        let said = pick(said).ok_or_else(|| RPCError::Network(NetworkError::new(&odd)))?;
        said.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

type Rpc<T, E = openraft::error::Infallible> =
    std::result::Result<T, RPCError<NodeId, BasicNode, RaftError<NodeId, E>>>;

impl RaftNetwork<TypeConfig> for Network {
    async fn append_entries(
        &mut self,
        asked: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<NodeId>> {
        let pick = |said| if let Said::Append(said) = said { Some(said) } else { None };
        self.rpc(Ask::Append(asked), pick).await
    }

    async fn install_snapshot(
        &mut self,
        asked: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Rpc<InstallSnapshotResponse<NodeId>, InstallSnapshotError> {
        let pick = |said| if let Said::Install(said) = said { Some(said) } else { None };
        self.rpc(Ask::Install(asked), pick).await
    }

    async fn vote(
        &mut self,
        asked: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Rpc<VoteResponse<NodeId>> {
        let pick = |said| if let Said::Vote(said) = said { Some(said) } else { None };
        self.rpc(Ask::Vote(asked), pick).await
    }
}

/// Makes ways.
#[derive(Default)]
pub struct Ways;

impl RaftNetworkFactory<TypeConfig> for Ways {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Network {
        Network::to(target, &node.addr)
    }
}

/// Answers the other nodes.
pub async fn serve(node: Arc<Node>, at: String) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (node, mut stream) = (node.clone(), connected(stream)?);
        tokio::spawn(async move {
            while let Ok(ask) = read_frame(&mut stream).await {
                let said = match ask {
                    Ask::Append(asked) => Said::Append(node.raft.append_entries(asked).await),
                    Ask::Vote(asked) => Said::Vote(node.raft.vote(asked).await),
                    Ask::Install(asked) => Said::Install(node.raft.install_snapshot(asked).await),
                    Ask::Call(call) => match node.lead(&call).await {
                        Ok(Ok(answer)) => Said::Answer(answer),
                        Ok(Err(_)) | Err(_) => Said::Elsewhere,
                    },
                };
                if write_frame(&mut stream, &said).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn connected(stream: TcpStream) -> io::Result<BufStream<TcpStream>> {
    stream.set_nodelay(true)?;
    Ok(BufStream::new(stream))
}

async fn write_frame(stream: &mut BufStream<TcpStream>, said: &impl Serialize) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(said).map_err(io::Error::other)?;
    stream.write_u32_le(u32::try_from(bytes.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn read_frame<T: DeserializeOwned>(stream: &mut BufStream<TcpStream>) -> io::Result<T> {
    let mut bytes = vec![0; stream.read_u32_le().await? as usize];
    stream.read_exact(&mut bytes).await?;
    rmp_serde::from_slice(&bytes).map_err(io::Error::other)
}
