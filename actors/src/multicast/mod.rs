//! Scalable atomic multicast: one order of messages for an open group of any size.
//!
//! Anybody may send to a group without being part of it, and everybody who listens gets the same
//! messages in the same order, without a gap: all of them or none. The cost of a message does not
//! depend on how many listen, nor on the slowest of them.
//!
//! ```text
//!  sender ──data──► data servers ──report──► sequencer ──submit──► commit servers
//!    │                 (k_d)                  │   ▲                     (k_c)
//!    └──data──► receivers ◄─────commit────────┘   └────acknowledge────────┘
//! ```
//! A sender sends a message to all data servers, and to the receivers. Data servers keep it and
//! report it. When k_d different ones have, the sequencer gives it the next number and submits that
//! to the commit servers; when k_c of them have it, the number is committed: told to the whole group,
//! for ever. Receivers deliver by number. A few servers do all the waiting there is; k − 1 of each
//! kind may be lost at once.
//!
//! The sequencer says from time to time how far it is. So a receiver knows what it lacks: it asks
//! *one* commit server which message has a number, and, only if it has not got that message, *one*
//! data server for it. Servers that do not answer cost it a moment, others nothing.
//!
//! Checkpoint servers follow the order like any receiver and keep the state that comes of it. One
//! that k_p of them have is advertised; who comes late takes it, and what follows. What it holds,
//! data servers and commit servers may forget, so all storage is bounded.
//!
//! The sequencer is whoever holds the role `GROUP/sequencer`, in the epoch of the lease; the servers
//! of the group stand for it. A new one *seals* n − k_c + 1 commit servers, so that the one before
//! commits nothing more, and takes from them all there is: what is committed, and what was open,
//! which it commits again under its own epoch or, where nothing can come of it, commits as void.
//! What was the largest number it learns from the sealed servers, and, where the group writes it down
//! in another place too ([`group::Maximum`]), from that.
//!
//! # What is promised
//! - I1: every receiver delivers 1, 2, 3, … and everywhere the same, or goes on after a checkpoint
//!   that holds what came before.
//! - I2: once n − k_c + 1 commit servers are sealed in an epoch, nothing is committed in a lower one
//!   that they do not have.
//! - I3: a number that was committed keeps its message under every later sequencer. Of other open
//!   numbers the record of the highest epoch counts; one with no record, or whose message has a
//!   lower number, or whose publisher's message before it has none, becomes void.
//! - I4: a number is committed when k_c commit servers have it on disk and all lower numbers are
//!   committed. Whoever knows that may deliver it: the sequencer, which hears of all, and a commit
//!   server that was told with a number that the sequencer's own has it ([`sequencer::Submits`]).
//! - I5: a message gets a number when k_d different data servers have it on disk.
//! - I6: a message gets one number at most: it has its place by the last number of its publisher,
//!   which is known for a lifetime L, and after L it gets none. The lifetime is counted in numbers,
//!   from the time stamp: the largest committed number its publisher knew when it first sent it.
//! - I7: a publisher's messages are ordered as it numbered them; one is left out only if its
//!   publisher says so (`lowest_open`).
//! - I8: a commit server names to receivers only pairs that it knows committed.
//! - I9: nothing is forgotten that a receiver above the advertised checkpoint, or a new sequencer,
//!   may need.
//! - I10: a lost server is replaced as agreed on, each change of the servers under the next version.
//!   Who takes its place counts when it has all that a server in that place may have to know: first
//!   neither counts, and a sequencer of that version seals n − k_c + 1 of those that stay, which is
//!   one more than can be without any committed pair, and hands over what they have. What the one
//!   that comes had of an earlier time, and does not know committed, is gone. Commit servers take
//!   nothing from a sequencer of an older version, which might still count the lost one.
//!
//! # Layout
//! - [`message`]: what may be said; [`group`]: who serves, and the measures k and L
//! - [`sequencer`], [`data_server`], [`commit_server`], [`checkpoint_server`], [`receiver`],
//!   [`sender`]: the roles, pure machines
//! - [`application`]: the state that follows the order; [`table`]: one of rows
//! - [`book`]: which groups there are, and who serves them; [`losses`]: who is lost; [`joining`]:
//!   who takes a place
//! - [`channel`]: how what is said to many reaches them by datagrams
//! - [`record`]: what servers make durable
//! - [`rules`]: the safety rules, for tests that switch them off

pub mod application;
pub mod book;
pub mod channel;
pub mod checkpoint_server;
pub mod commit_server;
pub mod data_server;
pub mod group;
mod history;
pub mod joining;
pub mod losses;
pub mod message;
pub mod receiver;
pub mod record;
pub mod rules;
pub mod sender;
pub mod sequencer;
pub mod table;
