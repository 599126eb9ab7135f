//! Which server of a group is lost, and who takes its place.

use std::{collections::BTreeMap, time::Duration};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{
    book::What,
    group::{Group, Joining},
};

/// What the node that orders a group has seen of its servers.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Servers that are not up, and since when.
    away: BTreeMap<NodeId, Instant>,
    /// Somebody is on its way in, as of which version, and since when.
    joining: Option<(u64, Instant)>,
}

/// What a node sees of the others.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The node itself.
    pub me: &'a NodeId,
    /// Who is up and could serve, itself too; the first that can takes a place.
    pub up: &'a [NodeId],
    /// Who was removed from the cluster.
    pub removed: &'a [NodeId],
    /// The time there.
    pub now: Instant,
}

impl Losses {
    /// A server that is lost, and who takes its place; or who takes the place of one that was on its
    /// way in and does not come: that may be the server that was thought lost. Nothing is changed that
    /// the servers which are left could not end.
    pub fn look(&mut self, group: &Group, sight: &Sight<'_>) -> Option<What> {
        self.see(group, sight);
        let out = match &group.joining {
            Some(joining) => {
                let (version, since) = *self.joining.get_or_insert((group.version, sight.now));
                if version != group.version {
                    self.joining = None;
                    return None;
                }
                let out = group.servers.get(joining.place)?;
                // Who had the place has most of what it takes, and was perhaps only cut off.
                let is_back = sight.up.contains(out) && !sight.removed.contains(out);
                if is_back && !sight.up.contains(&joining.node) {
                    return Some(What::Replace { out: out.clone(), node: out.clone() });
                }
                let late = sight.now.since(since) >= JOINS_WITHIN;
                if !late && !self.is_lost(group, &joining.node, sight) {
                    return None;
                }
                out
            }
            None => {
                self.joining = None;
                let is_lost =
                    |server: &&NodeId| *server != sight.me && self.is_lost(group, server, sight);
                let out = group.servers.iter().find(is_lost)?;
                let stays = |server: &&NodeId| *server != out && sight.up.contains(server);
                if group.servers.iter().filter(stays).count() < group.needs() {
                    return None;
                }
                out
            }
        };
        let can_come = |node: &&NodeId| {
            !group.is_host(node)
                && !sight.removed.contains(node)
                && group.replacing(out, (*node).clone()).is_ok()
        };
        let node = sight.up.iter().find(can_come)?.clone();
        Some(What::Replace { out: out.clone(), node })
    }

    /// Notes who is away since now.
    fn see(&mut self, group: &Group, sight: &Sight<'_>) {
        let comes = group.joining.iter().map(|Joining { node, .. }| node);
        let away: Vec<_> =
            group.servers.iter().chain(comes).filter(|node| !sight.up.contains(node)).collect();
        self.away.retain(|node, _| away.contains(&node));
        for node in away {
            self.away.entry(node.clone()).or_insert(sight.now);
        }
    }

    fn is_lost(&self, group: &Group, server: &NodeId, sight: &Sight<'_>) -> bool {
        // Whoever was removed does not come back, up or not.
        if sight.removed.contains(server) {
            return true;
        }
        let Some(since) = self.away.get(server) else { return false };
        let after = Duration::from_millis(group.replace_after_ms);
        let late = !after.is_zero() && sight.now.since(*since) >= after;
        // Its name came back without its disk.
        late || sight.up.iter().any(|other| other.name == server.name)
    }
}

