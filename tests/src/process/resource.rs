//! A resource that remembers everybody who touched it: programs that should be alone write their epoch,
//! the time and their process into it, every few milliseconds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::wait::until;

/// A file of touches.
#[derive(Debug)]
pub struct Resource(PathBuf);

/// One line of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// Of the role or service, as the program was told.
    pub epoch: u64,
    /// Nanoseconds of the wall clock, which all processes of a machine share.
    pub at: u64,
    /// Whose.
    pub pid: u32,
}

impl Resource {
    /// An untouched one.
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("touched");
        fs::write(&path, "").expect("the directory of a test");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A program for `sh -c` that touches it every few milliseconds, after `before`.
    pub fn program(&self, before: &str) -> String {
        format!(
            "{before} while :; do echo $SYNOD_EPOCH $(date +%s%N) $$ >> {}; sleep 0.01; done",
            self.0.display()
        )
    }

    /// All touches, in order; a line that is being written does not count.
    pub fn touches(&self) -> Vec<Touch> {
        let text = fs::read_to_string(&self.0).expect("made with the resource");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let touch = |line: &str| {
            let mut parts = line.split(' ').map(|part| part.parse::<u64>().expect(line));
            let mut next = || parts.next().expect(line);
            let (epoch, at) = (next(), next());
            Touch { epoch, at, pid: u32::try_from(next()).expect(line) }
        };
        whole.lines().map(touch).collect()
    }

    /// The last touch.
    ///
    /// # Panics
    /// When there is none.
    pub fn last(&self) -> Touch {
        *self.touches().last().expect("somebody touched it")
    }

    /// Waits for a touch in a later epoch than `after`.
    pub fn wait_later(&self, after: u64) -> Touch {
        until("a program of a later epoch", || {
            let last = self.touches().last().copied();
            last.filter(|touch| touch.epoch > after).ok_or_else(|| format!("{last:?}"))
        })
    }

    /// No two epochs touched it at one time, and none after a later one; how many did.
    ///
    /// # Panics
    /// Otherwise, saying which.
    pub fn check_alone(&self) -> usize {
        let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut highest = 0;
        for touch in self.touches() {
            assert!(touch.epoch >= highest, "epoch {} after epoch {highest}", touch.epoch);
            highest = touch.epoch;
            let span = spans.entry(touch.epoch).or_insert((touch.at, touch.at));
            span.1 = span.1.max(touch.at);
        }
        let spans: Vec<_> = spans.into_values().collect();
        for two in spans.windows(2) {
            assert!(two[0].1 < two[1].0, "two ran at one time: {two:?}");
        }
        spans.len()
    }
}
