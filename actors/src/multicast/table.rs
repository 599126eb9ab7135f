//! The table: an application of rows, each under its key.
//!
//! Messages change rows, questions read them; every node that follows the group has the same rows
//! after the same number. A program of its own rows wraps a table and says what its messages and
//! questions are.
//!
//! Rows are kept in the order of their keys, in pages of some kilobytes. The pages are the blocks of
//! its checkpoint: one that did not change since is not encoded again.

use std::{cell::OnceCell, collections::BTreeMap, fmt, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    application::{Application, BadCheckpoint, BadQuestion},
    checkpoint_server::digest,
    message::Entry,
};

/// A row's key, or what stands there.
pub trait Cell:
    Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + 'static
{
}

impl<T> Cell for T where
    T: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + 'static
{
}

/// Rows, the same at every node that follows the group.
pub struct Table<K, V> {
    /// By the key of their first row. None is empty.
    pages: BTreeMap<K, Page<K, V>>,
    rows: usize,
}

struct Page<K, V> {
    /// In the order of their keys.
    rows: Vec<(K, V)>,
    /// Bytes of them all, encoded.
    bytes: usize,
    encoded: OnceCell<Bytes>,
}

/// A change of one row. A message to a table is a list of them; they are made together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change<K, V> {
    /// From now on this stands there.
    Put(K, V),
    /// The row goes, if it is there.
    Remove(K),
}

/// A question to a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question<K> {
    /// What stands there: answered by an [`Option`] of it.
    Get(K),
    /// Rows from that key on, so many at most: answered by a [`Vec`] of them, each with its key. A
    /// thousand at a time are given, whatever is asked.
    StartingAt(K, u32),
    /// Answered by a [`Summary`].
    Summary,
}

/// What tells two tables apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// So many rows.
    pub rows: u64,
    /// Of all of them: equal tables have equal ones.
    pub digest: u64,
}

impl<K: Cell + Ord, V: Cell> Table<K, V> {
    /// So many rows.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What stands there.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (known, value) = self.at_or_before(key)?;
        (known == key).then_some(value)
    }

    /// The row with that key, or else the one before it in the order of keys.
    pub fn at_or_before(&self, key: &K) -> Option<(&K, &V)> {
        let (_, page) = self.pages.range(..=key).next_back()?;
        let after = page.rows.partition_point(|(known, _)| known <= key);
        let (key, value) = &page.rows[after - 1];
        Some((key, value))
    }

    /// The rows from that key on, in the order of keys.
    pub fn starting_at(&self, key: &K) -> impl Iterator<Item = (&K, &V)> {
        let first = self.pages.range(..=key).next_back().map_or(key, |(first, _)| first);
        let pages = self.pages.range(first..);
        let rows = pages.flat_map(|(_, page)| page.rows.iter().map(|(key, value)| (key, value)));
        rows.skip_while(move |(known, _)| *known < key)
    }

    /// Makes a change; answers what stood there.
    pub fn change(&mut self, change: Change<K, V>) -> Option<V> {
        match change {
            Change::Put(key, value) => self.put(key, value),
            Change::Remove(key) => self.remove(&key),
        }
    }

    fn put(&mut self, key: K, value: V) -> Option<V> {
        // What comes before all others belongs to the first page, under a new name.
        let at = self.pages.range(..=&key).next_back().or_else(|| self.pages.iter().next());
        let mut page = match at.map(|(first, _)| first.clone()) {
            Some(first) if first <= key => {
                let page = self.pages.get_mut(&first).expect("it was found");
                let old = page.put(key, value);
                self.rows += usize::from(old.is_none());
                if page.bytes > PAGE_BYTES && page.rows.len() > 1 {
                    let half = page.split();
                    self.insert(half);
                }
                return old;
            }
            Some(first) => self.pages.remove(&first).expect("it was found"),
            None => Page::default(),
        };
        page.put(key, value);
        self.rows += 1;
        if page.bytes > PAGE_BYTES && page.rows.len() > 1 {
            let half = page.split();
            self.insert(half);
        }
        self.insert(page);
        None
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let first = self.pages.range(..=key).next_back()?.0.clone();
        let mut page = self.pages.remove(&first)?;
        let old = page.remove(key);
        self.rows -= usize::from(old.is_some());
        // Few rows are not worth a page.
        if page.bytes < PAGE_BYTES / 8
            && let Some((_, next)) = self.pages.range(&first..).next()
            && page.bytes + next.bytes < PAGE_BYTES / 2
        {
            let next = next.rows[0].0.clone();
            page.append(self.pages.remove(&next)?);
        }
        self.insert(page);
        old
    }

    fn insert(&mut self, page: Page<K, V>) {
        if let Some((first, _)) = page.rows.first() {
            self.pages.insert(first.clone(), page);
        }
    }

    /// What tells it from others. Costs what changed since the last time, and a look at all bytes.
    pub fn summary(&self) -> Summary {
        Summary { rows: self.rows as u64, digest: digest(&self.blocks()) }
    }

    fn blocks(&self) -> Vec<Bytes> {
        self.pages.values().map(Page::encode).collect()
    }
}

