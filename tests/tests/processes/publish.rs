//! `synod publish` and `synod subscribe`, with real processes: kill -9 of the node that orders, under
//! load, loses nothing and keeps the order; servers that are lost for good are replaced.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use synod_tests::process::{
    child::run,
    cluster::Cluster,
    machine::{shared, signal},
    wait::{holds_for, now, pause, until, until_within},
};

fn client(cluster: &Cluster) -> String {
    cluster.dir().join("client.toml").display().to_string()
}

fn start(cluster: &Cluster, words: &[&str]) -> Child {
    start_at(cluster, &client(cluster), words)
}

/// The same, of the nodes of that client file.
fn start_at(cluster: &Cluster, file: &str, words: &[&str]) -> Child {
    let mut command = Command::new(cluster.program());
    command.args(words).args(["--cluster", file]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Who orders the group, as any node says.
fn sequencer(cluster: &Cluster) -> String {
    until("somebody orders", || {
        let status = cluster.status("a")?;
        let group = status["groups"].get(0).ok_or("no group")?;
        group["sequencer"].as_str().map(str::to_owned).ok_or_else(|| "nobody".to_owned())
    })
}

/// Goal: every line is committed once, in the order of its publisher, and whoever listens has all of
/// them soon, though the sequencer's node is killed meanwhile.
#[test]
fn nothing_is_lost_when_the_sequencer_is_killed_under_load() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &["--members", "1"]);
    let many = LINES.to_string();
    let mut subscriber = start(&cluster, &["subscribe", "news", "--from", "1", "--count", &many]);
    let lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    let reader =
        thread::spawn(move || lines.map(|line| (now(), line.unwrap())).collect::<Vec<_>>());
    let mut publisher = start(&cluster, &["publish", "news", "--count-only", "--timeout", "30s"]);
    let mut input = publisher.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        for number in 0..LINES {
            writeln!(input, "line {number}").unwrap();
            // Some seconds of load, so that the kill comes in the midst of it.
            if number % 10 == 0 {
                pause();
            }
        }
    });
    let orders = sequencer(&cluster);
    let started = now();
    until("it is under load", || {
        let status = cluster.status(&orders)?;
        let largest = status["groups"][0]["largest"].as_u64().unwrap_or_default();
        if largest > LINES / 4 { Ok(()) } else { Err(format!("{largest}")) }
    });
    cluster.kill(&[&orders]);
    writer.join().unwrap();
    let output = publisher.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), many);
    assert!(subscriber.wait().unwrap().success());
    let heard = reader.join().unwrap();
    let pause = heard.windows(2).map(|two| two[1].0.since(two[0].0)).max().unwrap();
    println!("killed {orders} after {:?}; longest pause {pause:?}", now().since(started));
    let mut payloads = Vec::new();
    for (index, (_, line)) in heard.iter().enumerate() {
        let fields: Vec<_> = line.splitn(3, '\t').collect();
        assert_eq!(fields[0], (index + 1).to_string(), "numbers rise by one");
        if fields[1] != "-" {
            payloads.push(fields[2].to_owned());
        }
    }
    let expected: Vec<_> = (0..LINES).map(|number| format!("line {number}")).collect();
    assert_eq!(payloads, expected);
    assert!(pause < PAUSE_MAX, "{pause:?}");
    let (code, out, said) =
        run(cluster.program(), &["multicast", "status", "--json", "--cluster", &client(&cluster)]);
    assert_eq!(code, 0, "{said}");
    assert!(out.contains("\"group\":\"news\""), "{out}");
}

