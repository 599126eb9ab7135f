//! Highly available actors: replicated, led by exactly one node, ordered, checkpointed and failed
//! over.

// Lets code written by our derives, which says `::synod::…`, compile in this crate too.
extern crate self as synod;

pub mod cli;
pub mod consensus;
pub mod effects;
pub mod machine;
#[cfg(any(test, feature = "mutations"))]
pub mod mutation;
pub mod replicated;
pub mod role;
pub mod server;

pub use cli::Cli;
pub use synod_runtime::message;