/// Who is on its way in has what it needs by then, or another one is tried: a node whose program
/// cannot take part never has.
const JOINS_WITHIN: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use synod_runtime::identity::Incarnation;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn node(n: u64) -> NodeId {
        NodeId::new(format!("s{n}").parse().unwrap(), Incarnation(n))
    }

    fn group() -> Group {
        Group { replace_after_ms: 10_000, ..Group::new("news", (0..3).map(node).collect()) }
    }

    fn look(losses: &mut Losses, group: &Group, up: &[NodeId], second: u64) -> Option<What> {
        let now = Instant::from_nanos(second * SECOND);
        losses.look(group, &Sight { me: &node(0), up, removed: &[], now })
    }

    fn replace(out: u64, by: u64) -> Option<What> {
        Some(What::Replace { out: node(out), node: node(by) })
    }

    #[test]
    fn who_was_away_for_long_is_replaced_and_who_came_back_is_not() {
        let (group, mut losses) = (group(), Losses::default());
        let [without, all] = [[0, 2, 3].map(node).to_vec(), [0, 1, 2, 3].map(node).to_vec()];
        assert_eq!(look(&mut losses, &group, &without, 0), None);
        assert_eq!(look(&mut losses, &group, &all, 8), None);
        assert_eq!(look(&mut losses, &group, &without, 9), None);
        assert_eq!(look(&mut losses, &group, &without, 18), None);
        assert_eq!(look(&mut losses, &group, &without, 19), replace(1, 3));
        let waits = Group { replace_after_ms: 0, ..group.clone() };
        assert_eq!(look(&mut losses, &waits, &without, 1_000), None);
        let nobody_is_left = [0, 2].map(node);
        assert_eq!(look(&mut losses, &group, &nobody_is_left, 20), None);
    }

    #[test]
    fn who_was_removed_or_lost_its_disk_is_replaced_at_once() {
        let (group, mut losses) = (group(), Losses::default());
        let reborn = NodeId::new(node(1).name, Incarnation(99));
        let up = [node(0), reborn.clone(), node(2)];
        let by_itself = Some(What::Replace { out: node(1), node: reborn });
        assert_eq!(look(&mut losses, &group, &up, 0), by_itself);
        let (up, removed) = ([0, 1, 2, 3].map(node), [node(1)]);
        let now = Instant::from_nanos(0);
        let sight = Sight { me: &node(0), up: &up, removed: &removed, now };
        assert_eq!(losses.look(&group, &sight), replace(1, 3));
    }

    #[test]
    fn nothing_is_changed_that_the_servers_which_are_left_could_not_end() {
        let (group, mut losses) = (group(), Losses::default());
        let alone = [0, 3, 4].map(node);
        assert_eq!(look(&mut losses, &group, &alone, 0), None);
        assert_eq!(look(&mut losses, &group, &alone, 1_000), None);
        // Either of the two comes back, and the other is replaced.
        let up = [0, 2, 3, 4].map(node);
        assert_eq!(look(&mut losses, &group, &up, 1_001), replace(1, 3));
        let all_are_needed = Group { k_commit: 3, ..group };
        assert_eq!(look(&mut losses, &all_are_needed, &up, 1_002), None);
    }

    #[test]
    fn who_does_not_come_gives_its_place_to_another() {
        let mut losses = Losses::default();
        let coming = group().replacing(&node(1), node(3)).unwrap();
        let up = [0, 2, 3, 4].map(node);
        assert_eq!(look(&mut losses, &coming, &up, 0), None);
        assert_eq!(look(&mut losses, &coming, &up, 119), None);
        assert_eq!(look(&mut losses, &coming, &up, 120), replace(1, 4));
        let again = coming.replacing(&node(1), node(4)).unwrap();
        assert_eq!(look(&mut losses, &again, &up, 121), None);
        assert_eq!(look(&mut losses, &again, &up, 122), None);
        let gone = [0, 2, 3].map(node);
        let back = [0, 1, 2, 4].map(node);
        assert_eq!(look(&mut losses, &again, &back, 122), None, "s4 is on its way");
        assert_eq!(look(&mut losses, &again, &back[..3], 122), replace(1, 1), "as it was before");
        let removed = Sight {
            me: &node(0),
            up: &back[..3],
            removed: &[node(1)],
            now: Instant::from_nanos(122 * SECOND),
        };
        assert_eq!(losses.look(&again, &removed), None);
        let there = again.replacing(&node(1), node(1)).and_then(|back| back.joined(&node(1)));
        assert_eq!(there.map(|group| group.servers), Ok(group().servers));
        assert_eq!(look(&mut losses, &again, &back, 122), None);
        assert_eq!(look(&mut losses, &again, &gone, 123), None);
        assert_eq!(look(&mut losses, &again, &gone, 133), replace(1, 3));
    }
}
