//! Which faults a simulated run has.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{DiskConditions, FaultAction};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Writes and datagrams are lost.
    Loss,
    /// They arrive twice.
    Duplication,
    /// They overtake each other.
    Reorder,
    /// One direction of a path is cut.
    Cut,
    /// A path delays everything for a while.
    Clog,
    /// The nodes fall into two halves.
    Partition,
    /// Machines stop, also in the midst of a write, and start again.
    Crash,
    /// Nodes stand still for a while.
    Pause,
    /// One actor of a node panics.
    Panic,
    /// A stopped machine's disk is replaced by an empty one.
    DiskLoss,
    /// A durable bit flips.
    BitRot,
    /// A sync fails.
    Eio,
    /// A disk is full for a while.
    Enospc,
    /// A disk is slow for a while.
    SlowSync,
    /// Clocks run at different speeds.
    Drift,
    /// Wall clocks jump.
    Jump,
}

/// The kinds of fault that are enabled. Parsed from a list such as `loss,crash`, in which `all`
/// stands for every kind and `none` for no kind.
///
/// ```
/// # use synod_runtime::sim::{Fault, FaultPlan};
/// let plan: FaultPlan = "crash,loss".parse().unwrap();
/// assert!(plan.has(Fault::Crash) && !plan.has(Fault::BitRot));
/// assert!("crush".parse::<FaultPlan>().unwrap_err().to_string().contains("\"crash\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultPlan(BTreeSet<Fault>);

/// A word that names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no fault is called {word:?}: did you mean {nearest:?}? (known: all, none, {known})",
        known = known())]
pub struct UnknownFault {
    /// What was given.
    pub word: String,
    /// The known name most like it.
    pub nearest: &'static str,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::Loss,
        Self::Duplication,
        Self::Reorder,
        Self::Cut,
        Self::Clog,
        Self::Partition,
        Self::Crash,
        Self::Pause,
        Self::Panic,
        Self::DiskLoss,
        Self::BitRot,
        Self::Eio,
        Self::Enospc,
        Self::SlowSync,
        Self::Drift,
        Self::Jump,
    ];

    /// Its name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplication => "duplication",
            Self::Reorder => "reorder",
            Self::Cut => "cut",
            Self::Clog => "clog",
            Self::Partition => "partition",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Panic => "panic",
            Self::DiskLoss => "diskloss",
            Self::BitRot => "bitrot",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::SlowSync => "slowsync",
            Self::Drift => "drift",
            Self::Jump => "jump",
        }
    }
}

impl FaultAction {
    /// The kinds of fault that it puts in; none where it ends one.
    pub fn kinds(&self) -> Vec<Fault> {
        let one = match self {
            Self::Weather(weather) => {
                let loss = (Fault::Loss, weather.loss);
                let doubled = (Fault::Duplication, weather.duplication);
                let all = [loss, doubled, (Fault::Reorder, weather.reorder)];
                let some = all.into_iter().filter(|(_, chance)| *chance > 0.0);
                return some.map(|(kind, _)| kind).collect();
            }
            Self::Cut { .. } => Fault::Cut,
            Self::Partition { .. } => Fault::Partition,
            Self::Clog { .. } => Fault::Clog,
            Self::Crash { .. } | Self::CrashAtDiskOperation { .. } => Fault::Crash,
            Self::Pause { .. } => Fault::Pause,
            Self::Panic { .. } => Fault::Panic,
            Self::LoseDisk { .. } => Fault::DiskLoss,
            Self::Rot { .. } => Fault::BitRot,
            Self::FailSync { .. } => Fault::Eio,
            Self::FillDisk { .. } => Fault::Enospc,
            Self::DiskSpeed { latency, .. } if *latency > DiskConditions::default().latency => {
                Fault::SlowSync
            }
            Self::Drift { .. } => Fault::Drift,
            Self::Jump { .. } => Fault::Jump,
            Self::DiskSpeed { .. }
            | Self::Mend { .. }
            | Self::MendPartition { .. }
            | Self::Restart { .. }
            | Self::Resume { .. }
            | Self::FreeDisk { .. }
            | Self::Heal => return Vec::new(),
        };
        vec![one]
    }
}

impl FaultPlan {
    /// Everything may happen.
    pub fn all() -> Self {
        Fault::ALL.into_iter().collect()
    }

    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether `fault` may happen.
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// The enabled kinds, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Fault> + '_ {
        self.0.iter().copied()
    }

    /// The same without `fault`.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Self {
        self.0.remove(&fault);
        self
    }
}

impl FromIterator<Fault> for FaultPlan {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self(faults.into_iter().collect())
    }
}

impl FromStr for FaultPlan {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut plan = Self::none();
        for word in text.split(',').map(str::trim) {
            match word {
                "all" => plan.0.extend(Fault::ALL),
                "none" => {}
                word => drop(plan.0.insert(parse(word)?)),
            }
        }
        Ok(plan)
    }
}

impl fmt::Display for FaultPlan {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("none"),
            len if len == Fault::ALL.len() => f.write_str("all"),
            _ => f.write_str(&self.iter().map(Fault::name).collect::<Vec<_>>().join(",")),
        }
    }
}

fn parse(word: &str) -> Result<Fault, UnknownFault> {
    let exact = Fault::ALL.into_iter().find(|fault| fault.name() == word);
    exact.ok_or_else(|| {
        let names = ["all", "none"].into_iter().chain(Fault::ALL.map(Fault::name));
        let nearest = names.min_by_key(|name| distance(word, name)).unwrap_or("all");
        UnknownFault { word: word.to_owned(), nearest }
    })
}

fn known() -> String {
    Fault::ALL.map(Fault::name).join(", ")
}

/// How many letters must be put in, taken out or changed to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.chars().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_as_they_are_written() {
        for text in ["all", "none", "loss,crash", "diskloss"] {
            assert_eq!(text.parse::<FaultPlan>().unwrap().to_string(), text);
        }
        let spaced: FaultPlan = "crash, loss".parse().unwrap();
        assert_eq!(spaced, [Fault::Loss, Fault::Crash].into_iter().collect());
        assert_eq!(FaultPlan::all().without(Fault::Loss).iter().count(), Fault::ALL.len() - 1);
    }

    #[test]
    fn an_unknown_fault_is_answered_with_the_nearest() {
        for (word, nearest) in [("crahs", "crash"), ("disk-loss", "diskloss"), ("al", "all")] {
            let error = word.parse::<FaultPlan>().unwrap_err();
            assert_eq!(error.nearest, nearest);
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!("loss,,crash".parse::<FaultPlan>().is_err());
    }
}
