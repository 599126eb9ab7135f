//! From bytes of a socket to commands: RESP arrays of bulk strings, and inline commands.
//!
//! A command is copied once, argument by argument as they become whole, into the encoding of
//! [`crate::args`]; that is what travels through the log.

use bytes::{Buf, Bytes, BytesMut};

use super::inline;
use crate::{
    args::ArgsWriter,
    limits::{ARGUMENTS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX},
    number::parse_i64,
};

/// A command as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name and arguments, see [`crate::args`].
    pub args: Bytes,
    /// How many there are, at least one.
    pub count: usize,
}

/// Cuts commands from a stream of bytes, however it is chopped.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Option<Partial>,
}

/// A command of which some arguments are still missing.
#[derive(Debug)]
struct Partial {
    args: ArgsWriter,
    missing: usize,
    /// The length of the next argument, once its header was read.
    len: Option<usize>,
}

impl Parser {
    /// The next whole command, if `input` holds one; takes from `input` what it has read. After an
    /// error nothing can be made of the stream any more.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            let partial = match &mut self.partial {
                Some(partial) => partial,
                None => match input.first() {
                    None => return Ok(None),
                    Some(b'*') => match multibulk(input)? {
                        Header::Wait => return Ok(None),
                        Header::Nothing => continue,
                        Header::Count(count) => self.partial.insert(Partial::new(count, input)),
                    },
                    Some(_) => match inline(input)? {
                        Inline::Wait => return Ok(None),
                        Inline::Nothing => continue,
                        Inline::Command(request) => return Ok(Some(request)),
                    },
                },
            };
            if !partial.fill(input)? {
                return Ok(None);
            }
            if let Some(Partial { args, .. }) = self.partial.take() {
                let count = args.count();
                return Ok(Some(Request { args: args.finish(), count }));
            }
        }
    }
}

impl Partial {
    fn new(count: usize, input: &BytesMut) -> Self {
        // A guess from what is there already: a lying count allocates nothing.
        let bytes = input.len().min(REQUEST_BYTES_MAX);
        let args = ArgsWriter::with_capacity(count.min(bytes / 6), bytes.min(GUESS_BYTES_MAX));
        Self { args, missing: count, len: None }
    }

    /// Takes arguments from `input` while they are whole; true when none is missing.
    fn fill(&mut self, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        while self.missing > 0 {
            let len = match self.len {
                Some(len) => len,
                None => match bulk(input)? {
                    None => return Ok(false),
                    Some(len) if self.args.len() + 4 + len > REQUEST_BYTES_MAX => {
                        return Err(ProtocolError::RequestTooLarge);
                    }
                    Some(len) => *self.len.insert(len),
                },
            };
            if input.len() < len + 2 {
                // What is still to come fits without moving what is here again and again.
                input.reserve(len + 2 - input.len());
                return Ok(false);
            }
            self.args.push(&input[..len]);
            // Redis does not look at the line end behind an argument either.
            input.advance(len + 2);
            self.len = None;
            self.missing -= 1;
        }
        Ok(true)
    }
}

enum Header {
    Wait,
    Nothing,
    Count(usize),
}

/// Reads `*3\r\n`.
fn multibulk(input: &mut BytesMut) -> Result<Header, ProtocolError> {
    let Some(line) = line(input, ProtocolError::CountTooLong)? else { return Ok(Header::Wait) };
    let count = parse_i64(&input[1..line]).ok_or(ProtocolError::MultibulkLength)?;
    input.advance(line + 2);
    match usize::try_from(count) {
        // Negative or zero: an empty command is no command.
        Err(_) | Ok(0) => Ok(Header::Nothing),
        Ok(count) if count <= ARGUMENTS_MAX => Ok(Header::Count(count)),
        Ok(_) => Err(ProtocolError::MultibulkLength),
    }
}

/// Reads `$5\r\n`.
fn bulk(input: &mut BytesMut) -> Result<Option<usize>, ProtocolError> {
    match input.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(ProtocolError::NoDollar(*other)),
    }
    let Some(line) = line(input, ProtocolError::BulkTooLong)? else { return Ok(None) };
    let len = parse_i64(&input[1..line]).and_then(|len| usize::try_from(len).ok());
    let len = len.filter(|len| *len <= VALUE_BYTES_MAX).ok_or(ProtocolError::BulkLength)?;
    input.advance(line + 2);
    Ok(Some(len))
}

/// Where the line at the beginning of `input` ends, once its line end is there.
fn line(input: &BytesMut, too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
    match input.iter().take(INLINE_BYTES_MAX).position(|byte| *byte == b'\r') {
        Some(end) if end + 1 < input.len() => Ok(Some(end)),
        Some(_) => Ok(None),
        None if input.len() >= INLINE_BYTES_MAX => Err(too_long),
        None => Ok(None),
    }
}

enum Inline {
    Wait,
    Nothing,
    Command(Request),
}

fn inline(input: &mut BytesMut) -> Result<Inline, ProtocolError> {
    let Some(end) = input.iter().take(INLINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let wait = input.len() < INLINE_BYTES_MAX;
        return if wait { Ok(Inline::Wait) } else { Err(ProtocolError::InlineTooLong) };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let args = inline::split(line).map_err(|_| ProtocolError::UnbalancedQuotes)?;
    input.advance(end + 1);
    if args.is_empty() {
        return Ok(Inline::Nothing);
    }
    let count = args.count();
    Ok(Inline::Command(Request { args: args.finish(), count }))
}

/// Bytes that are no RESP. The connection is hung up after the error was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is no number, or beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// The length of an argument is no number, or beyond 1 MiB.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// An argument does not begin with a dollar.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    NoDollar(u8),
    /// The line with the number of arguments does not end.
    #[error("Protocol error: too big mbulk count string")]
    CountTooLong,
    /// The line with the length of an argument does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkTooLong,
    /// An inline command does not end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A quote in an inline command is not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// All arguments together are beyond the limit.
    #[error("Protocol error: too big request, the limit is 2 MiB")]
    RequestTooLarge,
}

/// Most commands are smaller than this; larger ones grow.
const GUESS_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests;