/// Publishes so many lines, one after the other; each has its number then.
fn publish(cluster: &Cluster, lines: std::ops::Range<u64>) {
    let mut publisher = start(cluster, &["publish", "news", "--count-only", "--timeout", "30s"]);
    let mut input = publisher.stdin.take().unwrap();
    lines.for_each(|number| writeln!(input, "line {number}").unwrap());
    drop(input);
    let output = publisher.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The messages that a subscriber printed until it ended, without numbers that came to nothing.
fn heard(subscriber: Child) -> Vec<String> {
    let output = subscriber.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let payloads = text.lines().filter_map(|line| line.splitn(3, '\t').nth(2));
    payloads.filter(|payload| !payload.is_empty()).map(str::to_owned).collect()
}

/// Starts all nodes again, with these measures of groups.
fn measure(cluster: &mut Cluster, keys: &str) {
    cluster.stop();
    let names: Vec<_> = cluster.nodes().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let mut file = OpenOptions::new().append(true).open(cluster.config(name)).unwrap();
        writeln!(file, "\n[[multicast]]\n{keys}").unwrap();
        cluster.start_node(name);
    }
    names.iter().for_each(|name| cluster.wait_ready(name));
}

/// The servers of the group as `node` knows them; nothing while one is on its way in.
fn servers(cluster: &Cluster, node: &str) -> Result<Vec<String>, String> {
    let status = cluster.status(node)?;
    let group = status["groups"].get(0).ok_or("no group")?;
    if !group["joining"].is_null() {
        return Err(format!("{} is on its way in", group["joining"]));
    }
    let names = group["servers"].as_array().into_iter().flatten();
    Ok(names.filter_map(|one| one.as_str().map(str::to_owned)).collect())
}

/// Goal: a server that is killed and not started again, and one that an operator removes, are
/// replaced by members that served nothing: three serve again, nobody did anything, and every line is
/// there though both are gone.
#[test]
fn servers_that_are_lost_for_good_are_replaced_by_spares() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &["--members", "4"]);
    measure(&mut cluster, "replace_after = \"2s\"\nevery = 200\nkeep = 20");
    publish(&cluster, 0..1_000);
    let first = until("it is served", || servers(&cluster, "a"));
    assert_eq!(first.len(), 3, "{first:?}");
    let killed = first.iter().find(|server| server.starts_with('m')).unwrap().clone();
    cluster.kill(&[&killed]);
    let started = now();
    publish(&cluster, 1_000..2_000);
    let second = until("a spare serves", || {
        let now = servers(&cluster, "a")?;
        if now.contains(&killed) { Err(format!("{now:?}")) } else { Ok(now) }
    });
    println!("{killed} was killed; {second:?} serve after {:?}", now().since(started));
    let removed = second.iter().find(|server| !first.contains(server)).unwrap().clone();
    let words = ["members", "remove", &removed, "--cluster", &client(&cluster)];
    let (code, _, said) = run(cluster.program(), &words);
    assert_eq!(code, 0, "{said}");
    publish(&cluster, 2_000..3_000);
    let third = until("another spare serves", || {
        let now = servers(&cluster, "a")?;
        if now.contains(&removed) { Err(format!("{now:?}")) } else { Ok(now) }
    });
    assert_eq!(third.len(), 3, "{third:?}");
    cluster.kill(&["b"]);
    publish(&cluster, 3_000..3_100);
    let heard = heard(start(&cluster, &["subscribe", "news", "--from", "1", "--count", "3100"]));
    let lines: Vec<_> = (0..3_100).map(|number| format!("line {number}")).collect();
    assert_eq!(heard, lines);
}

