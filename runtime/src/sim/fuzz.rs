//! Decoders under damaged inputs, in an ordinary test.
//!
//! ```
//! use synod_runtime::sim::fuzz;
//!
//! // Reads a length and that many bytes.
//! fn decode(data: &[u8]) -> Option<&[u8]> {
//!     let (length, rest) = data.split_first()?;
//!     rest.get(..usize::from(*length))
//! }
//!
//! fuzz(7, 10_000, &[b"\x03abc", b"\x00"], |data| {
//!     // It must not panic, and what it accepts must be so.
//!     if let Some(body) = decode(data) {
//!         assert!(body.len() < data.len());
//!     }
//! });
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::{RngExt as _, SeedableRng as _};

use crate::world::Rng;

/// Calls `target` with every input of `corpus`, with each of them cut off at every length up to
/// a few hundred, and then `rounds` times with one that was damaged in a few places: bits flipped, bytes
/// replaced, removed, repeated or taken from another input, numbers made zero or huge. The same
/// seed gives the same inputs.
///
/// # Panics
/// When `target` does, after the input was printed as hexadecimal.
pub fn fuzz(seed: u64, rounds: u32, corpus: &[&[u8]], target: impl Fn(&[u8])) {
    let call = |data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(data))) {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("fuzz, seed {seed}: {} bytes: {hex}", data.len());
            resume_unwind(panic);
        }
    };
    for input in corpus {
        call(input);
        for cut in 0..input.len().min(CUTS_MAX) {
            call(&input[..cut]);
        }
    }
    let mut rng = Rng::seed_from_u64(seed);
    let mut data = Vec::new();
    for _ in 0..rounds {
        data.clear();
        if !corpus.is_empty() {
            data.extend_from_slice(corpus[rng.random_range(0..corpus.len())]);
        }
        for _ in 0..rng.random_range(1..=DAMAGES_MAX) {
            damage(&mut data, corpus, &mut rng);
        }
        data.truncate(INPUT_BYTES_MAX);
        call(&data);
    }
}

/// Damages `data` in one place.
fn damage(data: &mut Vec<u8>, corpus: &[&[u8]], rng: &mut Rng) {
    let at = rng.random_range(0..=data.len());
    let end = (at + rng.random_range(0..PIECE_BYTES_MAX)).min(data.len());
    match rng.random_range(0..8) {
        0 if at < data.len() => data[at] ^= 1 << rng.random_range(0..8),
        1 if at < data.len() => data[at] = rng.random(),
        2 => data.insert(at, rng.random()),
        3 => drop(data.drain(at..end)),
        4 => {
            let piece = data[at..end].to_vec();
            data.splice(at..at, piece);
        }
        5 => data.truncate(at),
        6 if !corpus.is_empty() => {
            let other = corpus[rng.random_range(0..corpus.len())];
            let from = rng.random_range(0..=other.len());
            let until = (from + rng.random_range(0..PIECE_BYTES_MAX)).min(other.len());
            data.splice(at..end, other[from..until].iter().copied());
        }
        _ => {
            // A length or a count that says too much, in either order of bytes.
            let number: u64 = NUMBERS[rng.random_range(0..NUMBERS.len())];
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let little = number.to_le_bytes();
            let mut bytes = little[..width].to_vec();
            if rng.random() {
                bytes.reverse();
            }
            let until = (at + width).min(data.len());
            data.splice(at..until, bytes);
        }
    }
}

const NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Few enough that most of the input is still good, so that what comes behind is looked at too.
const DAMAGES_MAX: u32 = 4;

/// The most that one damage moves.
const PIECE_BYTES_MAX: usize = 64;

/// Inputs do not grow beyond this.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Where beginnings end that are tried one by one.
const CUTS_MAX: usize = 512;
