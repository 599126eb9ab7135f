//! The inexpensive machine, as processes: one serves several clusters, and keeps little.

use std::{collections::BTreeMap, fs};

use synod_tests::process::{
    child::run,
    cluster::Cluster,
    machine::{own_bytes, resident_bytes, shared},
    wait::until,
};

/// Writes a key at one node, as a client that tries again does.
fn write(cluster: &Cluster, at: &str, value: &str) {
    let mut http = cluster.http(at);
    until(&format!("a write at {at}"), || {
        let answer = http.request("PUT", "/kv/key", &[], value.as_bytes());
        let answer = answer.map_err(|none| format!("{none:?}"))?;
        if answer.status == 204 { Ok(()) } else { Err(answer.text()) }
    });
    let read = http.get("/kv/key").unwrap();
    assert_eq!((read.status, read.text().as_str()), (200, value));
}

/// The names and lengths of what an auxiliary keeps.
fn kept(cluster: &Cluster) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(cluster.dir().join("x/data/journal")).unwrap();
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    };
    entries.map(|entry| file(entry.unwrap())).collect()
}

/// Starts the auxiliaries of all clusters as one process, a child of the first.
fn start_auxiliaries(clusters: &mut [Cluster]) {
    let others: Vec<String> =
        clusters[1..].iter().map(|one| one.config("x").display().to_string()).collect();
    let words = others.iter().flat_map(|file| ["--config", file]).collect::<Vec<_>>();
    clusters[0].start_node_with("x", &words);
}

#[test]
fn one_process_serves_the_auxiliaries_of_several_clusters_in_files_that_never_grow() {
    let _machine = shared();
    let mut clusters = [(); 3].map(|()| Cluster::by_hand("synod"));
    for cluster in &mut clusters {
        cluster.start_node("a");
        cluster.start_node("b");
    }
    start_auxiliaries(&mut clusters);
    for cluster in &clusters {
        ["a", "b", "x"].iter().for_each(|name| cluster.wait_ready(name));
        write(cluster, "a", "first");
    }
    let before = kept(&clusters[0]);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["ring", "words"]);
    let resident = resident_bytes(clusters[0].node("x").pid);
    println!("three auxiliaries in one process: {} KiB resident", resident / 1024);
    let own = own_bytes(clusters[0].node("x").pid);
    println!("…of which {} KiB are not the program itself", own / 1024);
    assert!(own <= 3 * IDLE_BYTES_MAX, "{own}");

    // Each cluster loses a main, and the process itself dies in between.
    clusters[0].kill(&["a"]);
    write(&clusters[0], "b", "with the auxiliary");
    clusters[0].kill(&["x"]);
    write(&clusters[1], "a", "without it");
    start_auxiliaries(&mut clusters);
    clusters[1].kill(&["b"]);
    write(&clusters[1], "a", "with it again");
    write(&clusters[2], "b", "untouched");
    clusters[0].start_node("a");
    clusters[0].wait_status("b", "a counts again", |status| {
        status["mains"].as_array().is_some_and(|mains| mains.len() == 2)
    });
    assert_eq!(kept(&clusters[0]), before);
    let data = clusters[1].dir().join("x/data").display().to_string();
    let (code, text, _) = run(clusters[1].program(), &["inspect", &data]);
    assert!(code == 0 && text.contains("record=vote"), "{text}");
}

#[test]
fn only_auxiliaries_that_share_nothing_share_a_process() {
    let cluster = Cluster::by_hand("synod");
    let [a, x] = ["a", "x"].map(|name| cluster.config(name).display().to_string());
    let refused = |args: &[&str], parts: &[&str]| {
        let (code, _, error) = run(cluster.program(), &[&["node", "--check"], args].concat());
        assert!(code == 2 && parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&["--config", &x, "--config", &a], &[&a, "a process of its own"]);
    refused(&["--config", &x, "--config", &x], &[&x, "data_dir"]);
    refused(&["--config", "/", "--config", &x], &["synod.toml"]);
    let (code, _, error) = run(cluster.program(), &["node", "--check", "--config", &x]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn a_directory_that_both_mains_see_serves_as_the_auxiliary() {
    let _machine = shared();
    let mut cluster = Cluster::by_hand("synod");
    let process = format!("quic = \"{}\"", cluster.node("x").quic);
    for name in ["a", "b"] {
        cluster.rewrite(name, &process, "shared = \"../quorum\"");
        cluster.start_node(name);
    }
    ["a", "b"].iter().for_each(|name| cluster.wait_ready(name));
    write(&cluster, "a", "first");
    let object = cluster.dir().join("quorum/object");
    let before = fs::read(&object).unwrap();
    write(&cluster, "b", "second");
    assert_eq!(fs::read(&object).unwrap(), before, "without failures it is not written");
    for (victim, other) in [("a", "b"), ("b", "a")] {
        cluster.kill(&[victim]);
        write(&cluster, other, victim);
        cluster.start_node(victim);
        cluster.wait_status(other, "both count again", |status| {
            status["mains"].as_array().is_some_and(|mains| mains.len() == 2)
        });
        cluster.wait_ready(victim);
    }
    assert_ne!(fs::read(&object).unwrap(), before, "it voted");
}

#[test]
fn an_idle_node_takes_little_memory_beside_the_program() {
    let _machine = shared();
    let mut cluster = Cluster::by_hand("synod");
    ["a", "b", "x"].iter().for_each(|name| cluster.start_node(name));
    ["a", "b", "x"].iter().for_each(|name| cluster.wait_ready(name));
    write(&cluster, "a", "first");
    for name in ["a", "b", "x"] {
        let pid = cluster.node(name).pid;
        let (all, own) = (resident_bytes(pid), own_bytes(pid));
        println!("{name}: {} KiB resident, {} KiB of them its own", all / 1024, own / 1024);
        assert!(own <= IDLE_BYTES_MAX, "{name}: {own}");
    }
}

/// Of a main without data or an auxiliary, beside the program's own pages; 3 to 4 MiB were seen.
const IDLE_BYTES_MAX: u64 = 8 << 20;
