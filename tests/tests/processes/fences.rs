//! Fences on real processes: what an old holder writes is refused, over Redis' protocol and HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use synod_tests::process::{
    cluster::Cluster,
    machine::shared,
    resp::{Reply, Resp},
};

/// Takes the role `jobs` for `holder` and answers the epoch.
fn take(synod: &Cluster, holder: &str) -> u64 {
    let body = json!({"holder": holder, "lease": "2s"}).to_string().into_bytes();
    let mut http = synod.http("a").patience(Duration::from_secs(10));
    let answer = http.request("PUT", "/roles/jobs/lease", &[], &body).expect("the node answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["epoch"].as_u64().expect("an epoch")
}

/// `PUT /kv/k` with that fence: status and document.
fn put(synod: &Cluster, fence: &str) -> (u16, Value) {
    let answer = synod
        .http("b")
        .request("PUT", "/kv/k", &[("synod-fence", fence)], b"v")
        .expect("the node answers");
    let document = if answer.status == 204 { Value::Null } else { answer.json() };
    (answer.status, document)
}

fn is_fenced(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("FENCED not applied"))
}

/// Goal: as soon as another holds the role, whatever the old holder writes is refused, at any node, in
/// transactions too; nothing of it is there.
#[test]
fn an_old_holder_writes_nothing_once_another_has_the_role() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &[]);
    let patience = Duration::from_secs(10);
    let [mut old, mut new] =
        [0, 1].map(|node| Resp::connect(synod.resps()[node], patience).unwrap());
    let ok = Reply::Simple("OK".to_owned());
    let first = take(&synod, "one");
    let fence = |connection: &mut Resp, role: &str, epoch: u64| {
        connection.call(&[b"FENCE", role.as_bytes(), epoch.to_string().as_bytes()]).unwrap()
    };
    assert_eq!(fence(&mut old, "jobs", first), ok);
    assert_eq!(old.call(&[b"SET", b"k", b"old"]).unwrap(), ok);
    assert_eq!(put(&synod, &format!("jobs {first}")).0, 204);
    let resigned = synod.http("b").request("DELETE", "/roles/jobs/lease?holder=one", &[], b"");
    assert_eq!(resigned.unwrap().status, 200);
    // Nobody else has it yet: nothing can have come between.
    assert_eq!(old.call(&[b"SET", b"k", b"old"]).unwrap(), ok);
    let second = take(&synod, "two");
    assert_eq!(fence(&mut new, "jobs", second), ok);
    assert_eq!(new.call(&[b"SET", b"k", b"new"]).unwrap(), ok);
    assert!(is_fenced(&old.call(&[b"SET", b"k", b"stale"]).unwrap()));
    assert_eq!(old.call(&[b"MULTI"]).unwrap(), ok);
    let refused = old.call(&[b"FENCE", b"jobs", b"1"]).unwrap();
    assert!(matches!(refused, Reply::Error(text) if text.contains("inside MULTI")));
    assert_eq!(old.call(&[b"SET", b"k", b"stale"]).unwrap(), Reply::Simple("QUEUED".to_owned()));
    assert!(is_fenced(&old.call(&[b"EXEC"]).unwrap()));
    assert_eq!(old.call(&[b"GET", b"k"]).unwrap(), Reply::Bulk(b"new".to_vec()));
    assert!(is_fenced(&fence(&mut old, "jobs", first)));
    let (status, document) = put(&synod, &format!("jobs {first}"));
    assert_eq!((status, &document["outcome"]), (412, &json!("not_applied")), "{document}");
    assert!(document["error"].as_str().unwrap().contains("fenced"), "{document}");
    assert_eq!(put(&synod, &format!("jobs {second}")).0, 204);
    assert_eq!(put(&synod, "jobs").0, 400);
    assert_eq!(old.call(&[b"RESET"]).unwrap(), Reply::Simple("RESET".to_owned()));
    assert_eq!(old.call(&[b"SET", b"k", b"free"]).unwrap(), ok);
    // A role of another system is known by what was fenced with.
    assert_eq!(fence(&mut new, "elsewhere", 7), ok);
    assert!(is_fenced(&fence(&mut old, "elsewhere", 6)));
    assert!(is_fenced(&old.call(&[b"SET", b"k", b"stale"]).unwrap()));
    let bad = old.call(&[b"FENCE", b"jobs", b"soon"]).unwrap();
    assert!(matches!(bad, Reply::Error(text) if text.contains("like `jobs 17`")));
    synod.stop();
}