impl<K: Cell + Ord, V: Cell> Page<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.rows.binary_search_by(|(known, _)| known.cmp(key))
    }

    fn put(&mut self, key: K, value: V) -> Option<V> {
        self.encoded.take();
        self.bytes += size(&key, &value);
        match self.find(&key) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.rows[at].1, value);
                self.bytes -= size(&key, &old);
                Some(old)
            }
            Err(at) => {
                self.rows.insert(at, (key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        self.encoded.take();
        let (key, value) = self.rows.remove(at);
        self.bytes -= size(&key, &value);
        Some(value)
    }

    /// Gives its second half away.
    fn split(&mut self) -> Self {
        let rows = self.rows.split_off(self.rows.len() / 2);
        let bytes = rows.iter().map(|(key, value)| size(key, value)).sum();
        self.bytes -= bytes;
        self.encoded.take();
        Self { rows, bytes, encoded: OnceCell::new() }
    }

    fn append(&mut self, mut next: Self) {
        self.encoded.take();
        self.rows.append(&mut next.rows);
        self.bytes += next.bytes;
    }

    /// Row after row.
    fn encode(&self) -> Bytes {
        let encode = || {
            let mut block = Vec::with_capacity(self.bytes);
            for row in &self.rows {
                rmp_serde::encode::write(&mut block, row).expect("plain data encodes");
            }
            block.into()
        };
        self.encoded.get_or_init(encode).clone()
    }

    fn decode(block: &Bytes) -> Result<Self, BadCheckpoint> {
        let mut rows = Vec::new();
        let mut rest = io::Cursor::new(&block[..]);
        while rest.position() < block.len() as u64 {
            let row: Result<(K, V), _> = rmp_serde::from_read(&mut rest);
            rows.push(row.map_err(|error| BadCheckpoint(error.to_string()))?);
        }
        Ok(Self { rows, bytes: block.len(), encoded: block.clone().into() })
    }
}

impl<K: Cell + Ord, V: Cell> Application for Table<K, V> {
    /// Makes the changes of a message. What is no list of changes changes nothing, anywhere.
    fn deliver(&mut self, entry: &Entry) {
        let changes: Result<Vec<Change<K, V>>, _> = rmp_serde::from_slice(&entry.payload);
        for change in changes.unwrap_or_default() {
            self.change(change);
        }
    }

    fn checkpoint(&mut self) -> Vec<Bytes> {
        self.blocks()
    }

    fn restore(&mut self, blocks: &[Bytes]) -> Result<(), BadCheckpoint> {
        let mut table = Self::default();
        let mut last: Option<K> = None;
        for block in blocks.iter().filter(|block| !block.is_empty()) {
            let page = Page::<K, V>::decode(block)?;
            for (key, _) in &page.rows {
                if last.as_ref().is_some_and(|last| last >= key) {
                    return Err(BadCheckpoint(format!("{key:?} is out of order")));
                }
                last = Some(key.clone());
            }
            table.rows += page.rows.len();
            table.insert(page);
        }
        *self = table;
        Ok(())
    }

    /// Answers a [`Question`].
    fn query(&self, question: &[u8]) -> Result<Vec<u8>, BadQuestion> {
        let question =
            rmp_serde::from_slice(question).map_err(|error| BadQuestion(error.to_string()))?;
        let answer = match question {
            Question::Get(key) => rmp_serde::to_vec(&self.get(&key)),
            Question::StartingAt(key, most) => {
                let most = most.min(ROWS_MAX) as usize;
                rmp_serde::to_vec(&self.starting_at(&key).take(most).collect::<Vec<_>>())
            }
            Question::Summary => rmp_serde::to_vec(&self.summary()),
        };
        Ok(answer.expect("plain data encodes"))
    }
}

/// Bytes of a row in a block.
fn size<K: Cell, V: Cell>(key: &K, value: &V) -> usize {
    let mut counted = Counted(0);
    rmp_serde::encode::write(&mut counted, &(key, value)).expect("plain data encodes");
    counted.0
}

struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), rows: 0 }
    }
}

