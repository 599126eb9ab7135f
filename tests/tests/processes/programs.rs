//! Managed services with real processes: their programs run on one node at a time, whatever is killed
//! or stopped, and the command line changes them at run time.

use std::{fs, time::Duration};

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    machine::{is_alive, shared},
    resource::Resource,
    wait::{now, until},
};

/// A cluster, and a resource that remembers everybody who touched it.
struct Stage {
    synod: Cluster,
    resource: Resource,
}

impl Stage {
    fn new() -> Self {
        let synod = Cluster::serving_by_hand("synod");
        let resource = Resource::new(synod.dir());
        Self { synod, resource }
    }

    /// `synod services ARGS`: exit code, standard output and error.
    fn services(&self, args: &[&str]) -> (i32, String, String) {
        let client = self.synod.dir().join("client.toml").display().to_string();
        let (verb, rest) = args.split_at(args.len().min(2));
        let words = [&["services"], verb, &["--cluster", &client], rest].concat();
        run(self.synod.program(), &words)
    }

    fn done(&self, args: &[&str]) {
        let (code, _, error) = self.services(args);
        assert_eq!(code, 0, "{args:?}: {error}");
    }

    fn document(&self, node: &str, service: &str) -> Result<Value, String> {
        self.synod.http(node).json(&format!("/services/{service}"))
    }

    fn wait_document(&self, node: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let document = self.document(node, "touch")?;
            if is_it(&document) { Ok(document) } else { Err(document.to_string()) }
        })
    }
}

fn other(of: &str) -> &'static str {
    if of == "a" { "b" } else { "a" }
}

/// Goal: the program is elsewhere within the lease and a moment after kill -9 and after SIGSTOP of
/// its node, gone before it begins there, and at once when the node stops in order.
#[test]
fn a_service_survives_its_node_and_never_runs_twice() {
    let _machine = shared();
    let mut stage = Stage::new();
    // It does not want to end, and leaves something behind.
    let program = stage.resource.program("trap '' TERM; setsid sleep 600 &");
    stage.done(&["add", "touch", "--providers", "a,b", "--", "sh", "-c", &program]);
    let mut led = stage.resource.wait_later(0);
    for kind in ["KILL", "STOP"] {
        let document = stage.wait_document("a", "running", |one| one["state"] == "running");
        let primary = document["primary"].as_str().unwrap().to_owned();
        stage.wait_document(&primary, "a secondary", |document| {
            document["secondaries"][0] == other(&primary)
        });
        assert_eq!(document["epoch"], led.epoch, "{document}");
        let began = now();
        if kind == "KILL" {
            stage.synod.kill(&[&primary]);
        } else {
            stage.synod.signal(kind, &[&primary]);
        }
        let next = stage.resource.wait_later(led.epoch);
        let took = now().since(began);
        println!("{kind} of its node: another runs it after {} ms", took.as_millis());
        assert!(!is_alive(led.pid), "{next:?}");
        assert!(took < LEASE + SLACK, "{took:?}");
        if kind == "KILL" {
            stage.synod.start_node(&primary);
        } else {
            until("a while with a node that is stopped", || {
                let passed = now().since(began);
                if passed > LEASE * 2 { Ok(()) } else { Err(format!("{passed:?}")) }
            });
            stage.synod.signal("CONT", &[&primary]);
        }
        for name in ["a", "b"] {
            stage.synod.wait_ready(name);
            stage.synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        }
        led = stage.resource.wait_later(next.epoch - 1);
    }
    let document = stage.wait_document("a", "running", |one| one["state"] == "running");
    let primary = document["primary"].as_str().unwrap().to_owned();
    stage.wait_document(other(&primary), "a secondary", |document| {
        document["secondaries"][0] == other(&primary)
    });
    stage.synod.stop_node(&primary);
    stage.resource.wait_later(led.epoch);
    assert!(!is_alive(led.pid));
    assert!(stage.resource.check_alone() >= 4);
}

