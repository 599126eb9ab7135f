//! A ledger, derived as users do it, driven as a replica does it.

use std::{collections::BTreeMap, future::Future, pin::pin, task::Poll};

use actix::{Actor, Handler, Message};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{local::LocalLog, *};

#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "ledger", commands(Transfer, Lottery, Explode), queries(Balance, Count))]
pub(crate) struct Ledger {
    accounts: BTreeMap<String, i64>,
    #[serde(default)]
    last_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Result<i64, Refused>")]
#[remote(name = "ledger.transfer")]
pub(crate) struct Transfer {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) amount: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refused {
    Poor { has: i64 },
    Nonsense,
}

#[derive(Debug, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "u32")]
#[remote(name = "ledger.lottery")]
struct Lottery {
    tickets: Vec<Ticket>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    owner: String,
    price: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "ledger.explode")]
struct Explode;

#[derive(Debug, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "i64")]
#[remote(name = "ledger.balance")]
pub(crate) struct Balance {
    pub(crate) of: String,
}

#[derive(Debug, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "usize")]
#[remote(name = "ledger.count")]
struct Count {}

impl Actor for Ledger {
    type Context = Turn;
}

impl Handler<Transfer> for Ledger {
    type Result = Result<i64, Refused>;

    fn handle(&mut self, transfer: Transfer, turn: &mut Turn) -> Self::Result {
        if transfer.amount <= 0 {
            return Err(Refused::Nonsense);
        }
        let has = self.accounts.get(&transfer.from).copied().unwrap_or(100);
        if has < transfer.amount {
            return Err(Refused::Poor { has });
        }
        self.accounts.insert(transfer.from, has - transfer.amount);
        *self.accounts.entry(transfer.to).or_insert(100) += transfer.amount;
        self.last_ms = turn.time_ms();
        Ok(has - transfer.amount)
    }
}

impl Handler<Lottery> for Ledger {
    type Result = u32;

    fn handle(&mut self, _: Lottery, turn: &mut Turn) -> u32 {
        let drawn = turn.rng().random_range(0..1_000_000);
        self.accounts.insert("jackpot".into(), i64::from(drawn));
        drawn
    }
}

impl Handler<Explode> for Ledger {
    type Result = ();

    fn handle(&mut self, _: Explode, _: &mut Turn) {
        self.accounts.insert("half".into(), 1);
        panic!("a handler's own panic, on purpose");
    }
}

impl Query<Balance> for Ledger {
    fn query(&self, question: Balance) -> i64 {
        self.accounts.get(&question.of).copied().unwrap_or(100)
    }
}

impl Query<Count> for Ledger {
    fn query(&self, _: Count) -> usize {
        self.accounts.len()
    }
}

fn transfer(amount: i64) -> Transfer {
    Transfer { from: "a".into(), to: "b".into(), amount }
}

fn turn(position: u64) -> Turn {
    let moment = Moment { position: Position(position), time_ms: 1_000 * position };
    Turn::new(moment, SessionId(1), 42, 0)
}

fn args(message: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(message).unwrap()
}

/// The local log answers within the first poll, so no runtime is needed.
fn now<T>(call: impl Future<Output = T>) -> T {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match pin!(call).poll(&mut cx) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the local log answers at once"),
    }
}

fn ledger() -> ActorDescriptor {
    ActorDescriptor::of::<Ledger>("ledger/eu")
}

#[test]
fn the_derive_lists_commands_and_queries_by_their_wire_names() {
    let host = Host::<Ledger>::default();
    assert_eq!((host.name(), Ledger::NAME), ("ledger", "ledger"));
    let listed: Vec<_> = host.functions().iter().map(|f| (f.name, f.query)).collect();
    let commands = [("ledger.transfer", false), ("ledger.lottery", false)];
    assert_eq!(listed[..2], commands);
    assert_eq!(listed[3..], [("ledger.balance", true), ("ledger.count", true)]);
    assert!(host.functions().iter().all(|f| f.id == name_hash(f.name)));
}

