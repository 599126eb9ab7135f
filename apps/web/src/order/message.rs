//! What stands in the log: requests in their order, and what became of them at each site.

use actix::{Message, MessageResponse};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod::{message::RemoteMessage, server::config::OnMismatch};

use crate::{Apart, Past, Request, Response};

/// Who waits for a request's answer: a caller at a site. Another life of the site has other callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The main.
    pub site: String,
    /// Its life: what [`Join`] was answered.
    pub epoch: u64,
    /// The caller, named once in a life.
    pub ticket: u64,
}

/// A client's own name for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The `Idempotency-Key`.
    pub name: String,
    /// Digest of the request, to know it again.
    pub digest: String,
}

/// Gives a request its place. Answered with [`Arranged`].
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Arranged")]
#[remote(name = "web.arrange")]
pub struct Arrange {
    /// Who asks.
    pub origin: Origin,
    /// What the client calls it.
    pub key: Option<Key>,
    /// The request; without its body, if that was [announced](Announce) or came in [`Part`]s before,
    /// of the same ticket.
    pub request: Request,
    /// So many parts.
    pub parts: u32,
}

/// What became of [`Arrange`].
#[derive(Debug, Clone, PartialEq, Eq, MessageResponse, Serialize, Deserialize)]
pub enum Arranged {
    /// This is its place.
    At(u64),
    /// The same request has had that place before.
    Before {
        /// Its place.
        seq: u64,
    },
    /// The key was used before, for another request. Nothing changed.
    KeyReused,
    /// It has no place and will have none.
    Refused(String),
}

/// Two sites are about to keep a body apart, for a request to come: it stays for a minute after it was
/// announced last.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<(), String>")]
#[remote(name = "web.announce")]
pub struct Announce {
    /// Whose body it is.
    pub origin: Origin,
    /// The body.
    pub body: Apart,
}

/// A piece of a body too large for one command, where too few sites can keep it apart.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<(), String>")]
#[remote(name = "web.part")]
pub struct Part {
    /// Whose body it is.
    pub origin: Origin,
    /// The how-manieth, from 0.
    pub index: u32,
    /// The piece.
    pub bytes: Bytes,
}

/// A site begins a life: its node started, or its server was made good again.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Joined")]
#[remote(name = "web.join")]
pub struct Join {
    /// The main.
    pub site: String,
    /// Its server, for people.
    pub upstream: String,
    /// What its notes are of; none when it has no notes.
    pub lineage: Option<u64>,
    /// The last request its notes say was answered, without gaps below.
    pub applied: u64,
    /// The last request that failed, as its notes say, or that nobody knows of; 0 is none.
    pub lost: u64,
    /// What it wants to become of a site that differs.
    pub on_mismatch: OnMismatch,
    /// Whether its server can be copied.
    #[serde(default)]
    pub exports: bool,
    /// Whether its server keeps the number of what it performed last, with its data.
    #[serde(default)]
    pub recalls: bool,
    /// That number, once the server was asked.
    #[serde(default)]
    pub recalled: Option<u64>,
}

/// A site's new life.
#[derive(Debug, Clone, PartialEq, Eq, MessageResponse, Serialize, Deserialize)]
pub struct Joined {
    /// Names it. What it says under an older one is not heard.
    pub epoch: u64,
    /// Names what its notes are of from now on.
    pub lineage: u64,
    /// It has performed everything up to here.
    pub applied: u64,
    /// The last place given before this life.
    pub last: u64,
    /// Why it must not perform anything, if so.
    pub quarantined: Option<String>,
    /// Names the order, for servers that keep a number of it; 0 while no site has such a one.
    #[serde(default)]
    pub order: u64,
}

/// What became of requests at a site, one after the other.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Reported")]
#[remote(name = "web.report")]
pub struct Report {
    /// The main.
    pub site: String,
    /// Its life.
    pub epoch: u64,
    /// In their order, without gaps.
    pub done: Vec<Done>,
    /// Why its server cannot be reached at present, if so.
    pub down: Option<String>,
}

