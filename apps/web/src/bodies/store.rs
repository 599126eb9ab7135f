//! Bodies on a site's disk: a worker writes, reads and hashes them, piece by piece.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use synod::runtime::{
    digest::Sha256,
    journal::Durability,
    world::{
        Disk,
        disk::{DiskFile, Waker, Worker},
    },
};
use tokio::sync::oneshot;

use super::{Apart, PIECE_BYTES};

/// The bodies that a site keeps. Cloning is cheap and gives the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    queue: Queue,
    waker: Arc<dyn Waker>,
    known: Mutex<Known>,
}

type Queue = Arc<Mutex<Jobs>>;

/// Bounded by those who ask: each waits for its answer before it asks again.
#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Nobody does any more of them.
    gone: bool,
}

/// Something to do where blocking is allowed.
type Job = Box<dyn FnOnce(&mut Clerk) + Send>;

/// What there is.
#[derive(Default)]
struct Known {
    whole: BTreeMap<String, Entry>,
    next_draft: u64,
    /// Of whole ones and drafts.
    bytes: u64,
}

struct Entry {
    bytes: u64,
    /// So many use it.
    users: usize,
    /// It was written, or read and found whole, by this process.
    sound: bool,
}

/// Why a body is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// There is no room for it.
    #[error("there is no room for this body: {0}")]
    Full(String),
    /// The disk refuses.
    #[error("this body cannot be kept: {0}")]
    Failed(String),
}

impl Store {
    /// The bodies in `dir`. Blocks. What was not whole is removed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(disk: &Arc<dyn Disk>, dir: PathBuf, durability: Durability) -> io::Result<Self> {
        disk.create_dir_all(&dir)?;
        let mut known = Known::default();
        for name in disk.list(&dir)? {
            match name.strip_prefix(WHOLE) {
                Some(digest) => {
                    let bytes = disk.open(&dir.join(&name), false)?.len()?;
                    known.bytes += bytes;
                    known.whole.insert(digest.to_owned(), Entry { bytes, users: 0, sound: false });
                }
                None => disk.remove(&dir.join(&name))?,
            }
        }
        let queue = Queue::default();
        let clerk = Clerk {
            disk: Arc::clone(disk),
            dir,
            durable: durability != Durability::Memory,
            queue: Arc::clone(&queue),
            drafts: BTreeMap::new(),
            open: VecDeque::new(),
        };
        let waker = disk.spawn_worker("bodies", Box::new(clerk));
        Ok(Self(Arc::new(Inner { queue, waker, known: Mutex::new(known) })))
    }

    /// A new body, empty so far.
    pub fn draft(&self) -> Draft {
        let mut known = self.known();
        known.next_draft += 1;
        Draft { store: self.clone(), id: known.next_draft, bytes: 0, ended: false }
    }

    /// Keeps a body that is at hand.
    ///
    /// # Errors
    /// It is not kept.
    pub async fn keep(&self, body: Bytes) -> Result<Apart, Unkept> {
        let mut draft = self.draft();
        draft.put(body).await?;
        draft.finish().await
    }

    /// A body, if it is kept and sound; it stays for as long as the answer lives. One that was kept by
    /// an earlier process is read first.
    ///
    /// # Errors
    /// The disk refuses: nobody knows.
    pub async fn held(&self, body: &Apart) -> Result<Option<Apart>, Unkept> {
        let (held, sound) = {
            let mut known = self.known();
            let Some(entry) = known.whole.get_mut(&body.digest) else { return Ok(None) };
            entry.users += 1;
            (Held { store: self.clone(), digest: body.digest.clone() }, entry.sound)
        };
        if !sound {
            let digest = body.digest.clone();
            let read = self.ask(move |clerk| clerk.digest_of(&digest)).await?;
            if read != body.digest {
                tracing::error!(body = ?body, "a body on disk is damaged; it is fetched anew");
                drop(held);
                self.remove(&body.digest);
                return Ok(None);
            }
            if let Some(entry) = self.known().whole.get_mut(&body.digest) {
                entry.sound = true;
            }
        }
        Ok(Some(Apart { held: Some(Arc::new(held)), ..body.clone() }))
    }

    /// What is kept of a body from `offset` on, at most one piece; none if it is not kept.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn piece(&self, body: &Apart, offset: u64) -> Result<Option<Bytes>, Unkept> {
        match self.held(body).await?.and_then(|apart| apart.held) {
            Some(held) => held.read(offset).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether it keeps none.
    pub fn is_empty(&self) -> bool {
        self.known().whole.is_empty()
    }

    /// Removes what nobody uses and `wanted` does not name (B2).
    pub fn sweep(&self, mut wanted: impl FnMut(&str) -> bool) {
        let idle: Vec<String> = {
            let known = self.known();
            let idle = known.whole.iter().filter(|(_, entry)| entry.users == 0);
            idle.map(|(digest, _)| digest.clone()).collect()
        };
        idle.iter().filter(|digest| !wanted(digest)).for_each(|digest| self.remove(digest));
    }

    fn remove(&self, digest: &str) {
        let mut known = self.known();
        if known.whole.get(digest).is_none_or(|entry| entry.users > 0) {
            return;
        }
        let Some(Entry { bytes, .. }) = known.whole.remove(digest) else { return };
        known.bytes -= bytes;
        let digest = digest.to_owned();
        // Queued before anybody can keep it anew.
        self.queue(Box::new(move |clerk| clerk.remove(&digest)));
    }

    fn reserve(&self, bytes: u64) -> Result<(), Unkept> {
        let mut known = self.known();
        if known.bytes + bytes > STORE_BYTES_MAX {
            return Err(Unkept::Full(format!("{} bytes of bodies are kept already", known.bytes)));
        }
        known.bytes += bytes;
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0.known)
    }

    fn queue(&self, job: Job) {
        {
            let mut jobs = lock(&self.0.queue);
            if jobs.gone {
                return;
            }
            jobs.waiting.push_back(job);
        }
        self.0.waker.wake();
    }

    /// Has something done, behind what is queued already.
    fn ask<T: Send + 'static, J>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<T, Unkept>> + use<T, J>
    where
        J: FnOnce(&mut Clerk) -> io::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.queue(Box::new(move |clerk| drop(answer.send(job(clerk)))));
        async move {
            match answered.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                    Err(Unkept::Full(error.to_string()))
                }
                Ok(Err(error)) => Err(Unkept::Failed(error.to_string())),
                Err(_) => Err(Unkept::Failed("the node stops".to_owned())),
            }
        }
    }
}