impl<K, V> Default for Page<K, V> {
    fn default() -> Self {
        Self { rows: Vec::new(), bytes: 0, encoded: OnceCell::new() }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Bytes of a page, unless one row has more: some hundred rows, so that a change moves little, and
/// many a block fits an answer.
const PAGE_BYTES: usize = 16 << 10;

/// Rows of one answer.
const ROWS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use synod_runtime::world::Rng;

    use super::*;
    use crate::multicast::message::{Pair, Seq};

    type Rows = Table<u32, String>;

    fn entry(changes: &[Change<u32, String>]) -> Entry {
        let payload = rmp_serde::to_vec(changes).unwrap().into();
        Entry { seq: Seq(1), pair: Pair::VOID, payload }
    }

    fn any(rng: &mut Rng, keys: u32) -> Change<u32, String> {
        let key = rng.random_range(0..keys);
        if rng.random_ratio(1, 3) {
            return Change::Remove(key);
        }
        Change::Put(key, "x".repeat(rng.random_range(0..200)))
    }

    #[test]
    fn a_table_is_the_map_that_its_changes_make_and_goes_on_the_same_from_a_checkpoint() {
        let mut rng = Rng::seed_from_u64(7);
        let (mut first, mut second, mut model) =
            (Rows::default(), Rows::default(), BTreeMap::new());
        // It grows, and then shrinks to little.
        for round in 0..60_u32 {
            let keys = if round < 40 { 3_000 } else { 40 };
            let mut changes: Vec<_> = (0..200).map(|_| any(&mut rng, keys)).collect();
            if round == 40 {
                changes.extend((40..3_000).map(Change::Remove));
            }
            for change in &changes {
                match change.clone() {
                    Change::Put(key, value) => drop(model.insert(key, value)),
                    Change::Remove(key) => drop(model.remove(&key)),
                }
            }
            first.deliver(&entry(&changes));
            second.deliver(&entry(&changes));
            if round % 7 == 0 {
                let blocks = first.checkpoint();
                second = Rows::default();
                second.restore(&blocks).unwrap();
            }
            assert_eq!(first.checkpoint(), second.checkpoint(), "round {round}");
            let sizes = first.pages.values().map(|page| page.bytes);
            assert!(sizes.eq(first.blocks().iter().map(Bytes::len)), "round {round}");
        }
        assert_eq!(first.len(), model.len());
        assert!(first.starting_at(&0).eq(&model) && first.starting_at(&20).eq(model.range(20..)));
        for key in 0..50 {
            assert_eq!(first.get(&key), model.get(&key));
            assert_eq!(first.at_or_before(&key), model.range(..=key).next_back());
        }
        assert!(first.pages.len() < 3, "few rows are in few blocks: {}", first.pages.len());
    }

    #[test]
    fn blocks_are_bounded_and_those_without_a_change_are_not_made_again() {
        let mut table = Rows::default();
        let puts: Vec<_> = (0..5_000).map(|key| Change::Put(key, "row".to_owned())).collect();
        table.deliver(&entry(&puts));
        let before = table.checkpoint();
        assert!(before.iter().all(|block| block.len() <= PAGE_BYTES) && before.len() > 2);
        table.change(Change::Put(4_999, "other".to_owned()));
        let after = table.checkpoint();
        let same = |(one, other): &(&Bytes, &Bytes)| one.as_ptr() == other.as_ptr();
        assert_eq!(before.iter().zip(&after).filter(same).count(), before.len() - 1);
        assert_eq!(table.summary().digest, digest(&after));
        assert_ne!(digest(&before), digest(&after));
    }

    #[test]
    fn what_is_no_change_no_question_or_no_checkpoint_changes_nothing() {
        let mut table = Rows::default();
        table.change(Change::Put(5, "five".to_owned()));
        table.deliver(&Entry { payload: Bytes::from_static(b"\xc1"), ..entry(&[]) });
        let refused = table.restore(&[Bytes::from_static(b"\xc1")]).unwrap_err();
        assert!(refused.to_string().starts_with("not a checkpoint"), "{refused}");
        let row = rmp_serde::to_vec(&(5_u32, "five")).unwrap();
        let twice = table.restore(&[[row.clone(), row].concat().into()]).unwrap_err();
        assert_eq!(twice.to_string(), "not a checkpoint: 5 is out of order");
        assert!(table.query(b"what?").is_err());
        let question = rmp_serde::to_vec(&Question::Get(5_u32)).unwrap();
        let answer: Option<String> =
            rmp_serde::from_slice(&table.query(&question).unwrap()).unwrap();
        assert_eq!((answer.as_deref(), table.len()), (Some("five"), 1));
    }
}
