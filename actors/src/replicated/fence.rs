//! Fences: a command that is refused once its author's role has passed on.
//!
//! The fence travels in the command and is looked at where that is executed, so that every replica
//! comes to the same: refused, if a higher epoch of the role was granted, or was ever fenced with.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Submission, name_hash};

/// What a holder of a role puts before its commands.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// # let (_log, counter) = local::LocalLog::with::<Counter>("counter");
/// let (old, new) = (Fence::new("jobs", 17).unwrap(), Fence::new("jobs", 23).unwrap());
/// assert_eq!(counter.send(Add(2)).fence(&old).await, Ok(2));
/// assert_eq!(counter.send(Add(2)).fence(&new).await, Ok(4)); // whoever leads since then
/// let error = counter.send(Add(2)).fence(&old).await.unwrap_err();
/// assert_eq!(error.outcome(), "not_applied");
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    role: String,
    epoch: u64,
}

impl Fence {
    /// The fence of a holder of `role` in `epoch`.
    ///
    /// # Errors
    /// For a role or an epoch that cannot be.
    pub fn new(role: &str, epoch: u64) -> Result<Self, BadFence> {
        let sound = !role.is_empty()
            && role.len() <= ROLE_BYTES_MAX
            && !role.chars().any(|c| c.is_control() || c.is_whitespace());
        match sound && epoch <= EPOCH_MAX {
            true => Ok(Self { role: role.to_owned(), epoch }),
            false => Err(BadFence),
        }
    }

    /// Reads `ROLE EPOCH`, as it stands in the header `Synod-Fence`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, BadFence> {
        let (role, epoch) = text.trim().split_once(' ').ok_or(BadFence)?;
        Self::new(role, epoch.trim().parse().map_err(|_no_number| BadFence)?)
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The epoch.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// A text that is no fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fence is the name of a role and an epoch, like `jobs 17`")]
pub struct BadFence;

/// A command behind a fence, as the log has it: the argument of [`FENCED`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fenced {
    pub(crate) fence: Fence,
    pub(crate) actor: u64,
    pub(crate) function: u64,
    pub(crate) args: Bytes,
}

impl Fenced {
    /// Reads the arguments of [`FENCED`]. Fences do not stand behind fences.
    pub(crate) fn read(args: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(args).ok().filter(|fenced: &Self| fenced.actor != 0)
    }
}

impl Submission {
    /// The same, but refused at its execution ([`Reason::Fenced`](super::Reason::Fenced)) once a
    /// higher epoch of the fence's role is known.
    #[must_use]
    pub fn fenced(self, fence: &Fence) -> Self {
        let Self { actor, function, args, .. } = self;
        let fenced = Fenced { fence: fence.clone(), actor, function, args };
        let args = rmp_serde::to_vec(&fenced).expect("plain data encodes").into();
        Self { actor: 0, function: FENCED, args, ..self }
    }
}

/// The log's own function that executes what stands behind a fence.
pub(crate) const FENCED: u64 = name_hash("synod/fenced");

/// How the answer to a command begins whose fence did not hold.
pub const FENCE_REFUSED: &str = "fenced: ";

/// As long as names of roles may be.
const ROLE_BYTES_MAX: usize = 255;

/// Nobody counts so far.
const EPOCH_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_a_role_and_an_epoch() {
        assert_eq!(Fence::parse("jobs 17"), Fence::new("jobs", 17));
        for bad in
            ["", "jobs", "jobs x", "17", " 17", "jobs 1 2", "jobs -1", "jobs 5000000000000000000"]
        {
            assert_eq!(Fence::parse(bad), Err(BadFence), "{bad:?}");
        }
        assert_eq!(Fence::new("a b", 1), Err(BadFence));
    }
}
