//! What a node remembers of its lives before: who it is, and what its store holds. And what happens
//! when that is damaged.
//!
//! A node whose memory has a hole below what was durable must never vote again: it may have promised
//! anything. Where other mains hold the state it puts what is left aside and comes back by itself, as
//! another node of the same name: empty, and never founding a cluster, so that nothing is taken for
//! new that is only forgotten.

use std::path::Path;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::{ClusterName, Incarnation, NodeName},
    journal::Durability,
    slots::{Slots, SlotsError},
    world::{Disk, World},
};

use super::{
    core::{CoreConfig, CoreError},
    seat::Store,
};
use crate::consensus::message::NodeRole;

/// What a data directory says of its node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterName,
    pub(crate) name: NodeName,
    pub(super) incarnation: Incarnation,
    pub(super) starts: u64,
    /// An earlier node of this name lost its memory here: there is a cluster to be let into.
    #[serde(default)]
    rejoins: bool,
    /// What it left is being put aside, and is not this node's.
    #[serde(default)]
    clearing: bool,
}

/// See the module's documentation.
pub(super) struct Memory {
    pub(super) identity: Identity,
    pub(super) store: Store,
    /// Why what was remembered before had to be put aside in this start.
    pub(super) lost: Option<String>,
}

impl Identity {
    /// Whether it must not found a cluster, even if it remembers nothing.
    pub(super) const fn rejoins(&self) -> bool {
        self.rejoins
    }
}

impl Memory {
    /// Reads it, or begins one. Whoever calls holds the lock of the directory.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub(super) fn open(world: &World, config: &CoreConfig) -> Result<Self, CoreError> {
        match Self::read(world, config) {
            Err(error) if error.is_lost_memory() && has_other_main(config) => {
                tracing::error!(%error, "this node has lost its memory; it puts what is left into \
                    lost/ and comes back as a new node of its name");
                set_aside(world, config)?;
                let lost = Some(error.to_string());
                Ok(Self { lost, ..Self::read(world, config)? })
            }
            read => read,
        }
    }

    fn read(world: &World, config: &CoreConfig) -> Result<Self, CoreError> {
        let identity = identify(world, config)?;
        let store = Store::open(world, &config.seat(identity.incarnation))?;
        Ok(Self { identity, store, lost: None })
    }
}

/// Whose data directory this is.
///
/// # Errors
/// A text for people.
pub(crate) fn owner(disk: &dyn Disk, dir: &Path) -> Result<Identity, String> {
    let slots = Slots::open(disk, &dir.join(IDENTITY)).map_err(|error| error.to_string())?;
    let words = slots.read().ok_or("it does not say whose it is")?;
    rmp_serde::from_slice(&words).map_err(|error| format!("its identity: {error}"))
}

/// The node's identity: read, or made with the data directory.
fn identify(world: &World, config: &CoreConfig) -> Result<Identity, CoreError> {
    let path = config.data_dir.join(IDENTITY);
    let mut slots = Slots::open(world.disk.as_ref(), &path)?;
    let known: Option<Identity> = match slots.read() {
        Some(words) => Some(rmp_serde::from_slice(&words).map_err(|error| CoreError::Data {
            path: path.clone(),
            why: format!("is no identity of this program's: {error}"),
        })?),
        None => None,
    };
    let identity = match known {
        Some(known) if known.cluster != config.cluster || known.name != config.name => {
            let why = format!(
                "belongs to node {} of cluster {}, not to {} of {}",
                known.name, known.cluster, config.name, config.cluster
            );
            return Err(CoreError::Data { path: config.data_dir.clone(), why });
        }
        Some(known) => {
            if known.clearing {
                move_store(world, config)?;
            }
            let renewed = config.durability == Durability::Memory;
            let incarnation = if renewed { fresh(world) } else { known.incarnation };
            Identity { incarnation, starts: known.starts + 1, clearing: false, ..known }
        }
        None => Identity {
            cluster: config.cluster.clone(),
            name: config.name.clone(),
            incarnation: fresh(world),
            starts: 1,
            rejoins: false,
            clearing: false,
        },
    };
    slots.write(&encode(&identity))?;
    Ok(identity)
}

/// Whether another main is to be expected, from which all can be had again.
fn has_other_main(config: &CoreConfig) -> bool {
    let mut mains = config.listed.iter().filter(|(_, role)| **role == NodeRole::Main);
    mains.any(|(name, _)| *name != config.name) || !config.listed.contains_key(&config.name)
}

/// Makes this directory another node's, and puts what it holds into [`LOST`], for people to look at.
/// A crash in between is taken up by [`identify`].
fn set_aside(world: &World, config: &CoreConfig) -> Result<(), CoreError> {
    let (disk, dir) = (world.disk.as_ref(), &config.data_dir);
    let lost = dir.join(LOST);
    disk.create_dir_all(&lost).map_err(data(&lost))?;
    if !disk.list(&lost).map_err(data(&lost))?.is_empty() {
        // A disk that forgets again and again is not to be trusted with another copy.
        return Err(CoreError::LostAgain { lost });
    }
    let path = dir.join(IDENTITY);
    let known = match Slots::open(disk, &path) {
        Ok(slots) => slots.read(),
        Err(SlotsError::LostMemory { .. }) => {
            disk.rename(&path, &lost.join(IDENTITY)).map_err(data(&path))?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(words) = &known {
        Slots::open(disk, &lost.join(IDENTITY))?.write(words)?;
    }
    let known = known.and_then(|words| rmp_serde::from_slice::<Identity>(&words).ok());
    let identity = Identity {
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        incarnation: fresh(world),
        starts: known.map_or(0, |known| known.starts),
        rejoins: true,
        clearing: true,
    };
    // From here on the store is nobody's memory.
    Slots::open(disk, &path)?.write(&encode(&identity))?;
    move_store(world, config)
}

fn move_store(world: &World, config: &CoreConfig) -> Result<(), CoreError> {
    let disk = world.disk.as_ref();
    for part in ["journal", "snapshots"] {
        let (from, to) = (config.data_dir.join(part), config.data_dir.join(LOST).join(part));
        disk.create_dir_all(&from).map_err(data(&from))?;
        disk.create_dir_all(&to).map_err(data(&to))?;
        for name in disk.list(&from).map_err(data(&from))? {
            disk.rename(&from.join(&name), &to.join(&name)).map_err(data(&to))?;
        }
    }
    Ok(())
}

fn fresh(world: &World) -> Incarnation {
    Incarnation(world.entropy.rng("incarnation").random())
}

fn encode(identity: &Identity) -> Vec<u8> {
    rmp_serde::to_vec_named(identity).expect("plain data encodes")
}

fn data(path: &Path) -> impl Fn(std::io::Error) -> CoreError {
    move |error| CoreError::Data { path: path.to_path_buf(), why: error.to_string() }
}

/// The file that says whose a data directory is.
const IDENTITY: &str = "identity";

/// Where a data directory keeps what was put aside.
const LOST: &str = "lost";
