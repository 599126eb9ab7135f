//! Who votes on which step.
//!
//! The configuration is itself decided by the log: a [`Configuration`] chosen at step `k` decides
//! from step `k + ALPHA` on (Cheap Paxos, claims 16 and 26: the step that chooses a quorum precedes
//! the steps that use it). So a node knows who votes on step `n` exactly when it has executed all
//! steps up to `n - ALPHA`, and never guesses.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use synod_runtime::identity::{Incarnation, NodeId, NodeName};

use super::{ballot::Step, message::NodeRole};

/// How many steps may be open at once, and therefore how far ahead a configuration decides. Ample:
/// the pipeline holds at most a few steps, and a change costs one message of `ALPHA` small steps.
pub const ALPHA: u64 = 64;

/// The members of the cluster as one epoch knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Rises by one with every change.
    pub epoch: u64,
    /// The nodes that hold state and vote on every step.
    pub mains: Vec<NodeId>,
    /// The inexpensive nodes, asked only when a main is missing.
    pub auxiliaries: Vec<NodeId>,
    /// Mains voted out, welcome back once they caught up, under any incarnation.
    pub absent: Vec<NodeName>,
    /// Nodes that operators added, each with the role it gets once it has caught up.
    #[serde(default)]
    pub expected: Vec<(NodeName, NodeRole)>,
    /// Nodes that follow the log and never vote.
    #[serde(default)]
    pub members: Vec<NodeName>,
    /// Where nodes that were added later are reached.
    #[serde(default)]
    pub addresses: Vec<(NodeName, String)>,
    /// Nodes that operators removed, the last ones: each stops when it learns of it.
    #[serde(default)]
    pub removed: Vec<NodeId>,
    /// The cluster version: commands that are marked with a higher one are not executed yet. Every
    /// main can do what it stands for, and it never falls.
    #[serde(default)]
    pub version: u32,
}

/// Nodes that came and went are remembered so far back: one that was away for longer stays outside
/// all the same, it only is not told why.
const REMOVED_KEPT: usize = 64;

impl Configuration {
    /// The first configuration of a log.
    pub fn founding(mains: Vec<NodeId>, auxiliaries: Vec<NodeId>) -> Self {
        Self { mains, auxiliaries, ..Self::default() }
    }

