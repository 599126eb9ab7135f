//! The blocks of checkpoints: where they are on the disk, and how they are spoken of.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::multicast::{
    message::{Advert, Checkpoint, Seq},
    record::Record,
};

/// Where a block is on the disk: with which checkpoint it was written, as which of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) seq: Seq,
    pub(super) block: u32,
}

/// Where the blocks of a checkpoint shall be: those that stand where they stood in the memory of the
/// one before are the same, and are on the disk already; unless with a checkpoint up to `oldest`.
pub(super) fn origins(
    checkpoint: &Checkpoint,
    before: Option<(&[Bytes], &[Origin])>,
    oldest: Seq,
) -> Vec<Origin> {
    let place = |block: &Bytes| (block.as_ptr(), block.len());
    let (blocks, origins) = before.unwrap_or_default();
    let known: BTreeMap<_, _> = blocks.iter().map(place).zip(origins).collect();
    let origin = |(number, block): (usize, &Bytes)| {
        let known = known.get(&place(block)).filter(|origin| origin.seq > oldest);
        let block = u32::try_from(number).expect("blocks are few");
        known.map_or(Origin { seq: checkpoint.seq, block }, |known| **known)
    };
    checkpoint.blocks.iter().enumerate().map(origin).collect()
}

/// The newest checkpoint that is whole among the records of a node.
pub(in crate::multicast) fn newest_of(records: &[Record]) -> Option<Checkpoint> {
    whole_of(records).pop().map(|(checkpoint, _)| checkpoint)
}

/// The whole checkpoints among them that were not to be forgotten, from the oldest, each with where its
/// blocks are.
pub(super) fn whole_of(records: &[Record]) -> Vec<(Checkpoint, Vec<Origin>)> {
    let mut written: BTreeMap<Origin, &Bytes> = BTreeMap::new();
    let mut found: BTreeMap<Seq, (u32, BTreeMap<u32, Origin>)> = BTreeMap::new();
    let mut floor = Seq(0);
    for record in records {
        let (seq, block, of, origin) = match record {
            Record::Block { seq, block, of, bytes } => {
                let origin = Origin { seq: *seq, block: *block };
                written.insert(origin, bytes);
                (*seq, *block, *of, origin)
            }
            Record::Same { seq, block, of, origin, was } => {
                (*seq, *block, *of, Origin { seq: *origin, block: *was })
            }
            Record::Seal { floor: dropped, .. } => {
                floor = floor.max(*dropped);
                continue;
            }
            Record::Data { .. }
            | Record::Pairs { .. }
            | Record::Known(_)
            | Record::Advertised(_)
            | Record::Servers(_)
            | Record::Anew(_)
            | Record::Torn => continue,
        };
        let (whole, origins) = found.entry(seq).or_default();
        *whole = of;
        origins.insert(block, origin);
    }
    let newest = found.last_key_value().map_or(Seq(0), |(seq, _)| *seq);
    let whole = found.into_iter().filter(|(seq, (whole, origins))| {
        origins.len() == *whole as usize && (*seq > floor || *seq == newest)
    });
    let checkpoint = |(seq, (_, origins)): (Seq, (u32, BTreeMap<u32, Origin>))| {
        let origins: Vec<_> = origins.into_values().collect();
        let blocks = origins.iter().map(|origin| written.get(origin).copied().cloned());
        let blocks = blocks.collect::<Option<_>>()?;
        Some((Checkpoint { seq, blocks }, origins))
    };
    whole.filter_map(checkpoint).collect()
}

/// How a checkpoint is spoken of.
pub(in crate::multicast) fn advert(checkpoint: &Checkpoint) -> Advert {
    let blocks = &checkpoint.blocks;
    let bytes = blocks.iter().map(|block| block.len() as u64).sum();
    let blocks_len = u32::try_from(blocks.len()).expect("blocks are few");
    Advert { seq: checkpoint.seq, blocks: blocks_len, bytes, digest: digest(blocks) }
}

/// One number for all blocks of a state: two checksums of different beginnings.
pub fn digest(blocks: &[Bytes]) -> u64 {
    let (mut one, mut two) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
    two.update(b"synod");
    for block in blocks {
        one.update(&(block.len() as u64).to_le_bytes());
        one.update(block);
        two.update(&crc32fast::hash(block).to_le_bytes());
    }
    u64::from(one.finalize()) << 32 | u64::from(two.finalize())
}
