//! The RESP port from outside: as a client sees it, and beside a real `redis-server`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say so")]

mod common;
mod dice;
mod judge;
mod listener;
mod ops;
mod redis;
mod server;
