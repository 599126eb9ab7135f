//! Histories of reads, writes, compare-and-sets and increments at both mains, by real clients of
//! real processes while these are killed, stopped, cut off and run out of disk: one order of all
//! calls must explain every answer.
//!
//! `SYNOD_HISTORY_SECONDS=600` lets every test go on with random faults for so long;
//! `SYNOD_HISTORY_DIR=DIR` (absolute, or relative to this package) keeps the histories as EDN.

use std::{env, fs, path::PathBuf, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use synod_tests::{
    history::{
        Operation,
        clients::{Clients, summary},
        edn, judge,
    },
    process::{
        child::run,
        cluster::{Cluster, mains_of},
        disk::SmallDisk,
        machine::shared,
        namespaces::Namespaces,
        resp::{Reply, Resp},
        wait::{PATIENCE, now},
    },
    relay::Relay,
};

/// One way to harm a cluster, and to mend it.
type Fault<'a> = (&'a str, Box<dyn Fn(&mut Cluster, &Clients) + 'a>);

fn start(synod: &mut Cluster) -> Clients {
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    Clients::start(&synod.resps(), CLIENTS, SEED)
}

/// Every fault once, then random ones for as long as was asked for; after each the cluster becomes
/// whole again. In the end the history is judged.
fn suffer(name: &str, mut synod: Cluster, clients: Clients, faults: &[Fault<'_>]) {
    let seconds = env::var("SYNOD_HISTORY_SECONDS").map_or(0, |text| text.parse().unwrap());
    let (started, time) = (now(), Duration::from_secs(seconds));
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut number = 0;
    while number < faults.len() || now().since(started) < time {
        let (what, harm) = match faults.get(number) {
            Some(fault) => fault,
            None => &faults[rng.random_range(0..faults.len())],
        };
        let before = now();
        clients.wait_for_more(ENOUGH);
        harm(&mut synod, &clients);
        for main in ["a", "b"] {
            synod.wait_ready(main);
            synod.wait_status(main, "both mains", |status| mains_of(status) == ["a", "b"]);
        }
        clients.wait_for_more(ENOUGH);
        println!("{what}: whole again after {} ms", now().since(before).as_millis());
        number += 1;
    }
    judged(name, &clients.finish());
}

fn judged(name: &str, history: &[Operation]) {
    println!("{name}: {}", summary(history));
    let verdict = judge::check(history);
    let keep = env::var_os("SYNOD_HISTORY_DIR").map(PathBuf::from);
    let keep = keep.or_else(|| verdict.is_err().then(env::temp_dir));
    if let Some(folder) = keep {
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.edn"));
        fs::write(&file, edn::render(history)).unwrap();
        println!("{name}: the history is in {}", file.display());
    }
    if let Err(violation) = verdict {
        panic!("{violation}");
    }
}

fn kill<'a>(what: &'a str, who: fn(&Cluster) -> Vec<String>) -> Fault<'a> {
    let harm = move |synod: &mut Cluster, clients: &Clients| {
        let names = who(synod);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        synod.kill(&names);
        if names.len() == 1 {
            clients.wait_for_more(WHILE_HARMED);
        }
        names.iter().for_each(|name| synod.start_node(name));
    };
    (what, Box::new(harm))
}

/// Stops a process until the others have gone on for a while, and lets it wake up in their future.
fn stop<'a>(what: &'a str, who: fn(&Cluster) -> Vec<String>) -> Fault<'a> {
    let harm = move |synod: &mut Cluster, clients: &Clients| {
        let names = who(synod);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        synod.signal("STOP", &names);
        clients.wait_for_more(WHILE_HARMED);
        synod.signal("CONT", &names);
    };
    (what, Box::new(harm))
}

fn leader(synod: &Cluster) -> Vec<String> {
    vec![synod.leader_and_follower().0]
}

fn follower(synod: &Cluster) -> Vec<String> {
    vec![synod.leader_and_follower().1]
}

fn auxiliary(_: &Cluster) -> Vec<String> {
    vec!["x".to_owned()]
}

fn everybody(_: &Cluster) -> Vec<String> {
    ["a", "b", "x"].map(str::to_owned).to_vec()
}

#[test]
fn answers_fit_one_order_while_nodes_die_sleep_and_lose_each_other() {
    let _machine = shared();
    let mut synod = Cluster::by_hand("synod");
    let relays = Relay::between_mains(&synod);
    let clients = start(&mut synod);
    let cut = |_: &mut Cluster, clients: &Clients| {
        relays.iter().for_each(Relay::cut);
        clients.wait_for_more(WHILE_HARMED);
        relays.iter().for_each(Relay::heal);
    };
    let lossy = |_: &mut Cluster, clients: &Clients| {
        relays.iter().for_each(|relay| relay.lose(100));
        clients.wait_for_more(WHILE_HARMED);
        relays.iter().for_each(|relay| relay.lose(0));
    };
    let faults = [
        kill("kill -9 of the leader", leader),
        stop("a stopped leader", leader),
        ("a cut between the mains", Box::new(cut) as Box<dyn Fn(&mut Cluster, &Clients)>),
        kill("kill -9 of the follower", follower),
        stop("a stopped follower", follower),
        ("a tenth of all datagrams lost", Box::new(lossy)),
        kill("kill -9 of the auxiliary", auxiliary),
        kill("kill -9 of all", everybody),
    ];
    suffer("processes", synod, clients, &faults);
}

