//! Commands that write or read a state of any size: through a file, piece by piece.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use synod_runtime::digest::Sha256;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::keeper::{Errand, ended};
use crate::server::services::programs::{Fed, Feed, Haul, Passed, Question, Spool};

/// Runs a command to its end and keeps what it wrote.
///
/// # Errors
/// Why there is nothing of it; it is killed then, and what it wrote is gone.
pub(super) async fn spool(haul: Haul) -> Result<Box<dyn Spool>, String> {
    let Haul { question, file: path, bytes_max } = haul;
    let Question { station, command, within } = question;
    let named = path.clone();
    let made = spawn_blocking(move || unnamed(&named)).await.map_err(io::Error::from).flatten();
    let file = made.map_err(|error| format!("{}: {error}", path.display()))?;
    let streams = [Stdio::null(), Stdio::piped(), Stdio::inherit()];
    let mut errand = Errand::start_heard(&command, &station, streams)
        .map_err(|error| format!("export cannot be started: {error}"))?;
    let until = Instant::now() + within;
    let out = errand.0.stdout.take();
    let keeping = Keeping { file, path, digest: Sha256::default(), bytes: 0 };
    let kept = timeout_at(until, keeping.keep(out, bytes_max)).await;
    let kept = kept.map_err(|_elapsed| format!("export took more than {within:?}"))??;
    ended("export", timeout_at(until, errand.0.wait()).await)?;
    let Keeping { file, digest, bytes, .. } = kept;
    Ok(Box::new(Kept { file: Arc::new(file), bytes, digest: digest.finish() }))
}

/// A new file without a name: it is gone with whoever has it open.
fn unnamed(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // What a server keeps is nobody else's to read.
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A file into which a command writes.
struct Keeping {
    file: File,
    path: PathBuf,
    digest: Sha256,
    bytes: u64,
}

impl Keeping {
    /// All that comes from `out`.
    async fn keep(mut self, out: Option<ChildStdout>, bytes_max: u64) -> Result<Self, String> {
        let Some(mut out) = out else { return Ok(self) };
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            while piece.len() < PIECE_BYTES {
                match out.read_buf(&mut piece).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Err(format!("export: {error}")),
                }
            }
            if piece.is_empty() {
                return Ok(self);
            }
            self.bytes += piece.len() as u64;
            if self.bytes > bytes_max {
                return Err(format!("export wrote more than {bytes_max} bytes"));
            }
            let write = spawn_blocking(move || {
                self.digest.update(&piece);
                match self.file.write_all(&piece) {
                    Ok(()) => Ok(self),
                    Err(error) => Err(format!("{}: {error}", self.path.display())),
                }
            });
            self = write.await.map_err(|error| error.to_string())??;
        }
    }
}

/// What a command wrote.
struct Kept {
    file: Arc<File>,
    bytes: u64,
    digest: String,
}

impl Spool for Kept {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn read(&self, offset: u64, most: usize) -> Passed<Bytes> {
        let (file, left) = (Arc::clone(&self.file), self.bytes.saturating_sub(offset));
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        Box::pin(async move {
            let read = spawn_blocking(move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, offset).map(|()| Bytes::from(piece))
            });
            read.await.map_err(io::Error::from).flatten().map_err(|error| error.to_string())
        })
    }
}

/// Starts a command that reads.
///
/// # Errors
/// Nothing runs.
pub(super) fn feed(question: &Question) -> Result<Box<dyn Feed>, String> {
    let streams = [Stdio::piped(), Stdio::null(), Stdio::inherit()];
    let mut errand = Errand::start_heard(&question.command, &question.station, streams)
        .map_err(|error| format!("import cannot be started: {error}"))?;
    let into = errand.0.stdin.take();
    Ok(Box::new(Feeding { errand, into, until: Instant::now() + question.within, broken: None }))
}

/// A command that reads.
struct Feeding {
    errand: Errand,
    /// None once all was given.
    into: Option<ChildStdin>,
    until: Instant,
    /// It reads no more.
    broken: Option<io::Error>,
}

