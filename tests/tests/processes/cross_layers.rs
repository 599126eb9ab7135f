//! Everything at once, with real processes: one node leads the log, is the system manager, runs a
//! service, grants a role and orders a group; it is stopped for half a minute, and goes on; it is
//! killed; it is cut off. And an auxiliary that hears nothing, whatever store keeps roles.

use std::{collections::BTreeSet, fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use synod_tests::{
    process::{
        child::{Process, run},
        cluster::{Cluster, mains_of},
        load::{KvWriter, Load},
        machine::{alone, is_alive, shared, written_bytes},
        resource::{Resource, Touch},
        stalls::unchanged_by,
        wait::{holds_for, now, pause, until},
    },
    relay::Relay,
};

/// A cluster with a group, a service, a role, and the resources that the two programs touch.
struct Stage {
    synod: Cluster,
    service: Resource,
    role: Resource,
    elected: Vec<Process>,
    published: u64,
}

impl Stage {
    fn new(synod: Cluster) -> Self {
        let [service, role] = ["by-service", "by-role"].map(|name| {
            let dir = synod.dir().join(name);
            fs::create_dir(&dir).unwrap();
            Resource::new(&dir)
        });
        Self { synod, service, role, elected: Vec::new(), published: 0 }
    }

    fn client(&self) -> String {
        self.synod.dir().join("client.toml").display().to_string()
    }

    /// `synod WORDS…`, the first two of which are verbs.
    fn done(&self, words: &[&str]) {
        let client = self.client();
        let (verb, rest) = words.split_at(2);
        let words = [verb, &["--cluster", &client], rest].concat();
        let (code, _, error) = run(self.synod.program(), &words);
        assert_eq!(code, 0, "{words:?}: {error}");
    }

    fn elect(&mut self, node: &str) {
        let (client, program) = (self.client(), self.role.program(""));
        let words = ["elect", "--cluster", &client, "--role", "jobs", "--node", node, "--keep"];
        let words = [&words[..], &["--", "sh", "-c", &program]].concat();
        let log = self.synod.dir().join(format!("elect-{node}.log"));
        self.elected.push(Process::start(self.synod.program(), &words, &log));
    }

    /// One more line for the group; it is committed.
    fn publish(&mut self) {
        use std::io::Write as _;
        let client = self.client();
        let words = ["publish", "news", "--cluster", &client, "--timeout", "20s"];
        let mut publisher = std::process::Command::new(self.synod.program())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let line = format!("line {}\n", self.published);
        publisher.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        assert!(publisher.wait().unwrap().success(), "{line} was not committed");
        self.published += 1;
    }

    /// All lines of the group, as a subscriber gets them: each once, in order, numbers without gaps.
    fn check_group(&self) {
        let (client, count) = (self.client(), self.published.to_string());
        let words =
            ["subscribe", "news", "--cluster", &client, "--from", "checkpoint", "--count", &count];
        let (code, out, error) = run(self.synod.program(), &words);
        assert_eq!(code, 0, "{error}");
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(out.lines()) {
            let mut parts = line.splitn(3, '\t');
            assert_eq!(parts.next().unwrap().parse::<u64>().unwrap(), number, "{out}");
            lines.extend(parts.nth(1).map(str::to_owned).filter(|text| !text.is_empty()));
        }
        let expected: Vec<_> = (0..self.published).map(|line| format!("line {line}")).collect();
        assert_eq!(lines, expected);
    }

    fn document(&self, node: &str, path: &str) -> Value {
        self.synod.http(node).json(path).unwrap_or_default()
    }

    /// Lets one node have it all; answers which, and the epochs of service and role there.
    fn gather(&mut self) -> (String, u64, u64) {
        self.publish();
        let orders = until("a main orders the group", || {
            let status = self.synod.status("a")?;
            let orders = status["groups"][0]["sequencer"].as_str().unwrap_or_default().to_owned();
            if orders == "m1" {
                // A member orders: it rests until a main does.
                self.synod.signal("STOP", &["m1"]);
            }
            match ["a", "b"].contains(&orders.as_str()) {
                true => Ok(orders),
                false => Err(status["groups"].to_string()),
            }
        });
        self.synod.signal("CONT", &["m1"]);
        self.done(&["members", "lead", &orders]);
        self.synod.wait_status("a", "it leads", |status| status["leader"] == orders.as_str());
        let touch = self.service.program("");
        self.done(&["services", "add", "touch", "--", "sh", "-c", &touch]);
        self.done(&["services", "move", "touch", &orders]);
        self.elect(&orders);
        let led = self.role.wait_later(0);
        self.elect(if orders == "a" { "b" } else { "a" });
        until("a second one stands", || {
            let role = self.document("m1", "/roles/jobs");
            let stand = role["volunteers"].as_array().map_or(0, Vec::len);
            if stand == 1 { Ok(()) } else { Err(role.to_string()) }
        });
        until("a secondary", || {
            let one = self.document("m1", "/services/touch");
            let good = one["primary"] == orders.as_str() && one["secondaries"][0].is_string();
            if good { Ok(()) } else { Err(one.to_string()) }
        });
        let manager = self.document("m1", "/roles/system-manager");
        assert_eq!(manager["leader"], orders.as_str(), "{manager}");
        (orders, self.service.last().epoch, led.epoch)
    }
}

/// Goal: X1 and X2. The node that leads everything is stopped for half a minute: all of it is elsewhere
/// within the lease and a moment, and when the node goes on nothing it still says is accepted, and none
/// of its programs runs beside another. Then the one that has it all by then is killed: the same, and
/// what was acknowledged is there.
#[test]
fn x1_x2_the_node_that_leads_everything_is_stopped_and_killed() {
    let _machine = shared();
    let synod = Cluster::dev("synod", &["--members", "1", "--no-restart"]);
    let mut stage = Stage::new(synod);
    let (orders, served, led) = stage.gather();
    let other = if orders == "a" { "b" } else { "a" };
    let (held, ran) = (stage.service.last(), stage.role.last());
    assert_eq!(put(&stage, &orders, "before", &format!("touch/primary {served}")).0, 204);
    let began = now();
    stage.synod.signal("STOP", &[&orders]);
    let next = stage.service.wait_later(served);
    println!("X2: the service runs elsewhere after {} ms", now().since(began).as_millis());
    let role = stage.role.wait_later(led);
    println!("X2: the role has another after {} ms", now().since(began).as_millis());
    assert!(now().since(began) < LEASE + SLACK, "{:?}", now().since(began));
    assert!(!is_alive(held.pid) && !is_alive(ran.pid), "gone before another began");
    stage.publish();
    println!("X2: the group orders again after {} ms", now().since(began).as_millis());
    let manager = stage.document(other, "/roles/system-manager");
    assert_eq!(manager["leader"], other, "{manager}");
    assert_eq!(put(&stage, other, "during", &format!("touch/primary {}", next.epoch)).0, 204);
    let rest = Duration::from_secs(30).saturating_sub(now().since(began));
    holds_for(rest, "it stays", || still(&stage, next.epoch, role.epoch));
    stage.synod.signal("CONT", &[&orders]);
    // What it writes in its old epoch is refused, at itself too; its role is over.
    let (status, document) = put(&stage, &orders, "stale", &format!("touch/primary {served}"));
    assert_eq!((status, &document["outcome"]), (412, &json!("not_applied")), "{document}");
    ["a", "b"].iter().for_each(|name| stage.synod.wait_ready(name));
    stage.synod.wait_status(other, "both mains", |status| mains_of(status) == ["a", "b"]);
    stage.publish();
    assert_eq!(stage.service.last().epoch, next.epoch, "a live primary keeps it");
    stage.service.check_alone();
    stage.role.check_alone();
    // X1: now that node has it all; but for the group, which orders itself elsewhere or there.
    until("a secondary again", || {
        let one = stage.document("m1", "/services/touch");
        if one["secondaries"][0].is_string() { Ok(()) } else { Err(one.to_string()) }
    });
    let views = stage.synod.status("m1").unwrap()["view"].as_u64().unwrap();
    let began = now();
    stage.synod.kill(&[other]);
    stage.service.wait_later(next.epoch);
    println!("X1: the service runs elsewhere after {} ms", now().since(began).as_millis());
    stage.role.wait_later(role.epoch);
    println!("X1: the role has another after {} ms", now().since(began).as_millis());
    assert!(now().since(began) < LEASE + SLACK, "{:?}", now().since(began));
    stage.publish();
    println!("X1: the group orders again after {} ms", now().since(began).as_millis());
    let status =
        stage.synod.wait_status(&orders, "one main", |status| mains_of(status) == [&orders]);
    assert_eq!(status["view"].as_u64().unwrap(), views + 1, "one view for one death: {status}");
    for key in ["before", "during"] {
        let answer = stage.synod.http(&orders).get(&format!("/kv/{key}")).unwrap();
        assert_eq!((answer.status, answer.text()), (200, "v".to_owned()), "{key}");
    }
    assert_eq!(stage.synod.http(&orders).get("/kv/stale").unwrap().status, 404);
    stage.check_group();
    assert_eq!(stage.service.check_alone(), 3 + usize::from(held.epoch != first(&stage.service)));
    stage.role.check_alone();
}

fn first(resource: &Resource) -> u64 {
    resource.touches()[0].epoch
}

/// `PUT /kv/KEY` with that fence, until the node answers other than that it cannot now.
fn put(stage: &Stage, node: &str, key: &str, fence: &str) -> (u16, Value) {
    until("an answer to a write", || {
        let path = format!("/kv/{key}");
        let answer = stage.synod.http(node).request("PUT", &path, &[("synod-fence", fence)], b"v");
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        match answer.status {
            503 | 504 => Err(answer.text()),
            204 => Ok((204, Value::Null)),
            status => Ok((status, answer.json())),
        }
    })
}

/// Goal: X3. The node that leads everything is cut off from the other main and the auxiliary: only those
/// go on, and what ran on it is gone before any of it runs there. While it is alone it applies nothing,
/// and says that what it shows may be old. When it is back it is a secondary, and nothing moves.
#[test]
fn x3_of_two_sides_one_goes_on_and_nothing_moves_when_they_meet_again() {
    let _machine = shared();
    let mut synod = Cluster::by_hand("synod");
    let relays = Relay::around(&synod, "a");
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    let mut stage = Stage::new(synod);
    stage.done(&["members", "lead", "a"]);
    stage.synod.wait_status("a", "it leads", |status| status["leader"] == "a");
    let touch = stage.service.program("");
    stage.done(&["services", "add", "touch", "--", "sh", "-c", &touch]);
    stage.done(&["services", "move", "touch", "a"]);
    stage.elect("a");
    stage.role.wait_later(0);
    stage.elect("b");
    until("somebody else stands for both", || {
        let (one, role) =
            (stage.document("a", "/services/touch"), stage.document("a", "/roles/jobs"));
        let good = one["primary"] == "a" && one["secondaries"][0] == "b" && one["stale"] == false;
        if good && role["volunteers"][0].is_string() {
            Ok(())
        } else {
            Err(format!("{one} {role}"))
        }
    });
    let (held, ran) = (stage.service.last(), stage.role.last());
    assert_eq!(put(&stage, "a", "before", &format!("touch/primary {}", held.epoch)).0, 204);
    let began = now();
    relays.iter().for_each(Relay::cut);
    // Asked by whom it cannot know that it is alone yet, or knows it: nothing is applied either way.
    let fence = format!("touch/primary {}", held.epoch);
    let mut alone = stage.synod.http("a").patience(Duration::from_secs(15));
    let alone = std::thread::spawn(move || {
        alone.request("PUT", "/kv/alone", &[("synod-fence", &fence)], b"v").map(|one| one.status)
    });
    let next = stage.service.wait_later(held.epoch);
    println!("X3: the service runs on the other side after {} ms", now().since(began).as_millis());
    let role = stage.role.wait_later(ran.epoch);
    println!("X3: the role has another there after {} ms", now().since(began).as_millis());
    assert!(now().since(began) < LEASE + SLACK, "{:?}", now().since(began));
    assert!(!is_alive(held.pid) && !is_alive(ran.pid), "gone before another began");
    assert_eq!(put(&stage, "b", "during", &format!("touch/primary {}", next.epoch)).0, 204);
    stage.synod.wait_status("b", "it goes on", |status| mains_of(status) == ["b"]);
    // Either of them would do.
    let halted = |status: &Value| status["halted"] == "needs main b or auxiliary x";
    stage.synod.wait_status("a", "it waits for the others", halted);
    let refused = alone.join().unwrap();
    assert!(matches!(refused, Ok(503 | 504)), "a minority applied it: {refused:?}");
    let shown = stage.document("a", "/services/touch");
    assert_eq!((&shown["stale"], &shown["primary"]), (&json!(true), &json!("a")), "{shown}");
    holds_for(LEASE * 2, "the other side goes on", || still(&stage, next.epoch, role.epoch));
    relays.iter().for_each(Relay::heal);
    ["a", "b"].iter().for_each(|name| stage.synod.wait_ready(name));
    stage.synod.wait_status("b", "both mains", |status| mains_of(status) == ["a", "b"]);
    until("it is a secondary", || {
        let one = stage.document("a", "/services/touch");
        let good = one["primary"] == "b" && one["secondaries"][0] == "a" && one["stale"] == false;
        if good { Ok(()) } else { Err(one.to_string()) }
    });
    holds_for(LEASE * 3, "nothing moves", || still(&stage, next.epoch, role.epoch));
    let (status, _) = put(&stage, "a", "stale", &format!("touch/primary {}", held.epoch));
    assert_eq!(status, 412);
    for (key, status) in [("before", 200), ("during", 200), ("stale", 404)] {
        let answer = stage.synod.http("a").get(&format!("/kv/{key}")).unwrap();
        assert_eq!(answer.status, status, "{key}");
    }
    if matches!(refused, Ok(503)) {
        assert_eq!(stage.synod.http("b").get("/kv/alone").unwrap().status, 404, "not applied");
    }
    stage.service.check_alone();
    stage.role.check_alone();
}

/// Service and role are where they were.
fn still(stage: &Stage, service: u64, role: u64) -> Result<(), String> {
    let last = (stage.service.last().epoch, stage.role.last().epoch);
    if last == (service, role) { Ok(()) } else { Err(format!("{last:?}")) }
}

/// Goal: X4, whatever store keeps roles, an auxiliary hears signs of life only and writes nothing while
/// services, roles and clients work; a main that dies costs it a reconfiguration and what was open,
/// and then it idles again.
#[test]
fn x4_an_auxiliary_idles_whatever_store_keeps_roles() {
    let _machine = alone();
    for store in ["paxos", "register", "disk"] {
        let mut synod = Cluster::by_hand("synod");
        // A main whose disk stands still for a tenth of a second is as good as silent.
        synod.keep_in_memory(&["a", "b"]);
        for node in ["a", "b", "x"] {
            let section = format!("[elections]\nstore = \"{store}\"\n\n[tls]");
            synod.rewrite(node, "[tls]", &section);
            synod.start_node(node);
        }
        ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
        let mut stage = Stage::new(synod);
        let pid = stage.synod.node("x").pid;
        let led = works_beside_an_idle_auxiliary(&mut stage, store);
        let before = heard(&stage);
        // The main that has the role dies, and comes back.
        stage.synod.kill(&["a"]);
        stage.role.wait_later(led.epoch);
        stage.synod.start_node("a");
        stage.synod.wait_ready("a");
        stage.synod.wait_status("b", "both mains", |status| mains_of(status) == ["a", "b"]);
        // One slow sync of a main is reason enough to ask it once more: what counts is that it comes
        // to rest, and stays so while roles are renewed.
        let settled = until("it idles again", || {
            let before = (heard(&stage), written_bytes(pid));
            let since = now();
            while now().since(since) < LEASE * 2 {
                pause();
                let after = (heard(&stage), written_bytes(pid));
                if after != before {
                    return Err(format!("{after:?}"));
                }
            }
            Ok(before.0)
        });
        assert_ne!(settled, before, "{store}: it was needed meanwhile");
        stage.role.check_alone();
    }
}

/// Services, roles and clients work, and the auxiliary neither hears nor writes anything of it; who has
/// the role then.
fn works_beside_an_idle_auxiliary(stage: &mut Stage, store: &str) -> Touch {
    let pid = stage.synod.node("x").pid;
    let mut led = None;
    let look = |stage: &Stage| (heard(stage), written_bytes(pid));
    let what = format!("{store}: what the auxiliary heard, and wrote");
    unchanged_by(&what, stage, look, |stage, first| {
        if first {
            let touch = stage.service.program("");
            stage.done(&["services", "add", "touch", "--", "sh", "-c", &touch]);
            stage.elect("a");
            led = Some(stage.role.wait_later(0));
            stage.elect("b");
        }
        let load = Load::start(&stage.synod.resps(), KvWriter::connect, 4);
        load.wait_for_more(500);
        until("a secondary", || {
            let one = stage.document("b", "/services/touch");
            if one["secondaries"][0].is_string() { Ok(()) } else { Err(one.to_string()) }
        });
        let epoch = led.as_ref().map(|led| led.epoch);
        holds_for(LEASE * 3, "nobody takes the role", || match stage.role.last().epoch {
            now if Some(now) == epoch => Ok(()),
            now => Err(now.to_string()),
        });
        println!("{store}: {}", load.finish());
    });
    led.expect("it was taken the first time")
}

/// Goal: R3.18, R3.19, R3.22: with roles on three plain directories that two nodes share, any one
/// directory may be lost, and either node: the other takes over, and goes on alone, without the other
/// main, the auxiliary, or a leader of the log.
#[test]
fn r3_19_two_nodes_and_three_directories_survive_either_node_and_any_directory() {
    let _machine = shared();
    let synod = Cluster::by_hand("synod");
    let disks = ["one", "two", "three"].map(|disk| synod.dir().join(disk));
    disks.iter().for_each(|disk| fs::create_dir(disk).unwrap());
    let named = disks.each_ref().map(|disk| format!("{:?}", disk.display().to_string()));
    let mut stage = Stage::new(synod);
    for node in ["a", "b", "x"] {
        let section =
            format!("[elections]\nstore = \"disk\"\ndisks = [{}]\n\n[tls]", named.join(","));
        stage.synod.rewrite(node, "[tls]", &section);
        stage.synod.start_node(node);
    }
    ["a", "b"].iter().for_each(|name| stage.synod.wait_ready(name));
    stage.elect("a");
    let mut led = stage.role.wait_later(0);
    stage.elect("b");
    until("a second one stands", || {
        let role = stage.document("b", "/roles/jobs");
        let stand = role["volunteers"].as_array().map_or(0, Vec::len);
        if stand == 1 { Ok(()) } else { Err(role.to_string()) }
    });
    // One disk is gone, and is no directory any more.
    fs::remove_dir_all(&disks[1]).unwrap();
    fs::write(&disks[1], "gone").unwrap();
    holds_for(LEASE * 2, "the holder keeps it", || match stage.role.last().epoch {
        epoch if epoch == led.epoch => Ok(()),
        epoch => Err(epoch.to_string()),
    });
    let began = now();
    stage.synod.kill(&["a", "x"]);
    let next = stage.role.wait_later(led.epoch);
    let took = now().since(began);
    println!("two of three directories, one node: a takeover after {} ms", took.as_millis());
    assert!(took < LEASE + SLACK && !is_alive(led.pid), "{took:?}");
    led = next;
    // Nobody leads the log now: neither the other main nor the auxiliary is there.
    holds_for(LEASE * 3, "it goes on alone", || {
        let last = stage.role.last();
        if last.epoch == led.epoch && is_alive(led.pid) { Ok(()) } else { Err(format!("{last:?}")) }
    });
    stage.role.check_alone();
}

/// What the auxiliary has heard and written, signs of life apart.
fn heard(stage: &Stage) -> BTreeSet<String> {
    let text = stage.synod.http("x").get("/metrics").unwrap().text();
    let counts = |line: &&str| {
        let messages = line.starts_with("synod_protocol_messages_received_total{");
        messages && !line.contains("role=\"heartbeat\"") || line.starts_with("synod_journal_")
    };
    text.lines().filter(counts).map(str::to_owned).collect()
}

/// The default.
const LEASE: Duration = Duration::from_secs(2);

/// Half a second is promised; the rest is for a machine that builds and tests beside it.
const SLACK: Duration = Duration::from_millis(2_000);
