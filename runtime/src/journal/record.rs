//! One record, in memory and on disk.
//!
//! ```text
//! len u32 | crc u32 | kind u8 | 0 u8 | group u16 | chain u32 | round u64 | author u64 | step u64 | payload
//! ```
//! All little-endian. `crc` (CRC-32) covers everything else of the record. `chain` is the `crc` of
//! the record before, so that a record left over from an earlier life of a file fits nowhere.

use bytes::Bytes;

/// What the journal keeps: a fact some role must not forget. The journal only reads `kind`
/// and `step`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// What the record says; with the bit [`RESERVE`] it may use the reserve of a full disk.
    pub kind: u8,
    /// Which of the node's replicated groups it belongs to.
    pub group: u16,
    /// First half of the ballot.
    pub round: u64,
    /// Second half of the ballot: who made it.
    pub author: u64,
    /// The step it is about.
    pub step: u64,
    /// What else there is to say.
    pub payload: Bytes,
}

/// The bit of [`Record::kind`] that marks records which a full disk must still take: promises,
/// configurations, forgetting. Without them a full node could not even be helped.
pub const RESERVE: u8 = 0x80;

impl Record {
    /// Whether the record may use the segments kept for a full disk.
    pub const fn is_reserved(&self) -> bool {
        self.kind & RESERVE != 0
    }

    /// Bytes of the record on disk.
    pub(super) const fn encoded_len(&self) -> u64 {
        (FIXED_BYTES + self.payload.len()) as u64
    }
}

/// Appends `record`, chained to the one before; answers its own link of the chain.
pub(super) fn encode(record: &Record, chain: u32, into: &mut Vec<u8>) -> u32 {
    let start = into.len();
    let len = u32::try_from(record.payload.len()).expect("bounded by QUEUED_BYTES_MAX");
    into.extend_from_slice(&len.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&[record.kind, 0]);
    into.extend_from_slice(&record.group.to_le_bytes());
    into.extend_from_slice(&chain.to_le_bytes());
    for word in [record.round, record.author, record.step] {
        into.extend_from_slice(&word.to_le_bytes());
    }
    into.extend_from_slice(&record.payload);
    let crc = checksum(&into[start..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Reads the record at the start of `bytes`; answers it with its length and its link.
pub(super) fn decode(bytes: &[u8], chain: u32) -> Result<(Record, usize, u32), &'static str> {
    if bytes.len() < FIXED_BYTES {
        return Err("a record is cut off");
    }
    let len = FIXED_BYTES + read_u32(bytes, 0) as usize;
    let Some(bytes) = bytes.get(..len) else {
        return Err("a record is longer than its batch");
    };
    let crc = read_u32(bytes, 4);
    if crc != checksum(bytes) {
        return Err("a record's checksum does not match");
    }
    if chain != read_u32(bytes, 12) {
        return Err("a record does not follow the one before");
    }
    let record = Record {
        kind: bytes[8],
        group: u16::from_le_bytes([bytes[10], bytes[11]]),
        round: read_u64(bytes, 16),
        author: read_u64(bytes, 24),
        step: read_u64(bytes, 32),
        // Copied: a slice would keep the whole segment in memory for one record.
        payload: Bytes::copy_from_slice(&bytes[FIXED_BYTES..]),
    };
    Ok((record, len, crc))
}

pub(super) fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Bytes of a record before its payload.
const FIXED_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let payload = Bytes::from_static(b"payload");
        Record { kind: 0x83, group: 7, round: 1 << 40, author: 2, step: u64::MAX, payload }
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let mut bytes = Vec::new();
        let first = encode(&sample(), 5, &mut bytes);
        let second = encode(&Record::default(), first, &mut bytes);
        let (record, len, link) = decode(&bytes, 5).unwrap();
        assert_eq!((record, link), (sample(), first));
        assert_eq!(len as u64, sample().encoded_len());
        assert_eq!(decode(&bytes[len..], link).unwrap(), (Record::default(), 40, second));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut bytes = Vec::new();
        encode(&sample(), 5, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 5).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 5).is_err(), "cut to {len}");
        }
        assert!(decode(&bytes, 6).is_err(), "a record of another chain");
    }
}
