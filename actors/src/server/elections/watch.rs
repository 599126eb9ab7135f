//! Watching roles: every change, in order, as it is decided.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use actix::Message;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    address::{RemoteRecipient, SendError},
    message::RemoteMessage,
};

use super::Elections;
use crate::election::{
    message::RoleView,
    watch::{Mark, Notice, Since, Told},
};

/// What whoever watches hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// How everything stands: at first, and whenever more was missed than is kept. What is behind
    /// the mark follows.
    State {
        /// The roles that are watched, by name, as far as they exist.
        roles: Vec<RoleView>,
        /// To go on from.
        mark: Mark,
    },
    /// One change. All changes come, each once, in order.
    Changed(Notice),
    /// Whether what was heard may be old, since no quorum confirms it (any more).
    Stale(bool),
}

impl Heard {
    /// To go on from, here or at another node: see [`Watch::after`].
    pub const fn mark(&self) -> Option<Mark> {
        match self {
            Self::State { mark, .. } => Some(*mark),
            Self::Changed(notice) => Some(notice.mark),
            Self::Stale(_) => None,
        }
    }
}

/// What an actor that watches is sent: see [`Watch::deliver`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "synod.role_news")]
pub struct RoleNews {
    /// The news.
    pub heard: Heard,
}

/// Every change of one role, or of all. Nothing is kept for whoever does not ask for long: it hears
/// how everything stands, once it does.
pub struct Watch {
    elections: Elections,
    role: Option<String>,
    mark: Option<Mark>,
    stale: bool,
    waiting: VecDeque<Heard>,
}

impl Elections {
    /// Watches a role, which need not exist (yet), or all of them. What is heard first is how they
    /// stand.
    pub fn watch(&self, role: Option<&str>) -> Watch {
        let role = role.map(str::to_owned);
        let (elections, waiting) = (self.clone(), VecDeque::new());
        Watch { elections, role, mark: None, stale: false, waiting }
    }
}

impl Watch {
    /// Goes on behind that mark, wherever it was heard; what was missed since comes first.
    #[must_use]
    pub fn after(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    /// What happens next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Heard {
        let elections = self.elections.clone();
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                return heard;
            }
            // Whatever is executed while this asks wakes it afterwards.
            let mut seen = std::pin::pin!(elections.0.seen.notified());
            seen.as_mut().enable();
            self.ask().await;
            if self.waiting.is_empty() {
                let wait = if elections.0.store().wakes() { LOOK_EVERY } else { ASK_EVERY };
                let _news_or_time = tokio::time::timeout(wait, seen).await;
            }
        }
    }

    /// Sends all that is heard to an actor, wherever it lives, one after the other, until it is
    /// gone, or cannot be reached for a minute. What it may not have got is sent again: then it
    /// gets the same mark twice. Call it where local tasks can be spawned.
    pub fn deliver(mut self, to: RemoteRecipient<RoleNews>) {
        let node = self.elections.node().clone();
        let clock = Arc::clone(node.clock());
        node.task(async move {
            let mut reached = clock.now();
            loop {
                let news = RoleNews { heard: self.next().await };
                while let Err(error) = to.send(news.clone()).await {
                    let lost = clock.now().since(reached) > GONE_AFTER;
                    if lost || is_final(&error) {
                        return tracing::debug!(%error, "nobody watches there any more");
                    }
                    tokio::time::sleep(SEND_AGAIN).await;
                }
                reached = clock.now();
            }
        });
    }

    async fn ask(&mut self) {
        let since = Since { role: self.role.clone(), mark: self.mark };
        let told = self.elections.0.store().since(since).await;
        let stale = told.is_err();
        if std::mem::replace(&mut self.stale, stale) != stale {
            self.waiting.push_back(Heard::Stale(stale));
        }
        let Ok(Told { state, notices, upto }) = told else { return };
        if let Some(roles) = state {
            self.waiting.push_back(Heard::State { roles, mark: upto });
        }
        self.waiting.extend(notices.into_iter().map(Heard::Changed));
        self.mark = Some(upto);
    }
}

/// Whether the same message fares no better a little later.
const fn is_final(error: &SendError) -> bool {
    match error {
        SendError::NoSuchActor
        | SendError::Incompatible { .. }
        | SendError::Fenced { .. }
        | SendError::Codec => true,
        SendError::Timeout
        | SendError::Unreachable
        | SendError::Overloaded
        | SendError::Leaving
        | SendError::Closed => false,
    }
}

/// Whoever watches where the log is executed is woken; it asks all the same, to know whether what
/// it heard is still true.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Elsewhere it asks so often.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Between two attempts to reach an actor that watches.
const SEND_AGAIN: Duration = Duration::from_millis(100);

/// Who cannot be reached for so long has its news taken for good: it watches anew when it is back.
const GONE_AFTER: Duration = Duration::from_secs(60);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, mark, .. } = self;
        f.debug_struct("Watch").field("role", role).field("mark", mark).finish_non_exhaustive()
    }
}
