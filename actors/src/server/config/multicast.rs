//! `[[multicast]]`: what groups are like when they are made.

use std::collections::BTreeMap;

use synod_runtime::identity::NodeName;

use super::{ConfigError, NodeRole, Peer, Section};
use crate::{
    multicast::{
        channel::{PARITY_MAX, Way},
        group::{Group, Maximum, Measures, SERVERS_MAX, Survives},
    },
    server::registers::RolesIn,
};

/// The measures of groups that are not made yet. A group keeps those it was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupsConfig {
    /// Of groups that are not named.
    pub usual: Measures,
    /// Of those that are.
    pub named: BTreeMap<String, Measures>,
    /// Who feeds this node where it serves nothing, by group; under no name, of groups that are not
    /// named. Nobody: any of the servers.
    pub fed_by: BTreeMap<Option<String>, Vec<NodeName>>,
    /// How it is fed, likewise. Nothing said: by streams.
    pub ways: BTreeMap<Option<String>, Way>,
}

impl GroupsConfig {
    /// Those of the group `name`.
    pub fn of(&self, name: &str) -> &Measures {
        self.named.get(name).unwrap_or(&self.usual)
    }

    /// Who feeds this node where it serves nothing of the group `name`; nobody: any of its servers.
    pub fn feeders_of(&self, name: &str) -> &[NodeName] {
        let own = self.fed_by.get(&Some(name.to_owned()));
        own.or_else(|| self.fed_by.get(&None)).map_or(&[], Vec::as_slice)
    }

    /// How this node is fed where it serves nothing of the group `name`.
    pub fn way_to(&self, name: &str) -> Way {
        let own = self.ways.get(&Some(name.to_owned()));
        own.or_else(|| self.ways.get(&None)).copied().unwrap_or_default()
    }

    /// What each choice survives, for people: a line for each table of the file.
    pub fn survive(&self) -> impl Iterator<Item = String> {
        let usual = (self.usual != Measures::default()).then_some(("groups", &self.usual));
        let named = self.named.iter().map(|(name, measures)| (name.as_str(), measures));
        usual.into_iter().chain(named).map(|(name, measures)| {
            let Measures { servers, k_data, k_commit, k_checkpoint, maximum, .. } = *measures;
            let survives = Survives::with(servers, k_data, k_commit, k_checkpoint);
            let k = k_data.max(k_commit);
            let warning = match servers < 2 * k - 1 {
                // Of the lost ones a message needs as many as of those that stay.
                true => {
                    format!("; {k} copies want {} servers, to go on without {}", 2 * k - 1, k - 1)
                }
                false => String::new(),
            };
            let alone = match maximum {
                Maximum::LocalFile => ONE_DISK,
                Maximum::CommitServers | Maximum::Register => "",
            };
            format!("multicast {name}: {survives}{warning}{alone}")
        })
    }
}

/// Reads them all, for the node `me` among `peers` of a cluster that keeps its roles there.
pub(super) fn read(
    top: &Section<'_>,
    (me, peers): (&NodeName, &[Peer]),
    roles: &RolesIn,
) -> Result<GroupsConfig, ConfigError> {
    let mut config = GroupsConfig::default();
    let mut has_usual = false;
    for section in top.one_or_list("multicast")? {
        let name = section.parse("group", "\"news\"", group)?;
        let measures = read_one(&section, roles)?;
        let twice = match &name {
            None => std::mem::replace(&mut has_usual, true),
            Some(name) => config.named.contains_key(name),
        };
        if twice {
            let what = name.as_deref().unwrap_or("what holds for all groups");
            let hint = "give each group one table, and all others one without `group`";
            return Err(section.refuse("group", format!("{what} is there twice"), hint));
        }
        if section.has("fed_by") {
            config.fed_by.insert(name.clone(), feeders(&section, me, peers)?);
        }
        if let Some(way) = way(&section)? {
            config.ways.insert(name.clone(), way);
        }
        match name {
            None => config.usual = measures,
            Some(name) => drop(config.named.insert(name, measures)),
        }
    }
    Ok(config)
}

