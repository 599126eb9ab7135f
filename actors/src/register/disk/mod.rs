//! Registers on passive disks: Disk Paxos. Nobody decides but the clients; a disk only reads and
//! writes blocks, and may be a file, a block device or another node's block server.
//!
//! ```text
//!             disk 0        disk 1        disk 2
//!  client a   [mbal bal v]  [mbal bal v]  [mbal bal v]     a writes its own block on every disk,
//!  client b   [mbal bal v]  [mbal bal v]  [mbal bal v]     then reads all others of that disk
//! ```
//! - D1: a client writes only its own block. Before its first write in a life it reads its own from
//!   a majority of the disks, and goes on from the highest it finds.
//! - D2: a phase is over when its block is written on a majority of the disks, and all blocks of each
//!   of these were read after that. Whoever finds a higher `mbal` there gives up.
//! - D3: in phase 1 only `mbal` rises. The value of phase 2 is made of that of the greatest `bal`
//!   among all blocks read, the client's own included; then `bal` is `mbal`.
//! - D4: a read answers what has the greatest `bal` without writing, if a majority of disks have it
//!   and no `mbal` is above it; else it writes it anew.
//! - D5: a disk with a block that is torn or rotten has not answered.
//!
//! A majority of disks and a single client are enough to get on: two clients and three disks survive
//! the loss of either client and of any disk.
//!
//! # Layout
//! - [`block`]: a block as it lies on a disk; [`operation`]: the machine of one call

pub mod block;
pub mod operation;

pub use self::{
    block::{BLOCK_BYTES, Damaged, DiskBlock},
    operation::{DiskAnswer, DiskAsk, DiskOperation},
};
