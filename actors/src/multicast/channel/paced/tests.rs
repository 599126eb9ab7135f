use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::multicast::channel::{Cutter, Gatherer, PART_BYTES, Packet, Plain};

/// A path that takes so many packets between two looks. Of those that wait for it the oldest are lost
/// when there are too many, as in QUIC.
#[derive(Default)]
struct Path {
    waits: VecDeque<(u64, Packet)>,
    gatherer: Gatherer,
    /// The time, in looks.
    now: u64,
    lost: u64,
    late_most: u64,
    heard: Vec<Bytes>,
}

impl Path {
    fn send(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            self.waits.push_back((self.now, packet));
            if self.waits.len() > WAIT_MAX {
                self.waits.pop_front();
                self.lost += 1;
            }
        }
    }

    fn carry(&mut self, packets: usize) {
        for (sent, packet) in self.waits.drain(..packets.min(self.waits.len())) {
            self.late_most = self.late_most.max(self.now - sent);
            self.heard.extend(self.gatherer.take(packet));
        }
    }
}

/// So many things of four pieces are said between two looks, evenly, over a path that takes so many packets
/// for each of them.
fn flood(paced: bool, parity: u8, said: u32, takes: usize) -> (Path, Cutter) {
    let (mut path, mut cutter) = (Path::default(), Cutter::new(1, parity, paced));
    for look in 0..LOOKS {
        for at in 0..said {
            let word = look * said + at;
            let one: Bytes = word.to_le_bytes().repeat(PART_BYTES).into();
            path.send(cutter.say(&one).expect("it fits"));
            path.carry(takes);
        }
        path.now += 1;
        let waiting = if paced { path.waits.len() * PART_BYTES } else { 0 };
        path.send(cutter.look(waiting));
    }
    (path, cutter)
}

/// Goal: of twice what a path takes, nothing is lost on the way and nothing is late; what comes is whole,
/// and it is nearly all that the path takes. Without it most is lost or broken, and late.
#[test]
fn a_path_that_takes_half_carries_whole_things_at_once() {
    let most = u64::from(LOOKS * SAID) / 2;
    for parity in [0, 4] {
        let (with, cutter) = flood(true, parity, SAID, 2);
        let (without, _) = flood(false, parity, SAID, 2);
        let heard = [&with, &without].map(|path| path.heard.len() as u64);
        println!(
            "parity {parity}: heard {heard:?} of {most}, lost {:?}, late {:?} looks, unsaid {}",
            [with.lost, without.lost],
            [with.late_most, without.late_most],
            cutter.unsaid(),
        );
        assert_eq!(with.lost, 0);
        assert!(with.late_most <= 8 && without.late_most > 20);
        assert!(without.lost > most, "nothing to be spared");
        // The sums are a part of what the path takes.
        let whole = if parity == 0 { most } else { most * 4 / 5 };
        assert!(heard[0] >= whole * 3 / 4, "{heard:?} of {whole}");
        assert!(heard[1] < heard[0] / 2, "{heard:?}");
    }
}

/// Goal: where the path takes all that is said, all of it is said, at once: also when that is far more than
/// anybody knew at first.
#[test]
fn where_there_is_room_nothing_is_held_back() {
    for (said, takes) in [(SAID, 4), (4 * SAID, 8)] {
        let (path, cutter) = flood(true, 0, said, takes);
        assert_eq!((cutter.unsaid(), path.lost, path.late_most), (0, 0, 0));
        assert_eq!(path.heard.len() as u32, LOOKS * said);
    }
}

proptest! {
    /// Goal: never a stall, and never more than a bound: whatever was put and whatever waited, soon after
    /// nothing waits any more all that was taken has gone.
    #[test]
    fn all_that_was_taken_goes_soon_after_the_path_is_free(
        turns in prop::collection::vec((0..40_u64, 0..40_000_usize), 0..200),
    ) {
        let mut paced = Paced::new(Plain);
        let (mut out, mut taken, mut fastest) = (Vec::new(), 0, RATE_FIRST);
        for (pieces, waiting) in turns {
            for _ in 0..pieces {
                if paced.room() > 0 {
                    taken += 1;
                    let number = taken as u64;
                    paced.put(Piece { number, before: 0, after: 0, part: Bytes::new() }, &mut out);
                }
            }
            fastest = fastest.max(paced.rate());
            prop_assert!(paced.queue.len() <= HELD_LOOKS * fastest);
            paced.look(waiting, &mut out);
            prop_assert!((1..=RATE_MAX).contains(&paced.rate()));
        }
        let held = paced.queue.len();
        let mut looks = 0;
        while paced.holds() {
            paced.look(0, &mut out);
            looks += 1;
            prop_assert!(looks <= held + 2, "{held} were held, {} are", paced.queue.len());
        }
        prop_assert_eq!(out.len(), taken);
    }
}

/// Packets that QUIC keeps, of this size.
const WAIT_MAX: usize = 1_024;

/// Two seconds, at a look every five milliseconds.
const LOOKS: u32 = 400;

/// Things between two looks.
const SAID: u32 = 8;