/// What became of a request at a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its place.
    pub seq: u64,
    /// What its server said.
    pub verdict: Verdict,
    /// All of it, if somebody may ask again.
    pub response: Option<Kept>,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It answered.
    Answered {
        /// With this status.
        status: u16,
        /// Digest of the status, the headers that must not differ, and the body.
        digest: String,
    },
    /// It answered what it may have been asked before: that may differ.
    Redone {
        /// With this status.
        status: u16,
    },
    /// Nobody knows whether it performed the request, and it must not be asked again.
    Lost(String),
}

/// A response for whoever asks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// The whole.
    Whole(Response),
    /// It was too large.
    TooLarge {
        /// Its status.
        status: u16,
    },
}

impl Kept {
    /// `response`, if it is not too large.
    pub(crate) fn of(response: &Response) -> Self {
        match weight(response) > KEPT_RESPONSE_MAX {
            true => Self::TooLarge { status: response.status },
            false => Self::Whole(response.clone()),
        }
    }

    /// `200`.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Whole(response) => response.status,
            Self::TooLarge { status } => *status,
        }
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Whole(response) => weight(response),
            Self::TooLarge { .. } => 0,
        }
    }
}

fn weight(response: &Response) -> usize {
    let headers = response.headers.iter();
    headers.map(|one| one.name.len() + one.value.len()).sum::<usize>() + response.body.len()
}

/// How a site stands after its report.
#[derive(Debug, Clone, PartialEq, Eq, MessageResponse, Serialize, Deserialize)]
pub struct Reported {
    /// It is in another life, or not known.
    pub stale: bool,
    /// All up to here is known of it.
    pub applied: u64,
}

/// Word on a rebuild: of the site whose server is made again, or of the one that is copied. Answered
/// with the rebuild's name, or why it is not so; [`News::Taken`] with the number it goes on after.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, String>")]
#[remote(name = "web.mend")]
pub struct Mend {
    /// The main that says it.
    pub site: String,
    /// Its life.
    pub epoch: u64,
    /// What is new.
    pub news: News,
}

/// What is new of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A quarantined site asks to be made as another is.
    Wanted,
    /// The copy is made, and its source may go on.
    Copied {
        /// The rebuild.
        id: u64,
        /// The copy.
        copy: Copied,
    },
    /// So much of the copy has come.
    Came {
        /// The rebuild.
        id: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The quarantined server is now what the copy is.
    Taken {
        /// The rebuild.
        id: u64,
    },
    /// It came to nothing.
    Failed {
        /// The rebuild.
        id: u64,
        /// Why.
        why: String,
    },
}

/// A copy of all that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// It has performed everything up to this, and nothing else.
    pub at: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub digest: String,
}

/// An operator's word on a site's server.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, String>")]
#[remote(name = "web.tend")]
pub struct Tend {
    /// The main.
    pub site: String,
    /// What is wanted; answered with the last number it has performed, or why not.
    pub wish: Wish,
}

/// What an operator wants of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Its server shall perform nothing for now, so that it can be copied.
    Hold,
    /// It shall go on.
    Release,
    /// Its server was made as another was that had performed everything up to this.
    Rejoin {
        /// The number.
        at: u64,
    },
    /// The site is no more: nobody waits for it.
    Remove,
}

/// The requests of this cluster's sites are put in order elsewhere: by a group, not by the log, which
/// hears this. From then on none is ordered here. Refused when sites have joined here.
#[derive(Debug, Clone, Copy, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<(), String>")]
#[remote(name = "web.elsewhere")]
pub struct Elsewhere {}

/// Whether they are.
#[derive(Debug, Clone, Copy, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
#[remote(name = "web.is_elsewhere")]
pub struct IsElsewhere {}

/// The last place given: all that was answered to anybody is not beyond it.
#[derive(Debug, Clone, Copy, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "web.last")]
pub struct Last {}

/// What became of the request of a key.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Past")]
#[remote(name = "web.past")]
pub struct Recall {
    /// The `Idempotency-Key`.
    pub key: String,
}

/// Larger responses are not kept for whoever asks again: a hundred of them would fill what is kept.
pub const KEPT_RESPONSE_MAX: usize = 1 << 20;
