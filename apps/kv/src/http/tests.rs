//! Requests against the routes, over a log of one process.

use actix_web::{
    App,
    body::MessageBody,
    http::Method,
    test::{TestRequest, call_service, init_service, read_body},
};
use serde_json::Value;
use synod::replicated::{Reason, Refusal, local::LocalLog};

use super::*;
use crate::{Kv, limits::VALUE_BYTES_MAX};

/// What came back.
struct Answer {
    status: u16,
    etag: Option<String>,
    position: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn log() -> Arc<LocalLog> {
    let log = Arc::new(LocalLog::new());
    log.host(Box::new(Kv::new()));
    log
}

async fn ask(log: &Arc<LocalLog>, request: TestRequest) -> Answer {
    let state = KvHttp::new(log.clone());
    let app = init_service(App::new().configure(|cfg| configure(cfg, state))).await;
    let response = call_service(&app, request.to_request()).await;
    let header =
        |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, etag) = (response.status().as_u16(), header("etag"));
    let position = header("synod-position");
    let body = read_body(response).await.try_into_bytes().unwrap().to_vec();
    Answer { status, etag, position, body }
}

fn on(method: Method, uri: &str) -> TestRequest {
    TestRequest::default().method(method).uri(uri)
}

#[actix_web::test]
async fn a_key_is_put_got_and_deleted_with_its_position() {
    let log = log();
    let put = ask(&log, on(Method::PUT, "/kv/a%2Fb/c%FF").set_payload("hello")).await;
    assert_eq!((put.status, put.etag.as_deref()), (204, Some("\"1\"")));
    assert_eq!(put.position.as_deref(), Some("1"));
    let got = ask(&log, on(Method::GET, "/kv/a/b/c%ff?consistency=local")).await;
    assert_eq!((got.status, got.text()), (200, "hello".into()));
    assert_eq!((got.etag.as_deref(), got.position.as_deref()), (Some("\"1\""), Some("1")));
    let deleted = ask(&log, on(Method::DELETE, "/kv/a%2fb%2fc%ff")).await;
    assert_eq!((deleted.status, deleted.etag.as_deref()), (204, Some("\"2\"")));
    let gone = ask(&log, on(Method::GET, "/kv/a/b/c%FF")).await;
    assert_eq!((gone.status, gone.json()["outcome"].as_str()), (404, Some("not_applied")));
}

#[actix_web::test]
async fn preconditions_decide() {
    let log = log();
    let put = |header: (&'static str, &'static str)| {
        on(Method::PUT, "/kv/a").insert_header(header).set_payload("x")
    };
    assert_eq!(ask(&log, put(("If-Match", "*"))).await.status, 412);
    assert_eq!(ask(&log, put(("If-None-Match", "*"))).await.status, 204);
    let refused = ask(&log, put(("If-None-Match", "*"))).await;
    assert_eq!((refused.status, refused.etag.as_deref()), (412, Some("\"2\"")));
    assert_eq!(refused.json()["outcome"], "not_applied");
    assert_eq!(ask(&log, put(("If-Match", "\"1\""))).await.status, 412);
    assert_eq!(ask(&log, put(("If-Match", "\"foreign\""))).await.status, 412);
    assert_eq!(ask(&log, put(("If-Match", "\"7\", \"2\""))).await.status, 204);
    assert_eq!(ask(&log, put(("If-Match", "2"))).await.status, 400);
    let deleted = on(Method::DELETE, "/kv/a").insert_header(("If-Match", "\"2\""));
    assert_eq!(ask(&log, deleted).await.status, 412);
    let same = on(Method::GET, "/kv/a").insert_header(("If-None-Match", "\"6\""));
    assert_eq!(ask(&log, same).await.status, 304);
}

#[actix_web::test]
async fn keys_are_listed_page_by_page_whatever_bytes_they_have() {
    let log = log();
    for key in ["p1", "p2", "p%FE", "p%FF", "q"] {
        ask(&log, on(Method::PUT, &format!("/kv/{key}")).set_payload("")).await;
    }
    let page = ask(&log, on(Method::GET, "/kv?prefix=p&limit=2")).await.json();
    assert_eq!(page, json!({ "keys": ["p1", "p2"], "next": "p2" }));
    let page = ask(&log, on(Method::GET, "/kv?prefix=p&limit=1&after=p2")).await.json();
    assert_eq!(page["next_encoded"], "%70%FE");
    assert_eq!(page["keys_encoded"], json!(["%70%FE"]));
    let page = ask(&log, on(Method::GET, "/kv?prefix=p&limit=1&after=%70%FE")).await.json();
    let last = json!({ "keys": ["p\u{fffd}"], "keys_encoded": ["%70%FF"], "next": null });
    assert_eq!(page, last);
    let all = ask(&log, on(Method::GET, "/kv")).await.json();
    assert_eq!(all["keys"].as_array().unwrap().len(), 5);
    let none = ask(&log, on(Method::GET, "/kv?limit=0")).await;
    assert!(none.status == 400 && none.text().contains("from 1 to 10000"), "{}", none.text());
    for bad in ["/kv?limit=x", "/kv?foo=1", "/kv?after=%4", "/kv?consistency=none"] {
        assert_eq!(ask(&log, on(Method::GET, bad)).await.status, 400, "{bad}");
    }
}

#[actix_web::test]
async fn a_repeated_idempotency_key_replays_the_first_answer() {
    let log = log();
    let put = |value: &'static str| {
        on(Method::PUT, "/kv/a").insert_header(("Idempotency-Key", "k")).set_payload(value)
    };
    assert_eq!(ask(&log, put("1")).await.position.as_deref(), Some("1"));
    assert_eq!(ask(&log, put("1")).await.position.as_deref(), Some("1"));
    let reused = ask(&log, put("2")).await;
    assert_eq!((reused.status, reused.json()["outcome"].as_str()), (422, Some("not_applied")));
    assert_eq!(ask(&log, on(Method::GET, "/kv/a")).await.text(), "1");
}

#[actix_web::test]
async fn failures_have_the_status_and_the_words_of_the_contract() {
    let log = log();
    let refused = |reason| Outcome::NotApplied(Refusal::new(reason, "needs main b"));
    let cases = [
        (refused(Reason::Unavailable), 503, "not_applied"),
        (refused(Reason::Full), 507, "not_applied"),
        (refused(Reason::TooLarge), 413, "not_applied"),
        (Outcome::Unknown("no answer in 5s".into()), 504, "unknown"),
        (Outcome::Failed("kv panicked".into()), 500, "unknown"),
    ];
    for (outcome, status, word) in cases {
        log.refuse(Some(outcome));
        let answer = ask(&log, on(Method::PUT, "/kv/a").set_payload("1")).await;
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (status, Some(word)));
        let answer = ask(&log, on(Method::GET, "/kv/a")).await;
        assert_eq!(answer.status, status);
    }
}

#[actix_web::test]
async fn bad_keys_and_large_bodies_are_refused() {
    let log = log();
    for bad in ["/kv/a%", "/kv/%zz", "/kv/%f", "/kv/"] {
        let answer = ask(&log, on(Method::PUT, bad).set_payload("1")).await;
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (400, Some("not_applied")));
    }
    let large = vec![b'x'; VALUE_BYTES_MAX + 1];
    let answer = ask(&log, on(Method::PUT, "/kv/a").set_payload(large)).await;
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (413, Some("not_applied")));
    let largest = vec![b'x'; VALUE_BYTES_MAX];
    assert_eq!(ask(&log, on(Method::PUT, "/kv/a").set_payload(largest)).await.status, 204);
}
