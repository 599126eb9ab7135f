use std::{path::Path, sync::Arc, sync::Mutex, time::Duration};

use super::{DiskConditions, inode::SECTOR_BYTES};
use crate::{
    identity::NodeName,
    sim::Simulation,
    world::{
        Disk,
        disk::{DiskFile, LockError, Worker},
    },
};

const FILE: &str = "/data/journal";

fn name() -> NodeName {
    "a".parse().unwrap()
}

/// A simulation run with one node's disk, on which `/data` exists.
fn with_disk<T>(seed: u64, body: impl FnOnce(&Simulation, Arc<dyn Disk>) -> T) -> T {
    Simulation::new(seed).run(|sim| async move {
        let disk = sim.world(&name()).disk;
        disk.create_dir_all(Path::new("/data")).unwrap();
        body(&sim, disk)
    })
}

fn open(disk: &Arc<dyn Disk>, path: &str) -> Box<dyn DiskFile> {
    let path = Path::new(path);
    let file = disk.open(path, true).unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
    file
}

fn content(disk: &Arc<dyn Disk>, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), false).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// Method: sync some bytes, write more over a part of them, crash, under many seeds.
/// Goal: every fate of the un-synced bytes happens, torn between sectors included, and the synced
/// bytes around them stand.
#[test]
fn a_crash_tears_only_what_was_not_synced() {
    let sector = usize::try_from(SECTOR_BYTES).unwrap();
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..60 {
        let after = with_disk(seed, |sim, disk| {
            let mut file = open(&disk, FILE);
            file.write_at(0, &[1; 4096]).unwrap();
            file.sync_data().unwrap();
            file.write_at(1000, &[2; 2000]).unwrap();
            sim.crash(&name());
            assert!(file.write_at(0, &[3]).is_err(), "a dead life wrote");
            content(&sim.restart(&name()).disk, FILE)
        });
        assert!(after[..1000].iter().chain(&after[3000..]).all(|byte| *byte == 1));
        let new = after[1000..3000].iter().filter(|byte| **byte == 2).count();
        match new {
            0 => lost += 1,
            2000 => kept += 1,
            _ => torn += 1,
        }
        for (at, pair) in after.windows(2).enumerate().filter(|(at, _)| ![999, 2999].contains(at)) {
            assert!(pair[0] == pair[1] || (at + 1) % sector == 0, "torn inside a sector: {at}");
        }
    }
    assert!(kept > 5 && lost > 5 && torn > 5, "kept {kept}, lost {lost}, torn {torn}");
}

#[test]
fn names_are_durable_only_with_their_directory() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..40 {
        let names = with_disk(seed, |sim, disk| {
            open(&disk, "/data/synced");
            disk.open(Path::new("/data/fresh"), true).unwrap();
            sim.crash(&name());
            sim.restart(&name()).disk.list(Path::new("/data")).unwrap()
        });
        assert!(names.contains(&"synced".to_owned()));
        if names.len() == 2 { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 3 && lost > 3, "kept {kept}, lost {lost}");
}

