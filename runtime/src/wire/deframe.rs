//! Cuts frames out of a lane's bytes, wherever the network cut them.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    FRAME_BYTES_MAX, Frame, FrameHeader, FrameKind, HEADER_BYTES, LENGTH_BYTES, WIRE_VERSION,
};
use crate::world::network::Lane;

/// Bytes that are no frame. The connection they came from cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field says more than is allowed here; nothing was allocated for it.
    #[error("a frame of {length} bytes, when {max} are allowed")]
    TooLong {
        /// What the frame says.
        length: u32,
        /// What is allowed.
        max: u32,
    },
    /// The length field says less than a header.
    #[error("a frame of {0} bytes is shorter than its header")]
    TooShort(u32),
    /// Another version.
    #[error("wire version {0}, this node speaks {WIRE_VERSION}")]
    Version(u8),
    /// No such kind of frame.
    #[error("no frame is of kind {0}")]
    Kind(u8),
    /// Written to one lane and marked for another.
    #[error("a frame of lane {found} on lane {lane:?}")]
    Lane {
        /// What the frame says.
        found: u8,
        /// Where it came.
        lane: Lane,
    },
    /// Flags that this version does not know.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// A datagram that is not exactly one frame.
    #[error("a datagram of {got} bytes says that it has {said}")]
    Datagram {
        /// Its length.
        got: usize,
        /// The length it claims.
        said: usize,
    },
}

/// Cuts one lane's bytes into frames. [`Deframer::push`] a chunk, then take frames with
/// [`Deframer::next`] until there is none.
///
/// A frame that lies whole in its chunk is a slice of it; only a frame cut by the network is
/// copied, into a buffer of exactly its size. After an error nothing more comes out.
#[derive(Debug)]
pub struct Deframer {
    lane: Lane,
    length_max: u32,
    /// What has not been cut yet of the last chunk.
    chunk: Bytes,
    /// The beginning of a frame whose end has not come yet.
    carry: BytesMut,
    failed: Option<FrameError>,
}

impl Deframer {
    /// A deframer for `lane` that allows every frame up to [`FRAME_BYTES_MAX`].
    pub fn new(lane: Lane) -> Self {
        Self::with_limit(lane, FRAME_BYTES_MAX)
    }

    /// A deframer for `lane` that refuses frames whose length field exceeds `length_max`.
    pub fn with_limit(lane: Lane, length_max: u32) -> Self {
        let (chunk, carry) = (Bytes::new(), BytesMut::new());
        Self { lane, length_max: length_max.min(FRAME_BYTES_MAX), chunk, carry, failed: None }
    }

    /// From now on allows frames up to `length_max`.
    pub fn set_limit(&mut self, length_max: u32) {
        self.length_max = length_max.min(FRAME_BYTES_MAX);
    }

    /// Adds the next bytes of the lane.
    pub fn push(&mut self, bytes: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = bytes;
        } else {
            // Only when the caller did not take all frames of the chunk before.
            let mut joined = BytesMut::with_capacity(self.chunk.len() + bytes.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&bytes);
            self.chunk = joined.freeze();
        }
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`], from then on always the same one.
    #[expect(clippy::should_implement_trait, reason = "an error must not look like an item")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let cut = self.cut();
        if let Err(error) = &cut {
            self.failed = Some(*error);
            self.chunk = Bytes::new();
            self.carry = BytesMut::new();
        }
        cut
    }

    fn cut(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.carry.is_empty() {
            let total = self.total(&self.chunk)?;
            if let Some(total) = total
                && self.chunk.len() >= total
            {
                let whole = self.chunk.split_to(total);
                return self.parse(whole).map(Some);
            }
            self.carry.reserve(total.unwrap_or(LENGTH_BYTES));
        }
        // The length first: it says how much the carried frame needs.
        self.fill(LENGTH_BYTES);
        let Some(total) = self.total(&self.carry)? else {
            return Ok(None);
        };
        self.carry.reserve(total - self.carry.len());
        self.fill(total);
        if self.carry.len() < total {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.carry).freeze();
        self.parse(whole).map(Some)
    }

    /// Moves bytes from the chunk until the carried frame has `len`.
    fn fill(&mut self, len: usize) {
        let take = len.saturating_sub(self.carry.len()).min(self.chunk.len());
        self.carry.extend_from_slice(&self.chunk[..take]);
        self.chunk.advance(take);
    }

    /// How long the frame that `bytes` begin is, its length field included. `None` when even that
    /// field is not whole. Checked here, so that nothing is allocated for a length refused.
    fn total(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(field) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*field);
        if length > self.length_max {
            return Err(FrameError::TooLong { length, max: self.length_max });
        }
        if (length as usize) < HEADER_BYTES - LENGTH_BYTES {
            return Err(FrameError::TooShort(length));
        }
        Ok(Some(LENGTH_BYTES + length as usize))
    }

    fn parse(&self, whole: Bytes) -> Result<Frame, FrameError> {
        parse(whole, self.lane)
    }
}

/// Reads a datagram, which must be exactly one frame of the control lane.
///
/// # Errors
/// [`FrameError`]; a datagram stands alone, so the connection is still good.
pub fn decode_datagram(bytes: Bytes) -> Result<Frame, FrameError> {
    let got = bytes.len();
    let said = bytes.first_chunk::<LENGTH_BYTES>().map_or(LENGTH_BYTES, |field| {
        LENGTH_BYTES.saturating_add(u32::from_le_bytes(*field) as usize)
    });
    if got != said || got < HEADER_BYTES {
        return Err(FrameError::Datagram { got, said });
    }
    parse(bytes, Lane::Control)
}

/// `whole` is at least a header long.
fn parse(mut whole: Bytes, lane: Lane) -> Result<Frame, FrameError> {
    let head: &[u8; HEADER_BYTES] = whole.first_chunk().expect("the callers checked the length");
    let [version, kind, found, flags] = [head[4], head[5], head[6], head[7]];
    if version != WIRE_VERSION {
        return Err(FrameError::Version(version));
    }
    let Some(kind) = FrameKind::from_wire(kind) else {
        return Err(FrameError::Kind(kind));
    };
    if found != lane as u8 {
        return Err(FrameError::Lane { found, lane });
    }
    if flags != 0 {
        return Err(FrameError::Flags(flags));
    }
    let number = |at: usize| {
        u64::from_le_bytes(*head[at..].first_chunk().expect("eight bytes of the header"))
    };
    let header = FrameHeader {
        kind,
        target: number(8),
        message: number(16),
        correlation: number(24),
        deadline_ms: u32::from_le_bytes(*head[32..].first_chunk().expect("four of them")),
        trace: number(36),
    };
    whole.advance(HEADER_BYTES);
    Ok(Frame { header, body: whole })
}
