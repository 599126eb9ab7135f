//! The largest number of a group in a file of the node that orders.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use synod_runtime::{
    slots::Slots,
    world::{
        Disk,
        disk::{Waker, Worker},
    },
};
use tokio::sync::oneshot;

use super::Held;
use crate::server::multicast::lock;

/// The file, which a worker of its own reads and writes.
pub(in crate::server::multicast) struct File {
    asked: Arc<Mutex<Option<Job>>>,
    waker: Arc<dyn Waker>,
}

struct Job {
    mine: Held,
    done: oneshot::Sender<Result<Held, String>>,
}

impl File {
    /// In `dir`, which is made with the first number.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        let asked = Arc::<Mutex<Option<Job>>>::default();
        let pen = Pen {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            slots: None,
            asked: Arc::clone(&asked),
        };
        let waker = disk.spawn_worker("maximum", Box::new(pen));
        Self { asked, waker }
    }

    /// Answers what the file holds from then on; that is durable. One at a time: an earlier question is
    /// given up.
    pub(super) async fn raise(&self, mine: Held) -> Result<Held, String> {
        let (done, answer) = oneshot::channel();
        *lock(&self.asked) = Some(Job { mine, done });
        self.waker.wake();
        answer.await.unwrap_or_else(|_gone| Err("the node stops".to_owned()))
    }
}

/// Reads and writes, where blocking is allowed.
struct Pen {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    slots: Option<Slots>,
    asked: Arc<Mutex<Option<Job>>>,
}

impl Worker for Pen {
    fn run(&mut self) {
        loop {
            // Not held while the disk works.
            let job = lock(&self.asked).take();
            let Some(Job { mine, done }) = job else { return };
            // Whoever asked may have gone.
            let _gone = done.send(self.raise(mine));
        }
    }
}

impl Pen {
    fn raise(&mut self, mine: Held) -> Result<Held, String> {
        let path = self.dir.join(FILE);
        let slots = match &mut self.slots {
            Some(slots) => slots,
            none => {
                let made = self.disk.create_dir_all(&self.dir);
                made.map_err(|error| format!("{}: {error}", self.dir.display()))?;
                let slots = Slots::open(self.disk.as_ref(), &path);
                none.insert(slots.map_err(|error| error.to_string())?)
            }
        };
        let held = Held::decode(&slots.read().unwrap_or_default());
        let held = held.ok_or_else(|| format!("{} holds something else", path.display()))?;
        let raised = held.raised(mine);
        if raised != held {
            slots.write(&raised.encode()).map_err(|error| error.to_string())?;
        }
        Ok(raised)
    }
}

/// Beside the segments of the journal.
pub(in crate::server::multicast) const FILE: &str = "maximum";

#[cfg(test)]
mod tests {
    use synod_runtime::{identity::NodeName, sim::Simulation};

    use super::*;
    use crate::{election::message::Epoch, multicast::message::Seq};

    const fn held(epoch: u64, seq: u64) -> Held {
        Held { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    /// Goal: what was answered is there after a crash, and a failed write is never taken for a good one.
    #[test]
    fn what_it_answered_survives_a_crash_and_a_failed_disk_answers_nothing() {
        Simulation::new(7).run(|sim| async move {
            let node: NodeName = "a".parse().unwrap();
            let dir = Path::new("/data/news");
            let file = File::new(&sim.world(&node).disk, dir);
            assert_eq!(file.raise(held(1, 0)).await, Ok(held(1, 0)));
            assert_eq!(file.raise(held(1, 7)).await, Ok(held(1, 7)));
            assert_eq!(file.raise(held(1, 5)).await, Ok(held(1, 7)));
            sim.crash(&node);
            let file = File::new(&sim.restart(&node).disk, dir);
            assert_eq!(file.raise(held(2, 0)).await, Ok(held(2, 7)));
            assert_eq!(file.raise(held(1, 9)).await, Ok(held(2, 7)), "of an earlier sequencer");
            sim.fail_next_sync(&node);
            assert!(file.raise(held(2, 8)).await.is_err());
            assert!(
                file.raise(held(2, 9)).await.is_err(),
                "it may be lost, whatever the disk says"
            );
            sim.crash(&node);
            let file = File::new(&sim.restart(&node).disk, dir);
            let left = file.raise(held(3, 0)).await.unwrap();
            assert!([Seq(7), Seq(8)].contains(&left.seq), "{left:?}");
        });
    }
}
