//! What a command answers, in a compact form of our own: the replica does not know whether the
//! client speaks RESP2 or RESP3, so the listener transcodes.
//!
//! Each element is a tag byte, then a length or count (u32, little-endian) and bytes, or an i64.

use std::ops::ControlFlow;

use crate::{args::split_u32, limits::REPLY_BYTES_MAX};

/// Builds one reply.
///
/// It grows to [`REPLY_BYTES_MAX`] bytes and then only remembers that it overflowed: `MGET` of one large
/// value ten thousand times must not take the memory of every replica.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Reply {
    /// An empty reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.bytes.push(Tag::Ok as u8);
    }

    /// A status such as `PONG`.
    pub fn simple(&mut self, text: &str) {
        self.run(Tag::Simple, text.as_bytes());
    }

    /// An error, with its code: `ERR syntax error`.
    pub fn error(&mut self, text: &str) {
        self.run(Tag::Error, text.as_bytes());
    }

    /// A number.
    pub fn integer(&mut self, value: i64) {
        self.bytes.push(Tag::Integer as u8);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A string of bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.run(Tag::Bulk, bytes);
    }

    /// Text for people: a verbatim string in RESP3, a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        self.run(Tag::Verbatim, text.as_bytes());
    }

    /// Nothing, where a bulk string could be.
    pub fn null(&mut self) {
        self.bytes.push(Tag::Null as u8);
    }

    /// Nothing, where an array could be: the answer of an `EXEC` whose watched keys changed.
    pub fn null_array(&mut self) {
        self.bytes.push(Tag::NullArray as u8);
    }

    /// The `count` elements that follow are an array.
    pub fn array(&mut self, count: usize) {
        self.count(Tag::Array, count);
    }

    /// The `pairs` pairs that follow are a map.
    pub fn map(&mut self, pairs: usize) {
        self.count(Tag::Map, pairs);
    }

    /// The `count` elements that follow are a set.
    pub fn set(&mut self, count: usize) {
        self.count(Tag::Set, count);
    }

    /// A bulk string, or null.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Elements that are encoded already.
    pub fn append(&mut self, encoded: &[u8]) {
        if self.room_for(encoded.len()) {
            self.bytes.extend_from_slice(encoded);
        }
    }

    /// How long the encoding is by now.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets everything behind the first `len` bytes, an overflow too.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.overflowed = false;
    }

    /// Whether it would have grown beyond [`REPLY_BYTES_MAX`]; what was written is then not whole.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The encoded reply.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn run(&mut self, tag: Tag, bytes: &[u8]) {
        if !self.room_for(bytes.len()) {
            return;
        }
        self.count(tag, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn count(&mut self, tag: Tag, count: usize) {
        self.bytes.push(tag as u8);
        let count = u32::try_from(count).expect("replies are limited to 8 MiB");
        self.bytes.extend_from_slice(&count.to_le_bytes());
    }

    fn room_for(&mut self, bytes: usize) -> bool {
        self.overflowed |= self.bytes.len() + bytes > REPLY_BYTES_MAX;
        !self.overflowed
    }
}

