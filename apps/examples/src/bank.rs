//! A replicated ledger: the books of a bank, equal at every main, moved exactly once.

use std::{collections::BTreeMap, process::ExitCode};

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use synod::{
    Cli,
    message::RemoteMessage,
    replicated::{Query, Replicated, Turn},
};

/// `bank dev` runs a cluster of it here; then try
/// `bank call ledger ledger.transfer '{"from":"a","to":"b","amount":5}'`.
fn main() -> ExitCode {
    Cli::new("bank").replicated::<Ledger>("ledger").main()
}

/// Balances by account. Whatever happens they sum to zero: money moves, it is not made.
#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "ledger", commands(Transfer), queries(Balance))]
struct Ledger {
    accounts: BTreeMap<String, i64>,
}

/// Moves money; answers what `from` has left.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<i64, Refused>")]
#[remote(name = "ledger.transfer")]
struct Transfer {
    from: String,
    to: String,
    amount: i64,
}

/// Asks what an account has.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "i64")]
#[remote(name = "ledger.balance")]
struct Balance {
    of: String,
}

/// Why no money was moved.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
enum Refused {
    #[error("{amount} is not an amount that can be moved")]
    BadAmount { amount: i64 },
    #[error("an account may be {OVERDRAFT_MAX} below zero; this one has {has}")]
    Overdrawn { has: i64 },
}

/// Lets a fresh bank move its first money.
const OVERDRAFT_MAX: i64 = 100;

impl Actor for Ledger {
    type Context = Turn;
}

impl Handler<Transfer> for Ledger {
    type Result = Result<i64, Refused>;

    fn handle(&mut self, Transfer { from, to, amount }: Transfer, _: &mut Turn) -> Self::Result {
        let has = self.accounts.get(&from).copied().unwrap_or_default();
        match amount {
            ..=0 => return Err(Refused::BadAmount { amount }),
            _ if has + OVERDRAFT_MAX < amount => return Err(Refused::Overdrawn { has }),
            _ => {}
        }
        *self.accounts.entry(to).or_default() += amount;
        let left = self.accounts.entry(from).or_default();
        *left -= amount;
        Ok(*left)
    }
}

impl Query<Balance> for Ledger {
    fn query(&self, question: Balance) -> i64 {
        self.accounts.get(&question.of).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod::replicated::local::LocalLog;

    #[actix::test]
    async fn money_moves_only_where_there_is_some() {
        let (_log, ledger) = LocalLog::with::<Ledger>("ledger");
        let pay = |amount| ledger.send(Transfer { from: "a".into(), to: "b".into(), amount });
        assert_eq!(pay(80).await, Ok(Ok(-80)));
        assert_eq!(pay(80).await, Ok(Err(Refused::Overdrawn { has: -80 })));
        assert_eq!(pay(-1).await, Ok(Err(Refused::BadAmount { amount: -1 })));
        assert_eq!(ledger.query(Balance { of: "b".into() }).await, Ok(80));
    }
}
