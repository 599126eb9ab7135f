//! `synod elect`, with real processes: the program leads alone, and is gone before anybody else
//! leads, whatever dies or stops.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use synod_tests::process::{
    child::{Process, run},
    cluster::{Cluster, mains_of},
    machine::{alone, is_alive, shared, signal, wait_gone},
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

    /// `synod elect FLAGS --role jobs -- sh -c PROGRAM`.
    fn elect(&self, name: &str, flags: &[&str], program: &str) -> Process {
        let client = self.client();
        let words = [&["elect", "--cluster", &client, "--role", "jobs"][..], flags].concat();
        let words = [&words[..], &["--", "sh", "-c", program]].concat();
        Process::start(self.synod.program(), &words, &self.log(name))
    }

    fn wait_volunteer(&self) {
        until("a second one that stands", || {
            let role = self.synod.http("a").json("/roles/jobs")?;
            if role["volunteers"].as_array().is_some_and(|all| !all.is_empty()) {
                return Ok(());
            }
            Err(role.to_string())
        });
    }

    fn client(&self) -> String {
        self.synod.dir().join("client.toml").display().to_string()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.synod.dir().join(format!("{name}.log"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["first", "second", "third"] {
                eprintln!("--- {name}\n{}", said(&self.log(name)));
            }
            for node in ["a", "b"] {
                eprintln!("--- roles at {node}: {:?}", self.synod.http(node).json("/roles/jobs"));
            }
        }
    }
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

#[test]
fn a_program_that_ends_gives_its_role_to_the_next_at_once_and_its_status_to_elect() {
    let _machine = shared();
    let stage = Stage::new();
    let ends = format!("echo $SYNOD_EPOCH 1 $$ >> {}; exit 7", stage.resource.path().display());
    let mut first = stage.elect("first", &["--lease", "60s"], &ends);
    assert_eq!(first.wait().code(), Some(7), "{}", said(&stage.log("first")));
    let before = stage.resource.wait_later(0).epoch;
    // With a lease of a minute only a role that was given up is free again so soon.
    let mut second = stage.elect("second", &["--lease", "60s"], &stage.resource.program(""));
    let leader = stage.resource.wait_later(before);
    second.signal("TERM");
    assert_eq!(second.wait().code(), Some(0), "{}", said(&stage.log("second")));
    wait_gone(leader.pid);
    let mut third = stage.elect("third", &["--lease", "60s"], "exit 0");
    assert_eq!(third.wait().code(), Some(0), "{}", said(&stage.log("third")));
    stage.resource.check_alone();
}

#[test]
fn a_program_dies_with_elect_and_the_next_need_not_wait_for_the_lease() {
    let _machine = shared();
    let stage = Stage::new();
    // What it leaves behind in a session of its own dies too.
    let orphan = stage.synod.dir().join("orphan");
    let before = format!("setsid sh -c 'echo $$ > {}; exec sleep 600' &", orphan.display());
    let mut first = stage.elect("first", &["--lease", "60s"], &stage.resource.program(&before));
    let led = stage.resource.wait_later(0);
    let orphan: u32 = until("the orphan", || {
        let text = fs::read_to_string(&orphan).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|_| text)
    });
    let _second = stage.elect("second", &["--lease", "60s"], &stage.resource.program(""));
    let killed = now();
    signal("KILL", &[first.pid()]);
    first.wait();
    let next = stage.resource.wait_later(led.epoch);
    println!("kill -9 of elect: another leads after {} ms", now().since(killed).as_millis());
    assert!(!is_alive(led.pid) && !is_alive(orphan), "{next:?}");
    stage.resource.check_alone();
}

#[test]
fn a_program_is_gone_in_time_when_elect_is_stopped_even_if_it_does_not_want_to() {
    let _machine = shared();
    let stage = Stage::new();
    let stubborn = stage.resource.program("trap '' TERM;");
    let mut first = stage.elect("first", &[], &stubborn);
    let led = stage.resource.wait_later(0);
    let mut second = stage.elect("second", &[], &stubborn);
    stage.wait_volunteer();
    let stopped = now();
    first.signal("STOP");
    let next = stage.resource.wait_later(led.epoch);
    let took = now().since(stopped);
    println!("elect stopped: another leads after {} ms", took.as_millis());
    assert!(!is_alive(led.pid), "{next:?}");
    assert!(took < LEASE + Duration::from_secs(2), "{took:?}");
    first.signal("CONT");
    assert_eq!(first.wait().code(), Some(5), "{}", said(&stage.log("first")));
    assert!(said(&stage.log("first")).contains("leadership lost"));
    second.signal("TERM");
    assert_eq!(second.wait().code(), Some(0));
    assert_eq!(stage.resource.check_alone(), 2);
}

#[test]
fn a_node_that_dies_or_stops_costs_no_role_while_another_can_be_asked() {
    let _machine = shared();
    let mut stage = Stage::new();
    let program = stage.resource.program("");
    let _elect = stage.elect("elect", &["--lease", "4s"], &program);
    let led = stage.resource.wait_later(0);
    for (kind, name) in [("STOP", "a"), ("KILL", "b")] {
        if kind == "STOP" {
            stage.synod.signal(kind, &[name]);
        } else {
            stage.synod.kill(&[name]);
        }
        let before = now();
        until("more than a lease", || match now().since(before) > Duration::from_secs(5) {
            true => Ok(()),
            false => Err(String::new()),
        });
        let last = stage.resource.last();
        assert_eq!((last.epoch, last.pid), (led.epoch, led.pid), "{kind} {name}");
        assert!(is_alive(led.pid), "{kind} {name}: {}", said(&stage.log("elect")));
        if kind == "STOP" {
            stage.synod.signal("CONT", &[name]);
            for name in ["a", "b"] {
                stage.synod.wait_ready(name);
                stage
                    .synod
                    .wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
            }
        }
    }
}

