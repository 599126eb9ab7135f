//! What goes wrong in a walk: crashes of either side, blocks that rot; and how that ends.

use rand::RngExt as _;
use synod::register::Stamps;

use super::{Event, Kind, Walk};
use crate::history::Told;

impl Walk {
    pub(super) fn chance(&mut self) {
        if self.calm || self.quiet {
            return;
        }
        let keeper = self.rng.random_range(0..self.keepers.len());
        match self.rng.random_range(0..6) {
            0..=2 => {
                let until = self.now + self.rng.random_range(1_000..300_000);
                self.keepers[keeper].crash(until, &mut self.rng);
            }
            3 => {
                let rots = self.rots;
                self.keepers[rots].rot(&mut self.rng);
            }
            // A client dies in the middle of its call; another life of it goes on.
            _ => {
                let number = self.rng.random_range(0..self.clients.len());
                let stamps = Stamps::new(self.rng.random());
                let client = &mut self.clients[number];
                client.stamps = stamps;
                client.mine.clear();
                client.written.clear();
                if client.call.is_some() {
                    self.end(number, Told::Unknown);
                }
            }
        }
        let wait = self.rng.random_range(5_000..100_000);
        self.after(wait, Event::Chance);
    }

    /// Faults end, but a minority is gone for good.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        let gone = self.rng.random_range(0..self.keepers.len());
        let gone = if self.kind == Kind::Disks { self.rots } else { gone };
        for (number, keeper) in self.keepers.iter_mut().enumerate() {
            keeper.down_until = if number == gone { u64::MAX } else { 0 };
        }
    }
}
