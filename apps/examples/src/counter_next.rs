//! The next build of `counter`: it can be doubled. Builds of both kinds run in one cluster; `double` is
//! *not applied* until the last main runs this one, and then the cluster's version rises by itself.

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

/// What is new has a number above that of all builds before.
#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "counter", commands(Add), commands_since(1, Double), queries(Total))]
struct Counter {
    total: u64,
    changed_ms: u64,
    /// A field that older snapshots do not have.
    #[serde(default)]
    doubled: u64,
}

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.add")]
struct Add {
    by: u64,
}

/// Doubles the total; answers it.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.double")]
struct Double {}

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
        self.changed_ms = turn.time_ms();
        self.total = self.total.saturating_add(add.by);
        self.total
    }
}

impl Handler<Double> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Double, turn: &mut Turn) -> u64 {
        self.changed_ms = turn.time_ms();
        self.doubled += 1;
        self.total = self.total.saturating_mul(2);
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
    async fn it_doubles_what_an_older_build_counted() {
        let (_log, counter) = LocalLog::with::<Counter>("counter");
        assert_eq!(counter.send(Add { by: 3 }).await, Ok(3));
        assert_eq!(counter.send(Double {}).await, Ok(6));
        assert_eq!(counter.query(Total).await.map(|(total, _)| total), Ok(6));
    }
}