/// One element of an encoded reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// A status.
    Simple(&'a [u8]),
    /// An error with its code.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bulk(&'a [u8]),
    /// Text for people.
    Verbatim(&'a [u8]),
    /// Nothing, in place of a string.
    Null,
    /// Nothing, in place of an array.
    NullArray,
    /// So many elements follow.
    Array(usize),
    /// So many pairs follow.
    Map(usize),
    /// So many elements follow.
    Set(usize),
}

impl<'a> Element<'a> {
    /// The first element of `bytes`, and what follows it.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BadReply> {
        let (&tag, rest) = bytes.split_first().ok_or(BadReply)?;
        let tag = Tag::try_from(tag)?;
        match tag {
            Tag::Ok => return Ok((Self::Simple(b"OK"), rest)),
            Tag::Null => return Ok((Self::Null, rest)),
            Tag::NullArray => return Ok((Self::NullArray, rest)),
            Tag::Integer => {
                let (value, rest) = rest.split_first_chunk::<8>().ok_or(BadReply)?;
                return Ok((Self::Integer(i64::from_le_bytes(*value)), rest));
            }
            Tag::Simple
            | Tag::Error
            | Tag::Bulk
            | Tag::Verbatim
            | Tag::Array
            | Tag::Map
            | Tag::Set => {}
        }
        let (count, rest) = split_u32(rest).map_err(|_| BadReply)?;
        let count = count as usize;
        let aggregate = match tag {
            Tag::Array => Some(Self::Array(count)),
            Tag::Map => Some(Self::Map(count)),
            Tag::Set => Some(Self::Set(count)),
            _ => None,
        };
        if let Some(aggregate) = aggregate {
            return Ok((aggregate, rest));
        }
        let (run, rest) = rest.split_at_checked(count).ok_or(BadReply)?;
        let element = match tag {
            Tag::Simple => Self::Simple(run),
            Tag::Error => Self::Error(run),
            Tag::Verbatim => Self::Verbatim(run),
            _ => Self::Bulk(run),
        };
        Ok((element, rest))
    }

    /// How many elements follow and belong to this one.
    pub fn children(&self) -> usize {
        match self {
            Self::Array(count) | Self::Set(count) => *count,
            Self::Map(pairs) => pairs.saturating_mul(2),
            Self::Simple(_)
            | Self::Error(_)
            | Self::Integer(_)
            | Self::Bulk(_)
            | Self::Verbatim(_)
            | Self::Null
            | Self::NullArray => 0,
        }
    }
}

/// Splits the first whole value, with all that belongs to it, off `bytes`.
pub fn split_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadReply> {
    let mut rest = bytes;
    let mut missing = 1_usize;
    while missing > 0 {
        let (element, tail) = Element::split(rest)?;
        missing = (missing - 1).checked_add(element.children()).ok_or(BadReply)?;
        rest = tail;
    }
    Ok(bytes.split_at(bytes.len() - rest.len()))
}

/// Calls `each` with every element of `bytes` in order until it breaks.
pub fn walk<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(Element<'a>) -> ControlFlow<()>,
) -> Result<(), BadReply> {
    while !bytes.is_empty() {
        let (element, rest) = Element::split(bytes)?;
        if each(element).is_break() {
            return Ok(());
        }
        bytes = rest;
    }
    Ok(())
}

/// Bytes that are no encoded reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no encoded key/value reply")]
pub struct BadReply;

/// Part of the log's format, since replies are kept with sessions: numbers never change.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Ok = 1,
    Simple = 2,
    Error = 3,
    Integer = 4,
    Bulk = 5,
    Verbatim = 6,
    Null = 7,
    NullArray = 8,
    Array = 9,
    Map = 10,
    Set = 11,
}

impl TryFrom<u8> for Tag {
    type Error = BadReply;

    fn try_from(byte: u8) -> Result<Self, BadReply> {
        const ALL: [Tag; 11] = [
            Tag::Ok,
            Tag::Simple,
            Tag::Error,
            Tag::Integer,
            Tag::Bulk,
            Tag::Verbatim,
            Tag::Null,
            Tag::NullArray,
            Tag::Array,
            Tag::Map,
            Tag::Set,
        ];
        byte.checked_sub(1).and_then(|index| ALL.get(usize::from(index)).copied()).ok_or(BadReply)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_split_off_with_all_its_children() {
        let mut reply = Reply::new();
        reply.array(2);
        reply.map(1);
        reply.bulk(b"k");
        reply.integer(-7);
        reply.null();
        let first = reply.len();
        reply.ok();
        let bytes = reply.into_bytes();
        let (value, rest) = split_value(&bytes).unwrap();
        assert_eq!(value.len(), first);
        assert_eq!(Element::split(rest), Ok((Element::Simple(b"OK"), &[][..])));
    }

    #[test]
    fn a_reply_stops_growing_at_its_limit() {
        let mut reply = Reply::new();
        let half = vec![0; REPLY_BYTES_MAX / 2];
        for _ in 0..10 {
            reply.bulk(&half);
        }
        assert!(reply.overflowed() && reply.len() <= REPLY_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_read_never_a_panic(bytes: Vec<u8>) {
            let _ = split_value(&bytes);
        }
    }
}
