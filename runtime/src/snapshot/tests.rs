use super::*;
use crate::world::disk::{RealDisk, fake::FakeDisk};

const DIR: &str = "/snapshots";

fn put(disk: &FakeDisk, step: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
    write(disk, Path::new(DIR), step, bytes).map(drop)
}

fn found(disk: &FakeDisk) -> Option<Snapshot> {
    newest(disk, Path::new(DIR)).unwrap().snapshot
}

fn state(len: usize) -> Vec<u8> {
    (0..len).map(|index| index.to_le_bytes()[index % 3]).collect()
}

#[test]
fn the_newest_is_found_and_two_are_kept() {
    let disk = FakeDisk::default();
    assert_eq!(found(&disk), None);
    for (step, len) in [(7, 0), (80, 1), (900, CHUNK_BYTES), (1000, 3 * CHUNK_BYTES + 5)] {
        put(&disk, step, &state(len)).unwrap();
        disk.crash(|| false);
        assert_eq!(found(&disk), Some(Snapshot { step, bytes: state(len) }));
    }
    assert_eq!(steps(&disk, Path::new(DIR)).unwrap(), [900, 1000]);
    let files = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(files, ["snapshot-00000000000000000900", "snapshot-00000000000000001000"]);
}

#[test]
fn damage_is_placed_and_the_one_before_is_used() {
    let disk = FakeDisk::default();
    put(&disk, 1, b"old").unwrap();
    put(&disk, 2, &state(CHUNK_BYTES + 100)).unwrap();
    let path = path_of(Path::new(DIR), 2);
    let second = HEADER_BYTES + CRC_BYTES + CHUNK_BYTES;
    let len = second + CRC_BYTES + 100 + FOOTER_BYTES;
    for byte in (0..200).chain(second..len) {
        let disk = disk.copy();
        disk.edit(&path, |bytes| bytes[byte] ^= 1 << (byte % 8));
        let newest = newest(&disk, Path::new(DIR)).unwrap();
        assert_eq!(newest.snapshot.unwrap().bytes, b"old", "byte {byte}");
        let SnapshotError::Damaged { file, offset, .. } = &newest.damaged[0] else {
            panic!("byte {byte}: {:?}", newest.damaged)
        };
        assert!(*file == path && *offset <= byte as u64, "byte {byte}");
    }
    for len in [0, 1, HEADER_BYTES, HEADER_BYTES + 7, CHUNK_BYTES, len - 1] {
        let disk = disk.copy();
        disk.edit(&path, |bytes| bytes.truncate(len));
        assert_eq!(found(&disk).unwrap().step, 1, "cut to {len}");
    }
}

#[test]
fn a_crash_anywhere_leaves_the_old_or_the_new() {
    for operations in 0..16 {
        let disk = FakeDisk::default();
        put(&disk, 1, b"one").unwrap();
        put(&disk, 2, b"two").unwrap();
        disk.refuse_after(operations);
        let told = put(&disk, 3, &state(CHUNK_BYTES + 1)).is_ok();
        let mut sectors = 0;
        disk.crash(|| {
            sectors += 1;
            sectors % 3 != 0
        });
        let step = found(&disk).unwrap().step;
        assert!(step == 3 || (!told && step == 2), "after {operations}: {step}");
        put(&disk, 4, b"four").unwrap();
        assert_eq!(found(&disk).unwrap().step, 4);
    }
}

#[test]
fn a_full_disk_keeps_the_old_and_no_rest() {
    let disk = FakeDisk::default();
    put(&disk, 1, b"one").unwrap();
    let used = disk.used();
    disk.set_capacity(Some(used + 100_000));
    let failed = put(&disk, 2, &state(200_000)).unwrap_err();
    assert!(failed.to_string().contains("snapshot-00000000000000000002"), "{failed}");
    assert_eq!(disk.used(), used);
    assert_eq!(found(&disk).unwrap().step, 1);
}

