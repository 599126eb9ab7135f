//! A checkpoint that is being fetched: which blocks came, and who is asked for which.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use synod_runtime::{identity::NodeId, world::Instant};

use crate::multicast::{
    checkpoint_server::{BLOCKS_MAX, WRITE_BYTES},
    message::{Advert, Seq},
};

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) advert: Advert,
    blocks: BTreeMap<u32, Bytes>,
    bytes: u64,
    /// Blocks under way, and from whom.
    asked: BTreeMap<u32, NodeId>,
    /// Who brought nothing new: mostly, because it does not have this checkpoint.
    without: BTreeSet<NodeId>,
    /// What did not come by then is asked for anew, of anybody.
    again_at: Instant,
    /// Until then no newer one is fetched instead: on a busy group one comes before any was fetched.
    /// Every block that comes puts it off.
    stays_until: Instant,
    turn: usize,
}

impl Fetch {
    /// Begins with the server after that one.
    pub(super) fn new(advert: Advert, now: Instant, turn: usize) -> Self {
        Self {
            advert,
            blocks: BTreeMap::new(),
            bytes: 0,
            asked: BTreeMap::new(),
            without: BTreeSet::new(),
            again_at: now,
            stays_until: now + STAYS_FOR,
            turn,
        }
    }

    /// Servers keep the newest two: an older one may be gone while it is fetched.
    pub(super) fn stays(&self, newest: &Advert, now: Instant) -> bool {
        self.advert == *newest || self.comes(now)
    }

    /// Whether anything of it came lately, or it has just begun.
    pub(super) fn comes(&self, now: Instant) -> bool {
        now < self.stays_until
    }

    pub(super) const fn due(&self) -> Instant {
        self.again_at
    }

    /// Whom to ask for which blocks now: several servers, each for others.
    pub(super) fn ask(&mut self, now: Instant, servers: &[NodeId]) -> Vec<(NodeId, Vec<u32>)> {
        if self.again_at <= now {
            self.again_at = now + AGAIN_AFTER;
            self.asked.clear();
            self.without.clear();
        }
        let at_once = self.asked_at_once();
        let mut asks = Vec::new();
        for _ in servers {
            let busy: BTreeSet<_> = self.asked.values().collect();
            if busy.len() >= FETCHED_FROM {
                break;
            }
            self.turn = (self.turn + 1) % servers.len();
            let server = &servers[self.turn];
            if self.without.contains(server) || busy.contains(server) {
                continue;
            }
            let is_missing =
                |block: &u32| !self.blocks.contains_key(block) && !self.asked.contains_key(block);
            let wanted: Vec<_> = (0..self.advert.blocks).filter(is_missing).take(at_once).collect();
            if wanted.is_empty() {
                break;
            }
            self.asked.extend(wanted.iter().map(|block| (*block, server.clone())));
            asks.push((server.clone(), wanted));
        }
        asks
    }

    /// How many blocks are asked of a server at once: as many as it says at once.
    fn asked_at_once(&self) -> usize {
        let bytes = self.advert.bytes / u64::from(self.advert.blocks).max(1);
        let fit = WRITE_BYTES as u64 / bytes.max(1);
        usize::try_from(fit).unwrap_or(BLOCKS_MAX).clamp(1, BLOCKS_MAX)
    }

    /// What a server said to that. Whatever it left out, another one is asked for; and who brings nothing
    /// new is not asked again for a while, or the two would talk without end.
    pub(super) fn answered(&mut self, now: Instant, from: &NodeId, blocks: Vec<(u32, Bytes)>) {
        let (had, asked) = (self.blocks.len(), self.asked.len());
        self.asked.retain(|_, asked| asked != from);
        let was_asked = self.asked.len() < asked;
        for (number, block) in blocks {
            if number < self.advert.blocks && !self.blocks.contains_key(&number) {
                self.bytes += block.len() as u64;
                self.asked.remove(&number);
                self.blocks.insert(number, block);
                self.stays_until = now + STAYS_FOR;
            }
        }
        if was_asked && self.blocks.len() == had {
            self.without.insert(from.clone());
        }
    }

