//! `inspect`: what a journal, a snapshot or a backup holds, read without changing it.

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use synod_runtime::{journal, snapshot, world::disk::RealDisk};

use super::{call::text, failure::Failure, out::verdict};
use crate::{
    consensus::{record::Record, replica::StateImage, value},
    server::{
        backup,
        config::{NodeConfig, Overrides},
    },
};

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A node's directory, its data, a journal, snapshots, or a backup
    pub(crate) path: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints what is at the path.
pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let (mut out, mut written) = (BufWriter::new(std::io::stdout()), Ok(()));
    let mut show = |line: &Value| {
        let line = if args.json { line.to_string() } else { for_people(line) };
        written = writeln!(out, "{line}");
        written.is_ok()
    };
    inspect(&args.path, &mut show)?;
    verdict(written.and_then(|()| out.flush())).map(drop)
}

/// Takes a document; false when no more are wanted.
type Show<'a> = &'a mut dyn FnMut(&Value) -> bool;

fn inspect(path: &Path, show: Show<'_>) -> Result<(), Failure> {
    if path.is_file() {
        return file(path, show);
    }
    let has = |name: &str| path.join(name).exists();
    if has("synod.toml") {
        let config = NodeConfig::load(&path.join("synod.toml"), Overrides::default())?;
        return inspect(&config.data_dir, show);
    }
    if has("journal") || has("snapshots") {
        if has("snapshots") {
            snapshots(&path.join("snapshots"), show)?;
        }
        return if has("journal") { records(&path.join("journal"), show) } else { Ok(()) };
    }
    let wrong = |why: String| {
        let hint = "name a node's directory, a journal, a snapshot or a backup";
        Failure::usage(path.display(), why, hint)
    };
    let names = fs::read_dir(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let names: Vec<_> = names.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    if names.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    match names.iter().any(|name| name.to_string_lossy().starts_with(SNAPSHOT)) {
        true => snapshots(path, show),
        false => records(path, show),
    }
}

fn file(path: &Path, show: Show<'_>) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damaged = |why: String| Failure::failed(path.display(), why, "use another one");
    if let Some(step) = name.strip_prefix(SNAPSHOT).and_then(|step| step.parse().ok()) {
        return one_snapshot(path.parent().unwrap_or_else(|| Path::new("")), step, show);
    }
    let bytes: Bytes = fs::read(path)
        .map_err(|e| Failure::usage(path.display(), format!("cannot be read: {e}"), "name it"))?
        .into();
    if !backup::is_backup(&bytes) {
        let hint = "name a node's directory, a journal's, a snapshot or a backup";
        return Err(Failure::usage(path.display(), "is neither snapshot nor backup", hint));
    }
    let (head, state) = backup::read(&bytes).map_err(damaged)?;
    let mut line = json!({ "kind": "backup", "cluster": head.cluster, "sha256": head.sha256 });
    describe(&mut line, &state).map_err(damaged)?;
    show(&line);
    Ok(())
}

fn snapshots(dir: &Path, show: Show<'_>) -> Result<(), Failure> {
    let steps = snapshot::steps(&RealDisk, dir)
        .map_err(|e| Failure::usage(dir.display(), e, "name a node's directory"))?;
    steps.into_iter().try_for_each(|step| one_snapshot(dir, step, show))
}

fn one_snapshot(dir: &Path, step: u64, show: Show<'_>) -> Result<(), Failure> {
    let damaged = |why: String| Failure::failed(dir.display(), why, "an older snapshot may do");
    let found = snapshot::read(&RealDisk, dir, step).map_err(|e| damaged(e.to_string()))?;
    let mut line = json!({ "kind": "snapshot", "step": found.step });
    describe(&mut line, &found.bytes).map_err(damaged)?;
    show(&line);
    Ok(())
}

/// What a state holds.
fn describe(line: &mut Value, state: &[u8]) -> Result<(), String> {
    let image = StateImage::decode(state)?;
    line["position"] = image.position.into();
    line["time_ms"] = image.time_ms.into();
    line["digest"] = format!("{:016x}", image.digest).into();
    line["bytes"] = state.len().into();
    line["executed"] = image.history.executed().0.into();
    let current = image.history.current();
    line["mains"] = current
        .map(|one| one.mains.iter().map(|node| node.name.to_string()).collect::<Vec<_>>())
        .into();
    let actors = image.actors().map(|(name, bytes)| json!({ "name": name, "bytes": bytes }));
    line["actors"] = actors.collect();
    Ok(())
}

fn records(dir: &Path, show: Show<'_>) -> Result<(), Failure> {
    let found = journal::inspect(&RealDisk, dir)
        .map_err(|e| Failure::failed(dir.display(), e, "the records before it were not read"))?;
    for located in found {
        let mut line = json!({
            "kind": "record",
            "segment": located.segment,
            "offset": located.offset,
            "bytes": located.record.payload.len(),
        });
        match Record::from_journal(&located.record) {
            Ok(record) => say(&mut line, &record),
            Err(bad) => line["record"] = bad.to_string().into(),
        }
        if !show(&line) {
            break;
        }
    }
    Ok(())
}

fn say(line: &mut Value, record: &Record) {
    let (name, step) = match record {
        Record::Genesis(_) => ("genesis", None),
        Record::Promise(_) => ("promise", None),
        Record::Vote(vote) => ("vote", Some(vote.step)),
        Record::Chosen(vote) => ("chosen", Some(vote.step)),
        Record::Mark(run) => ("mark", Some(run.last)),
        Record::Trimmed(step) => ("trimmed", Some(*step)),
        Record::Floor(step, _) => ("floor", Some(*step)),
        Record::Torn => ("torn", None),
        Record::Mended => ("mended", None),
    };
    line["record"] = name.into();
    if let Some(step) = step {
        line["step"] = step.0.into();
    }
    if let Record::Mark(run) = record {
        line["first"] = run.first.0.into();
    }
    let ballot = match record {
        Record::Promise(ballot) => Some(ballot),
        Record::Vote(vote) | Record::Chosen(vote) => Some(&vote.ballot),
        Record::Genesis(_)
        | Record::Mark(_)
        | Record::Trimmed(_)
        | Record::Floor(..)
        | Record::Torn
        | Record::Mended => None,
    };
    if let Some(ballot) = ballot {
        line["ballot"] = ballot.to_string().into();
    }
    if let Record::Vote(vote) | Record::Chosen(vote) = record {
        line["holds"] = match vote.value.decode() {
            Ok(value::Decoded::Noop) => "nothing".into(),
            Ok(value::Decoded::Configuration(_)) => "a configuration".into(),
            Ok(value::Decoded::Batch(batch)) => format!("{} commands", batch.commands.len()).into(),
            Err(damaged) => damaged.to_string().into(),
        };
    }
}

fn for_people(line: &Value) -> String {
    let fields = line.as_object().into_iter().flatten();
    let shown = fields.filter(|(key, _)| *key != "kind").map(|(key, value)| match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let each = items.iter().map(|one| format!("{} ({})", text(&one["name"]), one["bytes"]));
            format!("{key}={}", each.collect::<Vec<_>>().join(","))
        }
        other => format!("{key}={}", text(other).replace(' ', "_")),
    });
    format!("{} {}", text(&line["kind"]), shown.collect::<Vec<_>>().join(" "))
}

/// How the names of snapshots begin.
const SNAPSHOT: &str = "snapshot-";
