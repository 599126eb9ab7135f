//! How patient the roles are. None of it is needed for safety, but for `accept_sole`.
//!
//! Everything that depends on how long a message travels is here, once for each [`Profile`].

use std::{fmt, str::FromStr, time::Duration};

/// What lies between the nodes of a cluster: how long a round trip takes, and so how long a
/// silence means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// One machine, one room, one campus: a round trip below about 5 ms.
    #[default]
    Lan,
    /// Between cities: a round trip of up to about 100 ms, one packet of a hundred lost. Fail-over
    /// takes seconds instead of a third of one.
    Wan,
}

/// How patient the roles of consensus are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A main's sign of life to the other mains.
    pub heartbeat: Duration,
    /// A follower that heard nothing of its leader for this long stands, plus up to half of it
    /// again at random where another could stand too.
    pub election: Duration,
    /// Whoever heard the leader within this long sees no reason for another.
    pub stickiness: Duration,
    /// Votes that are missing for this long are asked of the auxiliaries.
    pub hedge: Duration,
    /// A silent main is voted out after this long if no auxiliary reaches it either.
    pub remove_unreachable: Duration,
    /// …and after this long in any case.
    pub remove: Duration,
    /// Votes that are missing for this long are asked for again.
    pub resend: Duration,
    /// How long an auxiliary waits for a main to answer a probe.
    pub probe: Duration,
    /// Heartbeats to auxiliaries.
    pub auxiliary: Duration,
    /// Opinions on standing that have not come by then are not waited for.
    pub opinions: Duration,
    /// A node that would lead but has no quorum of promises by then asks the auxiliaries too.
    pub promises: Duration,
    /// …and gives up by then, so that another may try.
    pub give_up: Duration,
    /// How long a peer may be ahead before it is asked: in steady work the votes are on their way.
    pub catch_up: Duration,
    /// A piece of a snapshot that has not come by then is asked for again.
    pub fetch: Duration,
    /// How long another main's word lasts that nothing is chosen behind this one's back, so that
    /// reads need not ask; zero: clocks are not trusted, and every read asks.
    pub lease: Duration,
    /// It is asked for again after this long, as long as there are reads.
    pub lease_renewal: Duration,
    /// How long a call between actors may take that sets no deadline of its own.
    pub call: Duration,
    /// A main this long silent is shown as suspect; three times this long, as down.
    pub quiet: Duration,
    /// Whether a sole main that starts may lead without asking an auxiliary whether it still is the
    /// sole one. An operator's word for one start, after looking: when it is wrong, another main
    /// has gone on and what this one decides is a second history.
    pub accept_sole: bool,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Lan, Self::Wan];

    /// What it is called in node files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }

    /// How patient the roles are there.
    pub const fn timing(self) -> Timing {
        let ms = Duration::from_millis;
        match self {
            Self::Lan => Timing {
                heartbeat: ms(30),
                election: ms(200),
                stickiness: ms(150),
                hedge: ms(100),
                remove_unreachable: ms(1_000),
                remove: ms(5_000),
                resend: ms(100),
                probe: ms(40),
                auxiliary: ms(1_000),
                opinions: ms(250),
                promises: ms(60),
                give_up: ms(600),
                catch_up: ms(40),
                fetch: ms(300),
                lease: ms(100),
                lease_renewal: ms(30),
                call: ms(5_000),
                quiet: ms(1_000),
                accept_sole: false,
            },
            // A packet may be lost twice in a row and its repair still be in time: at 80 ms that
            // is half a second. Thrice in a row happens once in a million packets.
            Self::Wan => Timing {
                heartbeat: ms(100),
                election: ms(1_500),
                stickiness: ms(1_200),
                hedge: ms(1_200),
                remove_unreachable: ms(4_000),
                remove: ms(10_000),
                resend: ms(800),
                probe: ms(500),
                auxiliary: ms(1_000),
                opinions: ms(1_200),
                promises: ms(800),
                give_up: ms(3_000),
                catch_up: ms(400),
                fetch: ms(1_500),
                lease: ms(1_000),
                lease_renewal: ms(250),
                call: ms(10_000),
                quiet: ms(3_000),
                accept_sole: false,
            },
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == text);
        known.ok_or_else(|| format!("{text:?} is no profile; use \"lan\" or \"wan\""))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Profile::default().timing()
    }
}

/// How a leader's own vote travels (R1.45).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VoteStyle {
    /// Values go out at once; the leader's vote follows when it is durable. Best with real disks.
    #[default]
    Split,
    /// The source's form: one message with value and vote, sent when the vote is durable.
    Piggyback,
}