    /// Whether it is all there, or more than it can be: then somebody speaks of another one.
    pub(super) fn is_over(&self) -> bool {
        self.blocks.len() == self.advert.blocks as usize || self.bytes > self.advert.bytes
    }

    /// Of which number it is, and its blocks.
    pub(super) fn into_parts(self) -> (Seq, Vec<Bytes>) {
        (self.advert.seq, self.blocks.into_values().collect())
    }
}

/// Blocks are fetched from so many servers at a time.
const FETCHED_FROM: usize = 2;

/// A checkpoint of which nothing came for so long is left for a newer one: servers keep the newest only.
/// A block that is on its way needs less, also to a machine that has much to do.
const STAYS_FOR: Duration = Duration::from_millis(300);

/// Blocks that did not come by then are asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use synod_runtime::identity::Incarnation;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn servers() -> Vec<NodeId> {
        let server = |n: u64| NodeId::new(format!("n{n}").parse().expect("a name"), Incarnation(n));
        (1..=3).map(server).collect()
    }

    fn of(blocks: &[u32]) -> Vec<(u32, Bytes)> {
        blocks.iter().map(|block| (*block, Bytes::from(vec![0; 400_000]))).collect()
    }

    fn six() -> Fetch {
        let advert = Advert { seq: Seq(9), blocks: 6, bytes: 6 * 400_000, digest: 0 };
        Fetch::new(advert, NOW, 0)
    }

    /// Goal: nobody waits for a server that does not have it, as one that was just started, nor for
    /// blocks that did not fit an answer.
    #[test]
    fn what_one_server_does_not_have_is_asked_of_another_at_once() {
        let (servers, mut fetch) = (servers(), six());
        let asks = fetch.ask(NOW, &servers);
        assert_eq!(asks, [(servers[1].clone(), vec![0, 1]), (servers[2].clone(), vec![2, 3])]);
        assert_eq!(fetch.ask(NOW, &servers), [], "two are busy");
        fetch.answered(NOW, &servers[1], Vec::new());
        assert_eq!(fetch.ask(NOW, &servers), [(servers[0].clone(), vec![0, 1])]);
        fetch.answered(NOW, &servers[2], of(&[2]));
        assert_eq!(fetch.ask(NOW, &servers), [(servers[2].clone(), vec![3, 4])]);
        fetch.answered(NOW, &servers[0], of(&[0, 1]));
        fetch.answered(NOW, &servers[2], of(&[3, 4]));
        assert_eq!(fetch.ask(NOW, &servers), [(servers[0].clone(), vec![5])]);
        assert!(!fetch.is_over());
        fetch.answered(NOW, &servers[0], of(&[0, 9]));
        assert_eq!(
            fetch.ask(NOW, &servers),
            [(servers[2].clone(), vec![5])],
            "that was nothing new"
        );
        fetch.answered(NOW, &servers[2], of(&[5]));
        assert!(fetch.is_over());
        assert_eq!(fetch.into_parts().1.len(), 6);
    }

    #[test]
    fn whoever_said_nothing_is_asked_again_later_and_a_newer_one_is_taken_when_none_comes() {
        let (servers, mut fetch) = (servers(), six());
        let newer = Advert { seq: Seq(12), ..fetch.advert.clone() };
        assert_eq!(fetch.ask(NOW, &servers).len(), 2);
        for server in &servers {
            fetch.answered(NOW, server, Vec::new());
        }
        let soon = NOW + STAYS_FOR / 2;
        assert!(fetch.stays(&newer, soon));
        fetch.ask(soon, &servers);
        fetch.answered(soon, &servers[0], of(&[0]));
        assert!(fetch.stays(&newer, NOW + STAYS_FOR), "something came");
        assert!(!fetch.stays(&newer, soon + STAYS_FOR));
        let later = NOW + AGAIN_AFTER;
        assert_eq!(fetch.due(), later);
        assert_eq!(fetch.ask(later, &servers).len(), 2);
    }

    #[test]
    fn more_than_was_advertised_ends_it() {
        let (servers, mut fetch) = (servers(), six());
        fetch.ask(NOW, &servers);
        fetch.answered(NOW, &servers[1], vec![(0, Bytes::from(vec![0; 3_000_000]))]);
        assert!(fetch.is_over());
    }
}
