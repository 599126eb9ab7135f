//! Who feeds a node that serves nothing of a group.

use std::{sync::Weak, time::Duration};

use rand::RngExt as _;
use synod_runtime::{identity::NodeName, node::Node, world::Rng};

use super::room::Room;

/// Asks one node after the other to feed this one, where it serves nothing, and stays with one that
/// does.
pub(super) async fn be_fed(node: Node, room: Weak<Room>, named: Vec<NodeName>) {
    let mut rng = node.rng("multicast/feeder");
    let mut feeders = Feeders { named, ..Feeders::default() };
    while let Some(room) = room.upgrade() {
        if room.hosts() {
            feeders.now = None;
        } else {
            let up: Vec<_> = node.peers_up().into_iter().map(|peer| peer.id.name).collect();
            let servers: Vec<_> =
                room.group().counted().map(|server| server.name.clone()).collect();
            feeders.look(room.hears(), &up, &servers, &mut rng);
        }
        room.ask_to_be_fed(feeders.now.as_ref());
        drop(room);
        tokio::time::sleep(FEED_AGAIN).await;
    }
}

/// Whom a node asks.
#[derive(Debug, Default)]
struct Feeders {
    /// Whom its file names.
    named: Vec<NodeName>,
    /// Whom it asks now.
    now: Option<NodeName>,
    /// So many looks in a row found that nothing comes.
    vain: u32,
}

impl Feeders {
    /// While something comes it stays with whom it asked. Else the named ones that are up come first,
    /// and servers when these do not help; now and then one that is fed by a server tries the named
    /// ones again.
    fn look(&mut self, hears: bool, up: &[NodeName], servers: &[NodeName], rng: &mut Rng) {
        let named: Vec<_> = self.named.iter().filter(|name| up.contains(name)).collect();
        self.vain = if hears { 0 } else { self.vain + 1 };
        let stays = match &self.now {
            None => false,
            Some(now) if named.contains(&now) => hears,
            Some(now) if self.named.contains(now) => false, // it is down
            Some(_) => hears && (named.is_empty() || !rng.random_ratio(1, BACK_ODDS)),
        };
        if stays {
            return;
        }
        let next = if named.is_empty() || self.vain > VAIN_MAX {
            servers.get(rng.random_range(0..servers.len().max(1)))
        } else {
            Some(named[rng.random_range(0..named.len())])
        };
        self.now = next.cloned();
    }
}

/// Who is fed asks again so often: well before its feeder forgets it.
const FEED_AGAIN: Duration = Duration::from_millis(500);

/// After so many looks without a sign of life servers are asked: two seconds.
const VAIN_MAX: u32 = 4;

/// Of so many looks at one a node that a server feeds goes back to those it names: after some five
/// minutes, and not all at once.
const BACK_ODDS: u32 = 600;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> Vec<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_named_ones_feed_as_long_as_they_can_and_servers_after_them() {
        let (servers, named) = (names(["a", "b"]), names(["r1", "r2"]));
        let mut rng = Rng::seed_from_u64(1);
        let mut feeders = Feeders { named: named.clone(), ..Feeders::default() };
        let all = names(["a", "b", "r1", "r2"]);
        feeders.look(false, &all, &servers, &mut rng);
        let first = feeders.now.clone().unwrap();
        assert!(named.contains(&first));
        for _ in 0..2_000 {
            feeders.look(true, &all, &servers, &mut rng);
            assert_eq!(feeders.now.as_ref(), Some(&first));
        }
        let left: Vec<_> = all.iter().filter(|name| **name != first).cloned().collect();
        feeders.look(true, &left, &servers, &mut rng);
        assert!(feeders.now.as_ref().is_some_and(|now| named.contains(now) && *now != first));
        // Nothing comes: after two seconds servers are asked.
        for _ in 0..=VAIN_MAX {
            feeders.look(false, &left, &servers, &mut rng);
        }
        assert!(feeders.now.as_ref().is_some_and(|now| servers.contains(now)));
        let looks = (0..20 * BACK_ODDS).take_while(|_| {
            feeders.look(true, &all, &servers, &mut rng);
            feeders.now.as_ref().is_some_and(|now| servers.contains(now))
        });
        let looks = looks.count();
        assert!((1..20 * BACK_ODDS as usize).contains(&looks), "back after {looks}");
        feeders.look(true, &servers, &servers, &mut rng);
        assert!(feeders.now.as_ref().is_some_and(|now| servers.contains(now)));
    }
}
