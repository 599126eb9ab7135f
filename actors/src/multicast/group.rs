//! What the servers of a group agree on when it is made.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use super::message::Seq;

/// A group: who serves it, and its measures. Agreed on when the group is made, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The nodes that are its data, commit and checkpoint servers. The sequencer is one of them.
    pub servers: Vec<NodeId>,
    /// k_d: so many data servers have a message before it gets a number.
    pub k_data: usize,
    /// k_c: so many commit servers have a number before it is committed.
    pub k_commit: usize,
    /// k_p: so many checkpoint servers have a checkpoint before it is advertised.
    pub k_checkpoint: usize,
    /// L, the maximum logical lifetime: so many numbers after a message's stamp it gets none.
    pub lifetime: u64,
    /// A checkpoint is taken at every multiple of this.
    pub every: u64,
    /// So many messages below the checkpoint are kept as they are, for receivers that lag a little.
    pub keep: u64,
    /// The name of the state that follows its order on every node; nothing: its newest messages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
}

/// Why a group cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    /// Its name cannot be one.
    #[error(
        "{0:?} is no name of a group: use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '-', '_', '.'"
    )]
    Name(String),
    /// It has no servers, too many, or one of them twice.
    #[error("a group has 1 to {SERVERS_MAX} different servers, not {0}")]
    Servers(usize),
    /// More copies are wanted than there are servers.
    #[error("{what} = {k} is more than the group's {servers} servers, or none")]
    Copies {
        /// Which.
        what: &'static str,
        /// How many are wanted.
        k: usize,
        /// How many servers there are.
        servers: usize,
    },
    /// A measure that cannot be.
    #[error("{0} must be at least 1")]
    Measure(&'static str),
}

/// What a new group shall be like, whoever its servers will be. The fields that have the names of
/// [`Group`]'s mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are documented at `Group`")]
pub struct Measures {
    /// So many servers, if so many nodes serve.
    pub servers: usize,
    pub k_data: usize,
    pub k_commit: usize,
    pub k_checkpoint: usize,
    pub lifetime: u64,
    pub every: u64,
    pub keep: u64,
}

impl Default for Measures {
    /// Two copies of everything on three servers: one may be lost.
    fn default() -> Self {
        Self {
            servers: SERVERS,
            k_data: COPIES,
            k_commit: COPIES,
            k_checkpoint: COPIES,
            lifetime: LIFETIME,
            every: CHECKPOINT_EVERY,
            keep: KEEP,
        }
    }
}

impl Group {
    /// A group with the usual measures.
    pub fn new(name: impl Into<String>, servers: Vec<NodeId>) -> Self {
        Self::with(name, servers, &Measures::default())
    }

    /// A group with these measures; where there are fewer servers than copies are wanted, each has
    /// one.
    pub fn with(name: impl Into<String>, servers: Vec<NodeId>, measures: &Measures) -> Self {
        let Measures { servers: _, k_data, k_commit, k_checkpoint, lifetime, every, keep } =
            *measures;
        let most = servers.len();
        Self {
            name: name.into(),
            servers,
            k_data: k_data.min(most),
            k_commit: k_commit.min(most),
            k_checkpoint: k_checkpoint.min(most),
            lifetime,
            every,
            keep,
            application: String::new(),
        }
    }

    /// Whether a group can have that name.
    ///
    /// # Errors
    /// [`BadGroup::Name`].
    pub fn check_name(name: &str) -> Result<(), BadGroup> {
        let sound = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(sound) {
            return Err(BadGroup::Name(name.chars().take(NAME_BYTES_MAX).collect()));
        }
        Ok(())
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), BadGroup> {
        Self::check_name(&self.name)?;
        let servers = self.servers.len();
        let names: BTreeSet<_> = self.servers.iter().map(|server| &server.name).collect();
        if servers == 0 || servers > SERVERS_MAX || names.len() < servers {
            return Err(BadGroup::Servers(servers));
        }
        let copies = [
            ("k_data", self.k_data),
            ("k_commit", self.k_commit),
            ("k_checkpoint", self.k_checkpoint),
        ];
        for (what, k) in copies {
            if k == 0 || k > servers {
                return Err(BadGroup::Copies { what, k, servers });
            }
        }
        let measures = [("lifetime", self.lifetime), ("every", self.every)];
        let zero = measures.into_iter().find(|(_, measure)| *measure == 0);
        zero.map_or(Ok(()), |(what, _)| Err(BadGroup::Measure(what)))
    }

    /// How many commit servers a new sequencer seals: every set of so many holds one of any `k_c`.
    pub fn seals(&self) -> usize {
        self.servers.len() + 1 - self.k_commit
    }

