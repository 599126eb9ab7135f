//! Files of any size: a node that hangs is passed by, one that takes its time is waited for.

use std::time::Duration;

use actix_rt::time::{sleep, timeout};
use awc::http::Method;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use synod_runtime::world::{Clock as _, RealClock};

use super::{Cluster, DOWNLOAD_TIMEOUT, Failure, PAUSE};
use crate::{
    client::{ClientNode, NoAnswer},
    consensus::replica::STATE_BYTES_MAX,
    server::config::NodeRole,
};

/// Why a node gave no file.
struct NoFile {
    why: String,
    /// Some of it came.
    began: bool,
}

impl Cluster {
    /// A whole file of any main.
    pub(crate) async fn download(&self, path: &str) -> Result<Bytes, Failure> {
        let mut last = String::from("no main is up");
        let mut until = RealClock.now() + self.patience;
        let (mut round, mut begun) = (0, 0);
        loop {
            for node in self.file.nodes.iter().filter(|node| node.role == NodeRole::Main) {
                let left = until.since(RealClock.now());
                if left.is_zero() {
                    break;
                }
                let NoFile { why, began } =
                    match self.download_from(node, path, self.share(round).min(left)).await {
                        Ok(file) => return Ok(file),
                        Err(none) => none,
                    };
                last = format!("{} at {}: {why}", node.name, node.http);
                if began && begun < BREAKS_MAX {
                    begun += 1;
                    until = RealClock.now() + self.patience;
                }
            }
            if RealClock.now() >= until {
                return Err(self.nobody(&last));
            }
            round += 1;
            sleep(PAUSE).await;
        }
    }

    async fn download_from(
        &self,
        node: &ClientNode,
        path: &str,
        patience: Duration,
    ) -> Result<Bytes, NoFile> {
        let never = |why| NoFile { why, began: false };
        self.serves(node, patience).await.map_err(never)?;
        // To make a large state ready takes its time, and the node lives.
        let opened = tokio::select! {
            opened = self.http.stream(&node.http, path, DOWNLOAD_TIMEOUT) => opened,
            why = no_more(async || self.serves(node, patience).await, patience) => {
                return Err(never(why));
            }
        };
        let (status, mut parts) = opened.map_err(|none| match none {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) => never(why),
        })?;
        let broken = |why: &str| NoFile { why: why.to_owned(), began: status.is_success() };
        let most = usize::try_from(STATE_BYTES_MAX).unwrap_or(usize::MAX);
        let mut file = BytesMut::new();
        loop {
            match timeout(self.patience, parts.next()).await {
                Ok(Some(Ok(part))) if file.len() + part.len() <= most => {
                    file.extend_from_slice(&part);
                }
                Ok(Some(Ok(_))) => return Err(broken("it sends more than a state may have")),
                Ok(Some(Err(why))) => return Err(broken(&why)),
                Ok(None) if status.is_success() => return Ok(file.freeze()),
                Ok(None) => return Err(broken(&String::from_utf8_lossy(&file))),
                Err(_silent) => return Err(broken("it fell silent")),
            }
        }
    }

    /// Whether `node` says within the time that it serves.
    async fn serves(&self, node: &ClientNode, patience: Duration) -> Result<(), String> {
        let asked = self.ask(node, Method::GET, "/readyz", String::new(), patience);
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
            Ok(Ok(answer)) => Err(answer.error_text()),
            Ok(Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why))) => Err(why),
            Err(_silent) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether `node` says anything within the time: one that is busy with a large state lives.
    pub(super) async fn lives(&self, node: &ClientNode, patience: Duration) -> Result<(), String> {
        let asked = self.ask(node, Method::GET, "/healthz", String::new(), patience);
        match timeout(patience, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why))) => Err(why),
            Err(_silent) => Err("no answer in time".to_owned()),
        }
    }
}

/// Ends when a `look` has not been good for so long; why it was not.
pub(super) async fn no_more(
    look: impl AsyncFn() -> Result<(), String>,
    patience: Duration,
) -> String {
    let mut good = RealClock.now();
    loop {
        sleep(LOOK_EVERY).await;
        match look().await {
            Ok(()) => good = RealClock.now(),
            Err(why) if RealClock.now().since(good) >= patience => return why,
            Err(_) => {}
        }
    }
}

/// Files that broke off after a part of them came, before it is enough.
const BREAKS_MAX: u32 = 3;

/// Between two looks at a node that is busy with a file.
const LOOK_EVERY: Duration = Duration::from_millis(500);
