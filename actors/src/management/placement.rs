//! Who is next in line for a service, and who is a spare: ranks, and nothing else.
//!
//! Primary comes before secondary, secondary before spare; within a class the lower name comes
//! first. So no two nodes of a service rank alike.

/// A node's rank among those that may run a service, as the priority with which it stands for the
/// role: the highest is next.
pub fn priority(node: &str, preferred: bool, secondary: bool, nodes: &[String]) -> u8 {
    let class = match (preferred, secondary) {
        (true, _) => PREFERRED,
        (false, true) => SECONDARY,
        (false, false) => SPARE,
    };
    class + (RANKS - 1).saturating_sub(place(node, nodes))
}

/// The node's place among them by name; the last when it is none of them, or there are very many.
pub fn place(node: &str, nodes: &[String]) -> u8 {
    let lower = nodes.iter().filter(|other| other.as_str() < node).count();
    let known = nodes.iter().any(|other| other == node);
    u8::try_from(lower).ok().filter(|_| known).unwrap_or(RANKS - 1).min(RANKS - 1)
}

/// Who shall be next in line: those that are, for as long as they stand; then spares that stand, by
/// rank; at most `wanted`. `standing` is everybody who stands for the role, in any order.
pub fn secondaries(known: &[String], standing: &[String], wanted: u32) -> Vec<String> {
    let stays = known.iter().filter(|node| standing.contains(node));
    let mut spares: Vec<_> = standing.iter().filter(|node| !known.contains(node)).collect();
    spares.sort();
    spares.dedup();
    stays.chain(spares).take(wanted as usize).cloned().collect()
}

/// Below all others, but for the last of the spares: of a node that leaves a service to another.
pub const LAST: u8 = SPARE;

/// So many ranks within a class; a service with more providers has the last ones in any order.
const RANKS: u8 = 64;

const SPARE: u8 = 0;
const SECONDARY: u8 = SPARE + RANKS;
const PREFERRED: u8 = SECONDARY + RANKS;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_secondary_comes_before_any_spare_and_names_decide_within_a_class() {
        let nodes = names("a b c m1");
        let rank = |node: &str, secondary| priority(node, false, secondary, &nodes);
        assert!(rank("m1", true) > rank("a", false));
        assert!(rank("a", false) > rank("b", false) && rank("a", true) > rank("b", true));
        assert!(priority("m1", true, false, &nodes) > rank("a", true), "whoever was named first");
        let mut all: Vec<_> = nodes.iter().map(|node| rank(node, false)).collect();
        all.dedup();
        assert_eq!(all.len(), nodes.len(), "no two alike");
        assert_eq!(place("nobody", &nodes), RANKS - 1);
    }

    #[test]
    fn secondaries_stay_while_they_stand_and_spares_are_promoted_up_to_the_wanted_number() {
        let all = names("m1 c b");
        assert_eq!(secondaries(&[], &all, 1), ["b"]);
        assert_eq!(secondaries(&names("m1"), &all, 1), ["m1"], "whatever the names");
        assert_eq!(secondaries(&names("m1"), &all, 2), ["m1", "b"]);
        assert_eq!(secondaries(&names("m1 c"), &names("c b"), 2), ["c", "b"], "one is down");
        assert_eq!(secondaries(&names("c b"), &all, 1), ["c"], "the last to come goes first");
        assert!(secondaries(&names("c b"), &all, 0).is_empty());
    }
}
