//! What is asked of the store of roles, and what it answers. These words stand in the log.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::lease::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN};
use crate::replicated::Position;

/// The number that fences a holder: the position of the command that granted the role. 0: never
/// granted.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A role by number: what renewals name. A role that is made anew has a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleId(pub u32);

/// One process, actor or request that stands: never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClientKey {
    /// One life of one node's election service, drawn at random.
    pub service: u64,
    /// Counts the clients of that life.
    pub number: u64,
}

/// Who stands for a role, or holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Client {
    /// What tells it from all others.
    pub key: ClientKey,
    /// As people call it.
    pub name: String,
    /// The node whose service speaks for it.
    pub node: String,
}

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// The lease T, in milliseconds.
    lease_ms: u32,
    /// Of those who stand the highest is next; among equals who stood first.
    pub priority: u8,
}

impl Default for Terms {
    fn default() -> Self {
        Self::new(LEASE_DEFAULT, 0).expect("the default is allowed")
    }
}

impl Terms {
    /// Terms of that lease, in whole milliseconds.
    ///
    /// # Errors
    /// When it is shorter or longer than leases may be.
    pub fn new(lease: Duration, priority: u8) -> Result<Self, Refusal> {
        if lease < LEASE_MIN || lease > LEASE_MAX {
            return Err(Refusal::BadLease(lease));
        }
        let lease_ms = u32::try_from(lease.as_millis()).expect("the longest lease fits");
        Ok(Self { lease_ms, priority })
    }

    /// The lease; within the bounds, whatever came over the wire.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.into()).clamp(LEASE_MIN, LEASE_MAX)
    }
}

/// One request to the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Makes a role; one that is there stays as it is.
    Add {
        /// Its name.
        role: String,
    },
    /// Removes a role; one that is held goes when its holder does, and is renewed no more.
    Remove {
        /// Its name.
        role: String,
    },
    /// Asks for a role, which is made if need be.
    Take {
        /// Its name.
        role: String,
        /// For whom.
        client: Client,
        /// What it wants.
        terms: Terms,
        /// Whether it stands for the role while another holds it.
        stand: bool,
    },
    /// Renews, for one node, all it holds and all it stands for.
    Renew(Renew),
    /// Renews what was taken by way of another node: who knows name and epoch is the holder.
    Adopt {
        /// The role.
        role: String,
        /// The epoch held.
        epoch: Epoch,
        /// The holder as it is from now on; its name must be that of the present one.
        client: Client,
    },
    /// The holder has stopped acting.
    Resign {
        /// The role.
        role: String,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The client has ended, or stands no longer; it does not act and never will.
    Leave {
        /// The role.
        role: String,
        /// Who.
        client: ClientKey,
    },
    /// The lease has run out by the proposer's own count.
    Expire {
        /// The role.
        role: RoleId,
        /// Of which epoch.
        epoch: Epoch,
        /// The renewal that was counted from.
        renewal: Position,
    },
    /// Who stands was not renewed for a lease, by the proposer's own count.
    Drop {
        /// The role.
        role: RoleId,
        /// Who.
        client: ClientKey,
        /// The renewal that was counted from.
        renewal: Position,
    },
    /// That node leads the log, and so has charge of the system: the [built-in role](SYSTEM_MANAGER).
    /// Nothing else gives it to anybody.
    Charge {
        /// Who leads.
        client: Client,
        /// The newest epoch of the role that it knew of: nothing happens if there is a newer one.
        after: Epoch,
    },
    /// A write comes with this epoch.
    Fence {
        /// The role, of this store or of another.
        role: String,
        /// The writer's epoch.
        epoch: Epoch,
    },
}

/// One node's renewal. Short, since it may name ten thousand roles.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Renew {
    /// Which life of which service.
    pub service: u64,
    /// What its clients hold.
    pub held: Vec<(RoleId, Epoch)>,
    /// What they stand for, each with the client's number.
    pub stood: Vec<(RoleId, u64)>,
}

/// What the store answers to one [`Op`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// It is so now.
    Done,
    /// Take: the role is the client's, by this very request.
    Granted(Grant),
    /// Take: another holds it, the client stands.
    Standing(RoleId, Holder),
    /// Take: it is held. By the asking client itself, perhaps.
    Held(RoleId, Holder),
    /// Renew: all but these.
    Renewed(Exceptions),
    /// Nothing was changed.
    Refused(Refusal),
}