#[test]
fn a_real_disk_keeps_snapshots_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("snapshots");
    for step in 1..4 {
        write(&RealDisk, &dir, step, &state(100_000)).unwrap();
    }
    let newest = newest(&RealDisk, &dir).unwrap();
    assert_eq!(newest.snapshot, Some(Snapshot { step: 3, bytes: state(100_000) }));
}

#[test]
fn parts_make_the_whole_and_every_part_of_it_can_be_read() {
    let disk = FakeDisk::default();
    let dir = Path::new(DIR);
    let whole = state(2 * CHUNK_BYTES + 77);
    let mark = write(&disk, dir, 5, &whole).unwrap();
    assert_eq!(mark.length, whole.len() as u64);
    for part in [1, 1000, CHUNK_BYTES, whole.len()] {
        let mut writer = Writer::begin(&disk, dir, 5, "by-parts").unwrap();
        whole.chunks(part).for_each(|part| writer.part(&disk, part).unwrap());
        assert_eq!(writer.finish(&disk, Some(mark.digest)).unwrap(), mark, "parts of {part}");
    }
    let reader = Reader::open(&disk, dir, 5).unwrap();
    assert_eq!(reader.mark(), mark);
    for (from, len) in [(0, 10), (CHUNK_BYTES - 1, 2), (70_000, 70_000), (whole.len(), 5)] {
        let end = whole.len().min(from + len);
        assert_eq!(reader.read(from as u64, len).unwrap(), whole[from..end]);
    }
}

#[test]
fn a_damaged_chunk_does_not_hide_the_others() {
    let disk = FakeDisk::default();
    let whole = state(3 * CHUNK_BYTES);
    put(&disk, 5, &whole).unwrap();
    let path = path_of(Path::new(DIR), 5);
    // As a disk does that writes a sector to the wrong place: good in itself, and not what it says.
    disk.edit(&path, |bytes| {
        let chunk = CRC_BYTES + CHUNK_BYTES;
        let third = bytes[HEADER_BYTES + 2 * chunk..HEADER_BYTES + 3 * chunk].to_vec();
        bytes[HEADER_BYTES + chunk..HEADER_BYTES + 2 * chunk].copy_from_slice(&third);
    });
    let reader = Reader::open(&disk, Path::new(DIR), 5).unwrap();
    assert_eq!(reader.read(0, CHUNK_BYTES).unwrap(), whole[..CHUNK_BYTES]);
    let damaged = reader.read(CHUNK_BYTES as u64, 1).unwrap_err();
    assert!(matches!(damaged, SnapshotError::Damaged { offset, .. } if offset == offset_of(1)));
    assert!(reader.read(2 * CHUNK_BYTES as u64, CHUNK_BYTES).is_ok());
}

#[test]
fn a_snapshot_of_the_layout_before_is_still_read() {
    let disk = FakeDisk::default();
    let whole = state(CHUNK_BYTES + 9);
    let table: Vec<u8> =
        whole.chunks(CHUNK_BYTES).flat_map(|chunk| crc32fast::hash(chunk).to_le_bytes()).collect();
    let mut old = (u32::try_from(CHUNK_BYTES).unwrap()).to_le_bytes().to_vec();
    old.extend_from_slice(&6_u64.to_le_bytes());
    old.extend_from_slice(&(whole.len() as u64).to_le_bytes());
    old.extend_from_slice(&crc32fast::hash(&table).to_le_bytes());
    old.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&old).to_le_bytes();
    let file = [b"synodsn\x01", &crc[..], &old, &table, &whole].concat();
    put(&disk, 6, b"").unwrap();
    let path = path_of(Path::new(DIR), 6);
    disk.edit(&path, |bytes| bytes.clone_from(&file));
    assert_eq!(found(&disk), Some(Snapshot { step: 6, bytes: whole }));
    disk.edit(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(found(&disk), None);
}