fn feeders(
    section: &Section<'_>,
    me: &NodeName,
    peers: &[Peer],
) -> Result<Vec<NodeName>, ConfigError> {
    let could = |peer: &&Peer| peer.role != NodeRole::Auxiliary && peer.name != *me;
    let known: Vec<_> = peers.iter().filter(could).map(|peer| peer.name.as_str()).collect();
    let name = |text: String| {
        let refuse = |why: String| {
            let hint = format!(
                "use some of {}; give one that was added later a table in [[peers]] too",
                known.join(", ")
            );
            section.refuse("fed_by", why, hint)
        };
        let name: NodeName = text.parse().map_err(|bad| refuse(format!("{text:?}: {bad}")))?;
        if name == *me {
            return Err(refuse(format!("{name} is this node itself")));
        }
        match peers.iter().find(|peer| peer.name == name) {
            Some(peer) if peer.role == NodeRole::Auxiliary => {
                Err(refuse(format!("{name} is an auxiliary, which hears no group")))
            }
            Some(_) => Ok(name),
            None => Err(refuse(format!("no node of this file is called {name}"))),
        }
    };
    section.texts("fed_by")?.into_iter().map(name).collect()
}

fn way(section: &Section<'_>) -> Result<Option<Way>, ConfigError> {
    let datagrams = section.flag("datagrams")?;
    let parity = section.number("parity", 0..=u32::from(PARITY_MAX), 0)?;
    let parity = u8::try_from(parity).unwrap_or(PARITY_MAX);
    if parity > 0 && !datagrams {
        let hint = "set datagrams = true as well, or leave it out";
        return Err(section.refuse("parity", "streams lose nothing", hint));
    }
    let paced = section.flag("paced")?;
    if paced && !datagrams {
        let hint = "set datagrams = true as well, or leave it out";
        return Err(section.refuse("paced", "streams are no faster than the path", hint));
    }
    let said = section.has("datagrams").then_some(match datagrams {
        true => Way::Datagrams { parity, paced },
        false => Way::Streams,
    });
    Ok(said)
}

fn group(name: &str) -> Result<String, String> {
    Group::check_name(name).map(|()| name.to_owned()).map_err(|bad| bad.to_string())
}

fn maximum(section: &Section<'_>, roles: &RolesIn) -> Result<Maximum, ConfigError> {
    let known = |text: &str| match text {
        "commit-servers" => Ok(Maximum::CommitServers),
        "register" => Ok(Maximum::Register),
        "local-file" => Ok(Maximum::LocalFile),
        other => Err(format!("{other:?} keeps no number; use {MAXIMA}")),
    };
    let want = MAXIMA;
    let maximum = section.parse("maximum", want, known)?.unwrap_or_default();
    if maximum == Maximum::Register && *roles == RolesIn::Log {
        let hint =
            "set store = \"register\" in [elections] at all nodes, before the cluster begins";
        return Err(section.refuse("maximum", "this cluster has no registers", hint));
    }
    Ok(maximum)
}

