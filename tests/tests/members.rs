//! Nodes added and removed on real processes, from the command line, while clients write.

use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    load::{KvWriter, Load, Verdict},
    machine::turn,
};

/// `synod members ARGS`: exit code and standard error.
fn members(synod: &Cluster, args: &[&str]) -> (i32, String) {
    let client = synod.dir().join("client.toml").display().to_string();
    let words = [&["members"], args, &["--cluster", &client]].concat();
    let (code, _, error) = run(synod.program(), &words);
    (code, error)
}

/// Makes a node's directory, tells the cluster, starts the node.
fn add(synod: &mut Cluster, name: &str, role: &str) {
    synod.init_add(name, role);
    let quic = synod.node(name).quic.to_string();
    let (code, error) = members(synod, &["add", name, "--role", role, "--quic", &quic]);
    assert_eq!(code, 0, "{error}");
    synod.wait_status("a", "it joins", |status| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        nodes.iter().any(|node| node["name"] == name && node["state"] == "joining")
    });
    synod.start_node(name);
}

/// Goal: under load a main is added, serves, and another is removed; an auxiliary is replaced; no
/// write has an unknown outcome; a removed node ends by itself and is not started again.
#[test]
fn mains_and_auxiliaries_come_and_go_under_load() {
    let _turn = turn();
    let mut synod = Cluster::dev("synod", &[]);
    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(200);

    add(&mut synod, "c", "main");
    synod.wait_status("a", "c counts", |status| mains_of(status) == ["a", "b", "c"]);
    synod.wait_ready("c");
    add(&mut synod, "y", "auxiliary");
    let both = serde_json::json!(["x", "y"]);
    synod.wait_status("c", "y counts", |status| status["auxiliaries"] == both);
    load.wait_for_more(200);

    for gone in ["b", "x"] {
        let (code, error) = members(&synod, &["remove", gone]);
        assert_eq!(code, 0, "{error}");
        let ended = synod.event("exited", |event| event["name"] == gone);
        assert_eq!(ended["status"], "exit 0", "{ended}");
        let log = std::fs::read_to_string(synod.log(gone)).unwrap_or_default();
        assert!(log.contains("was removed from cluster"), "{log}");
    }
    let status = synod.wait_status("c", "two are gone", |status| mains_of(status) == ["a", "c"]);
    assert_eq!(status["auxiliaries"], serde_json::json!(["y"]), "{status}");
    let (code, error) = members(&synod, &["remove", "nobody"]);
    assert!(code == 1 && error.contains("no node is called nobody"), "{code} {error}");
    let (code, error) = members(&synod, &["add", "c", "--role", "auxiliary", "--quic", "h:1"]);
    assert!(code == 1 && error.contains("there already, as main"), "{code} {error}");
    load.wait_for_more(200);

    let book = load.finish();
    println!("members: {book}");
    for name in ["a", "c"] {
        book.check_kv(synod.node(name).resp.expect("mains serve clients"));
    }
    let unknown = book.entries.iter().filter(|e| matches!(e.verdict, Verdict::Unknown(_))).count();
    assert_eq!(unknown, 0, "{book}");
}
