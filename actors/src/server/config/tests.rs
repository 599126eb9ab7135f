use std::time::Duration;

use super::*;
use crate::{
    consensus::Profile,
    server::registers::{Keeping, RolesIn},
};

pub(super) const GOOD: &str = r#"
cluster = "shop"
name = "a"
role = "main"
data_dir = "data"

[listen]
quic = "0.0.0.0:7001"
http = "127.0.0.1:8001"
resp = "127.0.0.1:6379"

[[peers]]
name = "b"
role = "main"
quic = "db2.example.com:7001"

[[peers]]
name = "a"
role = "main"
quic = "db1.example.com:7001"

[[peers]]
name = "x"
role = "auxiliary"
quic = "db3.example.com:7001"

[tls]
ca = "ca.pem"
cert = "cert.pem"
key = "key.pem"

[consensus]
vote = "split"
durability = "memory"
heartbeat = "20ms"
t_remove = "7s"

[limits]
request = "64KiB"
"#;

/// Loads `text` from a folder that has the certificate files.
pub(super) fn load(text: &str, overrides: Overrides) -> Result<NodeConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    std::fs::write(folder.path().join("tokens"), "ann 0123456789abcdef\n").unwrap();
    let file = folder.path().join("synod.toml");
    std::fs::write(&file, text).unwrap();
    NodeConfig::load(&file, overrides).map_err(|e| {
        let said = e.to_string();
        assert!(!said.contains('\n'), "one line: {said:?}");
        said.replace(folder.path().to_str().unwrap(), "DIR")
    })
}

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?}");
    load(&GOOD.replacen(from, to, 1), Overrides::default()).unwrap_err()
}

#[test]
fn a_whole_file_becomes_typed_values() {
    let config = load(GOOD, Overrides::default()).unwrap();
    assert_eq!((config.cluster.as_str(), config.name.as_str()), ("shop", "a"));
    assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
    let names: Vec<_> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "x"]);
    assert_eq!(config.consensus.durability, Durability::Memory);
    assert_eq!(config.consensus.heartbeat, Duration::from_millis(20));
    assert_eq!(config.consensus.removal, Duration::from_secs(7));
    assert_eq!(config.consensus.hedge, ConsensusConfig::default().hedge);
    assert_eq!(config.limits.request_bytes_max, 64 << 10);
    assert_eq!(config.log.filter, FILTER);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known() {
    let said = refused("data_dir", "data_dri");
    assert_eq!(said, "DIR/synod.toml: unknown key `data_dri`; the nearest known key is `data_dir`");
    let said = refused("heartbeat", "hartbeat");
    assert!(said.contains("`consensus.hartbeat`") && said.contains("`heartbeat`"), "{said}");
    let said = refused("quic = \"db2", "qiuc = \"db2");
    assert!(said.contains("`peers[0].qiuc`") && said.contains("`quic`"), "{said}");
    let said = refused("cluster =", "http = 1\ncluster =");
    assert!(said.contains("`http`") && said.contains("`listen.http`"), "{said}");
    let said = refused("[consensus]", "[consenus]");
    assert!(said.contains("`consenus`") && said.contains("`consensus`"), "{said}");
}

