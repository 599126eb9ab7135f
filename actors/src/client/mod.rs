//! A program outside the cluster that wants each of its commands executed exactly once.
//!
//! ```no_run
//! # use actix::{Actor, Handler, Message};
//! # use serde::{Deserialize, Serialize};
//! # use synod::{message::RemoteMessage, replicated::{Replicated, Turn}};
//! # #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! # #[rtype(result = "u64")]
//! # #[remote(name = "counter.add")]
//! # struct Add { by: u64 }
//! # #[derive(Default, Serialize, Deserialize, Replicated)]
//! # #[replicated(name = "counter", commands(Add))]
//! # struct Counter { total: u64 }
//! # impl Actor for Counter { type Context = Turn; }
//! # impl Handler<Add> for Counter {
//! #     type Result = u64;
//! #     fn handle(&mut self, add: Add, _: &mut Turn) -> u64 { self.total += add.by; self.total }
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = synod::Client::connect("client.toml").await?;
//! let counter = client.handle::<Counter>("counter");
//! let total = counter.send(Add { by: 2 }).await?; // once, whichever nodes die meanwhile
//! # Ok(()) }
//! ```
//!
//! # Layout
//! - [`Client`]: what a program holds
//! - `engine`: numbers, sends, and sends again
//! - `file`: `client.toml`; `http`: one request

mod engine;
mod file;
mod http;

use std::{fmt, path::Path, sync::Arc, thread, time::Duration};

use tokio::sync::{
    mpsc::{Sender, channel, error::TrySendError},
    oneshot,
};

use self::engine::{Ask, Engine};
pub(crate) use self::{
    file::{ClientFile, ClientNode},
    http::{Answer, Credentials, Feed, Http, NoAnswer},
};
use crate::{
    replicated::{Handle, Inquiry, Outcome, Refusal, Replicated, Submission, Submit},
    server::config::ConfigError,
};

/// The way into a cluster from outside, with a session of its own there. Cloning is cheap; it works
/// from any thread and any runtime, since a thread of its own does the talking.
///
/// It goes from node to node until one serves, and sends a command whose answer was lost again under
/// its number in the session, so that it is executed once. Commands of one client are executed in
/// the order they were sent. A session that was not used for an hour ends: the next command begins a
/// new one, unless it was in doubt whether it had been executed already; then the call ends with
/// [`CallError::SessionExpired`](crate::replicated::CallError::SessionExpired).
///
/// Exactly once reaches as far as this value lives. For an intention that must survive the program,
/// give the call an idempotency key that the program keeps
/// ([`Call::idempotency`](crate::replicated::Call::idempotency)).
#[derive(Clone)]
pub struct Client {
    asks: Arc<Asks>,
}

/// Into the thread.
struct Asks(Sender<Ask>);

impl Client {
    /// Reads the client file that `dev` or `init` wrote, finds a node that serves, and opens a
    /// session. Waits five seconds at most.
    ///
    /// # Errors
    /// The file, or that nobody serves; nothing was changed.
    pub async fn connect(file: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = file.as_ref().to_owned();
        let file = ClientFile::load(&path)?;
        let (asks, asked) = channel(ASKS_MAX);
        let (tell, ready) = oneshot::channel();
        let talk = move || {
            actix_rt::System::new().block_on(async move {
                let opened = match file.http(&path) {
                    Ok(http) => Engine::open(http, file.nodes, CONNECT_PATIENCE).await,
                    Err(error) => Err(error.into()),
                };
                match opened {
                    // Else nobody waits for it any more.
                    Ok(engine) => {
                        if tell.send(Ok(())).is_ok() {
                            engine.run(asked).await;
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        };
        let started = thread::Builder::new().name("synod-client".to_owned()).spawn(talk);
        started.map_err(|error| ConnectError::Nobody(format!("no thread: {error}")))?;
        match ready.await {
            Ok(opened) => opened?,
            Err(_) => return Err(ConnectError::Nobody("its thread ended".to_owned())),
        }
        Ok(Self { asks: Arc::new(Asks(asks)) })
    }

    /// The replicated actor called `name`, as programs inside the cluster hold it.
    pub fn handle<A: Replicated>(&self, name: &str) -> Handle<A> {
        Handle::new(self.submit(), name)
    }

    /// The way in without types. Outcomes are told on the client's own thread.
    pub fn submit(&self) -> Arc<dyn Submit> {
        Arc::clone(&self.asks) as Arc<dyn Submit>
    }
}

impl Asks {
    fn ask(&self, ask: Ask) {
        let (ask, why) = match self.0.try_send(ask) {
            Ok(()) => return,
            Err(TrySendError::Full(ask)) => (ask, "overloaded: too many calls wait"),
            Err(TrySendError::Closed(ask)) => (ask, "the client's thread ended"),
        };
        ask.into_done()(Outcome::NotApplied(Refusal::from(why)));
    }
}

impl Submit for Asks {
    fn submit(&self, batch: Vec<Submission>) {
        batch.into_iter().for_each(|command| self.ask(Ask::Command(command)));
    }

    fn query(&self, batch: Vec<Inquiry>) {
        batch.into_iter().for_each(|query| self.ask(Ask::Query(query)));
    }
}

/// Why there is no client. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The client file, or what it names.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// No node of it serves.
    #[error("nobody serves: {0}")]
    Nobody(String),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Calls that wait to be sent; more are refused at once.
const ASKS_MAX: usize = 65_536;

/// A cluster that just starts serves within this time.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