#[test]
fn a_scrub_reads_all_and_names_each_damaged_snapshot_once() {
    let disk = FakeDisk::default();
    for step in [4, 9] {
        put(&disk, step, &state(3 * CHUNK_BYTES)).unwrap();
    }
    let world: std::sync::Arc<dyn Disk> = std::sync::Arc::new(disk.clone());
    let mut scrub = Scrub::new(world, DIR);
    let mut round = |damaged: usize| {
        let (mut bytes, mut errors) = (0, 0);
        loop {
            match scrub.read_on(CHUNK_BYTES) {
                Ok(Some(read)) => bytes += read,
                Ok(None) => break,
                Err(SnapshotError::Damaged { .. }) => errors += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(errors, damaged);
        bytes
    };
    let chunk = CHUNK_BYTES as u64;
    assert_eq!(round(0), 6 * chunk);
    let flip = || {
        let at = HEADER_BYTES + CRC_BYTES + CHUNK_BYTES + 100;
        disk.edit(&path_of(Path::new(DIR), 9), |bytes| bytes[at] ^= 1);
    };
    flip();
    assert_eq!(round(1), 4 * chunk);
    assert_eq!(round(0), 4 * chunk, "it was said");
    flip();
    assert_eq!(round(0), 6 * chunk, "it is good again");
    flip();
    assert_eq!(round(1), 4 * chunk);
    put(&disk, 12, b"new").unwrap();
    put(&disk, 15, b"newer").unwrap();
    assert_eq!(round(0), 8, "it made room for others");
}

#[test]
fn a_writer_goes_on_where_the_one_before_the_crash_was() {
    let whole = state(200 * CHUNK_BYTES + 77);
    let disk = FakeDisk::default();
    let dir = Path::new(DIR);
    assert!(Writer::resume(&disk, dir, "by-parts").unwrap().is_none());
    let mark = write(&disk, dir, 5, &whole).unwrap();
    let mut resumed = 0;
    for cut in [0, 10, 3 * CHUNK_BYTES + 5, 150 * CHUNK_BYTES, whole.len()] {
        let disk = FakeDisk::default();
        let mut writer = Writer::begin(&disk, dir, 5, "by-parts").unwrap();
        writer.part(&disk, &whole[..cut]).unwrap();
        drop(writer);
        // A name is durable once the system thinks of it; what it names, once it is synced.
        disk.rename(&dir.join("by-parts"), &dir.join("left")).unwrap();
        let mut sectors = 0;
        disk.crash(|| {
            sectors += 1;
            sectors % 50 != 0
        });
        let Some(mut writer) = Writer::resume(&disk, dir, "left").unwrap() else {
            assert!(cut < 64 * CHUNK_BYTES, "it was synced");
            continue;
        };
        let from = usize::try_from(writer.length()).unwrap();
        assert!(writer.step() == 5 && from <= cut, "{from} of {cut}");
        resumed += from;
        writer.part(&disk, &whole[from..]).unwrap();
        assert_eq!(
            writer.finish(&disk, Some(mark.digest)).unwrap(),
            mark,
            "cut at {cut}, went on at {from}"
        );
        let reader = Reader::open(&disk, dir, 5).unwrap();
        assert_eq!(reader.read(0, whole.len()).unwrap(), whole);
    }
    assert!(resumed > 200 * CHUNK_BYTES, "{resumed}");
}

#[test]
fn what_is_not_what_was_to_be_written_becomes_no_snapshot() {
    let disk = FakeDisk::default();
    let mut writer = Writer::begin(&disk, Path::new(DIR), 5, "by-parts").unwrap();
    writer.part(&disk, b"another state").unwrap();
    let refused = writer.finish(&disk, Some(7)).unwrap_err();
    assert!(matches!(refused, SnapshotError::Damaged { .. }), "{refused}");
    assert!(found(&disk).is_none() && disk.list(Path::new(DIR)).unwrap().is_empty());
}