    /// Whether the nodes of `voters` are enough to choose: all mains, or a majority of all members
    /// with a main among them. Any two such sets share a node: two majorities do, and all mains
    /// meet any set that holds a main.
    pub fn is_quorum(&self, voters: &BTreeSet<Incarnation>) -> bool {
        let count = |nodes: &[NodeId]| {
            nodes.iter().filter(|node| voters.contains(&node.incarnation)).count()
        };
        let (mains, auxiliaries) = (count(&self.mains), count(&self.auxiliaries));
        if self.mains.is_empty() || mains == 0 {
            return false;
        }
        let members = self.mains.len() + self.auxiliaries.len();
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::HalfInsteadOfMajority) {
            return 2 * (mains + auxiliaries) >= members;
        }
        mains == self.mains.len() || 2 * (mains + auxiliaries) > members
    }

    /// Whether nothing is chosen without the votes of all mains, unless an auxiliary votes too. Not
    /// so with three mains and no auxiliary: there two of them choose alone.
    pub fn needs_every_main(&self) -> bool {
        let members = self.mains.len() + self.auxiliaries.len();
        2 * self.mains.len().saturating_sub(1) <= members
    }

    /// Whether `node` is one of the mains, in this very incarnation.
    pub fn has_main(&self, node: Incarnation) -> bool {
        self.mains.iter().any(|main| main.incarnation == node)
    }

    /// The mains other than `node`.
    pub fn other_mains(&self, node: Incarnation) -> impl Iterator<Item = &NodeId> {
        self.mains.iter().filter(move |main| main.incarnation != node)
    }

    /// The next configuration, without the main `node`, which may come back.
    pub fn without_main(&self, node: Incarnation) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.mains.retain(|main| main.incarnation != node);
        for gone in self.mains.iter().filter(|main| main.incarnation == node) {
            if !next.absent.contains(&gone.name) {
                next.absent.push(gone.name.clone());
            }
        }
        next
    }

    /// The next configuration, with `node` as a main again.
    pub fn with_main(&self, node: NodeId) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.absent.retain(|name| *name != node.name);
        next.expected.retain(|(name, _)| *name != node.name);
        next.mains.push(node);
        next
    }

    /// The next configuration, with the auxiliary of the same name replaced by `node`.
    pub fn with_auxiliary(&self, node: NodeId) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.auxiliaries.retain(|old| old.name != node.name);
        next.expected.retain(|(name, _)| *name != node.name);
        next.auxiliaries.push(node);
        next
    }

    /// The same configuration, which knows these members too.
    #[must_use]
    pub fn with_members(self, members: Vec<NodeName>) -> Self {
        Self { members, ..self }
    }

    /// The same configuration, at that cluster version.
    #[must_use]
    pub fn at_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// The next configuration, at a higher cluster version.
    pub fn raised_to(&self, version: u32) -> Self {
        let epoch = self.epoch + 1;
        Self { epoch, version: version.max(self.version), ..self.clone() }
    }

    /// The next configuration, in which `name`, which holds no vote, is to become a main as soon as
    /// it has caught up.
    pub fn promoting(&self, name: &NodeName) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.members.retain(|member| member != name);
        next.expected.push((name.clone(), NodeRole::Main));
        next
    }

    /// The next configuration, in which `name` follows the log and has no vote.
    pub fn demoting(&self, name: &NodeName) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.mains.retain(|node| node.name != *name);
        next.absent.retain(|absent| absent != name);
        next.expected.retain(|(expected, _)| expected != name);
        next.members.push(name.clone());
        next
    }

    /// The next configuration, which waits for `name` to come as `role` and knows its address.
    pub fn expecting(&self, name: &NodeName, role: NodeRole, address: &str) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.removed.retain(|node| node.name != *name);
        next.addresses.retain(|(known, _)| known != name);
        next.addresses.push((name.clone(), address.to_owned()));
        match role {
            NodeRole::Main | NodeRole::Auxiliary => next.expected.push((name.clone(), role)),
            NodeRole::Member => next.members.push(name.clone()),
        }
        next
    }

    /// The next configuration, without anything of that name; `id` is who bears it, as far as is
    /// known. If nobody knows, the name is remembered with a number that no node has.
    pub fn without(&self, name: &NodeName, id: Option<NodeId>) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        let voters = self.mains.iter().chain(&self.auxiliaries);
        let mut bearers: Vec<NodeId> =
            voters.filter(|node| node.name == *name).cloned().chain(id).collect();
        if bearers.is_empty() {
            bearers.push(NodeId::new(name.clone(), Incarnation(0)));
        }
        for gone in bearers {
            if !next.removed.contains(&gone) {
                next.removed.push(gone);
            }
        }
        let surplus = next.removed.len().saturating_sub(REMOVED_KEPT);
        next.removed.drain(..surplus);
        next.mains.retain(|node| node.name != *name);
        next.auxiliaries.retain(|node| node.name != *name);
        next.absent.retain(|absent| absent != name);
        next.expected.retain(|(expected, _)| expected != name);
        next.members.retain(|member| member != name);
        next.addresses.retain(|(known, _)| known != name);
        next
    }

    /// What the node of that name is here, or is to become.
    pub fn role_of(&self, name: &NodeName) -> Option<NodeRole> {
        let named = |nodes: &[NodeId]| nodes.iter().any(|node| node.name == *name);
        let expected = self.expected.iter().find(|(expected, _)| expected == name);
        match () {
            () if named(&self.mains) || self.absent.contains(name) => Some(NodeRole::Main),
            () if named(&self.auxiliaries) => Some(NodeRole::Auxiliary),
            () if self.members.contains(name) => Some(NodeRole::Member),
            () => expected.map(|(_, role)| *role),
        }
    }

    /// Votes that choose, at least: what must be left for anything to be decided.
    fn least_quorum(&self) -> usize {
        let majority = (self.mains.len() + self.auxiliaries.len()) / 2 + 1;
        majority.min(self.mains.len())
    }

    /// Whether fewer nodes can choose once the main `node` is voted out. If not, waiting for it
    /// costs nothing, and its return may be what is needed next.
    pub fn gains_without(&self, node: Incarnation) -> bool {
        self.without_main(node).least_quorum() < self.least_quorum()
    }
}

/// The configurations of all steps that can still be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Each with the first step it decides, in rising order. Empty on a node that knows nothing.
    changes: Vec<(Step, Configuration)>,
    /// Everything up to here was executed.
    executed: Step,
}

impl History {
    /// The history of a log that begins with `genesis`.
    pub fn new(genesis: Configuration) -> Self {
        Self { changes: vec![(Step(1), genesis)], executed: Step(0) }
    }

    /// Notes that `step` was executed, and the configuration it held, if it held one.
    pub fn execute(&mut self, step: Step, change: Option<Configuration>) {
        assert_eq!(step, self.executed.next(), "I2: steps are executed in order");
        self.executed = step;
        if let Some(configuration) = change {
            #[cfg(any(test, feature = "mutations"))]
            if crate::mutation::on(crate::mutation::Mutation::EffectiveAtOnce) {
                self.changes.push((step.next(), configuration));
                return;
            }
            self.changes.push((step.plus(ALPHA), configuration));
        }
    }