/// A role granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Which.
    pub role: RoleId,
    /// The new epoch.
    pub epoch: Epoch,
    /// On what terms.
    pub terms: Terms,
}

/// Who holds a role, as others are told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub client: Client,
    /// Since which command.
    pub epoch: Epoch,
    /// On what terms.
    pub terms: Terms,
}

/// What a renewal named and is not so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exceptions {
    /// Places in [`Renew::held`]: not held in that epoch any more.
    pub lost: Vec<u32>,
    /// Places in [`Renew::stood`] whose client holds the role by now.
    pub granted: Vec<(u32, Grant)>,
    /// Places in [`Renew::stood`]: does not stand.
    pub gone: Vec<u32>,
}

/// Why the store did nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No role of that name.
    #[error("there is no role {0}")]
    UnknownRole(String),
    /// The role is being removed.
    #[error("role {0} is being removed")]
    Removing(String),
    /// Resign or Adopt: not held like that.
    #[error("role {role} is not held so: {}", holder_text(.holder.as_ref()))]
    NotHeld {
        /// The role.
        role: String,
        /// How it is.
        holder: Option<Holder>,
    },
    /// A name that no role or client can have.
    #[error("the name of a {what} has 1 to {NAME_BYTES_MAX} printable characters, without spaces")]
    BadName {
        /// Of what.
        what: String,
    },
    /// A lease that is too short or too long.
    #[error("a lease lasts {LEASE_MIN:?} to {LEASE_MAX:?}, not {0:?}")]
    BadLease(Duration),
    /// An epoch that nothing can have granted.
    #[error("no role has epoch {0}")]
    BadEpoch(Epoch),
    /// The built-in role is nobody's to take, give up, make or remove.
    #[error(
        "role {SYSTEM_MANAGER} is built in: whoever leads the log has it; `members lead NAME` \
         names another"
    )]
    BuiltIn,
    /// A bound of the store is reached.
    #[error("{0}")]
    Full(String),
    /// A newer epoch of that role is known.
    #[error("role {role} was granted in epoch {known}, which is above {epoch}")]
    Fenced {
        /// The role.
        role: String,
        /// The writer's epoch.
        epoch: Epoch,
        /// The highest known.
        known: Epoch,
    },
}

fn holder_text(holder: Option<&Holder>) -> String {
    let by = |holder: &Holder| format!("{} leads in epoch {}", holder.client.name, holder.epoch);
    holder.map_or_else(|| "nobody leads".to_owned(), by)
}

/// A role as people are shown it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleView {
    /// Its name.
    pub role: String,
    /// The newest epoch; that of the holder, if there is one.
    pub epoch: Epoch,
    /// Who leads.
    pub holder: Option<Holder>,
    /// Who stands, next first.
    pub volunteers: Vec<Client>,
    /// Whether it goes when its holder does.
    pub removing: bool,
    /// When it would expire, by the count of the main that answers.
    pub expires_in: Option<Duration>,
}

/// The role that is always there: of the node that leads the log. Changes of members, of services and
/// of the cluster's version are steps of the log, which that node alone proposes; so it alone changes
/// the system. It has no lease: another has it as soon as another leads.
pub const SYSTEM_MANAGER: &str = "system-manager";

/// What happened to a role: the holder changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// By number.
    pub role: RoleId,
    /// By name.
    pub name: String,
    /// Who leads from now on.
    pub holder: Option<Holder>,
}

/// Whether a role or client can be called so.
///
/// # Errors
/// [`Refusal::BadName`].
pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let sound = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if sound { Ok(()) } else { Err(Refusal::BadName { what: what.to_owned() }) }
}

/// Names stand in every main's memory, in paths of requests and in labels of metrics.
pub const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client that wants the role, and stands for it if another has it.
    pub(in crate::election) fn take(role: &str, number: u64) -> Op {
        let key = ClientKey { service: 7, number };
        let client = Client { key, name: format!("c{number}"), node: "a".to_owned() };
        Op::Take { role: role.to_owned(), client, terms: Terms::default(), stand: true }
    }
}
