//! `backup` and `restore`: the whole state of a running cluster, out into a file and in again.

use std::{
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::{
    args::ClientArgs,
    client::Cluster,
    failure::{Exit, Failure, Fate},
    out,
};
use crate::{
    consensus::replica::{Piece, Taken},
    replicated::Outcome,
    server::{
        backup::{self, Head},
        http_guests::WireEnd,
    },
};

/// `backup` and `restore`.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The backup
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Writes the state, as it is after everything acknowledged so far.
pub(crate) async fn backup(args: &FileArgs) -> Result<(), Failure> {
    let shown = &args.file.display();
    let cluster = Cluster::open(&args.client)?;
    let (_, status) = cluster.get_known("/status").await?;
    let file = cluster.download("/backup").await?;
    // The cluster stays as it is, whatever becomes of its backup.
    let failed = |what: &dyn fmt::Display, why: String, hint: &str| {
        Failure::failed(what, why, hint).with(Fate::NotApplied)
    };
    let (head, _) = backup::read(&file)
        .map_err(|why| failed(&"backup", format!("what came is damaged: {why}"), AGAIN))?;
    write_whole(&args.file, &[&file]).map_err(|e| {
        failed(shown, format!("cannot be written: {e}"), "make room, or name another file")
    })?;
    let outside = not_inside(&status);
    let told = json!({ "file": args.file, "not_inside": &outside });
    let told = tell(args, "backup", &head, &told);
    for what in &outside {
        out::tell(format_args!("not inside: {what}"));
    }
    told
}

/// What a cluster has that is not in its log, for people: who has this backup alone lacks it.
fn not_inside(status: &Value) -> Vec<String> {
    let names = |list: &Value, key: &str| -> Vec<String> {
        let all = list.as_array().into_iter().flatten();
        all.filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
    };
    let (sites, groups) = (names(&status["web"], "site"), names(&status["groups"], "group"));
    let mut outside = Vec::new();
    if !sites.is_empty() {
        outside.push(format!(
            "what the servers behind {} hold, and large bodies on their way to them; copy one of \
             these servers at this place of the order, as the manual of the web binding says",
            sites.join(", ")
        ));
    }
    if !groups.is_empty() {
        let what = "their messages, and the states and orders that follow them";
        outside.push(format!("the groups {}: {what}", groups.join(", ")));
    }
    outside
}

/// Makes the state of a running cluster that of a backup.
pub(crate) async fn restore(args: &FileArgs) -> Result<(), Failure> {
    let shown = &args.file.display();
    let file: Bytes = fs::read(&args.file)
        .map_err(|e| Failure::usage(shown, format!("cannot be read: {e}"), "name a backup"))?
        .into();
    let (head, state) = backup::read(&file).map_err(|why| {
        let hint = "nothing was changed; use another backup";
        Failure::failed(shown, why, hint).with(Fate::NotApplied)
    })?;
    let cluster = Cluster::open(&args.client)?;
    // Each piece is taken once, however often it is sent.
    let run: u64 = rand::random();
    let mut offset = 0;
    let position = loop {
        let end = state.len().min(offset + PIECE_BYTES);
        let piece = Piece {
            sha256: head.sha256.clone(),
            total: head.bytes,
            offset: offset as u64,
            bytes: state.slice(offset..end),
        };
        let body = rmp_serde::to_vec(&piece).expect("plain data encodes");
        let path = format!("/restore/restore-{run:016x}-{offset}");
        match taken(args, &cluster.post_again(&path, body.into()).await?)? {
            Taken::Done(position) => break position,
            Taken::Wanted(at) if at == end as u64 => offset = end,
            Taken::Wanted(at) => {
                let why = format!("byte {at} is wanted after {end}: somebody else restores too");
                return Err(Failure::failed(shown, why, AGAIN));
            }
        }
    };
    tell(args, "restored", &head, &json!({ "now": position }))
}

fn taken(args: &FileArgs, answer: &[u8]) -> Result<Taken, Failure> {
    let shown = &args.file.display();
    let end: WireEnd = rmp_serde::from_slice(answer)
        .map_err(|e| Failure::failed(shown, format!("no answer of this program's: {e}"), AGAIN))?;
    match Outcome::from(end) {
        Outcome::Applied { reply, .. } => rmp_serde::from_slice(&reply)
            .map_err(|e| Failure::failed(shown, format!("an answer cannot be read: {e}"), AGAIN)),
        Outcome::Failed(why) => Err(Failure::failed(shown, why, "nothing was changed")),
        Outcome::NotApplied(refusal) => {
            Err(Failure::new(Exit::NotApplied, shown, format!("not applied, {refusal}"), AGAIN))
        }
        Outcome::Unknown(why) | Outcome::SessionExpired(why) => {
            let why = format!("outcome unknown, {why}");
            Err(Failure::new(Exit::Unknown, shown, why, "restore once more"))
        }
    }
}

fn tell(
    args: &FileArgs,
    event: &str,
    head: &Head,
    more: &serde_json::Value,
) -> Result<(), Failure> {
    if args.client.json {
        let mut document = json!({
            "event": event,
            "cluster": head.cluster,
            "position": head.position,
            "time_ms": head.time_ms,
            "bytes": head.bytes,
            "sha256": head.sha256,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        return out::say(document).map(drop);
    }
    let Head { cluster, position, bytes, sha256, .. } = head;
    let mut page = format!(
        "{event}: cluster {cluster} at position {position}, {bytes} bytes, sha256 {sha256}"
    );
    if let Some(now) = more.get("now") {
        page += &format!("\npositions go on from {now}");
    }
    out::say(page).map(drop)
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = fs::File::create(&part)?;
    for bytes in parts {
        file.write_all(bytes)?;
    }
    file.sync_all()?;
    fs::rename(&part, path)
}

/// A command of the log, and no burden to it.
const PIECE_BYTES: usize = 1024 * 1024;

const AGAIN: &str = "try again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_backup_is_told_what_is_not_in_it() {
        assert_eq!(not_inside(&json!({ "web": [], "groups": [] })), [""; 0]);
        assert_eq!(not_inside(&json!({})), [""; 0]);
        let told = not_inside(&json!({
            "web": [{ "site": "a" }, { "site": "b" }], "groups": [{ "group": "synod.web" }],
        }));
        assert!(told[0].contains("servers behind a, b hold"), "{told:?}");
        assert!(told[1].starts_with("the groups synod.web: "), "{told:?}");
    }
}