#[test]
fn a_wrong_type_or_value_names_file_and_key() {
    for (from, to, parts) in [
        ("\"20ms\"", "20", ["`consensus.heartbeat`", "an integer", "\"150ms\""]),
        ("\"20ms\"", "\"20\"", ["`consensus.heartbeat`", "no duration", "150ms"]),
        ("\"20ms\"", "\"0ms\"", ["`consensus.heartbeat`", "no time", "1ms"]),
        ("\"64KiB\"", "\"64KB\"", ["`limits.request`", "no size", "64KiB"]),
        ("\"64KiB\"", "\"1GiB\"", ["`limits.request`", "out of range", "4194304"]),
        ("\"a\"\nrole = \"main\"", "\"a\"\nrole = \"boss\"", ["`role`", "boss", "auxiliary"]),
        ("\"a\"", "\"A\"", ["`name`", "is not a name", "a-z"]),
        ("name = \"b\"", "name = \"a\"", ["`peers[1].name`", "twice", "own"]),
        ("\"0.0.0.0:7001\"", "\"7001\"", ["`listen.quic`", "no address", "127.0.0.1:7001"]),
        ("\"split\"", "\"mail\"", ["`consensus.vote`", "\"mail\" is no way to vote", "split"]),
        ("[limits]", "[[limits]]", ["`limits`", "an array", "table"]),
        ("role = ", "name = \"b\"\nrole = ", ["DIR/synod.toml:4", "`name`", "there twice"]),
    ] {
        let said = refused(from, to);
        assert!(said.starts_with("DIR/synod.toml"), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
}

#[test]
fn missing_files_and_keys_are_named() {
    let gone = NodeConfig::load(Path::new("/nowhere/synod.toml"), Overrides::default());
    assert!(gone.unwrap_err().to_string().starts_with("/nowhere/synod.toml: cannot be read"));
    assert!(refused("name = \"a\"\n", "").contains("missing key `name`"));
    assert!(refused("http = \"127.0.0.1:8001\"\n", "").contains("`listen.http`: missing"));
    assert!(refused("ca = \"ca.pem\"", "ca = \"no.pem\"").contains("DIR/no.pem cannot be read"));
    assert!(
        refused("role = \"main\"\ndata", "role = main\ndata").starts_with("DIR/synod.toml:4: ")
    );
}

#[test]
fn open_listeners_without_credentials_are_refused() {
    let said = refused("127.0.0.1:8001", "0.0.0.0:8001");
    assert!(said.contains("`listen.http`") && said.contains("open to other machines"), "{said}");
    assert!(refused("127.0.0.1:6379", "10.0.0.1:6379").contains("`listen.resp`"));
    assert!(refused("resp = \"127.0.0.1:6379", "resp = \"127.0.0.1:8001").contains("same address"));
}

#[test]
fn roles_must_make_a_cluster() {
    let said = refused("name = \"b\"\nrole = \"main\"", "name = \"b\"\nrole = \"auxiliary\"");
    assert!(said.contains("2 auxiliaries for 1 mains"), "{said}");
    let said = refused("name = \"a\"\nrole = \"main\"\nq", "name = \"a\"\nrole = \"member\"\nq");
    assert!(said.contains("has a as member, and `role` says main"), "{said}");
}

#[test]
fn a_node_left_out_of_peers_is_one_of_them_unless_it_joins() {
    let alone = "[[peers]]\nname = \"a\"";
    let without = GOOD.replacen(alone, "[[peers]]\nname = \"c\"", 1);
    let config = load(&without, Overrides::default()).unwrap();
    assert_eq!(config.peers.len(), 4);
    let joining = format!("{without}\n[membership]\njoin = true\n");
    let config = load(&joining, Overrides::default()).unwrap();
    assert!(config.join && config.peers.len() == 3);
    let both = format!("{GOOD}\n[membership]\njoin = true\n");
    assert!(load(&both, Overrides::default()).unwrap_err().contains("joins later"));
}

/// To be added once there is a web.
const DB_NEEDS_WEB: &str = "[[services]]\nname = \"db\"\ncommand = [\"db\"]\nneeds = [\"web\"]\n";

#[test]
fn services_are_read_and_what_is_wrong_with_one_is_said() {
    let one = |keys: &str| load(&format!("{GOOD}\n[[services]]\n{keys}\n"), Overrides::default());
    let keys = "name = \"web\"\ncommand = [\"web\", \"-p\", \"80\"]\n";
    let config = one(&format!("{keys}ready = [\"true\"]\nprobe_every = \"200ms\"")).unwrap();
    let web = &config.services[0];
    assert_eq!((web.name.as_str(), web.command.len(), web.restarts), ("web", 3, 3));
    assert_eq!(web.ready.as_ref().map(|probe| probe.every_ms), Some(200));
    assert_eq!(web.live, None);
    let both = load(&format!("{GOOD}\n{DB_NEEDS_WEB}[[services]]\n{keys}"), Overrides::default());
    let names: Vec<_> = both.unwrap().services.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["web", "db"], "as they must be added");
    for (keys, part) in [
        ("name = \"web\"".to_owned(), "name a program"),
        (format!("{keys}lease = \"1ms\""), "300ms"),
        (format!("{keys}provider = [\"a\"]"), "providers"),
        (format!("{keys}stop_signal = \"kill\""), "term, int, quit or hup"),
        (format!("{keys}[[services]]\n{keys}"), "there twice"),
        (format!("{keys}export = [\"x\"]"), "there is no `import`"),
        (format!("{keys}needs = [\"db\"]\n{DB_NEEDS_WEB}"), "db, web need one another in a circle"),
    ] {
        let said = one(&keys).unwrap_err();
        assert!(said.contains(part), "{keys}: {said}");
    }
}

#[test]
fn a_server_behind_the_order_is_rebuilt_by_commands_by_urls_or_by_hand() {
    let web = |keys: &str| {
        let section = "[web]\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:9\"\n";
        load(&format!("{GOOD}\n{section}{keys}\n"), Overrides::default())
    };
    assert_eq!(web("").unwrap().web.unwrap().copies, None);
    let both = "export = [\"tar\", \"-c\", \".\"]\nimport = [\"in\"]\nrebuild_within = \"9s\"";
    let copies = web(both).unwrap().web.unwrap().copies.unwrap();
    let command =
        |words: &[&str]| Hook::Command(words.iter().map(|&word| word.to_owned()).collect());
    assert_eq!((copies.export, copies.import), (command(&["tar", "-c", "."]), command(&["in"])));
    assert_eq!((copies.within, copies.bytes_max), (Duration::from_secs(9), 16 << 30));
    let mixed = "export = \"http://127.0.0.1:9/all\"\nimport = \"in\"";
    let copies = web(mixed).unwrap().web.unwrap().copies.unwrap();
    let (server, target) = ("http://127.0.0.1:9".to_owned(), "/all".to_owned());
    assert_eq!(copies.export, Hook::Url(HookUrl { server, target }));
    assert_eq!(copies.import, command(&["in"]));
    // One word of a list is a program's name, whatever is in it.
    let spaces = "export = [\"/a path/with spaces\"]\nimport = \"in\"";
    let copies = web(spaces).unwrap().web.unwrap().copies.unwrap();
    assert_eq!(copies.export, command(&["/a path/with spaces"]));
    for (keys, part) in [
        ("export = \"tar -c .\"\nimport = \"x\"", "a list of its words"),
        ("export = \"http://a\"\nimport = \"x\"", "http://HOST:PORT/PATH"),
        ("export = [\"x\"]", "there is no `import`"),
        ("import = [\"x\"]", "there is no `export`"),
        ("rebuild_bytes = \"0B\"", "out of range"),
        ("imports = [\"x\"]", "import"),
    ] {
        let said = web(keys).unwrap_err();
        assert!(said.contains(part), "{keys}: {said}");
    }
}

#[test]
fn a_route_says_how_its_requests_are_treated_and_what_is_no_treatment_is_named() {
    let route = |keys: &str| {
        let section = "[web]\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:9\"\n";
        let file = format!("{GOOD}\n{section}[[web.routes]]\n{keys}\n");
        load(&file, Overrides::default()).map(|config| config.web.unwrap().routes)
    };
    let all = "path = \"/a\"\nmethods = [\"PUT\"]\nread = \"local\"\nredo = \"rebuild\"\n\
               commutes = \"query id\"\nignore = [\"X-Own\"]\nremove = [\"ETag\"]\npass = true";
    let texts = |text: &str| vec![text.to_owned()];
    let whole = WebRoute {
        path: "/a".to_owned(),
        methods: texts("PUT"),
        read: Some(ReadPolicy::Local),
        redo: Some(RedoPolicy::Rebuild),
        commutes: Some(Commutes::Query("id".to_owned())),
        ignore: texts("x-own"),
        remove: texts("etag"),
        pass: true,
    };
    assert_eq!(route(all), Ok(vec![whole]));
    assert_eq!(route("path = \"/a\""), Ok(vec![WebRoute::new("/a")]));
    for (keys, part) in [
        ("read = \"local\"", "path"),
        ("path = \"a\"", "\"a\" is no path"),
        ("path = \"/a\"\nmethods = [\"put\"]", "in capitals"),
        ("path = \"/a\"\nread = \"dirty\"", "\"dirty\" is no policy"),
        ("path = \"/a\"\nredo = \"never\"", "\"never\" is no policy"),
        ("path = \"/a\"\ncommutes = \"all\"", "\"all\" is no key"),
        ("path = \"/a\"\nremove = [\"e tag\"]", "\"e tag\" is no name of a header"),
        ("path = \"/a\"\nignore = [\"\"]", "\"\" is no name of a header"),
        ("path = \"/a\"\nremoves = [\"etag\"]", "remove"),
    ] {
        let said = route(keys).unwrap_err();
        assert!(said.contains("web.routes") && said.contains(part), "{keys}: {said}");
    }
}

#[test]
fn an_order_by_multicast_wants_three_nodes_that_remember() {
    let member = "\n[[peers]]\nname = \"m1\"\nrole = \"member\"\nquic = \"127.0.0.1:7004\"\n";
    let web = |durability: &str, more: &str, order: &str| {
        let section = "[web]\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:9\"\n";
        let good = GOOD.replace("memory", durability);
        let file = format!("{good}{more}\n{section}order = {order:?}\n");
        load(&file, Overrides::default()).map(|config| config.web.unwrap().order)
    };
    assert_eq!(web("fsync", member, "sam"), Ok(WebOrder::Sam));
    assert_eq!(web("memory", "", "paxos"), Ok(WebOrder::Paxos));
    for (durability, more, order, part) in [
        ("fsync", "", "sam", "web.order"),
        ("fsync", "", "sam", "not 2"),
        ("memory", member, "sam", "fsync"),
        ("fsync", member, "raft", "\"paxos\" or \"sam\""),
    ] {
        let said = web(durability, more, order).unwrap_err();
        assert!(said.contains(part), "{order}: {said}");
    }
}

#[test]
fn roles_are_kept_where_the_file_says() {
    let read = |keys: &str| load(&format!("{GOOD}\n[elections]\n{keys}\n"), Overrides::default());
    let default = read("").unwrap().elections;
    assert_eq!((default.store, default.lease), (RolesIn::Log, Duration::from_secs(2)));
    let registers = read("store = \"register\"\nlease = \"500ms\"").unwrap().elections;
    assert_eq!(registers.store, RolesIn::Registers(Keeping::Holders));
    assert_eq!(registers.lease, Duration::from_millis(500));
    let disks = read("store = \"disk\"\ndisks = [\"/d1\", \"/d2\", \"/d3\"]").unwrap().elections;
    let three = ["/d1", "/d2", "/d3"].map(PathBuf::from).to_vec();
    assert_eq!(disks.store, RolesIn::Registers(Keeping::Disks(three)));
    for (keys, part) in [
        ("store = \"etcd\"", "keeps no roles"),
        ("lease = \"20ms\"", "300ms"),
        ("disks = [\"/d1\"]", "set store"),
        ("store = \"disk\"\ndisks = [\"/d1\", \"/d2\"]", "three or five"),
    ] {
        let said = read(keys).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn environment_overrides_the_file_and_flags_override_both() {
    let variables = [
        ("SYNOD_LISTEN_HTTP", "127.0.0.1:9001"),
        ("SYNOD_CONSENSUS_HEDGE", "70ms"),
        ("SYNOD_DATA_DIR", "/var/lib/shop"),
        ("SYNOD_LOG", "debug"),
        ("SYNOD_CLUSTER", "client.toml"),
        ("PATH", "/bin"),
    ];
    let all = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut overrides = Overrides::from_env(all.into_iter()).unwrap();
    overrides.set("log.filter", "--log", "trace");
    let config = load(GOOD, overrides).unwrap();
    assert_eq!(config.listen.http.port(), 9001);
    assert_eq!(config.consensus.hedge, Duration::from_millis(70));
    assert_eq!(config.data_dir, Path::new("/var/lib/shop"));
    assert_eq!((config.log.filter.as_str(), config.cluster.as_str()), ("trace", "shop"));
}

#[test]
fn a_profile_decides_what_the_file_does_not_name() {
    let wan = GOOD.replacen("[consensus]", "[consensus]\nprofile = \"wan\"", 1);
    let wan = wan.replacen("heartbeat = \"20ms\"", "", 1);
    let consensus = load(&wan, Overrides::default()).unwrap().consensus;
    let timing = consensus.timing();
    assert_eq!(timing.remove, Duration::from_secs(7), "named in the file");
    assert_eq!(timing.election, Profile::Wan.timing().election);
    assert_eq!(timing.probe, Profile::Wan.timing().probe, "has no key of its own");
    assert!(load(&wan.replace("wan", "moon"), Overrides::default()).unwrap_err().contains("lan"));
}

#[test]
fn who_does_not_trust_clocks_gets_no_leases() {
    let with = |word: &str| {
        GOOD.replacen("[consensus]", &format!("[consensus]\nclock_trust = \"{word}\""), 1)
    };
    let lease = |text: &str| load(text, Overrides::default()).map(|c| c.consensus.timing().lease);
    assert_eq!(lease(GOOD), Ok(Profile::Lan.timing().lease));
    assert_eq!(lease(&with("on")), lease(GOOD));
    assert_eq!(lease(&with("off")), Ok(Duration::ZERO));
    assert!(lease(&with("maybe")).unwrap_err().contains("\"on\" or \"off\""));
}

#[test]
fn a_wrong_variable_is_named() {
    let one = |name: &str, value: &str| {
        Overrides::from_env([(name.to_owned(), value.to_owned())].into_iter())
    };
    let said = one("SYNOD_LISTEN_HTPP", "1").unwrap_err().to_string();
    assert!(said.contains("SYNOD_LISTEN_HTPP") && said.ends_with("SYNOD_LISTEN_HTTP"), "{said}");
    assert!(one("SYNOD_NODE", "a").is_ok(), "what services are given is none of our business");
    let said = load(GOOD, one("SYNOD_LISTEN_QUIC", "x").unwrap()).unwrap_err();
    assert!(said.starts_with("SYNOD_LISTEN_QUIC: "), "{said}");
    let said = load(GOOD, one("SYNOD_CONSENSUS_HEDGE", "x").unwrap()).unwrap_err();
    assert!(said.starts_with("SYNOD_CONSENSUS_HEDGE: "), "{said}");
}

#[test]
fn a_listener_off_loopback_needs_tls_and_a_credential() {
    let open = r#"http = "0.0.0.0:8001""#;
    let said = refused(r#"http = "127.0.0.1:8001""#, open);
    assert!(said.contains("`listen.http`") && said.contains("set [tls] clients"), "{said}");
    let with = |clients: &str| {
        let text = GOOD.replace(r#"http = "127.0.0.1:8001""#, open);
        let text = text.replace("[tls]\n", &format!("[tls]\n{clients}\n"));
        load(&text, Overrides::default())
    };
    let config = with("clients = \"certificate\"\nrevoked = [\"c\"]").unwrap();
    assert_eq!(config.tls.clients, ClientAccess::Certificate);
    assert_eq!(config.tls.revoked, ["c".parse().unwrap()].into());
    let config = with("clients = \"token\"\ntokens = \"tokens\"").unwrap();
    assert!(matches!(config.tls.clients, ClientAccess::Token(_)));
    assert!(with("clients = \"token\"").unwrap_err().contains("missing key `tls.tokens`"));
    let said = with("clients = \"token\"\ntokens = \"cert.pem\"").unwrap_err();
    assert!(said.contains("`tls.tokens`: there is no token"), "{said}");
    assert!(with("clients = \"none\"").unwrap_err().contains("use \"token\" or \"certificate\""));
    assert!(with("revoked = [\"C\"]").unwrap_err().contains("`tls.revoked`"));
    assert!(with("revoked = \"c\"").unwrap_err().contains("a list of texts"));
}
