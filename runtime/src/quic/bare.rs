//! The limit: stock quinn with the certificates and settings of nodes, and nothing of ours above or
//! below it. What actors reach is measured against this.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use quinn::TokioRuntime;

use super::{Settings, configs, connection::explain, listen, tls};
use crate::{
    identity::{ClusterName, NodeName},
    world::network::{BindError, TlsFiles},
};

/// A socket on loopback. Its work is done by tasks of the arbiter that binds it.
pub struct BareQuic {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    cluster: ClusterName,
}

impl BareQuic {
    /// Opens it on a free port.
    ///
    /// # Errors
    /// Certificates that cannot be used, or no port.
    pub fn bind(
        cluster: &ClusterName,
        files: &TlsFiles,
        settings: &Settings,
    ) -> Result<Self, BindError> {
        let tls = tls::configure(files)?;
        let (server, client) = configs(settings, &tls);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = listen(settings, address, server, &tls, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, client, cluster: cluster.clone() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Reaches `peer`.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn dial(&self, peer: &NodeName, to: SocketAddr) -> Result<BarePipe, String> {
        let name = tls::dns_name(peer, &self.cluster);
        let dialling = self.endpoint.connect_with(self.client.clone(), to, &name);
        let connection = dialling.map_err(|e| e.to_string())?.await.map_err(|e| explain(&e))?;
        let send = greeted(&connection).await?;
        let recv = greeting(&connection).await?;
        Ok(BarePipe { connection, send, recv })
    }

    /// The next peer's.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn accept(&self) -> Result<BarePipe, String> {
        let incoming = self.endpoint.accept().await.ok_or("the socket is closed")?;
        let connection = incoming.await.map_err(|e| explain(&e))?;
        let recv = greeting(&connection).await?;
        let send = greeted(&connection).await?;
        Ok(BarePipe { connection, send, recv })
    }
}

impl std::fmt::Debug for BareQuic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BareQuic").field(&self.endpoint.local_addr().ok()).finish()
    }
}

/// The peer sees a stream with its first byte.
async fn greeted(connection: &quinn::Connection) -> Result<quinn::SendStream, String> {
    let mut send = connection.open_uni().await.map_err(|e| explain(&e))?;
    send.write_all(&[0]).await.map_err(|e| e.to_string())?;
    Ok(send)
}

async fn greeting(connection: &quinn::Connection) -> Result<quinn::RecvStream, String> {
    let mut recv = connection.accept_uni().await.map_err(|e| explain(&e))?;
    recv.read_exact(&mut [0]).await.map_err(|e| e.to_string())?;
    Ok(recv)
}

/// One stream each way.
#[derive(Debug)]
pub struct BarePipe {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl BarePipe {
    /// Writes all of it, as soon as there is room.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), String> {
        self.send.write_chunk(bytes).await.map_err(|e| e.to_string())
    }

    /// Ends what is written.
    pub fn finish(&mut self) {
        // Only a stream that is gone cannot be ended.
        self.send.finish().ok();
    }

    /// The next bytes, cut as the network cut them; `None` at the end.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn read(&mut self) -> Result<Option<Bytes>, String> {
        let chunk = self.recv.read_chunk(usize::MAX, true).await.map_err(|e| e.to_string())?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }

    /// Waits until the peer has all, or is gone.
    pub async fn close(self) {
        let Self { connection, mut send, .. } = self;
        send.finish().ok();
        send.stopped().await.ok();
        connection.close(quinn::VarInt::from_u32(0), b"done");
    }
}