fn read_one(section: &Section<'_>, roles: &RolesIn) -> Result<Measures, ConfigError> {
    let usual = Measures::default();
    let servers = section.number("servers", 1..=SERVERS_MAX as u32, usual.servers as u32)?;
    // More copies than servers would be a promise that nobody can keep.
    let copies = |key, usual: usize| {
        let usual = u32::try_from(usual).unwrap_or(u32::MAX).min(servers);
        Ok::<_, ConfigError>(section.number(key, 1..=servers, usual)? as usize)
    };
    let measure = |key, range, usual: u64| {
        let usual = u32::try_from(usual).unwrap_or(u32::MAX);
        Ok::<_, ConfigError>(u64::from(section.number(key, range, usual)?))
    };
    Ok(Measures {
        servers: servers as usize,
        k_data: copies("k_data", usual.k_data)?,
        k_commit: copies("k_commit", usual.k_commit)?,
        k_checkpoint: copies("k_checkpoint", usual.k_checkpoint)?,
        lifetime: measure("lifetime", LIFETIME_MIN..=LIFETIME_MAX, usual.lifetime)?,
        every: measure("every", EVERY_MIN..=EVERY_MAX, usual.every)?,
        keep: measure("keep", 0..=KEEP_MAX, usual.keep)?,
        replace_after: section.duration("replace_after", usual.replace_after)?,
        maximum: maximum(section, roles)?,
    })
}

/// Where the largest number may be.
const MAXIMA: &str = "\"commit-servers\", \"register\" or, in tests, \"local-file\"";

/// Its keys.
pub(super) const KEYS: &[&str] = &[
    "group",
    "servers",
    "k_data",
    "k_commit",
    "k_checkpoint",
    "lifetime",
    "every",
    "keep",
    "replace_after",
    "fed_by",
    "datagrams",
    "parity",
    "paced",
    "maximum",
];

/// What is to be known of [`Maximum::LocalFile`].
const ONE_DISK: &str = "; maximum = \"local-file\" is for tests: only the node that orders has that file, and \
    the next one to order begins without it";

/// A new sequencer takes the numbers of a lifetime from each commit server in one frame.
const LIFETIME_MAX: u32 = 250_000;

/// Likewise: numbers stay until the checkpoint after the next one is there.
const EVERY_MAX: u32 = 75_000;

/// More would keep more than the memory of a usual machine.
const KEEP_MAX: u32 = 1_000_000;

/// As many as a node sends at once: fewer would be over before they were all on their way.
const LIFETIME_MIN: u32 = 1_000;

/// A checkpoint for every few messages would cost more than they do.
const EVERY_MIN: u32 = 100;

#[cfg(test)]
mod tests {
    use synod_runtime::wire::BODY_BYTES_MAX;

    use super::*;
    use crate::{
        election::message::Epoch,
        multicast::{
            message::{Message, Mid, Pair, Publisher, Sealed, Seq, SequencerMessage},
            sequencer::OPEN_MAX,
        },
        server::config::{
            Overrides,
            tests::{GOOD, load},
        },
    };

    fn with(text: &str) -> Result<GroupsConfig, String> {
        load(&format!("{GOOD}\n{text}"), Overrides::default()).map(|config| config.multicast)
    }

    fn member(name: &str) -> String {
        format!(
            "[[peers]]\nname = \"{name}\"\nrole = \"member\"\nquic = \"{name}.example.com:1\"\n"
        )
    }

