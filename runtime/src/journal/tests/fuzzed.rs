//! Records and segments out of damaged bytes. The other tests of damage go through files.

use super::super::{
    record::{self, Record},
    segment::{Batch, Found, Header, Place, Position},
};
use crate::sim::fuzz;

/// With the checksum made good, so that what it hides is looked at too.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if data.len() >= 8 {
        let len = 40_usize.saturating_add(record::read_u32(&data, 0) as usize).min(data.len());
        if len >= 8 {
            let crc = record::checksum(&data[..len]);
            data[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
    data
}

#[test]
fn damaged_records_are_refused_or_were_written_so() {
    let mut bytes = Vec::new();
    let payload = bytes::Bytes::from_static(b"a payload of some length");
    let first = Record { kind: 0x83, group: 7, round: 1, author: 2, step: 3, payload };
    let link = record::encode(&first, 5, &mut bytes);
    record::encode(&Record::default(), link, &mut bytes);
    let check = |data: &[u8]| {
        let (mut rest, mut chain) = (data, 5);
        while let Ok((record, len, link)) = record::decode(rest, chain) {
            let mut again = Vec::new();
            record::encode(&record, chain, &mut again);
            // The byte before the group is kept for later and not read.
            assert_eq!((again.len(), &again[10..]), (len, &rest[10..len]));
            (rest, chain) = (&rest[len..], link);
        }
    };
    fuzz(4, 30_000, &[&bytes, b""], |data| {
        check(data);
        check(&repaired(data));
    });
}

#[test]
fn damaged_segments_show_batches_only_where_they_belong() {
    let at = Position { sequence: 3, offset: 512 };
    let place = Place { journal: 9, at, mark: at, base: 1, room: 4096 };
    let mut batch = Batch::new(5);
    batch.push(&Record::default());
    let segment = [&[0; 512], batch.seal(place).1].concat();
    fuzz(6, 30_000, &[&segment], |data| {
        for journal in [None, Some(9)] {
            for offset in [0, 512, 1024, u64::MAX] {
                let at = Position { sequence: 3, offset };
                if let Found::Header(header) = Header::find(data, journal, at) {
                    assert_eq!(header.place.at, at);
                    assert!(header.end() > offset);
                }
            }
        }
    });
}
