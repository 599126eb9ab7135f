//! A block as it lies on a disk.
//!
//! ```text
//! magic u64 | crc u32 | length u32 | mbal (u64, u64) | bal (u64, u64) | value | zeros      4 KiB
//! ```
//! The checksum is of all that follows it. A block of zeros was never written.

use serde::{Deserialize, Serialize};

use crate::register::{Timestamp, VALUE_BYTES_MAX};

/// What one client says on one disk about one register.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DiskBlock {
    /// The ballot it is at.
    pub mbal: Timestamp,
    /// The ballot in which it proposed its value.
    pub bal: Timestamp,
    /// The value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// A block that is torn or rotten, or none of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("a block is damaged")]
pub struct Damaged;

impl DiskBlock {
    /// The bytes to write at once.
    ///
    /// # Panics
    /// When the value is larger than [`VALUE_BYTES_MAX`]: whoever made it must have looked.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.value.len() <= VALUE_BYTES_MAX, "checked where it was made");
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        let length = u32::try_from(self.value.len()).expect("it is small");
        bytes.extend_from_slice(&length.to_le_bytes());
        for stamp in [self.mbal, self.bal] {
            bytes.extend_from_slice(&stamp.time.to_le_bytes());
            bytes.extend_from_slice(&stamp.author.to_le_bytes());
        }
        bytes.extend_from_slice(&self.value);
        bytes.resize(BLOCK_BYTES, 0);
        let crc = crc32fast::hash(&bytes[SUMMED..]);
        bytes[8..SUMMED].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether a disk may keep it in the place of what it has of the same client: what comes late
    /// never replaces what is newer.
    pub fn replaces(&self, known: &Result<Self, Damaged>) -> bool {
        known.as_ref().map_or(true, |known| (known.mbal, known.bal) <= (self.mbal, self.bal))
    }

    /// Reads what [`DiskBlock::encode`] wrote, or nothing where nothing was written.
    ///
    /// # Errors
    /// [`Damaged`], for all else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Self::default());
        }
        if bytes.len() != BLOCK_BYTES || bytes[..8] != MAGIC {
            return Err(Damaged);
        }
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
        };
        let crc = u32::from_le_bytes(bytes[8..SUMMED].try_into().expect("four bytes"));
        let length = u32::from_le_bytes(bytes[SUMMED..16].try_into().expect("four bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > VALUE_BYTES_MAX || crc != crc32fast::hash(&bytes[SUMMED..]) {
            return Err(Damaged);
        }
        Ok(Self {
            mbal: Timestamp { time: word(16), author: word(24) },
            bal: Timestamp { time: word(32), author: word(40) },
            value: bytes[HEADER_BYTES..HEADER_BYTES + length].to_vec(),
        })
    }
}

/// What a disk writes at once.
pub const BLOCK_BYTES: usize = 4_096;

/// The last byte is the version of this layout.
const MAGIC: [u8; 8] = *b"synoddp\x01";

/// Where the checksum's part begins.
const SUMMED: usize = 12;

const HEADER_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_whole_or_is_known_to_be_damaged() {
        let stamp = |time| Timestamp { time, author: 9 };
        let value = vec![7; VALUE_BYTES_MAX];
        let block = DiskBlock { mbal: stamp(3), bal: stamp(2), value };
        let bytes = block.encode();
        assert_eq!((bytes.len(), DiskBlock::decode(&bytes)), (BLOCK_BYTES, Ok(block)));
        assert_eq!(DiskBlock::decode(&[0; BLOCK_BYTES]), Ok(DiskBlock::default()));
        for at in [0, 9, 13, 20, 47, 48, 900, BLOCK_BYTES - 1] {
            let mut rotten = bytes.clone();
            rotten[at] ^= 4;
            assert_eq!(DiskBlock::decode(&rotten), Err(Damaged), "byte {at}");
        }
        let other = DiskBlock { mbal: stamp(4), ..DiskBlock::default() }.encode();
        for cut in [12, 40, 512, 2_048] {
            let torn = [&bytes[..cut], &other[cut..]].concat();
            assert_eq!(DiskBlock::decode(&torn), Err(Damaged), "torn at {cut}");
        }
    }
}
