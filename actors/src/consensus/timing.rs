//! How patient the roles are. None of it is needed for safety, but for `accept_sole`.

use std::time::Duration;

/// How patient the roles of consensus are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A main's sign of life to the other mains.
    pub heartbeat: Duration,
    /// A follower that heard nothing of its leader for this long stands, plus up to half of it
    /// again at random.
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
    /// Whether a sole main that starts may lead without asking an auxiliary whether it still is the
    /// sole one. An operator's word for one start, after looking: when it is wrong, another main
    /// has gone on and what this one decides is a second history.
    pub accept_sole: bool,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(30),
            election: ms(200),
            stickiness: ms(150),
            hedge: ms(100),
            remove_unreachable: ms(1_000),
            remove: ms(5_000),
            resend: ms(100),
            probe: ms(40),
            auxiliary: ms(1_000),
            accept_sole: false,
        }
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