/// Goal: the verbs, at run time, as the contract says; what cannot be is refused with what is wrong.
#[test]
fn services_are_added_moved_frozen_and_shown_by_the_command_line() {
    let _machine = shared();
    let stage = Stage::new();
    let flag = stage.synod.dir().join("well");
    fs::write(&flag, "").unwrap();
    let (program, well) = (stage.resource.program(""), format!("test -e {}", flag.display()));
    let probes = ["--ready", &well, "--live", &well, "--probe-every", "100ms", "--lease", "60s"];
    let words = [&["add", "touch"], &probes[..], &["--", "sh", "-c", &program]].concat();
    stage.done(&words);
    let led = stage.resource.wait_later(0);
    let document = stage.wait_document("b", "running", |one| one["state"] == "running");
    let from = document["primary"].as_str().unwrap().to_owned();
    let to = other(&from);
    stage.wait_document(&from, "a secondary", |document| document["secondaries"][0] == to);
    // With a lease of a minute only what was given up runs elsewhere so soon.
    stage.done(&["move", "touch", to]);
    let moved = stage.resource.wait_later(led.epoch);
    assert!(!is_alive(led.pid));
    stage.wait_document(&from, "it moved", |document| document["primary"] == to);
    // Not well: restarted, in its epoch.
    stage.wait_document(&from, "running", |one| one["state"] == "running");
    fs::remove_file(&flag).unwrap();
    until("a restart", || match is_alive(moved.pid) {
        true => Err("it runs".to_owned()),
        false => Ok(()),
    });
    fs::write(&flag, "").unwrap();
    let again = until("a program that runs again", || {
        let last = stage.resource.last();
        if last.pid == moved.pid { Err(format!("{last:?}")) } else { Ok(last) }
    });
    assert_eq!(again.epoch, moved.epoch);
    stage.done(&["freeze", "touch"]);
    stage.wait_document("a", "frozen", |one| one["state"] == "frozen");
    assert!(!is_alive(stage.resource.last().pid));
    stage.done(&["unfreeze", "touch"]);
    stage.resource.wait_later(again.epoch);
    what_cannot_be_is_refused(&stage);
    what_others_stand_on_goes_last(&stage);
    until("no program", || match is_alive(stage.resource.last().pid) {
        true => Err("it runs".to_owned()),
        false => Ok(()),
    });
    let metrics = stage.synod.http("a").get("/metrics").unwrap().text();
    assert!(metrics.contains("synod_service_moves_total{service=\"touch\"}"), "{metrics}");
    stage.resource.check_alone();
}

