//! How long those who need a service are held off: from when it serves no more until it serves again,
//! wherever that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use synod_runtime::world::Instant;

/// The services that are looked at.
#[derive(Debug, Default)]
pub struct Holds {
    /// Those that have served; since when they do not, if so.
    known: BTreeMap<String, Option<Instant>>,
}

impl Holds {
    /// How they are now: names, and whether each serves. Answers which serve again, and after how
    /// long. One that never served is not waited for yet; one that is not named any more is forgotten.
    pub fn look(&mut self, now: Instant, all: &[(String, bool)]) -> Vec<(String, Duration)> {
        let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
        self.known.retain(|name, _| names.contains(name));
        let mut over = Vec::new();
        for (name, serves) in all {
            match (self.known.get_mut(name), serves) {
                (Some(held), true) => {
                    let since = held.take();
                    over.extend(since.map(|since| (name.clone(), now.since(since))));
                }
                (Some(held), false) => drop(held.get_or_insert(now)),
                (None, true) => drop(self.known.insert(name.clone(), None)),
                (None, false) => {}
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_from_when_it_serves_no_more_until_it_serves_again() {
        let mut holds = Holds::default();
        let mut look = |ms: u64, serves: bool| {
            let over = holds.look(Instant::from_nanos(ms * 1_000_000), &[("web".into(), serves)]);
            over.into_iter().map(|(_, held)| held.as_millis()).collect::<Vec<_>>()
        };
        assert!(look(0, false).is_empty(), "it never served");
        assert!(look(10, true).is_empty() && look(20, true).is_empty());
        assert!(look(100, false).is_empty() && look(200, false).is_empty());
        assert_eq!(look(450, true), [350]);
        assert!(look(500, true).is_empty(), "counted once");
    }

    #[test]
    fn what_is_removed_is_forgotten() {
        let mut holds = Holds::default();
        let at = |ms: u64| Instant::from_nanos(ms);
        holds.look(at(0), &[("web".into(), true)]);
        holds.look(at(1), &[("web".into(), false)]);
        holds.look(at(2), &[]);
        assert!(holds.look(at(3), &[("web".into(), true)]).is_empty(), "another of its name");
    }
}
