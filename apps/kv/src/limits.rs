//! Every limit of the service, with its reason.

use synod::replicated::ARGS_BYTES_MAX;

/// Largest key or value, and so the longest argument of a command. A value travels in one step of
/// the log, and steps are meant to be short: anything larger belongs into an object store.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Largest command, all arguments together with their lengths: half of what the log takes, which
/// leaves room for whatever wraps it.
pub const REQUEST_BYTES_MAX: usize = ARGS_BYTES_MAX / 2;

/// Most arguments of one command, as in Redis before authentication was split off.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;

/// Longest inline command, as in Redis.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Largest reply to one command or one transaction. A reply through the log is kept with its
/// session and may cross a link in one frame.
pub const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most expired keys removed by one command, so that a million keys that expire together do not
/// stall the log; the rest are invisible already and go with the next commands and ticks.
pub const SWEEP_KEYS_MAX: usize = 64;

/// Most expired keys removed by one tick of agreed time, which no client waits for.
pub const SWEEP_KEYS_TICK_MAX: usize = 4096;

/// Commands of one connection that may wait for their replies; then its socket is not read. Enough
/// for every client's default pipeline, and no client can make a step grow beyond its turn.
pub const PIPELINE_COMMANDS_MAX: usize = 1024;

/// Bytes of one connection's commands that may wait for their replies; then its socket is not read.
pub const PIPELINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Values one connection may have asked for and not got yet; then its commands wait. A reply is made
/// before anybody knows whether the client reads it, so this times [`VALUE_BYTES_MAX`] is what one
/// client can cost.
pub const VALUES_UNDER_WAY_MAX: usize = 48;

/// Replies a client has not read; a client that lets more pile up is hung up on.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most connections of one listener, as in Redis (`maxclients`).
pub const CONNECTIONS_MAX: usize = 10_000;

/// Commands queued in one `MULTI`, and their bytes: they become one command of the log.
pub const TRANSACTION_COMMANDS_MAX: usize = 16 * 1024;

/// Keys one connection may `WATCH`: their versions are checked inside the transaction.
pub const WATCHED_KEYS_MAX: usize = 16 * 1024;

/// Most keys in one page of `GET /kv`.
pub const LIST_KEYS_MAX: usize = 10_000;

/// Keys in a page of `GET /kv` that asks for no limit.
pub const LIST_KEYS_DEFAULT: usize = 1_000;
