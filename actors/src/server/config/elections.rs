//! `[elections]` of the node file.

use std::time::Duration;

use super::{ConfigError, Section};
use crate::{
    election::lease::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN},
    server::registers::{Keeping, RolesIn},
};

/// How roles are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionsConfig {
    /// Where roles are kept: the same at all nodes.
    pub store: RolesIn,
    /// The lease of those who name none at this node.
    pub lease: Duration,
}

impl Default for ElectionsConfig {
    fn default() -> Self {
        Self { store: RolesIn::Log, lease: LEASE_DEFAULT }
    }
}

/// Reads `[elections]`.
pub(super) fn read(section: &Section<'_>) -> Result<ElectionsConfig, ConfigError> {
    let default = ElectionsConfig::default();
    let lease = section.duration("lease", default.lease)?;
    if lease < LEASE_MIN || lease > LEASE_MAX {
        let why = format!("a lease lasts {LEASE_MIN:?} to {LEASE_MAX:?}, not {lease:?}");
        return Err(section.refuse("lease", why, "write one such as \"2s\""));
    }
    let kept = |text: &str| match text {
        "paxos" => Ok(RolesIn::Log),
        "register" => Ok(RolesIn::Registers(Keeping::Holders)),
        "disk" => Ok(RolesIn::Registers(Keeping::Servers)),
        other => Err(format!("{other:?} keeps no roles; use \"paxos\", \"register\" or \"disk\"")),
    };
    let want = "\"paxos\", \"register\" or \"disk\"";
    let mut store = section.parse("store", want, kept)?.unwrap_or(default.store);
    let disks = section.paths("disks")?;
    if !disks.is_empty() {
        if store != RolesIn::Registers(Keeping::Servers) {
            let why = "only roles that are kept on disks need some";
            return Err(section.refuse("disks", why, "set store = \"disk\", or remove it"));
        }
        if disks.len() % 2 == 0 || disks.len() > DISKS_MAX {
            let why = format!("{} disks", disks.len());
            let hint = "name three or five, each another disk: more than half must be there";
            return Err(section.refuse("disks", why, hint));
        }
        store = RolesIn::Registers(Keeping::Disks(disks));
    }
    Ok(ElectionsConfig { store, lease })
}

/// Disks at once: more only make every change slower.
const DISKS_MAX: usize = 7;