impl Feed for Feeding {
    fn put(&mut self, piece: Bytes) -> Fed<'_> {
        Box::pin(async move {
            let Some(into) = self.into.as_mut().filter(|_| self.broken.is_none()) else {
                return Ok(());
            };
            match timeout_at(self.until, into.write_all(&piece)).await {
                Ok(Ok(())) => Ok(()),
                // Who ends without reading says by its status why.
                Ok(Err(error)) => {
                    self.broken = Some(error);
                    self.into = None;
                    Ok(())
                }
                Err(_elapsed) => Err("import took too long".to_owned()),
            }
        })
    }

    fn finish(&mut self) -> Fed<'_> {
        self.into = None;
        Box::pin(async move {
            ended("import", timeout_at(self.until, self.errand.0.wait()).await)?;
            // A state that was not read is not taken in, whatever its reader says.
            match self.broken.take() {
                Some(error) => Err(format!("import did not read all: {error}")),
                None => Ok(()),
            }
        })
    }
}

/// Between the command and the disk.
const PIECE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use synod_runtime::identity::NodeName;

    use super::*;
    use crate::{election::message::Epoch, server::services::programs::Station};

    fn question(script: &str, within: Duration) -> Question {
        let node: NodeName = "a".parse().unwrap();
        let station = Station { service: "web".to_owned(), node, epoch: Epoch(7) };
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Question { station, command, within }
    }

    const LONG: Duration = Duration::from_secs(60);

    /// Goal: what one command wrote another reads, whole. Method: more than a pipe and several
    /// pieces hold.
    #[actix_web::test]
    async fn what_one_command_writes_another_reads() {
        let dir = tempfile::tempdir().unwrap();
        let script = "head -c 1000000 /dev/zero; echo $SYNOD_SERVICE $SYNOD_NODE $SYNOD_EPOCH";
        let haul = Haul {
            question: question(script, LONG),
            file: dir.path().join("spool"),
            bytes_max: 2_000_000,
        };
        let spool = spool(haul).await.map_err(|why| panic!("{why}")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        let copy = dir.path().join("copy");
        let mut feed =
            feed(&question(&format!("cat > {}", copy.display()), LONG)).map_err(drop).unwrap();
        let (mut at, mut sum) = (0, Sha256::default());
        while at < spool.len() {
            let piece = spool.read(at, 300_000).await.unwrap();
            at += piece.len() as u64;
            sum.update(&piece);
            feed.put(piece).await.unwrap();
        }
        feed.finish().await.unwrap();
        let read = std::fs::read(copy).unwrap();
        assert_eq!(&read[1_000_000..], b"web a 7\n");
        assert_eq!((read.len() as u64, sum.finish().as_str()), (spool.len(), spool.digest()));
        assert_eq!(spool.read(spool.len() + 9, 10).await.unwrap().len(), 0);
    }

    #[actix_web::test]
    async fn a_command_that_fails_or_never_ends_or_writes_too_much_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let short = Duration::from_millis(200);
        for (script, within, part) in [
            ("echo x; exit 3", LONG, "ended with exit status: 3"),
            ("cat /dev/zero", LONG, "more than 1000 bytes"),
            ("echo x; sleep 60", short, "took more than 200ms"),
        ] {
            let haul = Haul {
                question: question(script, within),
                file: dir.path().join("spool"),
                bytes_max: 1_000,
            };
            let said = spool(haul).await.err().unwrap();
            assert!(said.contains(part), "{script}: {said}");
        }
        let much = Bytes::from(vec![0; 1 << 20]);
        for (script, within, part) in [
            ("cat > /dev/null; exit 4", LONG, "ended with exit status: 4"),
            ("exit 0", LONG, "did not read all"),
            ("sleep 60", short, "took too long"),
        ] {
            let mut feed = feed(&question(script, within)).map_err(drop).unwrap();
            let put = feed.put(much.clone()).await;
            let said = match put {
                Ok(()) => feed.finish().await.unwrap_err(),
                Err(why) => why,
            };
            assert!(said.contains(part), "{script}: {said}");
        }
        let nobody = Question { command: vec!["synod-no-such".to_owned()], ..question("", LONG) };
        assert!(feed(&nobody).err().unwrap().contains("cannot be started"));
    }
}
