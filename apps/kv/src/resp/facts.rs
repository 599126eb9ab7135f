//! What the listener tells clients about its node: asked anew each time, since it changes.

use std::{fmt, sync::Arc};

/// The node behind a listener, for `INFO` and `WAIT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// `main` or `member`.
    pub role: String,
    /// Who leads, if this node knows.
    pub leader: Option<String>,
    /// How many mains execute every command, the lost ones excluded.
    pub mains: u32,
    /// The last position executed here.
    pub executed: u64,
    /// The program's version.
    pub version: String,
}

/// Asks for the present [`Facts`]; must not block. Cloning is cheap.
#[derive(Clone)]
pub struct AskFacts(Arc<dyn Fn() -> Facts + Send + Sync>);

impl AskFacts {
    /// Asks `facts`.
    pub fn new(facts: impl Fn() -> Facts + Send + Sync + 'static) -> Self {
        Self(Arc::new(facts))
    }

    pub(super) fn ask(&self) -> Facts {
        (self.0)()
    }
}

impl Default for AskFacts {
    fn default() -> Self {
        Self::new(Facts::default)
    }
}

impl fmt::Debug for AskFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskFacts")
    }
}
