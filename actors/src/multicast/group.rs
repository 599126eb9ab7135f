//! What the servers of a group agree on when it is made.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use super::{
    message::Seq,
    rules::{Rule, is_off},
};

/// A group: who serves it, and its measures. Agreed on when the group is made; then only its servers
/// change, one at a time, each change under the next version.
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
    #[serde(default)]
    pub application: String,
    /// How often its servers were changed.
    #[serde(default)]
    pub version: u64,
    /// Who takes the place of a server that is lost.
    #[serde(default)]
    pub joining: Option<Joining>,
    /// A server that was away for so long, in milliseconds, is lost; 0: it is waited for, for ever.
    #[serde(default)]
    pub replace_after_ms: u64,
    /// Where a new sequencer learns which numbers were given out.
    #[serde(default)]
    pub maximum: Maximum,
}

/// Where the largest number of a group is kept beside its sequencer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maximum {
    /// By the commit servers, in what they have of numbers (R4.76). Nothing is written for it; a number
    /// that no sealed one of them has is given out again.
    #[default]
    CommitServers,
    /// In the register `sam/GROUP/max`, which holds a number before any commit server hears of it
    /// (R4.21, R4.75). So no number is ever given out twice, not even one that nobody saw.
    Register,
    /// In a file of the node that orders, which holds a number before any commit server hears of it. For
    /// tests: a sequencer on another node has none of it, and begins as with [`Maximum::CommitServers`].
    LocalFile,
}

impl Maximum {
    /// Whether a number is written down before it is submitted.
    pub const fn is_written(self) -> bool {
        match self {
            Self::CommitServers => false,
            Self::Register | Self::LocalFile => true,
        }
    }
}

/// A node on its way into a group. It has what the server had whose place it takes, or gets it from
/// the others; until then neither of the two counts: not as a copy, not in a seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The place among the servers.
    pub place: usize,
    /// Who comes.
    pub node: NodeId,
}

