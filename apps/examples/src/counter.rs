//! The smallest replicated actor: a number that survives its machines.

use std::process::ExitCode;

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use synod::{
    Cli,
    message::RemoteMessage,
    replicated::{Query, Replicated, Turn},
};

fn main() -> ExitCode {
    Cli::new("counter").replicated::<Counter>("counter").main()
}

#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "counter", commands(Add), queries(Total))]
struct Counter {
    total: u64,
    changed_ms: u64,
}

/// Counts on by so many; answers the new total.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.add")]
struct Add {
    by: u64,
}

/// Asks for the total and when it last changed, in agreed milliseconds since 1970.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(u64, u64)")]
#[remote(name = "counter.total")]
struct Total;

impl Actor for Counter {
    type Context = Turn;
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, add: Add, turn: &mut Turn) -> u64 {
        // Every main sees the same time here, which no clock of its own could promise.
        self.changed_ms = turn.time_ms();
        self.total = self.total.saturating_add(add.by);
        self.total
    }
}

impl Query<Total> for Counter {
    fn query(&self, _: Total) -> (u64, u64) {
        (self.total, self.changed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod::replicated::local::LocalLog;

    #[actix::test]
    async fn it_counts_and_knows_when() {
        let (log, counter) = LocalLog::with::<Counter>("counter");
        assert_eq!(counter.send(Add { by: 2 }).await, Ok(2));
        log.set_time_ms(1_000);
        assert_eq!(counter.send(Add { by: 3 }).await, Ok(5));
        assert_eq!(counter.query(Total).await, Ok((5, 1_000)));
    }
}