#[test]
fn a_handle_gives_back_the_handlers_own_result_errors_included() {
    let (log, ledger) = LocalLog::with::<Ledger>("ledger/eu");
    assert_eq!(now(ledger.send(transfer(30))), Ok(Ok(70)));
    assert_eq!(now(ledger.send(transfer(90))), Ok(Err(Refused::Poor { has: 70 })));
    assert_eq!(now(ledger.query(Balance { of: "b".into() })), Ok(130));
    let (count, position) = now(ledger.query(Count {}).with_position()).unwrap();
    assert_eq!((count, position, log.now().position), (2, Position(2), Position(2)));
}

#[test]
fn equal_commands_in_equal_turns_give_equal_replies_and_snapshots() {
    let mut hosts = [Host::<Ledger>::default(), Host::default()];
    let lottery = Lottery { tickets: Vec::new() };
    let replies = hosts.each_mut().map(|host| {
        let first = host.apply(name_hash(Transfer::NAME), &args(&transfer(5)), &mut turn(1));
        let second = host.apply(name_hash(Lottery::NAME), &args(&lottery), &mut turn(2));
        (first, second, host.snapshot())
    });
    assert_eq!(replies[0], replies[1]);

    let mut other = Host::<Ledger>::default();
    other.restore(&replies[0].2).unwrap();
    assert_eq!(other.snapshot(), replies[0].2);
    assert_eq!((other.actor().accounts["a"], other.actor().last_ms), (95, 1_000));
}