    /// The place of a server among the servers.
    pub fn index(&self, server: &NodeId) -> Option<usize> {
        self.servers.iter().position(|one| one == server)
    }

    /// The last number a message with this stamp may get.
    pub fn lives_until(&self, stamp: Seq) -> Seq {
        Seq(stamp.0.saturating_add(self.lifetime))
    }

    /// What it survives, for people.
    pub fn survives(&self) -> Survives {
        Survives::with(self.servers.len(), self.k_data, self.k_commit, self.k_checkpoint)
    }
}

/// How many servers of a group may be lost at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survives {
    /// So many, and no committed message is lost.
    pub data: usize,
    /// So many, and the group goes on without them.
    pub service: usize,
}

impl Survives {
    /// Of a group with so many servers and copies; there are not more copies than servers.
    pub fn with(servers: usize, k_data: usize, k_commit: usize, k_checkpoint: usize) -> Self {
        let copies = k_data.min(k_commit).min(k_checkpoint);
        let goes_on = (servers - k_data.max(k_commit)).min(k_commit - 1);
        Self { data: copies - 1, service: goes_on.min(copies - 1) }
    }
}

impl fmt::Display for Survives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, service } = self;
        let servers = if *data == 1 { "server" } else { "servers" };
        write!(f, "loses nothing with {data} {servers} lost, and goes on with {service} lost")
    }
}

/// Which servers, of up to [`SERVERS_MAX`], said something; each counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    said: u32,
    /// How often anybody did, for a test that counts wrongly.
    words: u32,
}

impl Tally {
    pub(super) fn insert(&mut self, server: usize) {
        self.said |= 1 << server;
        self.words += 1;
    }

    pub(super) const fn contains(self, server: usize) -> bool {
        self.said & (1 << server) != 0
    }

    pub(super) const fn len(self) -> usize {
        self.said.count_ones() as usize
    }

    pub(super) const fn words(self) -> usize {
        self.words as usize
    }
}

/// Servers of a group, at most: each message is sent to each of them.
pub const SERVERS_MAX: usize = 16;

/// Bytes of a group's name: it is part of paths and of labels of metrics.
pub const NAME_BYTES_MAX: usize = 64;

/// Servers of a group, where there are so many nodes: one may be lost, and it goes on.
const SERVERS: usize = 3;

/// Copies of everything, where there are so many servers.
const COPIES: usize = 2;

/// A second and more of the fastest publishing, so that no usual delay ends a message's life.
const LIFETIME: u64 = 50_000;

/// Often enough that the servers' memory stays small, and seldom enough that checkpoints cost less
/// than the messages.
const CHECKPOINT_EVERY: u64 = 5_000;

/// A receiver that lags by less than this needs no checkpoint.
const KEEP: u64 = 2_000;

#[cfg(test)]
mod tests {
    use synod_runtime::identity::Incarnation;

    use super::*;

    fn group(servers: u64) -> Group {
        let names =
            (0..servers).map(|n| NodeId::new(format!("s{n}").parse().unwrap(), Incarnation(n)));
        Group::new("news", names.collect())
    }

    #[test]
    fn three_servers_go_on_without_one_and_two_only_keep_what_they_have() {
        assert_eq!(group(3).survives(), Survives { data: 1, service: 1 });
        assert_eq!(group(2).survives(), Survives { data: 1, service: 0 });
        assert_eq!(group(1).survives(), Survives { data: 0, service: 0 });
        assert_eq!(group(3).seals(), 2);
    }

    #[test]
    fn a_group_of_too_few_nodes_has_as_many_copies_as_there_are_servers() {
        let measures = Measures { servers: 5, k_data: 3, k_commit: 3, ..Measures::default() };
        let five = Group::with("news", group(5).servers, &measures);
        assert_eq!((five.k_data, five.k_commit, five.k_checkpoint), (3, 3, 2));
        let one = Group::with("news", group(1).servers, &measures);
        assert_eq!((one.k_data, one.k_commit, one.check()), (1, 1, Ok(())));
    }

    #[test]
    fn a_group_that_cannot_be_is_refused_by_what_is_wrong_with_it() {
        assert_eq!(group(3).check(), Ok(()));
        assert_eq!(group(0).check(), Err(BadGroup::Servers(0)));
        let more = Group { k_data: 4, ..group(3) };
        assert_eq!(more.check(), Err(BadGroup::Copies { what: "k_data", k: 4, servers: 3 }));
        let named = Group { name: "a/b".into(), ..group(3) };
        assert_eq!(named.check(), Err(BadGroup::Name("a/b".into())));
        let short = Group { lifetime: 0, ..group(3) };
        assert_eq!(short.check(), Err(BadGroup::Measure("lifetime")));
    }
}
