//! `[consensus]` of the node file.

use std::{str::FromStr, time::Duration};

use super::{ConfigError, Durability, Section};
use crate::consensus::{Profile, Timing, VoteStyle};

/// The consensus roles' settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsensusConfig {
    /// What lies between the nodes: decides every patience that is not named below.
    pub profile: Profile,
    /// What must survive a power loss.
    pub durability: Durability,
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// How long a main hears nothing from the leader before it stands.
    pub election_timeout: Duration,
    /// How long a step waits for a silent main before an auxiliary helps (the bridge).
    pub hedge: Duration,
    /// A main that the auxiliary cannot reach either is voted out after this time.
    pub removal_unreachable: Duration,
    /// A silent main is voted out after this time, whoever can reach it.
    pub removal: Duration,
    /// How a leader's own vote travels.
    pub vote: VoteStyle,
    /// Whether clocks run at most 1 % too fast or slow, so that reads may go by lease.
    pub clock_trust: bool,
    /// See [`Timing::accept_sole`]. Not a key of the file: it is said for one start only.
    pub accept_sole: bool,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl ConsensusConfig {
    /// The defaults of a profile.
    pub const fn of(profile: Profile) -> Self {
        let timing = profile.timing();
        Self {
            profile,
            durability: Durability::Fsync,
            heartbeat: timing.heartbeat,
            election_timeout: timing.election,
            hedge: timing.hedge,
            removal_unreachable: timing.remove_unreachable,
            removal: timing.remove,
            vote: VoteStyle::Split,
            clock_trust: true,
            accept_sole: false,
        }
    }

    /// How patient the roles are.
    pub const fn timing(&self) -> Timing {
        let timing = self.profile.timing();
        Timing {
            heartbeat: self.heartbeat,
            election: self.election_timeout,
            hedge: self.hedge,
            remove_unreachable: self.removal_unreachable,
            remove: self.removal,
            lease: if self.clock_trust { timing.lease } else { Duration::ZERO },
            accept_sole: self.accept_sole,
            ..timing
        }
    }
}

/// Reads `[consensus]`.
pub(super) fn read(section: &Section<'_>) -> Result<ConsensusConfig, ConfigError> {
    let profile = section.parse("profile", "\"lan\" or \"wan\"", Profile::from_str)?;
    let default = ConsensusConfig::of(profile.unwrap_or_default());
    let vote = |text: &str| match text {
        "split" => Ok(VoteStyle::Split),
        "piggyback" => Ok(VoteStyle::Piggyback),
        other => Err(format!("{other:?} is no way to vote; use \"split\" or \"piggyback\"")),
    };
    let vote = section.parse("vote", "\"split\" or \"piggyback\"", vote)?;
    let trust = |text: &str| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{other:?} is neither; use \"on\" or \"off\"")),
    };
    let clock_trust = section.parse("clock_trust", "\"on\" or \"off\"", trust)?;
    let durability = section.parse("durability", Durability::WANT, Durability::from_str)?;
    let config = ConsensusConfig {
        profile: default.profile,
        durability: durability.unwrap_or(default.durability),
        heartbeat: section.duration("heartbeat", default.heartbeat)?,
        election_timeout: section.duration("election_timeout", default.election_timeout)?,
        hedge: section.duration("hedge", default.hedge)?,
        removal_unreachable: section
            .duration("t_remove_unreachable", default.removal_unreachable)?,
        removal: section.duration("t_remove", default.removal)?,
        vote: vote.unwrap_or(default.vote),
        clock_trust: clock_trust.unwrap_or(default.clock_trust),
        accept_sole: default.accept_sole,
    };
    if config.election_timeout < 2 * config.heartbeat {
        let why = "less than two heartbeats: one lost datagram would depose the leader";
        return Err(section.refuse("election_timeout", why, "raise it or lower `heartbeat`"));
    }
    if config.removal < config.removal_unreachable {
        let why = "shorter than `t_remove_unreachable`";
        return Err(section.refuse("t_remove", why, "make it at least as long"));
    }
    Ok(config)
}