    #[test]
    fn groups_have_the_measures_of_their_table_or_of_the_one_without_a_name() {
        let text = "[[multicast]]\nlifetime = 9000\n\
            [[multicast]]\ngroup = \"news\"\nservers = 4\nk_data = 3\nreplace_after = \"9s\"\n";
        let groups = with(text).unwrap();
        assert_eq!(groups.of("other").lifetime, 9_000);
        let news = groups.of("news");
        assert_eq!((news.servers, news.k_data, news.k_commit, news.lifetime), (4, 3, 2, 50_000));
        assert_eq!(news.replace_after.as_secs(), 9);
        let lines: Vec<_> = groups.survive().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("news: ") && lines[1].contains("want 5 servers"), "{lines:?}");
        assert_eq!(with("[multicast]\nkeep = 7\n").unwrap().of("any").keep, 7);
        let alone = with("[multicast]\nmaximum = \"local-file\"\n").unwrap();
        assert_eq!(alone.of("any").maximum, Maximum::LocalFile);
        let lines: Vec<_> = alone.survive().collect();
        assert!(lines[0].contains("for tests: only the node that orders"), "{lines:?}");
        assert!(groups.survive().all(|line| !line.contains("local-file")));
        let fed = "[[multicast]]\nfed_by = [\"m1\"]\n\
            [[multicast]]\ngroup = \"news\"\nfed_by = [\"m2\", \"m3\"]\n";
        let fed = with(&(fed.to_owned() + &["m1", "m2", "m3"].map(member).concat())).unwrap();
        assert_eq!(fed.feeders_of("news").len(), 2);
        assert_eq!(fed.feeders_of("other"), ["m1".parse().unwrap()]);
        assert!(groups.feeders_of("news").is_empty());
        let ways = "[[multicast]]\ndatagrams = true\nparity = 8\n\
            [[multicast]]\ngroup = \"news\"\ndatagrams = false\n[[multicast]]\ngroup = \"old\"\n";
        let ways = with(ways).unwrap();
        assert_eq!(ways.way_to("news"), Way::Streams);
        assert_eq!(ways.way_to("old"), Way::Datagrams { parity: 8, paced: false });
        let paced = with("[multicast]\ndatagrams = true\npaced = true\n").unwrap();
        assert_eq!(paced.way_to("any"), Way::Datagrams { parity: 0, paced: true });
        assert_eq!(groups.way_to("news"), Way::Streams);
    }

    #[test]
    fn measures_that_cannot_be_are_refused_by_key() {
        for (text, key) in [
            ("[[multicast]]\nservers = 3\nk_commit = 4\n", "k_commit"),
            ("[[multicast]]\ngroup = \"a/b\"\n", "group"),
            ("[[multicast]]\n[[multicast]]\n", "twice"),
            ("[[multicast]]\nk = 2\n", "k"),
            ("[[multicast]]\nlifetime = 250001\n", "lifetime"),
            ("[[multicast]]\nevery = 75001\n", "every"),
            ("[[multicast]]\nfed_by = [\"no name\"]\n", "fed_by"),
            ("[[multicast]]\nfed_by = [\"b\", \"c\"]\n", "`multicast[0].fed_by`: no node"),
            ("[multicast]\nfed_by = [\"m1\"]\n", "called m1; use some of b; "),
            ("[[multicast]]\nfed_by = [\"a\"]\n", "a is this node itself"),
            ("[[multicast]]\nfed_by = [\"x\"]\n", "x is an auxiliary"),
            ("[[multicast]]\nmaximum = \"register\"\n", "no registers"),
            ("[[multicast]]\nmaximum = \"file\"\n", "commit-servers"),
            ("[[multicast]]\nparity = 8\n", "parity"),
            ("[[multicast]]\npaced = true\n", "paced"),
            ("[[multicast]]\ndatagrams = true\nparity = 33\n", "parity"),
        ] {
            let why = with(text).unwrap_err();
            assert!(why.contains(key), "{why}");
        }
    }

    /// Goal: no choice of measures keeps a group from getting a new sequencer.
    #[test]
    fn what_a_new_sequencer_is_told_fits_a_frame_whatever_the_measures() {
        const LAGGING: u64 = 3;
        let large = Seq(u64::from(u32::MAX));
        let mid = Some(Mid { publisher: Publisher(u64::MAX), number: large.0 });
        let pair = Pair { mid, stamp: large, lowest_open: large.0 };
        let record = Sealed { seq: large, epoch: Epoch(large.0), pair, committed: true };
        let kept = u64::from(LIFETIME_MAX).max(LAGGING * u64::from(EVERY_MAX)) + OPEN_MAX as u64;
        let sealed = SequencerMessage::Sealed {
            epoch: record.epoch,
            floor: large,
            largest: large,
            records: vec![record; usize::try_from(kept).unwrap()],
        };
        let bytes = rmp_serde::to_vec(&Message::from(sealed)).unwrap().len();
        assert!(bytes < BODY_BYTES_MAX - 10_000, "{bytes}");
    }
}