/// Goal: a node that serves nothing is fed by datagrams, as fast as its way takes them, and hears every
/// line; also when its feeder is killed, and when the sequencer has its largest number in a file only.
#[test]
fn a_node_fed_by_paced_datagrams_hears_every_line_though_its_feeder_is_killed() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &["--members", "2", "--no-restart"]);
    let keys = "datagrams = true\nparity = 4\npaced = true\nmaximum = \"local-file\"";
    measure(&mut cluster, keys);
    publish(&cluster, 0..500);
    let servers = until("it is served", || servers(&cluster, "a"));
    let fed = ["m1", "m2"].into_iter().find(|name| !servers.iter().any(|server| server == name));
    let fed = fed.expect("three serve");
    let file = fs::read_to_string(client(&cluster)).unwrap();
    let (head, nodes) = file.split_once("[[nodes]]").unwrap();
    let its_own = nodes.split("[[nodes]]").find(|node| node.contains(&format!("\"{fed}\"")));
    let only = cluster.dir().join("fed.toml");
    fs::write(&only, format!("{head}[[nodes]]{}", its_own.unwrap())).unwrap();
    let only = only.display().to_string();
    let words = ["subscribe", "news", "--from", "1", "--count", "2000"];
    let subscriber = start_at(&cluster, &only, &words);
    let feeder = until("it is fed", || {
        let status = cluster.status(fed)?;
        let feeder = &status["groups"][0]["fed_by"];
        feeder.as_str().map(str::to_owned).ok_or_else(|| status["groups"].to_string())
    });
    publish(&cluster, 500..1_000);
    cluster.kill(&[&feeder]);
    publish(&cluster, 1_000..2_000);
    let heard = heard(subscriber);
    let lines: Vec<_> = (0..heard.len()).map(|number| format!("line {number}")).collect();
    assert_eq!(heard, lines);
    // The places of numbers that came to nothing are among them.
    assert!(heard.len() > 1_990, "{} lines", heard.len());
    let status = cluster.status(fed).unwrap();
    let by = &status["groups"][0]["fed_by"];
    assert!(by.is_string() && *by != feeder.as_str(), "{}", status["groups"]);
}

/// Goal: whoever reads no more of what they say keeps neither from ending when it is told to; and a line
/// that no message may be is named, with what was published before it.
#[test]
fn a_reader_that_stands_still_and_a_line_that_is_too_long_are_no_riddle() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &["--members", "1"]);
    let mut subscriber = start(&cluster, &["subscribe", "news", "--from", "1"]);
    let mut publisher = start(&cluster, &["publish", "news", "--timeout", "30s"]);
    let mut input = publisher.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        // Ends when its reader does.
        (0..100_000).try_for_each(|number| writeln!(input, "line {number}")).is_err()
    });
    let mut before = 0;
    until_within(STILL_WITHIN, "nothing more is published", || {
        let largest = cluster.status("a")?["groups"][0]["largest"].as_u64().unwrap_or_default();
        let first = std::mem::replace(&mut before, largest);
        // Its numbers alone fill a pipe by then, and what is heard does more so.
        holds_for(STILL, "", || Ok(()));
        if largest > 10_000 && largest == first { Ok(()) } else { Err(format!("{largest}")) }
    });
    for (name, child) in [("subscribe", &mut subscriber), ("publish", &mut publisher)] {
        let told = now();
        signal("TERM", &[child.id()]);
        let code = until(name, || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
        let took = now().since(told);
        println!("{name} ended after {took:?}");
        assert_eq!(code.code(), Some(0), "{name}");
        assert!(took < STOP_MAX, "{name}: {took:?}");
    }
    assert!(writer.join().unwrap(), "it read no more");

    let mut publisher = start(&cluster, &["publish", "long"]);
    let mut input = publisher.stdin.take().unwrap();
    write!(input, "one\n{}\nthree\n", "x".repeat(65_537)).unwrap();
    drop(input);
    let output = publisher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"1\n"[..]), "{said}");
    assert!(said.contains("line 2 has more than the 65536 bytes"), "{said}");
    cluster.stop();
}

/// A publisher that is read gives more in this time.
const STILL: Duration = Duration::from_secs(1);

/// So many lines on a busy machine.
const STILL_WITHIN: Duration = Duration::from_secs(60);

/// A second, and what a busy machine adds.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Lines of the publisher.
const LINES: u64 = 2_000;

/// The lease of half a second, noticing that the node is gone, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(3);