/// Why the servers of a group are not changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// They were changed meanwhile.
    #[error("the group's servers have version {0}")]
    Version(u64),
    /// Another one is on its way in.
    #[error("{0} takes a place first")]
    Busy(NodeId),
    /// It serves the group already, or there is no such place.
    #[error("{0} cannot take that place")]
    Place(NodeId),
    /// What a lost server had, nobody else has.
    #[error("with k_data = {k_data} and k_commit = {k_commit} what a server had is lost with it")]
    Copies {
        /// Copies of messages.
        k_data: usize,
        /// Copies of numbers.
        k_commit: usize,
    },
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
    pub replace_after: Duration,
    pub maximum: Maximum,
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
            replace_after: REPLACE_AFTER,
            maximum: Maximum::default(),
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
        let Measures { k_data, k_commit, k_checkpoint, lifetime, every, keep, .. } = *measures;
        let replace_after = measures.replace_after.as_millis();
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
            version: 0,
            joining: None,
            replace_after_ms: u64::try_from(replace_after).unwrap_or(u64::MAX),
            maximum: measures.maximum,
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

    /// So many of its servers must be there for messages to get numbers, and for a new sequencer.
    pub fn needs(&self) -> usize {
        self.k_data.max(self.k_commit).max(self.seals())
    }

    /// The place of a server that counts among the servers.
    pub fn index(&self, server: &NodeId) -> Option<usize> {
        if let Some(Joining { place, node }) = &self.joining
            && node == server
        {
            return is_off(Rule::NewcomerCountsLate).then_some(*place);
        }
        let index = self.servers.iter().position(|one| one == server)?;
        self.counts(index).then_some(index)
    }

    /// Whether the server at that place counts: it is not being replaced.
    fn counts(&self, place: usize) -> bool {
        self.joining.as_ref().is_none_or(|joining| joining.place != place)
    }

    /// The servers that count, each with its place.
    pub fn places(&self) -> impl Iterator<Item = (usize, &NodeId)> {
        let newcomer = self.joining.as_ref().filter(|_| is_off(Rule::NewcomerCountsLate));
        let newcomer = newcomer.map(|joining| (joining.place, &joining.node));
        let all = self.servers.iter().enumerate();
        all.filter(|(place, _)| self.counts(*place)).chain(newcomer)
    }

    /// The servers that count.
    pub fn counted(&self) -> impl Iterator<Item = &NodeId> {
        let all = self.servers.iter().enumerate();
        all.filter(|(place, _)| self.counts(*place)).map(|(_, server)| server)
    }

    /// Who keeps what there is of the group: the servers that count, and who is on its way in.
    pub fn hosts(&self) -> impl Iterator<Item = &NodeId> {
        self.counted().chain(self.joining.as_ref().map(|joining| &joining.node))
    }

    /// Whether that node does.
    pub fn is_host(&self, node: &NodeId) -> bool {
        self.hosts().any(|host| host == node)
    }

    /// Whether that node is on its way in.
    pub fn is_joining(&self, node: &NodeId) -> bool {
        self.joining.as_ref().is_some_and(|joining| joining.node == *node)
    }

    /// The same, once `node` is on its way to the place of `out`. Who was on its way there is not
    /// any more.
    ///
    /// # Errors
    /// [`BadChange`].
    pub fn replacing(&self, out: &NodeId, node: NodeId) -> Result<Self, BadChange> {
        let place = self.servers.iter().position(|server| server == out);
        let place = place.ok_or_else(|| BadChange::Place(out.clone()))?;
        if let Some(joining) = self.joining.as_ref().filter(|joining| joining.place != place) {
            return Err(BadChange::Busy(joining.node.clone()));
        }
        let mut others = self.servers.iter().enumerate().filter(|(other, _)| *other != place);
        if others.any(|(_, server)| *server == node || server.name == node.name) {
            return Err(BadChange::Place(node));
        }
        let Self { k_data, k_commit, .. } = *self;
        if k_data < 2 || k_commit < 2 {
            return Err(BadChange::Copies { k_data, k_commit });
        }
        let joining = Some(Joining { place, node });
        Ok(Self { version: self.version + 1, joining, ..self.clone() })
    }

    /// The same, once who is on its way in has all that it needs.
    ///
    /// # Errors
    /// [`BadChange`].
    pub fn joined(&self, node: &NodeId) -> Result<Self, BadChange> {
        let joining = self.joining.as_ref().filter(|joining| joining.node == *node);
        let joining = joining.ok_or_else(|| BadChange::Place(node.clone()))?;
        let mut servers = self.servers.clone();
        servers[joining.place] = node.clone();
        Ok(Self { version: self.version + 1, joining: None, servers, ..self.clone() })
    }

    /// The last number a message with this stamp may get.
    pub fn lives_until(&self, stamp: Seq) -> Seq {
        Seq(stamp.0.saturating_add(self.lifetime))
    }

    /// What it survives, for people. While one is replaced that one is lost already.
    pub fn survives(&self) -> Survives {
        let lost = usize::from(self.joining.is_some());
        let all = Survives::with(self.servers.len(), self.k_data, self.k_commit, self.k_checkpoint);
        let (data, service) = (all.data.saturating_sub(lost), all.service.saturating_sub(lost));
        Survives { data, service, ..all }
    }
}

/// How many servers of a group may be lost at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survives {
    /// So many, and no committed message is lost.
    pub data: usize,
    /// So many, and the group goes on without them.
    pub service: usize,
    /// Whether another node takes the place of one: others have what that had, and can go on meanwhile.
    pub replaced: bool,
}

impl Survives {
    /// Of a group with so many servers and copies; there are not more copies than servers.
    pub fn with(servers: usize, k_data: usize, k_commit: usize, k_checkpoint: usize) -> Self {
        let copies = k_data.min(k_commit).min(k_checkpoint);
        let goes_on = (servers - k_data.max(k_commit)).min(k_commit - 1);
        let replaced = k_data.min(k_commit) > 1 && servers > k_data.max(k_commit);
        Self { data: copies - 1, service: goes_on.min(copies - 1), replaced }
    }
}

impl fmt::Display for Survives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, service, replaced } = self;
        let servers = if *data == 1 { "server" } else { "servers" };
        write!(f, "loses nothing with {data} {servers} lost, and goes on with {service} lost")?;
        f.write_str(if *replaced { "" } else { "; a lost one is not replaced" })
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

/// Longer than a machine takes to start again, so that no restart moves anything; and short enough
/// that a second loss is hardly the next thing that happens.
pub(crate) const REPLACE_AFTER: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests;
