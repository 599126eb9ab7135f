//! The check of a guarded resource.

use serde::{Deserialize, Serialize};

use super::message::Epoch;

/// The highest epoch a resource has seen. Keep it where the resource keeps its data, and make it
/// durable with them.
///
/// ```
/// use synod::election::{HighWater, message::Epoch};
///
/// let mut mark = HighWater::default();
/// assert!(mark.admit(Epoch(17)).is_ok());
/// assert!(mark.admit(Epoch(23)).is_ok()); // the next holder
/// let stale = mark.admit(Epoch(17)).unwrap_err(); // the old one wakes up
/// assert_eq!(stale.known, Epoch(23));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HighWater(Epoch);

impl HighWater {
    /// Whether what comes with that epoch may go on; the mark rises with it.
    ///
    /// # Errors
    /// When a higher one was seen. The mark stays.
    pub fn admit(&mut self, epoch: Epoch) -> Result<(), Stale> {
        if epoch < self.0 {
            return Err(Stale { epoch, known: self.0 });
        }
        self.0 = epoch;
        Ok(())
    }

    /// The highest epoch seen.
    pub const fn epoch(&self) -> Epoch {
        self.0
    }
}

/// Somebody else has had the role since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} is over: {known} was seen")]
pub struct Stale {
    /// What came.
    pub epoch: Epoch,
    /// The highest seen.
    pub known: Epoch,
}
