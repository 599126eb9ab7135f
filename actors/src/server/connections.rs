//! The connections of a port: how they are taken, and hung up on.

use std::{net::SocketAddr, pin::pin, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::sleep,
};

/// Connections that were taken, each served by a task of its own on this arbiter. Dropped, everybody
/// is hung up on.
#[derive(Debug)]
pub struct Connections {
    tasks: JoinSet<()>,
    most: usize,
    port: &'static str,
}

impl Connections {
    /// None yet, of a port that people call so (`"HTTP"`); later so many at a time.
    pub fn new(port: &'static str, most: usize) -> Self {
        Self { tasks: JoinSet::new(), most, port }
    }

    /// Takes whoever comes, until `stop` returns; `serve` makes the task that serves one.
    pub async fn take<T: Future<Output = ()> + 'static>(
        &mut self,
        listener: &TcpListener,
        stop: impl Future<Output = ()>,
        mut serve: impl FnMut(TcpStream, SocketAddr) -> T,
    ) {
        let (mut stop, port) = (pin!(stop), self.port);
        loop {
            // More wait in the system's queue until one of these ends.
            let full = self.tasks.len() >= self.most;
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                Some(ended) = self.tasks.join_next() => {
                    note(port, ended);
                    continue;
                }
                accepted = listener.accept(), if !full => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.tasks.spawn_local(serve(stream, peer));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: others must end before one can begin.
                    tracing::warn!(port, %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until all have ended by themselves.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            note(self.port, ended);
        }
    }

    /// Hangs up on everybody, and returns once nothing serves them any more.
    pub async fn hang_up(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What panicked took its connection with it, and nothing else.
fn note(port: &str, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(port, %error, "what served a connection failed");
    }
}

/// After a failed accept: short for people, long for a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