#[test]
fn a_rename_is_durable_and_replaces() {
    with_disk(1, |sim, disk| {
        open(&disk, "/data/old");
        let mut file = open(&disk, "/data/new.tmp");
        file.write_at(0, b"new").unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("/data/new.tmp"), Path::new("/data/old")).unwrap();
        sim.crash(&name());
        let disk = sim.restart(&name()).disk;
        assert_eq!(disk.list(Path::new("/data")).unwrap(), ["old"]);
        assert_eq!(content(&disk, "/data/old"), b"new");
        disk.remove(Path::new("/data/old")).unwrap();
        disk.remove(Path::new("/data/old")).unwrap();
        let error = disk.open(Path::new("/data/old"), false).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

/// Goal: who retries a failed sync and believes the success loses data, as on Linux.
#[test]
fn a_sync_retried_after_a_failure_saves_nothing() {
    let lost = (0..20).filter(|seed| {
        with_disk(*seed, |sim, disk| {
            let mut file = open(&disk, FILE);
            file.write_at(0, &[7; 5000]).unwrap();
            sim.fail_next_sync(&name());
            assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
            file.sync_data().unwrap();
            assert_eq!(content(&disk, FILE), [7; 5000], "readers see it still");
            sim.crash(&name());
            content(&sim.restart(&name()).disk, FILE) != [7; 5000]
        })
    });
    assert!(lost.count() > 5);
}

#[test]
fn a_full_disk_refuses_growth_only() {
    with_disk(1, |sim, disk| {
        let mut file = open(&disk, FILE);
        file.set_len(8192).unwrap();
        let capacity = Some(10_000);
        sim.set_disk_conditions(&name(), DiskConditions { capacity, ..Default::default() });
        file.write_at(0, &[1; 8192]).unwrap();
        let error = file.write_at(8000, &[1; 4000]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(file.set_len(20_000).is_err());
        assert!(sim.disk_used(&name()) <= 10_000);
        file.write_at(100, &[2; 100]).unwrap();
        file.sync_data().unwrap();
    });
}

#[test]
fn a_directory_is_locked_once_and_free_after_a_crash() {
    with_disk(1, |sim, disk| {
        let dir = Path::new("/data");
        let held = disk.lock(dir).unwrap();
        assert!(matches!(disk.lock(dir), Err(LockError::Held { pid: 1001, .. })));
        sim.crash(&name());
        let disk = sim.restart(&name()).disk;
        let second = disk.lock(dir).unwrap();
        drop(held); // the dead life's handle frees nothing
        assert!(disk.lock(dir).is_err());
        drop(second);
        disk.lock(dir).unwrap();
    });
}

#[test]
fn one_durable_bit_rots() {
    with_disk(1, |sim, disk| {
        assert_eq!(sim.rot(&name(), "journal"), None);
        let mut file = open(&disk, FILE);
        file.write_at(0, &[0; 1000]).unwrap();
        file.sync_data().unwrap();
        let (path, offset) = sim.rot(&name(), "journal").unwrap();
        assert_eq!(path, Path::new(FILE));
        let bytes = content(&disk, FILE);
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_ne!(bytes[usize::try_from(offset).unwrap()], 0);
        sim.crash(&name());
        sim.lose_disk(&name());
        let error = sim.restart(&name()).disk.list(Path::new("/data")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

/// Writes one byte a run, and tells how each step went.
struct Writer {
    file: Box<dyn DiskFile>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Worker for Writer {
    fn run(&mut self) {
        let len = self.file.len().unwrap_or(0);
        let wrote = self.file.write_at(len, &[9]).is_ok();
        let synced = self.file.sync_data().is_ok();
        self.told.lock().unwrap().push(format!("{wrote} {synced}"));
    }

    fn stop(&mut self) {
        self.told.lock().unwrap().push("stop".to_owned());
    }
}

fn writer(disk: &Arc<dyn Disk>) -> (Arc<Mutex<Vec<String>>>, Box<Writer>) {
    let told = Arc::new(Mutex::default());
    let writer = Writer { file: open(disk, FILE), told: Arc::clone(&told) };
    (told, Box::new(writer))
}

#[test]
fn a_worker_runs_once_for_many_wakes_and_a_last_time_when_dropped() {
    Simulation::new(1).run(|sim| async move {
        let disk = sim.world(&name()).disk;
        disk.create_dir_all(Path::new("/data")).unwrap();
        let (told, worker) = writer(&disk);
        let waker = disk.spawn_worker("journal", worker);
        let began = sim.now();
        waker.wake();
        waker.wake();
        assert!(told.lock().unwrap().is_empty(), "a run takes simulated time");
        while told.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(sim.now() - began <= Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(waker);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(*told.lock().unwrap(), ["true true", "true true", "stop"]);
        assert_eq!(sim.disk_traffic(&name()).syncs, 2);
    });
}

/// Goal: the machine can stop between a worker's write and its sync; whoever owns the tasks hears.
#[test]
fn a_crash_can_fall_inside_a_workers_run() {
    Simulation::new(1).run(|sim| async move {
        let disk = sim.world(&name()).disk;
        disk.create_dir_all(Path::new("/data")).unwrap();
        let (told, worker) = writer(&disk);
        let waker = disk.spawn_worker("journal", worker);
        sim.crash_at_disk_operation(&name(), 2);
        waker.wake();
        assert_eq!(sim.next_crash().await, name());
        assert_eq!(*told.lock().unwrap(), ["true false"]);
        assert_eq!(Arc::strong_count(&told), 1, "the worker is gone without a word");
        assert!(!sim.is_up(&name()));
        waker.wake();
        waker.stop();
        assert_eq!(told.lock().unwrap().len(), 1);
        let disk = sim.restart(&name()).disk;
        assert!(content(&disk, FILE).len() <= 1);
    });
}

/// Goal: a write that goes astray leaves the old bytes where it belongs, and nobody is told.
#[test]
fn a_misdirected_write_is_somewhere_else() {
    with_disk(3, |sim, disk| {
        let mut file = open(&disk, FILE);
        file.write_at(0, &[1; 65_536]).unwrap();
        sim.misdirect_next_write(&name(), "nothing of that name");
        file.write_at(0, &[1; 512]).unwrap();
        sim.misdirect_next_write(&name(), FILE);
        file.write_at(1024, &[2; 512]).unwrap();
        file.sync_data().unwrap();
        let found = content(&disk, FILE);
        let at = found.iter().position(|byte| *byte == 2).unwrap();
        assert!(at % 512 == 0 && at != 1024, "at {at}");
        file.write_at(1024, &[3; 512]).unwrap();
        assert_eq!(content(&disk, FILE)[1024], 3, "only one");
    });
}
