//! Copies of data directories: an older one put back, and a second one in use, are refused by those
//! who know better, and harm nobody.

use std::{
    fs,
    path::{Path, PathBuf},
};

use synod_tests::process::{
    child::Process,
    cluster::{Cluster, mains_of},
    load::Book,
    machine::{free_quic_ports, is_alive, shared},
};

fn data(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.dir().join(name).join("data")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// What a node said last to whoever started it.
fn last_words(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap();
    log.lines().rfind(|line| line.starts_with("synod: ")).unwrap_or(&log).to_owned()
}

/// Section 1.16 of the manual, 4.
#[test]
fn an_older_copy_of_a_data_directory_is_refused_by_who_knows_better() {
    let _machine = shared();
    let mut synod = Cluster::serving_by_hand("synod");
    let mut book = Book::of_some_writes(&synod.resps());
    synod.kill(&["a"]);
    let (data, older) = (data(&synod, "a"), synod.dir().join("older"));
    copy(&data, &older);
    synod.start_node("a");
    synod.wait_ready("a");
    synod.wait_status("a", "both mains", |status| mains_of(status) == ["a", "b"]);
    book.add(Book::of_some_writes(&synod.resps()));
    synod.kill(&["a"]);
    let newest = synod.dir().join("newest");
    fs::rename(&data, &newest).unwrap();
    fs::rename(&older, &data).unwrap();

    synod.start_node("a");
    assert_eq!(synod.process("a").wait().code(), Some(1));
    let line = last_words(&synod.log("a"));
    let witness = ["b", "x"].iter().any(|name| line.contains(&format!("{name} has heard of")));
    assert!(line.contains("node a") && line.contains("older copy") && witness, "{line}");
    assert!(line.contains("put this one aside"), "it says what to do: {line}");

    fs::rename(&data, synod.dir().join("aside")).unwrap();
    fs::rename(&newest, &data).unwrap();
    synod.start_node("a");
    for name in ["a", "b"] {
        synod.wait_ready(name);
        synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
    }
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
}

/// Section 1.16 of the manual, 4: the copy is as new as the original, which goes on.
#[test]
fn a_second_process_on_a_copy_of_a_data_directory_is_refused_and_the_first_goes_on() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    let mut book = Book::of_some_writes(&synod.resps());
    let second = synod.dir().join("second");
    copy(&data(&synod, "a"), &second);
    let ports = free_quic_ports(3);
    let [quic, http, resp] = [0, 1, 2].map(|port| ports[port].to_string());
    let (config, dir) = (synod.config("a").display().to_string(), second.display().to_string());
    let listen = ["--listen-quic", &quic, "--listen-http", &http, "--listen-resp", &resp];
    let args = [&["node", "--config", &config, "--data-dir", &dir][..], &listen].concat();
    let log = synod.dir().join("second.log");
    let mut twin = Process::start(synod.program(), &args, &log);
    assert_eq!(twin.wait().code(), Some(1));
    let line = last_words(&log);
    let why = ["older copy", "another process"].iter().any(|why| line.contains(why));
    assert!(line.contains("node a") && why, "{line}");
    assert!(is_alive(synod.node("a").pid), "the first one goes on");
    for name in ["a", "b"] {
        synod.wait_ready(name);
        synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
    }
    book.add(Book::of_some_writes(&synod.resps()));
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
}
