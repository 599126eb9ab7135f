//! What a home has sent and not heard of yet.

use std::collections::VecDeque;

use synod_runtime::world::Instant;

use crate::consensus::value::EncodedCommand;

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) encoded: EncodedCommand,
    /// Who waits, and until when; none once it was told *unknown*.
    pub(super) ticket: Option<(u64, Instant)>,
}

/// Commands by their number in the session. Numbers are given one after the other and answered nearly
/// so: a row of places, the first of which is taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The number of the first place.
    first: u64,
    /// The first place of a row that is not empty is taken.
    places: VecDeque<Option<Sent>>,
}

impl Window {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How far the numbers reach from the first to the last: what was answered between them counts.
    pub(super) fn reach(&self) -> usize {
        self.places.len()
    }

    /// Keeps the command with the next number.
    pub(super) fn push(&mut self, number: u64, sent: Sent) {
        if self.places.is_empty() {
            self.first = number;
        }
        debug_assert_eq!(number, self.first + self.places.len() as u64, "one after the other");
        self.places.push_back(Some(sent));
    }

    /// Takes the command with that number out.
    pub(super) fn take(&mut self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sent = self.places.get_mut(at)?.take()?;
        while self.places.front().is_some_and(Option::is_none) {
            self.places.pop_front();
            self.first += 1;
        }
        Some(sent)
    }

    /// Takes all of them out, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Sent> + use<> {
        std::mem::take(&mut self.places).into_iter().flatten()
    }

    /// Those from that number on, in order.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Sent> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.places.iter().skip(skip).flatten()
    }

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sent> {
        self.places.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::consensus::value::Command;

    fn sent(number: u64) -> Sent {
        let args = Bytes::new();
        let command =
            Command { session: 1, seq: number, actor: 2, function: 3, keyed: false, args };
        let ticket = Some((number, Instant::default()));
        Sent { encoded: EncodedCommand::new(&command), ticket }
    }

    fn tickets<'a>(row: impl Iterator<Item = &'a Sent>) -> Vec<u64> {
        row.filter_map(|sent| sent.ticket).map(|(ticket, _)| ticket).collect()
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_would(answers: Vec<u8>) {
            let (mut window, mut map) = (Window::default(), BTreeMap::new());
            let mut next = 1;
            for answer in answers {
                for _ in 0..2 {
                    window.push(next, sent(next));
                    map.insert(next, ());
                    next += 1;
                }
                // Numbers from before the first on, now and then one that never was.
                let number = next.saturating_sub(u64::from(answer));
                prop_assert_eq!(window.take(number).is_some(), map.remove(&number).is_some());
                prop_assert_eq!((window.from(0).count(), window.is_empty()), (map.len(), map.is_empty()));
                let from = number.saturating_sub(3);
                let held: Vec<_> = map.range(from..).map(|(number, ())| *number).collect();
                prop_assert_eq!(tickets(window.from(from)), held);
                let reach = map.keys().next().map_or(0, |first| next - first);
                prop_assert_eq!(window.reach() as u64, reach);
            }
            let all: Vec<_> = window.take_all().collect();
            prop_assert_eq!(tickets(all.iter()), map.into_keys().collect::<Vec<_>>());
            prop_assert!(window.is_empty() && window.take(next - 1).is_none());
        }
    }
}