/// A body that is still on its way here. What was kept of it goes when this is dropped.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    id: u64,
    bytes: u64,
    ended: bool,
}

impl Draft {
    /// The next of it.
    ///
    /// # Errors
    /// It is not kept, and nothing of it will be.
    pub async fn put(&mut self, piece: Bytes) -> Result<(), Unkept> {
        let (id, offset, length) = (self.id, self.bytes, piece.len() as u64);
        self.store.reserve(length)?;
        self.bytes += length;
        self.store.ask(move |clerk| clerk.put(id, offset, &piece)).await
    }

    /// So much came.
    pub const fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing came.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// That was all of it. It is kept durably when this returns, and stays as long as the answer lives.
    ///
    /// # Errors
    /// It is not kept.
    pub async fn finish(mut self) -> Result<Apart, Unkept> {
        let (id, bytes, store) = (self.id, self.bytes, self.store.clone());
        let digest = store.ask(move |clerk| clerk.seal(id)).await?;
        self.ended = true;
        let name = digest.clone();
        let named = {
            // Nobody can remove it, and whoever reads it asks behind this.
            let mut known = store.known();
            let before = known.whole.remove(&digest);
            let users = before.map_or(0, |entry| {
                known.bytes -= entry.bytes;
                entry.users
            });
            known.whole.insert(digest.clone(), Entry { bytes, users: users + 1, sound: true });
            store.ask(move |clerk| clerk.name(id, &name))
        };
        let held = Arc::new(Held { store: store.clone(), digest: digest.clone() });
        named.await.inspect_err(|_| {
            let mut known = store.known();
            if let Some(Entry { bytes, .. }) = known.whole.remove(&digest) {
                known.bytes -= bytes;
            }
        })?;
        Ok(Apart { digest, bytes, held: Some(held) })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.ended {
            self.store.known().bytes -= self.bytes;
            let id = self.id;
            self.store.queue(Box::new(move |clerk| clerk.give_up(id)));
        }
    }
}

/// A body that is kept, and stays while this lives.
pub struct Held {
    store: Store,
    digest: String,
}

