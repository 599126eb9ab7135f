//! Looks whether the node file or a file of `[tls]` changed, and takes over what can change while
//! the node runs: certificates, revoked names, tokens.

use std::time::Duration;

use synod_runtime::link::Links;

use super::{
    access::Access,
    config::{NodeConfig, TlsConfig},
};

/// Looks for ever. What cannot be read or used changes nothing, and is told once.
pub(super) async fn watch(config: NodeConfig, links: Links, access: Access) {
    let NodeConfig { file, overrides, tls: mut current, .. } = config;
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (file, overrides) = (file.clone(), overrides.clone());
        // Files may be on a disk that is slow.
        let read = actix_rt::task::spawn_blocking(move || NodeConfig::load(&file, overrides));
        let wrong = match read.await {
            Ok(Ok(new)) => take(&mut current, new.tls, &links, &access).err(),
            Ok(Err(error)) => Some(error.to_string()),
            // The runtime ends.
            Err(_) => return,
        };
        if let Some(wrong) = &wrong
            && told.as_ref() != Some(wrong)
        {
            tracing::warn!("{wrong}; what was read before stays in force");
        }
        told = wrong;
    }
}

/// Takes over what changed; answers why it cannot be, in words.
fn take(
    current: &mut TlsConfig,
    new: TlsConfig,
    links: &Links,
    access: &Access,
) -> Result<(), String> {
    let files = current.files != new.files;
    if !files && current.revoked == new.revoked && current.clients == new.clients {
        return Ok(());
    }
    if files {
        links.renew(&new.files).map_err(|error| format!("new certificate: {error}"))?;
    }
    let all = access.take(&new).map_err(|error| format!("new certificate: {error}"))?;
    if files {
        tracing::info!("certificates renewed; live links stay");
    }
    if current.revoked != new.revoked {
        tracing::info!(revoked = ?new.revoked, "revoked names changed");
        links.revoke(new.revoked.clone());
    }
    if all && current.clients != new.clients {
        tracing::info!("tokens changed");
    }
    *current = new;
    if all { Ok(()) } else { Err("[tls] clients changed, which needs a restart".to_owned()) }
}

/// A revoked node is out this soon. Reading four small files costs a fraction of a millisecond.
const LOOK_EVERY: Duration = Duration::from_secs(2);
