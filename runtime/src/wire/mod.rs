//! What travels between nodes: frames with a fixed header, their limits, and the link handshake.
//!
//! A frame on the wire, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of everything after it |
//! | 1 | [`WIRE_VERSION`] |
//! | 1 | [`FrameKind`] |
//! | 1 | [`Lane`] it was written to |
//! | 1 | flags, all zero in this version |
//! | 8 | target: [`name_hash`] of the name it is for |
//! | 8 | message: [`name_hash`] of the message's name |
//! | 8 | correlation: pairs a reply with its ask |
//! | 4 | deadline: milliseconds left when sent, 0 for none |
//! | 8 | trace id, 0 for none |
//! | … | body |

mod deframe;
mod handshake;
mod schema;

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::world::network::Lane;

pub use deframe::{Deframer, FrameError, decode_datagram};
pub use handshake::{HELLO_BYTES_MAX, Hello, HelloError, MESSAGES_BYTES_MAX, ROLE_BYTES_MAX};
pub use schema::{Fingerprint, Member, MemberPrint, Schema};

/// The version in every frame and in [`Hello`]; nodes of different versions refuse each other.
pub const WIRE_VERSION: u8 = 1;

/// The length field.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Everything before the body, the length field included.
pub const HEADER_BYTES: usize = 44;

/// The last field of the header.
const TRACE_BYTES: usize = 8;

/// What the length field may say at most. The largest frames are promises, which carry a few steps
/// (256 KiB each, or one largest command); this leaves them room and still bounds what a peer can
/// make us allocate.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The largest body of a frame.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX as usize + LENGTH_BYTES - HEADER_BYTES;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame of each direction: who speaks. See [`Hello`].
    Hello = 0,
    /// A message nobody waits for.
    Tell = 1,
    /// A message whose sender waits for [`FrameKind::Reply`] or [`FrameKind::Failure`].
    Ask = 2,
    /// The answer to an ask.
    Reply = 3,
    /// Why an ask got no answer.
    Failure = 4,
    /// The sender of an ask stopped waiting.
    Cancel = 5,
    /// Names of the registry.
    Directory = 6,
    /// A sign of life.
    Heartbeat = 7,
    /// The last frame: the body says in text why the sender hangs up; a message number of 1 says
    /// that the sender leaves the cluster in good order.
    Goodbye = 8,
    /// How much of a target's, or the link's, credit may be spent.
    Credit = 9,
    /// How much was spent, by somebody who has none left.
    Probe = 10,
}

impl FrameKind {
    const ALL: [Self; 11] = [
        Self::Hello,
        Self::Tell,
        Self::Ask,
        Self::Reply,
        Self::Failure,
        Self::Cancel,
        Self::Directory,
        Self::Heartbeat,
        Self::Goodbye,
        Self::Credit,
        Self::Probe,
    ];

    /// The kind with this number on the wire.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is for.
    pub kind: FrameKind,
    /// [`name_hash`] of the name it is for; 0 where the kind needs none.
    pub target: u64,
    /// [`name_hash`] of the message's name; 0 where the kind needs none.
    pub message: u64,
    /// Pairs a reply with its ask; 0 for a tell.
    pub correlation: u64,
    /// Milliseconds the sender will still wait, counted from sending; 0 for no deadline.
    pub deadline_ms: u32,
    /// Trace id; 0 for none.
    pub trace: u64,
}

impl FrameHeader {
    /// A header of `kind` with everything else zero.
    pub const fn new(kind: FrameKind) -> Self {
        Self { kind, target: 0, message: 0, correlation: 0, deadline_ms: 0, trace: 0 }
    }
}

/// One frame as it was received. The body may be a slice of a larger network buffer: copy it out
/// to keep it for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The fixed part.
    pub header: FrameHeader,
    /// The rest.
    pub body: Bytes,
}

/// The bytes of a frame before its body.
///
/// # Panics
/// When `body_len` is more than [`BODY_BYTES_MAX`]; callers check that first.
pub fn encode_header(header: &FrameHeader, lane: Lane, body_len: usize) -> [u8; HEADER_BYTES] {
    assert!(body_len <= BODY_BYTES_MAX, "the caller checks the length of a body");
    let length = u32::try_from(HEADER_BYTES - LENGTH_BYTES + body_len)
        .expect("checked to fit in 16 MiB just above");
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&[WIRE_VERSION, header.kind as u8, lane as u8, 0]);
    bytes[8..16].copy_from_slice(&header.target.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.message.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.correlation.to_le_bytes());
    bytes[32..36].copy_from_slice(&header.deadline_ms.to_le_bytes());
    bytes[36..44].copy_from_slice(&header.trace.to_le_bytes());
    bytes
}

/// Appends one frame to `into`.
///
/// # Panics
/// As [`encode_header`].
pub fn encode(header: &FrameHeader, lane: Lane, body: &[u8], into: &mut BytesMut) {
    into.reserve(HEADER_BYTES + body.len());
    into.put_slice(&encode_header(header, lane, body.len()));
    into.put_slice(body);
}

/// The same bytes with no trace in any of their frames; what is no frame is left alone.
pub fn without_traces(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + LENGTH_BYTES) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        let end = at.saturating_add(LENGTH_BYTES + length as usize);
        let trace = at + HEADER_BYTES - TRACE_BYTES..at + HEADER_BYTES;
        if end > bytes.len() || end < trace.end || bytes[at + LENGTH_BYTES] != WIRE_VERSION {
            break;
        }
        if bytes[trace.clone()].iter().any(|byte| *byte != 0) {
            bytes.to_mut()[trace].fill(0);
        }
        at = end;
    }
    bytes
}

/// The number that stands for a name on the wire: FNV-1a with 64 bits, which is stable for ever
/// and can be computed while compiling. Whoever binds names must refuse two that collide.
pub const fn name_hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests;
