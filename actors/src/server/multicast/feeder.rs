//! Who feeds a node that serves nothing of a group.

use std::{sync::Weak, time::Duration};

use rand::RngExt as _;
use synod_runtime::{identity::NodeName, node::Node, world::Rng};

use super::room::Room;
use crate::multicast::channel::Way;

/// Asks one node after the other to feed this one, where it serves nothing, and stays with one that
/// does.
pub(super) async fn be_fed(node: Node, room: Weak<Room>, named: Vec<NodeName>, way: Way) {
    let mut rng = node.rng("multicast/feeder");
    let mut feeders = Feeders { named, ..Feeders::default() };
    let mut looks = 0_u32;
    while let Some(room) = room.upgrade() {
        if room.hosts() {
            feeders.now = None;
        } else {
            let up: Vec<_> = node.peers_up().into_iter().map(|peer| peer.id.name).collect();
            let servers: Vec<_> =
                room.group().counted().map(|server| server.name.clone()).collect();
            let sight = Sight { hears: room.hears(), silent: room.feeder_is_silent() };
            feeders.look(sight, &up, &servers, &mut rng);
        }
        if looks.is_multiple_of(LOOKS_AN_ASK) || room.feeder() != feeders.now {
            room.ask_to_be_fed(feeders.now.as_ref(), way);
        }
        looks = looks.wrapping_add(1);
        drop(room);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What comes from the one who is asked.
#[derive(Debug, Clone, Copy)]
struct Sight {
    /// Signs of life of a sequencer.
    hears: bool,
    /// No answer, though it gave some: it is gone, whatever else may be wrong.
    silent: bool,
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
    /// and servers when these do not help, or when there is no other; now and then one that is fed by
    /// a server tries the named ones again.
    fn look(&mut self, sight: Sight, up: &[NodeName], servers: &[NodeName], rng: &mut Rng) {
        let Sight { hears, silent } = sight;
        let gone = self.now.take_if(|_| silent);
        let may = |name: &&NodeName| gone.as_ref() != Some(*name);
        let named = self.named.iter().filter(|name| up.contains(name)).filter(may);
        let named: Vec<_> = named.collect();
        self.vain = if hears || silent { 0 } else { self.vain + 1 };
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
            let others: Vec<_> = servers.iter().filter(may).collect();
            others.get(rng.random_range(0..others.len().max(1))).copied()
        } else {
            Some(named[rng.random_range(0..named.len())])
        };
        // The only one there is may be back.
        self.now = next.cloned().or(gone);
    }
}

/// How often to look whether anything comes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Who is fed asks again at every second look: well before its feeder forgets it.
const LOOKS_AN_ASK: u32 = 2;

/// After so many looks without a sign of life servers are asked: two seconds. It is the sequencer that
/// is silent, mostly, and then nobody needs to go anywhere.
const VAIN_MAX: u32 = 8;

/// Of so many looks at one a node that a server feeds goes back to those it names: after some five
/// minutes, and not all at once.
const BACK_ODDS: u32 = 1_200;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const HEARS: Sight = Sight { hears: true, silent: false };
    const NOTHING: Sight = Sight { hears: false, silent: false };

    fn names<const N: usize>(names: [&str; N]) -> Vec<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_named_ones_feed_as_long_as_they_can_and_servers_after_them() {
        let (servers, named) = (names(["a", "b"]), names(["r1", "r2"]));
        let mut rng = Rng::seed_from_u64(1);
        let mut feeders = Feeders { named: named.clone(), ..Feeders::default() };
        let all = names(["a", "b", "r1", "r2"]);
        feeders.look(NOTHING, &all, &servers, &mut rng);
        let first = feeders.now.clone().unwrap();
        assert!(named.contains(&first));
        for _ in 0..2_000 {
            feeders.look(HEARS, &all, &servers, &mut rng);
            assert_eq!(feeders.now.as_ref(), Some(&first));
        }
        let left: Vec<_> = all.iter().filter(|name| **name != first).cloned().collect();
        feeders.look(HEARS, &left, &servers, &mut rng);
        assert!(feeders.now.as_ref().is_some_and(|now| named.contains(now) && *now != first));
        // Nothing comes: after two seconds servers are asked.
        for _ in 0..=VAIN_MAX {
            feeders.look(NOTHING, &left, &servers, &mut rng);
        }
        assert!(feeders.now.as_ref().is_some_and(|now| servers.contains(now)));
        let looks = (0..20 * BACK_ODDS).take_while(|_| {
            feeders.look(HEARS, &all, &servers, &mut rng);
            feeders.now.as_ref().is_some_and(|now| servers.contains(now))
        });
        let looks = looks.count();
        assert!((1..20 * BACK_ODDS as usize).contains(&looks), "back after {looks}");
        feeders.look(HEARS, &servers, &servers, &mut rng);
        assert!(feeders.now.as_ref().is_some_and(|now| servers.contains(now)));
    }

    #[test]
    fn one_that_answers_no_more_is_left_at_once_for_another_or_a_server() {
        let (servers, named) = (names(["a", "b"]), names(["r1", "r2"]));
        let all = names(["a", "b", "r1", "r2"]);
        let mut rng = Rng::seed_from_u64(2);
        let silent = Sight { hears: true, silent: true };
        for _ in 0..20 {
            let mut two = Feeders { named: named.clone(), ..Feeders::default() };
            two.look(HEARS, &all, &servers, &mut rng);
            let first = two.now.clone().unwrap();
            two.look(silent, &all, &servers, &mut rng);
            assert!(two.now.as_ref().is_some_and(|now| named.contains(now) && *now != first));
            let mut one = Feeders { named: names(["r1"]), ..Feeders::default() };
            one.look(HEARS, &all, &servers, &mut rng);
            assert_eq!(one.now, Some(named[0].clone()));
            one.look(silent, &all, &servers, &mut rng);
            let server = one.now.clone().unwrap();
            assert!(servers.contains(&server));
            // It answers no more either, and "r1" is still thought to be up.
            one.look(silent, &all, &servers, &mut rng);
            assert!(one.now.is_some_and(|now| now != server));
            let mut alone = Feeders::default();
            alone.look(HEARS, &all, &servers[..1], &mut rng);
            alone.look(silent, &all, &servers[..1], &mut rng);
            assert_eq!(alone.now.as_ref(), servers.first());
        }
    }
}
