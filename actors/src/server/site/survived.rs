//! What a node's disk gives its roles back.

use bytes::Bytes;
use synod_runtime::{journal, snapshot, world::Disk};

use crate::{
    consensus::{
        ballot::Step,
        record::{Image, Record},
        replica::StateImage,
    },
    machine::Survived,
};

/// Whether the snapshot reaches to where the journal begins. If not, the one that did is damaged, and
/// what this node voted for between the two is forgotten.
pub(in crate::server) fn is_without_gap(found: &Survived<Record, Image>) -> bool {
    let covered = found.snapshot.as_ref().map_or(Step(0), |image| image.history.executed());
    let beyond = |record: &Record| matches!(record, Record::Trimmed(upto) if *upto > covered);
    !found.records.iter().any(beyond)
}

/// What is lost otherwise.
pub(in crate::server) const GAP: &str =
    "no snapshot that is whole reaches to where the journal begins";

/// What the journal's records and the newest snapshot say.
///
/// # Errors
/// A text naming the damaged record or file.
pub(crate) fn survived(
    records: &[journal::Record],
    disk: &dyn Disk,
    dir: &std::path::Path,
) -> Result<Survived<Record, Image>, String> {
    let records: Result<Vec<Record>, _> = records.iter().map(Record::from_journal).collect();
    let newest = snapshot::newest(disk, dir).map_err(|error| error.to_string())?;
    for damaged in &newest.damaged {
        tracing::error!(%damaged, "a snapshot is damaged");
    }
    let snapshot = match newest.snapshot {
        Some(snapshot) => {
            let body: Bytes = snapshot.bytes.into();
            Some(Image { history: StateImage::head(&body)?.history, body })
        }
        None => None,
    };
    Ok(Survived { records: records.map_err(|error| error.to_string())?, snapshot })
}