    /// Forgets configurations that ended before `step`.
    pub fn forget_before(&mut self, step: Step) {
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::AssumeInitial) {
            return;
        }
        while self.changes.len() > 1 && self.changes[1].0 <= step {
            self.changes.remove(0);
        }
    }

    /// Goes back to the configuration the log began with: what a careless restart would do.
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn forget_changes(&mut self) {
        self.changes.truncate(1);
    }

    /// These configurations at another step: what a careless installation of a snapshot would do.
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn at_step(&self, executed: Step) -> Self {
        Self { executed, ..self.clone() }
    }

    /// Who votes on `step`, if this node can know.
    pub fn at(&self, step: Step) -> Option<&Configuration> {
        if step.beyond(self.executed) > ALPHA {
            return None;
        }
        self.changes.iter().rev().find(|(from, _)| *from <= step).map(|(_, c)| c)
    }

    /// Who votes on the next step, if this node knows anything at all.
    pub fn current(&self) -> Option<&Configuration> {
        self.at(self.executed.next())
    }

    /// The newest decided configuration, in force or not yet.
    pub fn newest(&self) -> Option<&Configuration> {
        self.changes.last().map(|(_, configuration)| configuration)
    }

    /// The first step that the newest configuration decides.
    pub fn newest_from(&self) -> Option<Step> {
        self.changes.last().map(|(from, _)| *from)
    }

    /// All of them, each with the first step it decides, in rising order.
    pub fn changes(&self) -> &[(Step, Configuration)] {
        &self.changes
    }

    /// Everything up to here was executed.
    pub fn executed(&self) -> Step {
        self.executed
    }

    /// Whether the log goes on without the vote of this main, as far as can be known here: it was
    /// voted out and is not back in force, or somebody told of a newer epoch than is known here.
    pub fn goes_on_without(&self, main: &NodeName, newest_epoch_told: u64) -> bool {
        let Some(newest) = self.newest() else { return false };
        let missed = newest_epoch_told > newest.epoch;
        let away = |now: &Configuration| now.absent.contains(main);
        let is_main = newest.role_of(main) == Some(NodeRole::Main);
        is_main && missed || self.current().is_some_and(away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64) -> NodeId {
        NodeId::new(format!("n{n}").parse().unwrap(), Incarnation(n))
    }

    fn shape(mains: std::ops::Range<u64>, auxiliaries: std::ops::Range<u64>) -> Configuration {
        Configuration::founding(mains.map(node).collect(), auxiliaries.map(node).collect())
    }

    fn subsets(of: u64) -> impl Iterator<Item = BTreeSet<Incarnation>> {
        (0u64..1 << of)
            .map(move |bits| (0..of).filter(|n| bits >> n & 1 == 1).map(Incarnation).collect())
    }

    #[test]
    fn any_two_quorums_of_one_step_share_a_node() {
        for (mains, auxiliaries) in [(1, 0), (1, 1), (2, 1), (2, 2), (3, 0), (3, 2), (1, 2)] {
            let configuration = shape(0..mains, mains..mains + auxiliaries);
            let quorums: Vec<_> =
                subsets(mains + auxiliaries).filter(|s| configuration.is_quorum(s)).collect();
            assert!(!quorums.is_empty());
            for one in &quorums {
                assert!(quorums.iter().all(|two| !one.is_disjoint(two)), "{mains}+{auxiliaries}");
            }
        }
    }

    #[test]
    fn where_every_main_is_needed_no_quorum_of_mains_lacks_one() {
        for (mains, auxiliaries) in [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 1), (4, 2)] {
            let configuration = shape(0..mains, mains..mains + auxiliaries);
            let lacks_one = subsets(mains).any(|some| {
                configuration.is_quorum(&some) && some.len() < configuration.mains.len()
            });
            assert_eq!(configuration.needs_every_main(), !lacks_one, "{mains}+{auxiliaries}");
        }
    }

    #[test]
    fn a_silent_main_is_voted_out_only_where_that_helps() {
        for (mains, auxiliaries, helps) in [(2, 1, true), (3, 2, true), (3, 1, true), (3, 0, false)]
        {
            let configuration = shape(0..mains, mains..mains + auxiliaries);
            assert_eq!(configuration.gains_without(Incarnation(0)), helps, "{mains}+{auxiliaries}");
        }
    }

    #[test]
    fn whoever_is_added_is_waited_for_and_whoever_is_removed_is_remembered() {
        let name = |n: u64| node(n).name;
        let added = shape(0..2, 2..3).expecting(&name(7), NodeRole::Main, "h:1");
        assert_eq!((added.role_of(&name(7)), added.mains.len()), (Some(NodeRole::Main), 2));
        let three = added.with_main(node(7));
        assert!(three.has_main(Incarnation(7)) && three.expected.is_empty());
        assert_eq!(three.addresses, vec![(name(7), "h:1".to_owned())], "it may be away later");
        let less = three.without(&name(2), None).without(&name(7), None);
        assert_eq!((less.removed, less.epoch), (vec![node(2), node(7)], 4));
        assert!(less.auxiliaries.is_empty() && less.addresses.is_empty());
        // Nobody has seen this one.
        let never = shape(0..2, 2..3).expecting(&name(8), NodeRole::Member, "h:1");
        let gone = never.without(&name(8), None);
        assert_eq!(gone.role_of(&name(8)), None);
        assert!(
            gone.removed.iter().any(|node| node.name == name(8)),
            "who asks hears that it is so"
        );
    }

    #[test]
    fn a_member_counts_only_once_it_has_caught_up_and_a_main_may_step_back() {
        let name = |n: u64| node(n).name;
        let founded = shape(0..2, 2..3).with_members(vec![name(7)]);
        let waits = founded.promoting(&name(7));
        assert_eq!((waits.role_of(&name(7)), waits.mains.len()), (Some(NodeRole::Main), 2));
        assert!(waits.members.is_empty() && waits.expected == vec![(name(7), NodeRole::Main)]);
        let three = waits.with_main(node(7));
        assert!(three.has_main(Incarnation(7)) && three.expected.is_empty());
        let back = three.demoting(&name(0));
        assert_eq!(back.mains, vec![node(1), node(7)]);
        assert_eq!((back.role_of(&name(0)), back.epoch), (Some(NodeRole::Member), 3));
        assert!(back.removed.is_empty(), "it goes on");
        // One that never came, or was voted out, steps back too.
        let away = three.without_main(Incarnation(0)).demoting(&name(0));
        assert!(away.absent.is_empty() && away.members == vec![name(0)]);
        assert!(waits.demoting(&name(7)).expected.is_empty());
    }

    #[test]
    fn auxiliaries_alone_choose_nothing_and_the_mains_alone_everything() {
        let configuration = shape(0..2, 2..3);
        let set = |nodes: &[u64]| nodes.iter().copied().map(Incarnation).collect();
        assert!(configuration.is_quorum(&set(&[0, 1])));
        assert!(configuration.is_quorum(&set(&[0, 2])));
        assert!(!configuration.is_quorum(&set(&[2])));
        assert!(!configuration.is_quorum(&set(&[0])));
    }

    #[test]
    fn a_configuration_decides_alpha_steps_later_and_nobody_guesses_further() {
        let genesis = shape(0..2, 2..3);
        let mut history = History::new(genesis.clone());
        history.execute(Step(1), Some(genesis.without_main(Incarnation(1))));
        assert_eq!(history.at(Step(ALPHA)).unwrap().epoch, 0);
        assert_eq!(history.at(Step(ALPHA + 1)).unwrap().epoch, 1);
        assert_eq!(history.at(Step(ALPHA + 2)), None);
        for step in 2..=ALPHA {
            history.execute(Step(step), None);
        }
        assert_eq!(history.current().unwrap().mains, vec![node(0)]);
    }

    #[test]
    fn a_main_counts_again_once_its_return_is_in_force() {
        let (away, stays) = (&node(1).name, &node(0).name);
        let genesis = shape(0..2, 2..3).with_members(vec![node(7).name]);
        let mut history = History::new(genesis.clone());
        let execute = |history: &mut History, change: Option<&Configuration>| {
            history.execute(history.executed().next(), change.cloned());
        };
        let in_force = |history: &mut History| (1..ALPHA).for_each(|_| execute(history, None));
        assert!(!history.goes_on_without(away, genesis.epoch));
        assert!(history.goes_on_without(away, genesis.epoch + 1), "another knows more");
        assert!(!history.goes_on_without(&node(7).name, 9), "a member's vote is not missed");
        let without = genesis.without_main(Incarnation(1));
        execute(&mut history, Some(&without));
        in_force(&mut history);
        assert!(history.goes_on_without(away, 0) && !history.goes_on_without(stays, 0));
        let back = without.with_main(node(1));
        execute(&mut history, Some(&back));
        assert!(history.goes_on_without(away, back.epoch), "decided, not yet in force");
        in_force(&mut history);
        assert!(!history.goes_on_without(away, back.epoch));
    }
}