fn what_cannot_be_is_refused(stage: &Stage) {
    let (code, out, _) = stage.services(&["touch"]);
    assert!(code == 0 && out.contains("touch") && out.contains("sh -c"), "{out}");
    let (_, out, _) = stage.services(&["--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["services"][0]["service"], "touch", "{out}");
    assert_eq!(stage.synod.status("a").unwrap()["services"][0]["service"], "touch");
    for (args, code, part) in [
        (&["add", "touch", "--", "true"][..], 1, "already"),
        (&["add", "bad", "--lease", "1ms", "--", "true"], 2, "300ms"),
        (&["add", "bad"], 2, "CMD"),
        (&["move", "touch", "z"], 1, "z is no main or member; name one of a, b"),
        (&["add", "bad", "--providers", "a,q", "--", "true"], 1, "q is no main or member"),
        (&["add", "bad", "--secondaries", "3", "--", "true"], 1, "3 secondaries, and 1 other"),
        (&["add", "bad", "--needs", "none", "--", "true"], 1, "add none first"),
        (&["add", "bad", "--with", "bad", "--", "true"], 2, "it names itself"),
        (&["add", "bad", "--export", "true", "--", "true"], 2, "--import"),
        (&["add", "bad", "--", "no-such-program"], 1, "there is no program no-such-program"),
        (&["move", "none", "a"], 1, "no service none"),
        (&["providers", "touch", "b"], 2, "+NODE"),
        (&["providers", "touch", "+b"], 1, "all mains and members provide it"),
        (&["providers", "touch", "-a", "-b"], 1, "none would be left"),
        (&["providers", "touch", "-q"], 1, "q is no main or member"),
        (&["set", "touch", "--secondaries", "2"], 1, "2 secondaries, and 1 other"),
        (&["checkpoint", "touch"], 1, "it has no checkpoints"),
        (&["checkpoint", "none"], 1, "no service none"),
    ] {
        let (got, _, error) = stage.services(args);
        assert!(got == code && error.contains(part), "{args:?}: {got} {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let (_, out, _) = stage.services(&["--json"]);
    assert!(!out.contains("bad"), "half of it was applied: {out}");
    // A program that ends at once.
    let (code, _, error) = stage.services(&["add", "dead", "--", "sh", "-c", "exit 7"]);
    assert!(code == 1 && error.contains("applied") && error.contains("ended with 7"), "{error}");
    until("it failed", || {
        let document = stage.document("a", "dead")?;
        match document["why"].as_str() {
            Some(why) if why.contains("ended with 7") => Ok(()),
            _ => Err(document.to_string()),
        }
    });
    stage.done(&["remove", "dead"]);
}

fn what_others_stand_on_goes_last(stage: &Stage) {
    stage.done(&["add", "top", "--needs", "touch", "--", "sleep", "600"]);
    stage.done(&["add", "side", "--with", "touch", "--", "sleep", "600"]);
    let (code, _, error) = stage.services(&["remove", "touch"]);
    assert!(code == 1 && error.contains("remove side first"), "{error}");
    let place = |service: &str| stage.document("a", service).unwrap()["primary"].clone();
    assert_eq!(place("side"), place("touch"));
    stage.done(&["remove", "top"]);
    stage.done(&["remove", "side"]);
    stage.done(&["remove", "touch"]);
    until("no service", || match stage.document("b", "touch") {
        Ok(document) => Err(document.to_string()),
        Err(_) => Ok(()),
    });
}

/// Goal: the state is passed on by export and import: whoever takes over goes on from there.
#[test]
fn whoever_takes_over_goes_on_from_the_last_checkpoint() {
    let _machine = shared();
    let mut stage = Stage::new();
    let state = stage.synod.dir().join("state").display().to_string();
    let program = format!(
        "n=$(cat {state}.$SYNOD_NODE 2>/dev/null || echo 0); \
         while :; do n=$((n+1)); echo $n > {state}.new; mv {state}.new {state}.$SYNOD_NODE; \
         sleep 0.01; done"
    );
    let export = format!("cat {state}.$SYNOD_NODE");
    let import =
        format!("cat > {state}.$SYNOD_NODE.in && mv {state}.$SYNOD_NODE.in {state}.$SYNOD_NODE");
    let passed_on = ["--export", &export, "--import", &import, "--every", "200ms"];
    let words = [&["add", "touch"], &passed_on[..], &["--", "sh", "-c", &program]].concat();
    stage.done(&words);
    let known = |node: &str| -> Result<u64, String> {
        let text = fs::read_to_string(format!("{state}.{node}")).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|_| format!("{text:?}"))
    };
    let first = stage.wait_document("a", "running", |one| one["state"] == "running");
    let first = first["primary"].as_str().unwrap().to_owned();
    let second = other(&first);
    stage.wait_document(&first, "a secondary", |one| one["secondaries"][0] == second);
    let so_far = until("a hundred counted", || match known(second)? {
        so_far if so_far > 100 => Ok(so_far),
        so_far => Err(so_far.to_string()),
    });
    stage.synod.kill(&[&first]);
    stage.wait_document(second, "another primary", |one| {
        one["primary"] == second && one["state"] == "running"
    });
    let went_on = until("it goes on", || match known(second)? {
        more if more > so_far + 50 => Ok(more),
        more => Err(more.to_string()),
    });
    println!("{so_far} were known when its node was killed, and then {went_on}");
    // Nobody is there to have another one; with a secondary again one that is asked for is waited for.
    let (code, _, error) = stage.services(&["checkpoint", "touch"]);
    assert!(code == 1 && error.contains("it has no secondary"), "{code} {error}");
    stage.synod.start_node(&first);
    stage.wait_document(second, "a secondary", |one| one["secondaries"][0] == first.as_str());
    let counted = known(second).unwrap();
    let (code, out, error) = stage.services(&["checkpoint", "touch", "--json"]);
    assert_eq!(code, 0, "{error}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said, serde_json::json!({"outcome": "applied", "nodes": [first]}));
    assert!(known(&first).unwrap() >= counted, "it was answered before it was there");
}

/// The default.
const LEASE: Duration = Duration::from_secs(2);

/// Half a second is promised; the rest is for a machine that builds and tests beside it.
const SLACK: Duration = Duration::from_millis(1_500);
