//! The log: entries in memory, and one file that is written and synced by a thread of its own. Whatever
//! was queued while the last sync ran goes into the next one.
//!
//! ```text
//! file: { len u32, sum u32, MessagePack of an operation } … | zeros, written ahead of time
//! ```

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io,
    ops::RangeBounds,
    os::unix::fs::FileExt as _,
    path::Path,
    process,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{NodeId, TypeConfig};

type Failed = StorageError<NodeId>;

#[derive(Debug, Clone)]
pub struct Log {
    kept: Arc<Mutex<Kept>>,
    queue: Sender<Job>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<u64, Entry<TypeConfig>>,
    purged: Option<LogId<NodeId>>,
    vote: Option<Vote<NodeId>>,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Append(Entry<TypeConfig>),
    TruncateFrom(u64),
    PurgeUpto(LogId<NodeId>),
    Vote(Vote<NodeId>),
}

struct Job {
    bytes: Vec<u8>,
    done: Done,
}

enum Done {
    Flushed(LogFlushed<TypeConfig>),
    Told(oneshot::Sender<()>),
}

/// Written ahead of time, so that a sync changes no metadata.
const AHEAD: u64 = 64 << 20;

const HEAD: usize = 8;

impl Log {
    /// Opens the log in `dir`; whether it was begun before.
    pub fn open(dir: &Path) -> io::Result<(Self, bool)> {
        fs::create_dir_all(dir)?;
        let path = dir.join("log");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut kept = Kept::default();
        let end = kept.read(&file)?;
        let (queue, jobs) = channel();
        let begun = end > 0;
        thread::spawn(move || {
            if let Err(error) = write(&file, end, &jobs) {
                // Nothing that comes now could be kept.
                eprintln!("the log cannot be written: {error}");
                process::exit(1);
            }
        });
        File::open(dir)?.sync_all()?;
        Ok((Self { kept: Arc::new(Mutex::new(kept)), queue }, begun))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics with it")
    }

    async fn keep(&self, operation: &Operation) {
        let (tell, told) = oneshot::channel();
        let mut bytes = Vec::new();
        put(operation, &mut bytes);
        self.queue.send(Job { bytes, done: Done::Told(tell) }).expect("the thread lives");
        told.await.expect("the thread lives");
    }
}

impl Kept {
    fn read(&mut self, file: &File) -> io::Result<u64> {
        let mut all = vec![0; usize::try_from(file.metadata()?.len()).expect("it fits")];
        file.read_exact_at(&mut all, 0)?;
        let mut at = 0;
        while let Some(head) = all.get(at..at + HEAD) {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
            let (len, sum) = (number(0) as usize, number(4));
            let Some(bytes) = all.get(at + HEAD..at + HEAD + len) else { break };
            // A torn end was never acknowledged.
            let Some(operation) = (len > 0 && sum_of(bytes) == sum)
                .then(|| rmp_serde::from_slice(bytes).ok())
                .flatten()
            else {
                break;
            };
            self.apply(operation);
            at += HEAD + len;
        }
        Ok(at as u64)
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Append(entry) => drop(self.entries.insert(entry.log_id.index, entry)),
            Operation::TruncateFrom(index) => drop(self.entries.split_off(&index)),
            Operation::PurgeUpto(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
            Operation::Vote(vote) => self.vote = Some(vote),
        }
    }
}

fn put(operation: &Operation, out: &mut Vec<u8>) {
    let bytes = rmp_serde::to_vec(operation).expect("plain data encodes");
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("it is small").to_le_bytes());
    out.extend_from_slice(&sum_of(&bytes).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// FNV-1a: enough to know a torn end.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn write(file: &File, mut end: u64, jobs: &Receiver<Job>) -> io::Result<()> {
    let mut ahead = end;
    while let Ok(first) = jobs.recv() {
        let all: Vec<Job> = [first].into_iter().chain(jobs.try_iter()).collect();
        let bytes: Vec<u8> = all.iter().flat_map(|job| &job.bytes).copied().collect();
        while end + bytes.len() as u64 > ahead {
            file.write_all_at(&vec![0; AHEAD as usize], ahead)?;
            file.sync_all()?;
            ahead += AHEAD;
        }
        file.write_all_at(&bytes, end)?;
        file.sync_data()?;
        end += bytes.len() as u64;
        for job in all {
            match job.done {
                Done::Flushed(flushed) => flushed.log_io_completed(Ok(())),
                Done::Told(told) => drop(told.send(())),
            }
        }
    }
    Ok(())
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Failed> {
        Ok(self.kept().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failed> {
        let kept = self.kept();
        let last = kept.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: last.or(kept.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), Failed> {
        self.keep(&Operation::Vote(*vote)).await;
        self.kept().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, Failed> {
        Ok(self.kept().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = Vec::new();
        for entry in entries {
            let index = entry.log_id.index;
            let operation = Operation::Append(entry);
            put(&operation, &mut bytes);
            if let Operation::Append(entry) = operation {
                self.kept().entries.insert(index, entry);
            }
        }
        self.queue.send(Job { bytes, done: Done::Flushed(flushed) }).expect("the thread lives");
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<NodeId>) -> Result<(), Failed> {
        self.kept().apply(Operation::TruncateFrom(from.index));
        self.keep(&Operation::TruncateFrom(from.index)).await;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<NodeId>) -> Result<(), Failed> {
        self.kept().apply(Operation::PurgeUpto(upto));
        self.keep(&Operation::PurgeUpto(upto)).await;
        Ok(())
    }
}
