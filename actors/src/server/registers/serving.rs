//! Which nodes keep registers, and from when on.
//!
//! A node that lost its disk has forgotten what it ordered and wrote, and must never count as one of
//! the holders again. So only those keep registers that were there, in this very incarnation, when the
//! cluster began; that is written down beside the registers the first time.

use std::{path::Path, rc::Rc, sync::Arc};

use synod_runtime::{message::RemoteActor, node::Node, slots::Slots, world::Disk};

use super::{
    BlockServer, Keeping, RegisterHolder,
    actors::{Kept, block_server, register_holder},
    blocks::Blocks,
    vault::Vault,
};
use crate::{
    consensus::message::NodeRole,
    server::{
        metrics,
        site::{Site, Waiting, role_policy},
    },
};

/// Starts what a main or an auxiliary does for registers that are kept so.
///
/// # Errors
/// A text for people, when the disk fails. Nothing was started.
pub(in crate::server) fn start(
    site: &Rc<Site>,
    keeping: &Keeping,
    data_dir: &Path,
) -> Result<(), String> {
    if site.role == NodeRole::Member || matches!(keeping, Keeping::Disks(_)) {
        return Ok(());
    }
    let dir = data_dir.join("registers");
    let disk = Arc::clone(&site.node.world().disk);
    let shown = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    disk.create_dir_all(&dir).map_err(|error| shown(&error))?;
    let mut right = Slots::open(disk.as_ref(), &dir.join("right")).map_err(|e| shown(&e))?;
    let me = site.me.to_string().into_bytes();
    let known = right.read();
    let serve = server(site, keeping, &disk, &dir).map_err(|error| shown(&error))?;
    site.when_founded(Box::new(move |site| {
        let new = known.is_none() && site.was_there();
        if new && let Err(error) = right.write(&me) {
            return tracing::error!(%error, "this node keeps no registers");
        }
        if new || known.as_ref() == Some(&me) {
            serve(site);
        } else {
            tracing::warn!("this node came later, or lost its disk: it keeps no registers");
        }
    }));
    Ok(())
}

fn server(
    site: &Rc<Site>,
    keeping: &Keeping,
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> std::io::Result<Waiting> {
    let received = site.node.metrics().counter(&metrics::MESSAGES, &[("role", "register")]);
    if *keeping == Keeping::Holders {
        let (vault, found) = Vault::open(disk, dir)?;
        let kept = Arc::new(Kept::new(vault, found));
        return Ok(Box::new(move |site| {
            let name = register_holder(&site.me.name);
            let make = move || RegisterHolder::new(Arc::clone(&kept), received.clone());
            spawn(&site.node, &name, make);
        }));
    }
    let blocks = Arc::new(Blocks::open(disk, dir.join("blocks")));
    Ok(Box::new(move |site| {
        let name = block_server(&site.me.name);
        let make = move || BlockServer::new(Arc::clone(&blocks), received.clone());
        spawn(&site.node, &name, make);
    }))
}

/// An actor of its own, supervised, reached by other nodes.
fn spawn<A>(node: &Node, name: &str, make: impl FnMut() -> A + 'static)
where
    A: RemoteActor<Context = actix::Context<A>>,
{
    let registered =
        node.spawn_with(name, role_policy(), make).and_then(|addr| node.register(name, addr));
    if let Err(error) = registered {
        tracing::error!(%error, "this node keeps no registers");
    }
}