#[test]
fn whose_only_node_stops_loses_the_role_in_time_and_may_stand_again() {
    let _machine = alone();
    let stage = Stage::new();
    let program = stage.resource.program("");
    let mut first = stage.elect("first", &["--node", "a", "--keep"], &program);
    let led = stage.resource.wait_later(0);
    // It stands at the first node too, which is not going to answer.
    let mut second = stage.elect("second", &[], &program);
    stage.wait_volunteer();
    let stopped = now();
    stage.synod.signal("STOP", &["a"]);
    let next = stage.resource.wait_later(led.epoch);
    let took = now().since(stopped);
    println!("its node stopped: who stood there leads after {} ms", took.as_millis());
    assert!(!is_alive(led.pid), "{next:?}");
    assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
    until("a while with a node that is stopped", || {
        let touches = stage.resource.touches().iter().filter(|one| one.epoch == next.epoch).count();
        if touches > 100 { Ok(()) } else { Err(format!("{touches} touches")) }
    });
    stage.synod.signal("CONT", &["a"]);
    ["a", "b"].iter().for_each(|name| stage.synod.wait_ready(name));
    second.signal("TERM");
    assert_eq!(second.wait().code(), Some(0), "{}", said(&stage.log("second")));
    let again = stage.resource.wait_later(next.epoch);
    assert_ne!(again.pid, led.pid);
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0), "{}", said(&stage.log("first")));
    assert_eq!(stage.resource.check_alone(), 3);
}

#[test]
fn a_cluster_without_a_quorum_stops_all_programs_in_time() {
    let _machine = alone();
    let stage = Stage::new();
    let mut elect =
        stage.elect("elect", &["--lease", "1s"], &stage.resource.program("trap '' TERM;"));
    let led = stage.resource.wait_later(0);
    // One that stands too tells who looks on that it waits for nodes, and not for its turn.
    let mut waits = stage.elect("second", &["--timeout", "1s"], "exit 0");
    stage.wait_volunteer();
    let stopped = now();
    stage.synod.signal("STOP", &["a", "b"]);
    wait_gone(led.pid);
    let took = now().since(stopped);
    assert!(took < Duration::from_secs(1), "gone after {took:?}");
    assert_eq!(elect.wait().code(), Some(5), "{}", said(&stage.log("elect")));
    let hears = |what: &str| match said(&stage.log("second")) {
        text if text.contains(what) => Ok(()),
        text => Err(text),
    };
    until("word of the silence", || hears("nobody lets it stand"));
    stage.synod.signal("CONT", &["a", "b"]);
    assert_eq!(waits.wait().code(), Some(0), "{}", said(&stage.log("second")));
    hears("serve again").unwrap_or_else(|text| panic!("{text}"));
}

#[test]
fn several_roles_have_a_program_each_and_end_together() {
    let _machine = shared();
    let stage = Stage::new();
    let program =
        format!("echo $SYNOD_ROLE $SYNOD_NODE >> {}; sleep 600", stage.resource.path().display());
    let mut elect = stage.elect("elect", &["--role", "mail"], &program);
    let lines = until("both roles", || {
        let text = fs::read_to_string(stage.resource.path()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        if lines.len() == 2 { Ok(lines) } else { Err(text) }
    });
    for (line, role) in lines.iter().zip(["jobs", "mail"]) {
        assert!([format!("{role} a"), format!("{role} b")].contains(line), "{lines:?}");
    }
    elect.signal("TERM");
    assert_eq!(elect.wait().code(), Some(0), "{}", said(&stage.log("elect")));
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let _machine = shared();
    let stage = Stage::new();
    let client = stage.client();
    let elect = |words: &[&str]| {
        let (code, _, error) =
            run(stage.synod.program(), &[&["elect", "--cluster", &client][..], words].concat());
        (code, error)
    };
    for (words, code, part) in [
        (&["--role", "jobs", "--", "no-such-program"][..], 2, "no such program"),
        (&["--role", "jobs"], 2, "<CMD>"),
        (&["--", "true"], 2, "--role"),
        (&["--role", "a b", "--", "true"], 2, "no name of a role"),
        (&["--role", "jobs", "--role", "jobs", "--", "true"], 2, "there twice"),
        (&["--role", "jobs", "--node", "z", "--", "true"], 2, "no such main"),
        (&["--role", "jobs", "--lease", "10ms", "--", "true"], 2, "300ms"),
    ] {
        let (got, error) = elect(words);
        assert!(got == code && error.contains(part), "{words:?}: {got} {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let role = stage.synod.http("a").get("/roles/jobs").unwrap();
    assert_eq!(role.status, 404, "{}", role.text());
    stage.synod.signal("STOP", &["a", "b", "x"]);
    let (code, error) = elect(&["--role", "jobs", "--timeout", "500ms", "--", "true"]);
    stage.synod.signal("CONT", &["a", "b", "x"]);
    assert_eq!(code, 3, "{error}");
}

/// The default.
const LEASE: Duration = Duration::from_secs(2);