#[test]
fn answers_fit_one_order_while_cables_are_pulled_and_one_direction_is_cut() {
    let _machine = shared();
    let spaces = match Namespaces::make(&["a", "b", "x"]) {
        Ok(spaces) => spaces,
        Err(missing) => {
            eprintln!("SKIPPED, no network namespaces can be made here: {missing}");
            return;
        }
    };
    let mut synod = Cluster::in_namespaces("synod", &spaces);
    let clients = start(&mut synod);
    let mut faults: Vec<Fault<'_>> = Vec::new();
    for (what, who) in [("leader", leader as fn(&Cluster) -> _), ("follower", follower)] {
        let spaces = &spaces;
        let pull = move |synod: &mut Cluster, clients: &Clients| {
            let name = &who(synod)[0];
            spaces.unplug(name);
            clients.wait_for_more(WHILE_HARMED);
            spaces.plug(name);
        };
        let deaf = move |synod: &mut Cluster, clients: &Clients| {
            let name = &who(synod)[0];
            let other = if name == "a" { "b" } else { "a" };
            spaces.cut(other, name);
            clients.wait_for_more(WHILE_HARMED);
            spaces.heal(other, name);
        };
        let (pulled, cut) = match what {
            "leader" => ("the leader's cable pulled", "a leader that does not hear the follower"),
            _ => ("the follower's cable pulled", "a follower that does not hear the leader"),
        };
        faults.push((pulled, Box::new(pull)));
        faults.push((cut, Box::new(deaf)));
    }
    match spaces.lose("a", 0) {
        Ok(()) => {
            let lossy = |_: &mut Cluster, clients: &Clients| {
                ["a", "b"].iter().for_each(|node| spaces.lose(node, 10).unwrap());
                clients.wait_for_more(WHILE_HARMED);
                ["a", "b"].iter().for_each(|node| spaces.lose(node, 0).unwrap());
            };
            faults.push(("a tenth of all packets lost", Box::new(lossy)));
        }
        Err(missing) => eprintln!("SKIPPED, no packets lost: this kernel has no netem: {missing}"),
    }
    suffer("namespaces", synod, clients, &faults);
}

#[test]
fn answers_fit_one_order_while_a_disk_is_full() {
    let _machine = shared();
    let mut synod = Cluster::by_hand("synod");
    let (data, image) = (synod.dir().join("a").join("data"), synod.dir().join("a.image"));
    let disk = match SmallDisk::device(&data, &image, DISK_BYTES) {
        Ok(disk) => disk,
        Err(missing) => {
            eprintln!("SKIPPED, no loop device can be made here: {missing}");
            return;
        }
    };
    let clients = start(&mut synod);
    let full = |synod: &mut Cluster, clients: &Clients| {
        disk.fill_up();
        write_until_full(synod);
        clients.wait_for_more(WHILE_FULL);
        disk.make_room();
    };
    let full_and_dead = |synod: &mut Cluster, clients: &Clients| {
        disk.fill_up();
        write_until_full(synod);
        synod.kill(&["b"]);
        // Whoever has the full disk may refuse everything now; what it says must still be true.
        synod.start_node("b");
        clients.wait_for_more(WHILE_FULL);
        disk.make_room();
    };
    let led = |synod: &mut Cluster, clients: &Clients| {
        let file = synod.dir().join("client.toml").display().to_string();
        let (code, _, error) =
            run(synod.program(), &["members", "lead", "a", "--cluster", &file, "--timeout", "20s"]);
        assert_eq!(code, 0, "{error}");
        full(synod, clients);
    };
    let faults: [Fault<'_>; 3] = [
        ("the leader's disk full", Box::new(led)),
        ("a full disk and kill -9 of the other main", Box::new(full_and_dead)),
        kill("kill -9 of the leader", leader),
    ];
    suffer("full-disk", synod, clients, &faults);
}

/// Uses up what the journal of node a keeps ready, so that it must do without, and says what comes
/// of it.
fn write_until_full(synod: &Cluster) {
    let mut a = Resp::connect(synod.node("a").resp.unwrap(), PATIENCE).unwrap();
    let value = vec![b'v'; 1 << 20];
    for number in 0..LARGE_VALUES {
        match a.call(&[b"SET", b"large", &value]).expect("a reply") {
            Reply::Error(why) if why.starts_with("FULL not applied") => {
                println!("full after {number} MiB: {why}");
                return;
            }
            Reply::Simple(_) | Reply::Error(_) => {}
            other => panic!("{other:?}"),
        }
    }
    println!("the leader, which has room, goes on by itself");
}

/// Clients at once: more than keys, so that they meet.
const CLIENTS: u32 = 6;

/// Answered calls that show that a cluster serves.
const ENOUGH: u64 = 300;

/// Answered calls while something is wrong: seconds.
const WHILE_HARMED: u64 = 2_000;

/// The same while a disk is full, which slows everything down.
const WHILE_FULL: u64 = 100;

/// Of a mebibyte each; more than a journal keeps ready.
const LARGE_VALUES: u64 = 150;

/// What clients ask, and which random faults come.
const SEED: u64 = 4;

/// Room for a main's journal, its reserve and a snapshot.
const DISK_BYTES: u64 = 256 << 20;