#[test]
fn an_error_of_apply_or_restore_leaves_the_state_unchanged() {
    let mut host = Host::<Ledger>::default();
    host.apply(name_hash(Transfer::NAME), &args(&transfer(5)), &mut turn(1)).unwrap();
    let before = host.snapshot();

    let id = name_hash("ledger.nothing");
    let unknown = host.apply(id, &[], &mut turn(2));
    assert_eq!(unknown, Err(ApplyError::UnknownFunction { id }));
    let bad = host.apply(name_hash(Transfer::NAME), &args(&json!({"from": 7})), &mut turn(2));
    assert!(matches!(bad, Err(ApplyError::BadArguments(_))), "{bad:?}");
    let query_as_command = host.apply(name_hash(Balance::NAME), &[], &mut turn(2));
    assert!(matches!(query_as_command, Err(ApplyError::UnknownFunction { .. })));
    let command_as_query = host.query(name_hash(Transfer::NAME), &[], &Moment::default());
    assert!(matches!(command_as_query, Err(ApplyError::UnknownFunction { .. })));
    let error = host.restore(b"\xc1nonsense").unwrap_err();
    assert_eq!(error.actor, "ledger");
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_field_may_be_added_to_the_state_under_a_serde_default() {
    let mut host = Host::<Ledger>::default();
    host.restore(&args(&json!({ "accounts": { "a": 3 } }))).unwrap();
    assert_eq!((host.actor().accounts["a"], host.actor().last_ms), (3, 0));
}

#[test]
fn a_panicking_command_is_answered_as_failed_and_changes_nothing() {
    let (log, ledger) = LocalLog::with::<Ledger>("ledger");
    now(ledger.send(transfer(1))).unwrap().unwrap();
    let before = log.snapshot("ledger");
    let failed = now(ledger.send(Explode)).unwrap_err();
    assert_eq!(failed, CallError::Failed("ledger panicked at position 2".into()));
    assert_eq!(log.snapshot("ledger"), before);
    assert_eq!(now(ledger.send(transfer(1))), Ok(Ok(98)));
}

#[test]
fn a_repeated_idempotency_key_replays_the_first_answer() {
    let (_log, ledger) = LocalLog::with::<Ledger>("ledger");
    let key = IdempotencyKey::new("order 66").unwrap();
    let pay = |amount| now(ledger.send(transfer(amount)).idempotency(key.clone()));
    assert_eq!((pay(10), pay(10)), (Ok(Ok(90)), Ok(Ok(90))));
    let Err(CallError::NotApplied(refusal)) = pay(11) else { panic!("another body, same key") };
    assert_eq!(refusal.reason, Reason::KeyReused);
    assert_eq!(IdempotencyKey::new(&"k".repeat(256)), Err(BadIdempotencyKey { len: 256 }));
}

#[test]
fn an_error_says_whether_the_command_was_applied() {
    let (log, ledger) = LocalLog::with::<Ledger>("ledger");
    log.refuse(Some(Outcome::NotApplied("no quorum".into())));
    let refused = now(ledger.send(transfer(1))).unwrap_err();
    assert_eq!(
        (refused.outcome(), &*refused.to_string()),
        ("not_applied", "not applied: no quorum")
    );
    log.refuse(Some(Outcome::Unknown("timed out".into())));
    assert_eq!(now(ledger.send(transfer(1))).unwrap_err().outcome(), "unknown");
    log.refuse(None);

    let huge = Transfer { from: "x".repeat(ARGS_BYTES_MAX), to: String::new(), amount: 1 };
    let Err(CallError::NotApplied(refusal)) = now(ledger.send(huge)) else { panic!("too large") };
    assert_eq!(refusal.reason, Reason::TooLarge);
    let elsewhere = Handle::<Ledger>::new(log, "leger");
    let Err(CallError::NotApplied(refusal)) = now(elsewhere.send(transfer(1))) else { panic!() };
    assert_eq!(refusal.reason, Reason::NoSuchActor);
}

#[test]
fn json_arguments_and_replies_round_trip_through_the_messages_types() {
    let ledger = ledger();
    let transfer = ledger.function("ledger.transfer").unwrap();
    let bytes = transfer.args_from_json(&json!({"from":"a","to":"b","amount":5})).unwrap();
    let mut host = Host::<Ledger>::default();
    let reply = host.apply(transfer.function.id, &bytes, &mut turn(1)).unwrap();
    assert_eq!(transfer.reply_to_json(&reply).unwrap(), json!({"Ok": 95}));

    let bytes = transfer.args_from_json(&json!({"from":"a","to":"b","amount":500})).unwrap();
    let reply = host.apply(transfer.function.id, &bytes, &mut turn(2)).unwrap();
    assert_eq!(transfer.reply_to_json(&reply).unwrap(), json!({"Err": {"Poor": {"has": 95}}}));

    for (name, nothing) in [("ledger.explode", json!({})), ("ledger.count", Value::Null)] {
        assert!(ledger.function(name).unwrap().args_from_json(&nothing).is_ok(), "{name}");
    }
}

#[test]
fn bad_json_is_refused_naming_the_field() {
    let ledger = ledger();
    let complaint = |message: &str, args: Value| {
        let function = ledger.function(message).unwrap();
        function.args_from_json(&args).unwrap_err().to_string()
    };
    let text = complaint("ledger.transfer", json!({"from":"a","to":"b"}));
    assert_eq!(text, "bad arguments for ledger.transfer: missing field `amount`");
    let text = complaint("ledger.transfer", json!({"from":"a","to":"b","amount":"x"}));
    assert!(text.contains(": amount: invalid type: string \"x\""), "{text}");
    let tickets = json!({"tickets": [{"owner": "a"}, {"owner": "b", "price": -1}]});
    let text = complaint("ledger.lottery", tickets);
    assert!(text.contains(": tickets[1].price: invalid value: integer `-1`"), "{text}");
    let text = complaint("ledger.transfer", Value::Null);
    assert!(text.contains("expected struct Transfer"), "{text}");
}

#[test]
fn an_unknown_actor_or_message_is_refused_naming_the_nearest() {
    let catalogue = ActorCatalogue::new(vec![ledger(), ActorDescriptor::without_json("kv")]);
    let error = catalogue.actor("leger/eu").unwrap_err().to_string();
    assert_eq!(error, "no replicated actor is called \"leger/eu\"; the nearest is \"ledger/eu\"");
    let error = catalogue.actor("ledger/eu").unwrap().function("ledger.tranfser").unwrap_err();
    assert!(error.to_string().ends_with("the nearest is \"ledger.transfer\""), "{error}");
    let error = catalogue.actor("kv").unwrap().function("get").unwrap_err();
    assert!(error.to_string().ends_with("; there are none"), "{error}");
}

#[test]
fn name_hash_is_fnv_1a_and_never_changes() {
    assert_eq!(name_hash(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(name_hash("foobar"), 0x8594_4171_f739_67e8);
}
