//! The answers of the contract, over a log of one process.

use actix_web::{App, dev::ServiceResponse, test};

use super::*;
use crate::replicated::{
    ActorDescriptor, Refusal,
    local::LocalLog,
    tests::{Ledger, Transfer},
};

const TRANSFER: &str = "/actors/ledger/eu/ledger.transfer";

fn log() -> Arc<LocalLog> {
    LocalLog::with::<Ledger>("ledger/eu").0
}

async fn answer(log: Arc<LocalLog>, request: test::TestRequest) -> ServiceResponse {
    let catalogue = ActorCatalogue::new(vec![ActorDescriptor::of::<Ledger>("ledger/eu")]);
    let state = ActorsHttp::new(log, catalogue);
    let app = test::init_service(App::new().configure(|cfg| configure(cfg, state))).await;
    test::call_service(&app, request.to_request()).await
}

async fn json_of(response: ServiceResponse) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, test::read_body_json(response).await)
}

fn transfer(amount: i64) -> test::TestRequest {
    let (from, to) = ("a".into(), "b".into());
    test::TestRequest::post().uri(TRANSFER).set_json(Transfer { from, to, amount })
}

#[actix_web::test]
async fn a_command_answers_with_its_reply_and_position() {
    let log = log();
    let response = answer(log.clone(), transfer(30)).await;
    assert_eq!(response.headers().get("Synod-Position").unwrap(), "1");
    assert_eq!(json_of(response).await, (200, json!({ "Ok": 70 })));

    let balance = "/actors/ledger/eu/ledger.balance?consistency=local";
    let query = test::TestRequest::post().uri(balance).set_payload(r#"{"of":"b"}"#);
    assert_eq!(json_of(answer(log.clone(), query).await).await, (200, json!(130)));
    let count = test::TestRequest::post().uri("/actors/ledger/eu/ledger.count");
    assert_eq!(json_of(answer(log, count).await).await, (200, json!(2)));
}

#[actix_web::test]
async fn the_list_names_every_actor_and_its_messages() {
    let (status, list) = json_of(answer(log(), test::TestRequest::with_uri("/actors")).await).await;
    assert_eq!((status, &list["actors"][0]["name"]), (200, &json!("ledger/eu")));
    let messages = list["actors"][0]["messages"].as_array().unwrap();
    assert!(messages.contains(&json!({ "name": "ledger.transfer", "kind": "command" })));
    assert!(messages.contains(&json!({ "name": "ledger.balance", "kind": "query" })));
}

#[actix_web::test]
async fn every_bad_request_is_refused_by_name_and_not_applied() {
    let post = |uri: &str, body: &'static str| test::TestRequest::post().uri(uri).set_payload(body);
    let long_key = transfer(1).insert_header(("Idempotency-Key", "k".repeat(300)));
    let cases = [
        (post("/actors/leger/eu/ledger.transfer", "{}"), 404, "nearest is \"ledger/eu\""),
        (post("/actors/ledger/eu/ledger.trans", "{}"), 404, "nearest is \"ledger.transfer\""),
        (post(TRANSFER, "{"), 400, "the body is not JSON: EOF"),
        (post(TRANSFER, r#"{"from":"a","to":"b"}"#), 400, "missing field `amount`"),
        (post(TRANSFER, r#"{"from":1,"to":"b"}"#), 400, "from: invalid type: integer"),
        (post(&format!("{TRANSFER}?consistency=old"), "{}"), 400, "found \"old\""),
        (long_key, 400, "Idempotency-Key: an idempotency key has 1 to 255 bytes"),
        (transfer(1).set_payload(vec![b' '; ARGS_BYTES_MAX + 1]), 413, "larger than"),
    ];
    let log = log();
    for (request, status, text) in cases {
        let (got, body) = json_of(answer(log.clone(), request).await).await;
        assert_eq!((got, &body["outcome"]), (status, &json!("not_applied")), "{body}");
        assert!(body["error"].as_str().unwrap().contains(text), "{body}");
    }
    assert_eq!(log.now().position, Position(0));
}

#[actix_web::test]
async fn a_call_that_fails_says_what_became_of_it() {
    let refused = |reason| Outcome::NotApplied(Refusal::new(reason, "because"));
    let cases = [
        (refused(Reason::Unavailable), 503, "not_applied", "not applied: because"),
        (refused(Reason::Full), 507, "not_applied", "not applied: because"),
        (Outcome::Unknown("timed out".into()), 504, "unknown", "outcome unknown: timed out"),
        (Outcome::Failed("panicked".into()), 500, "unknown", "failed: panicked"),
    ];
    for (outcome, status, word, text) in cases {
        let log = log();
        log.refuse(Some(outcome));
        let response = answer(log, transfer(1)).await;
        assert_eq!(response.headers().contains_key("Retry-After"), status == 503);
        assert_eq!(json_of(response).await, (status, json!({ "error": text, "outcome": word })));
    }
}

#[actix_web::test]
async fn a_repeated_idempotency_key_is_executed_once() {
    let log = log();
    let pay = |amount| transfer(amount).insert_header(("Idempotency-Key", "order 66"));
    for _ in 0..2 {
        let (status, reply) = json_of(answer(log.clone(), pay(10)).await).await;
        assert_eq!((status, reply), (200, json!({ "Ok": 90 })));
    }
    assert_eq!(log.now().position, Position(1));
    let (status, body) = json_of(answer(log, pay(11)).await).await;
    assert_eq!((status, &body["outcome"]), (422, &json!("not_applied")));
}
