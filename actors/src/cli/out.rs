//! Standard output, for all verbs: a reader that closed the pipe has seen enough, and anything else that
//! keeps a verb from saying what it has to say is its failure.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
};

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;

/// Whether anybody reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as is known.
    There,
    /// It closed the pipe.
    Gone,
}

/// Writes `bytes` as they are.
pub(crate) fn print(bytes: impl AsRef<[u8]>) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    verdict(out.write_all(bytes.as_ref()).and_then(|()| out.flush()))
}

/// Writes `bytes` and ends the line.
pub(crate) fn say(text: impl fmt::Display) -> Result<Reader, Failure> {
    print(format!("{text}\n"))
}

/// A line for people on standard error. Where that is full or closed, nobody wants it.
pub(crate) fn tell(text: impl fmt::Display) {
    drop(io::stderr().lock().write_all(format!("{text}\n").as_bytes()));
}

/// Standard output for verbs that have to hear signals meanwhile: where the reader stands still, only a
/// thread of its own does.
pub(crate) struct Mouth(mpsc::Sender<Page>);

struct Page {
    bytes: Vec<u8>,
    done: oneshot::Sender<Result<Reader, Failure>>,
}

impl Mouth {
    pub(crate) fn open() -> Self {
        let (send, mut pages) = mpsc::channel::<Page>(PAGES_MAX);
        // Nobody waits for it: the process ends though it stands still.
        std::thread::spawn(move || {
            while let Some(Page { bytes, done }) = pages.blocking_recv() {
                // Who gave up waiting for it wants no answer.
                drop(done.send(print(bytes)));
            }
        });
        Self(send)
    }

    /// Writes what `page` holds and leaves it empty. Dropped before its end, it has either not begun, and
    /// `page` is as it was, or goes on.
    pub(crate) async fn print(&self, page: &mut Vec<u8>) -> Result<Reader, Failure> {
        let ended = || Failure::failed("standard output", "its thread ended", "report this");
        let permit = self.0.reserve().await.map_err(|_| ended())?;
        let (done, written) = oneshot::channel();
        permit.send(Page { bytes: std::mem::take(page), done });
        written.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// One is written, and one waits behind it.
const PAGES_MAX: usize = 1;

/// What became of something written.
pub(crate) fn verdict(written: io::Result<()>) -> Result<Reader, Failure> {
    match written {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => {
            let why = format!("cannot be written: {error}");
            Err(Failure::failed("standard output", why, "make room, or write elsewhere"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert_eq!(verdict(Err(ErrorKind::BrokenPipe.into())), Ok(Reader::Gone));
        let full = verdict(Err(ErrorKind::StorageFull.into())).unwrap_err();
        assert!(full.to_string().starts_with("standard output: cannot be written: "), "{full}");
    }
}
