//! The whole state of a cluster as one file: what `backup` writes, `restore` reads, and `recover`
//! makes of a dead node's disk.
//!
//! ```text
//! {"synod_backup":1,"cluster":"shop","position":7,"time_ms":…,"bytes":N,"sha256":"…"}\n
//! N bytes: the state as replicas exchange it
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::digest::sha256;

use crate::consensus::{
    ballot::Step,
    replica::{Shelved, StateImage},
};

/// The first line of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The form of the file.
    synod_backup: u16,
    /// The cluster it was taken of.
    pub(crate) cluster: String,
    /// The last command it contains.
    pub(crate) position: u64,
    /// Agreed time at that command.
    pub(crate) time_ms: u64,
    /// Length of the state.
    pub(crate) bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub(crate) sha256: String,
}

/// The form this build writes; a higher one is of a newer build.
const FORM: u16 = 1;

/// No first line is longer.
const HEAD_BYTES_MAX: usize = 4 * 1024;

impl Head {
    /// Describes a state of `cluster`.
    ///
    /// # Errors
    /// A text for people when it is none.
    pub(crate) fn of(cluster: &str, state: &[u8]) -> Result<Self, String> {
        let StateImage { position, time_ms, .. } = StateImage::decode(state)?;
        let step = Step(0); // of no snapshot
        let total = state.len() as u64;
        Ok(Self::of_snapshot(cluster, Shelved { step, total, position, time_ms }, sha256(state)))
    }

    /// Describes a snapshot of `cluster` with that SHA-256.
    pub(super) fn of_snapshot(cluster: &str, snapshot: Shelved, sha256: String) -> Self {
        let Shelved { position, time_ms, total, .. } = snapshot;
        let cluster = cluster.to_owned();
        Self { synod_backup: FORM, cluster, position, time_ms, bytes: total, sha256 }
    }

    /// The first line, with its end.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("plain data encodes") + "\n"
    }
}

/// Whether a file that begins so is a backup.
pub(crate) fn is_backup(bytes: &[u8]) -> bool {
    bytes.starts_with(b"{\"synod_backup\":")
}

/// Takes a backup apart and verifies it.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn read(file: &Bytes) -> Result<(Head, Bytes), String> {
    let line = file.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
    let line = line.filter(|_| is_backup(file)).ok_or("it is no backup of this program")?;
    let head: Head = serde_json::from_slice(&file[..line]).map_err(|e| format!("its head: {e}"))?;
    if head.synod_backup > FORM {
        return Err(format!("its form {} is newer than this build's {FORM}", head.synod_backup));
    }
    let state = file.slice(line + 1..);
    if state.len() as u64 != head.bytes {
        return Err(format!("it holds {} bytes of state instead of {}", state.len(), head.bytes));
    }
    if sha256(&state) != head.sha256 {
        return Err("it was changed: its digest is another one".to_owned());
    }
    StateImage::decode(&state)?;
    Ok((head, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_backup_is_refused_with_the_reason() {
        let refused = |bytes: &[u8]| read(&Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(refused(b"").contains("no backup"));
        assert!(refused(b"{\"synod_backup\":1").contains("no backup"));
        let head = |form: u16, bytes: u64, sha256: &str| {
            let (cluster, sha256) = ("c".to_owned(), sha256.to_owned());
            Head { synod_backup: form, cluster, position: 1, time_ms: 2, bytes, sha256 }.line()
        };
        assert!(refused(head(2, 0, "").as_bytes()).contains("newer"));
        assert!(refused(head(1, 5, "").as_bytes()).contains("0 bytes of state instead of 5"));
        assert!(refused((head(1, 1, "00") + "x").as_bytes()).contains("digest"));
        assert!(!refused((head(1, 1, &sha256(b"x")) + "x").as_bytes()).contains("digest"));
    }
}
