//! Standard output, for all verbs: a reader that closed the pipe has seen enough, and anything else that
//! keeps a verb from saying what it has to say is its failure.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
};

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
