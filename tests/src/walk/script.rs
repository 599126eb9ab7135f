//! A script that chance would seldom write: a main is let in again and then leads in a lower ballot
//! than the one that let it in, which still believes that it leads.
//!
//! Who decides alone needs nobody's promise but its own, so nobody else need know its ballot. The
//! newcomer restarts before it hears of it, cut off, and leads with the auxiliary, rightly. Only the
//! promises that the newer configuration asks for (rule L5) keep the older leader from deciding the
//! same steps again: its ballot is higher, and the auxiliary would vote in it.

use rand::RngExt;
use synod::consensus::message::NodeRole;

use super::{Walk, schedule::Event};

/// What the script waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Both mains are members and one leads; the other then crashes.
    Calm,
    /// It is voted out; the leader then restarts, and leads in a ballot that only it knows.
    VotedOut {
        /// Who crashed.
        gone: usize,
    },
    /// The one that was voted out starts again.
    Alone {
        /// Who crashed.
        gone: usize,
    },
    /// It was let in again and knows all that was chosen without it; it then restarts, the network
    /// between the mains is cut, and the leader pauses for a while.
    LetIn {
        /// Who was let in.
        newcomer: usize,
    },
    /// Both had time to decide; the network is then repaired.
    Parted,
}

/// How often the script looks.
const LOOK_NANOS: u64 = 1_000_000;

impl Walk {
    /// Looks whether the script can go on.
    pub(super) fn play(&mut self, stage: Stage) {
        if self.healed.is_some() {
            return;
        }
        let (current, newest) = (self.book.current(), self.book.newest());
        let (mains, settled) = (current.mains.len(), current.epoch == newest.epoch);
        let mut wait = self.rng.random_range(LOOK_NANOS / 2..LOOK_NANOS);
        let next = match (stage, self.leader()) {
            (Stage::Calm, Some(leader)) if settled && mains == 2 => {
                let gone = self.other_main(leader);
                self.stop(gone, 0);
                Stage::VotedOut { gone }
            }
            (Stage::VotedOut { gone }, Some(leader)) if settled && mains == 1 => {
                self.stop(leader, 0);
                self.schedule.after(wait, Event::Start { node: leader });
                wait = self.rng.random_range(20_000_000..100_000_000);
                Stage::Alone { gone }
            }
            (Stage::Alone { gone }, _) => {
                self.schedule.after(wait, Event::Start { node: gone });
                Stage::LetIn { newcomer: gone }
            }
            (Stage::LetIn { newcomer }, Some(leader)) if settled && mains == 2 => {
                wait = self.part(newcomer, leader).unwrap_or(wait);
                if wait > LOOK_NANOS { Stage::Parted } else { stage }
            }
            (Stage::Parted, _) => {
                self.network.mend();
                Stage::Calm
            }
            (Stage::Calm | Stage::VotedOut { .. } | Stage::LetIn { .. }, _) => stage,
        };
        self.schedule.after(wait, Event::Script(next));
    }

    /// Parts a newcomer from the leader once it caught up; for how long.
    fn part(&mut self, newcomer: usize, leader: usize) -> Option<u64> {
        let from = self.book.configurations.last().expect("there is a first").0;
        let learner = self.nodes[newcomer].learner()?;
        if newcomer == leader || learner.history().executed().next() < from {
            return None;
        }
        self.stop(newcomer, usize::MAX);
        self.schedule.after(LOOK_NANOS, Event::Start { node: newcomer });
        self.cut_mains();
        let pause = self.rng.random_range(50_000_000..150_000_000);
        self.nodes[leader].paused_until = self.schedule.now + pause;
        Some(pause + self.rng.random_range(50_000_000..300_000_000))
    }

    fn other_main(&self, than: usize) -> usize {
        let mut mains = (0..self.nodes.len()).filter(|at| self.nodes[*at].kind == NodeRole::Main);
        mains.find(|place| *place != than).expect("the script is for two mains")
    }
}