impl Held {
    /// What it has from `offset` on, at most one piece; nothing at its end.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn read(&self, offset: u64) -> Result<Bytes, Unkept> {
        let digest = self.digest.clone();
        self.store.ask(move |clerk| clerk.read(&digest, offset)).await
    }

    /// What it has from `offset` on: so many bytes, or what there is until its end.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn up_to(&self, offset: u64, most: usize) -> Result<Bytes, Unkept> {
        let mut all = Vec::new();
        while all.len() < most {
            match self.read(offset + all.len() as u64).await? {
                piece if piece.is_empty() => break,
                piece => all.extend_from_slice(&piece),
            }
        }
        all.truncate(most);
        Ok(all.into())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.store.known().whole.get_mut(&self.digest) {
            entry.users -= 1;
        }
    }
}

/// Does the work.
struct Clerk {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    durable: bool,
    queue: Queue,
    drafts: BTreeMap<u64, Writing>,
    /// Those read last.
    open: VecDeque<(String, Box<dyn DiskFile>)>,
}

struct Writing {
    file: Box<dyn DiskFile>,
    digest: Sha256,
}

impl Worker for Clerk {
    fn run(&mut self) {
        loop {
            let Some(job) = lock(&self.queue).waiting.pop_front() else { return };
            job(self);
        }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        let mut jobs = lock(&self.queue);
        jobs.gone = true;
        let waiting = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        // Whoever waits is told so.
        drop(waiting);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clerk {
    fn put(&mut self, id: u64, offset: u64, piece: &[u8]) -> io::Result<()> {
        let mut writing = match self.drafts.remove(&id) {
            Some(writing) => writing,
            None if offset == 0 => {
                let file = self.disk.open(&self.draft(id), true)?;
                Writing { file, digest: Sha256::default() }
            }
            None => return Err(io::Error::other("what came before of it failed")),
        };
        writing.file.write_at(offset, piece)?;
        writing.digest.update(piece);
        self.drafts.insert(id, writing);
        Ok(())
    }

    /// Makes it durable under its number; its digest.
    fn seal(&mut self, id: u64) -> io::Result<String> {
        let failed = || io::Error::other("what came of it failed");
        let Writing { mut file, digest } = self.drafts.remove(&id).ok_or_else(failed)?;
        if self.durable {
            file.sync_data()?;
        }
        Ok(digest.finish())
    }

    /// Gives it its name.
    fn name(&mut self, id: u64, digest: &str) -> io::Result<()> {
        self.close(digest);
        let draft = self.draft(id);
        self.disk.rename(&draft, &self.whole(digest)).inspect_err(|_| self.unlink(&draft))
    }

    fn give_up(&mut self, id: u64) {
        self.drafts.remove(&id);
        self.unlink(&self.draft(id));
    }

    fn read(&mut self, digest: &str, offset: u64) -> io::Result<Bytes> {
        let at = self.open.iter().position(|(name, _)| name == digest);
        let (name, file) = match at.and_then(|at| self.open.remove(at)) {
            Some(known) => known,
            None => (digest.to_owned(), self.disk.open(&self.whole(digest), false)?),
        };
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read_at(offset, &mut piece);
        self.open.push_back((name, file));
        if self.open.len() > OPEN_MAX {
            self.open.pop_front();
        }
        piece.truncate(read?);
        Ok(piece.into())
    }

    fn digest_of(&mut self, digest: &str) -> io::Result<String> {
        let (mut sum, mut offset) = (Sha256::default(), 0);
        loop {
            let piece = self.read(digest, offset)?;
            if piece.is_empty() {
                return Ok(sum.finish());
            }
            offset += piece.len() as u64;
            sum.update(&piece);
        }
    }

    fn remove(&mut self, digest: &str) {
        self.close(digest);
        self.unlink(&self.whole(digest));
    }

    fn close(&mut self, digest: &str) {
        self.open.retain(|(name, _)| name != digest);
    }

    fn unlink(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::warn!(path = %path.display(), %error, "a body stays on disk until the next start");
        }
    }

    fn draft(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{DRAFT}{id}"))
    }

    fn whole(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{WHOLE}{digest}"))
    }
}

/// Before the digest in a file's name.
const WHOLE: &str = "body-";

/// Before a number, while not all of it is there.
const DRAFT: &str = "draft-";

/// Two sites that go on for hours without a third, or a rebuild, need room; a disk has more.
pub const STORE_BYTES_MAX: u64 = 32 << 30;

/// As many as are read side by side for a while; each costs a file descriptor.
const OPEN_MAX: usize = 16;

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("digest", &self.digest).finish_non_exhaustive()
    }
}
