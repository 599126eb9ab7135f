//! Garbage, wrong files, wrong certificates, damaged journals, full disks: refused in words, and
//! never a panic.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use synod_runtime::{journal, slots::Slots, world::disk::RealDisk};
use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    disk::SmallDisk,
    load::{Book, KvWriter, Load},
    machine::{is_alive, resident_bytes, shared},
    resp::{Reply, Resp},
    wait::{PATIENCE, holds_for, pause, until},
};

/// Nobody died, nobody panicked, everything is served.
fn check_unharmed(cluster: &Cluster) {
    for (name, node) in cluster.nodes() {
        assert!(is_alive(node.pid), "{name} is gone");
        let log = fs::read_to_string(cluster.log(name)).unwrap();
        assert!(!log.contains("panicked"), "{name}: {log}");
    }
    let book = Book::of_some_writes(&cluster.resps());
    cluster.resps().into_iter().for_each(|at| book.check_kv(at));
}

#[test]
fn garbage_on_every_port_harms_nobody() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let load = Load::start(&synod.resps(), KvWriter::connect, 2);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut held = Vec::new();
    for (_, node) in synod.nodes() {
        for _ in 0..500 {
            let mut datagram = vec![0; rng.random_range(1..1_400)];
            rng.fill(&mut datagram[..]);
            if rng.random_range(0..2) == 0 {
                // Looks like the first datagram of a connection.
                datagram[0] |= 0xc0;
                datagram.splice(1..1, [0, 0, 0, 1]);
            }
            udp.send_to(&datagram, node.quic).unwrap();
        }
        let ports = [Some(node.http), node.resp];
        for at in ports.into_iter().flatten() {
            for garbage in garbage(&mut rng) {
                held.extend(throw(at, &garbage));
            }
        }
    }
    load.wait_for_more(200);
    let book = load.finish();
    println!("with garbage on every port and {} half requests open: {book}", held.len());
    check_unharmed(&synod);
}

/// Random bytes, giant lengths, half requests.
fn garbage(rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut random = vec![0; 100_000];
    rng.fill(&mut random[..]);
    vec![
        random,
        b"*1000000000\r\n$3\r\nGET\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$99999999999999\r\n".to_vec(),
        b"*-5\r\n*0\r\n*1\r\n$-1\r\n".to_vec(),
        vec![b'x'; 1 << 20],
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf".to_vec(),
        b"POST /actors/kv/kv.commands HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{".to_vec(),
        b"POST /actors/kv/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffff\r\n".to_vec(),
        b"GET /\x00\xff HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /status HTTP/1.1\r\nhost".to_vec(),
    ]
}

/// Sends bytes and reads what comes for a moment; the connection is kept so that a half request
/// stays half.
fn throw(at: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // Hanging up on garbage is a good answer, as is any text.
    stream.write_all(bytes).ok()?;
    let mut answer = [0; 512];
    match stream.read(&mut answer) {
        Ok(0) => None,
        _ => Some(stream),
    }
}

#[test]
fn slow_senders_are_waited_for_and_hold_up_nobody() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    let load = Load::start(&synod.resps(), KvWriter::connect, 2);
    let mut slow = Vec::new();
    for number in 0..SLOW_CLIENTS {
        let key = format!("slow-{number}");
        let node = synod.node(if number % 2 == 0 { "a" } else { "b" });
        let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len());
        slow.push((connect(node.resp.unwrap()), set, "+OK\r\n"));
        let put = format!("PUT /kv/h{key} HTTP/1.1\r\nhost: s\r\ncontent-length: 1\r\n\r\nv");
        slow.push((connect(node.http), put, "HTTP/1.1 204"));
    }
    let longest = slow.iter().map(|(_, text, _)| text.len()).max().unwrap();
    for at in 0..longest {
        for (stream, text, _) in &mut slow {
            let rest = text.as_bytes().get(at..=at).unwrap_or_default();
            stream.write_all(rest).unwrap();
        }
        pause();
    }
    for (stream, text, want) in &mut slow {
        let mut answer = vec![0; want.len()];
        stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(String::from_utf8_lossy(&answer), *want, "{text}");
    }
    let book = load.finish();
    println!("beside {} slow senders: {book}", slow.len());
    check_unharmed(&synod);
}

/// Clients that send a byte at a time, of each protocol.
const SLOW_CLIENTS: usize = 40;

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn a_client_that_never_reads_costs_no_more_memory_than_a_few_replies() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    let node = synod.node("a");
    let mut resp = Resp::connect(node.resp.unwrap(), PATIENCE).unwrap();
    assert_eq!(set_large(&mut resp, "large"), Reply::Simple("OK".into()));
    let before = resident_bytes(node.pid);
    let mut deaf = connect(node.resp.unwrap());
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let asked = b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n".repeat(DEAF_READS);
    // When the node stops reading, this cannot all be sent: that is the point.
    let _ = deaf.write_all(&asked);
    let load = Load::start(&synod.resps(), KvWriter::connect, 2);
    load.wait_for_more(200);
    drop(load.finish());
    let grown = resident_bytes(node.pid).saturating_sub(before);
    println!("{DEAF_READS} replies of 1 MiB unread: {} MiB more", grown >> 20);
    assert!(grown < DEAF_BYTES_MAX, "{grown} bytes for one client that does not read");
    check_unharmed(&synod);
}

/// Replies of 1 MiB that a client asks for and never reads.
const DEAF_READS: usize = 4_000;

/// What one such client may cost.
const DEAF_BYTES_MAX: u64 = 256 << 20;

#[test]
fn a_second_process_on_a_data_directory_is_refused_by_the_first_one_s_id() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    let file = synod.config("a").display().to_string();
    let (code, _, error) = run(synod.program(), &["node", "--config", &file]);
    let owner = synod.node("a").pid.to_string();
    assert_ne!(code, 0);
    let line = error.lines().find(|line| line.starts_with("synod: ")).unwrap_or_default();
    assert!(line.contains(&format!("process {owner}")) && line.contains("data"), "{error}");
    check_unharmed(&synod);
}

#[test]
fn a_bad_node_file_is_refused_with_file_key_and_what_was_meant() {
    let synod = Cluster::by_hand("synod");
    let file = synod.config("a");
    let good = fs::read_to_string(&file).unwrap();
    let refused = |text: &str, words: &[&str]| {
        fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        let (code, _, error) = run(synod.program(), &["node", "--config", &path, "--check"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.starts_with("synod: ") && error.lines().count() == 1, "{error}");
        for word in words.iter().chain(&["synod.toml"]) {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
    };
    refused(&good.replace("data_dir", "datadir"), &["datadir", "data_dir"]);
    refused(&good.replace("durability = ", "durabilty = "), &["durabilty", "durability"]);
    refused(&good.replace("\"main\"", "1"), &["role", "integer"]);
    refused(&good.replace("cert.pem", "cart.pem"), &["tls.cert", "cart.pem"]);
    refused(&good.replace("[listen]", "[listen"), &[]);
    refused(&format!("{good}\n[web]\n"), &["web"]);
    let theirs = synod.config("b").with_file_name("cert.pem").display().to_string();
    refused(&good.replace("\"cert.pem\"", &format!("{theirs:?}")), &["tls", "certificate"]);
    refused(&good.replace("\"key.pem\"", "\"synod.toml\""), &["tls", "key"]);
    fs::write(&file, &good).unwrap();
    let missing = synod.dir().join("nowhere.toml").display().to_string();
    let (code, _, error) = run(synod.program(), &["node", "--config", &missing]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("nowhere.toml"), "{error}");
    let path = file.display().to_string();
    let (code, _, error) = run(synod.program(), &["node", "--config", &path, "--check"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn another_cluster_s_certificate_is_refused() {
    let _machine = shared();
    let synod = Cluster::serving_by_hand("synod");
    // A cluster of the same name, with the same names of nodes, and another authority.
    let mut other = Cluster::by_hand("synod");
    let theirs = other.node("a").quic.to_string();
    other.rewrite("b", &theirs, &synod.node("a").quic.to_string());
    other.start_node("b");
    let log = other.log("b");
    until("a refusal in words", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let words = ["cannot connect", "certificate"];
        if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
    });
    holds_for(Duration::from_millis(500), "a stranger in the cluster", || {
        let ready = other.http("b").get("/readyz")?.status;
        if ready == 503 { Ok(()) } else { Err(format!("the stranger is ready: {ready}")) }
    });
    let status = synod.status("a").unwrap();
    assert_eq!(mains_of(&status), ["a", "b"]);
    check_unharmed(&synod);
}

/// The newest segment of a node's journal and the places of its records there.
fn newest_segment(cluster: &Cluster, name: &str) -> (PathBuf, Vec<u64>) {
    let dir = cluster.dir().join(name).join("data").join("journal");
    let records = journal::inspect(&RealDisk, &dir).expect("a good journal");
    let newest = records.iter().map(|record| record.segment).max().expect("records");
    let places = records.iter().filter(|record| record.segment == newest);
    let number = format!("{newest:016x}");
    let file = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("segment") && name.ends_with(&number)
    });
    (file.expect("its file"), places.map(|record| record.offset).collect())
}

fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_node_whose_journal_has_a_bad_byte_in_the_middle_comes_back_as_another_node_by_itself() {
    let _machine = shared();
    let mut synod = Cluster::serving_by_hand("synod");
    let mut book = Book::of_some_writes(&synod.resps());
    let before = incarnation(&synod);
    let data = synod.dir().join("a").join("data");
    for again in [false, true] {
        synod.kill(&["a"]);
        let (file, places) = newest_segment(&synod, "a");
        flip(&file, places[places.len() / 2] + 8);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        synod.start_node("a");
        if again {
            // A disk that forgets twice waits for somebody to look at it.
            assert_eq!(synod.process("a").wait().code(), Some(1));
            let log = fs::read_to_string(synod.log("a")).unwrap();
            let line = log.lines().rfind(|line| line.starts_with("synod: ")).unwrap_or_default();
            assert!(line.contains("lost") && line.contains("move this away"), "{log}");
            break;
        }
        for name in ["a", "b"] {
            synod.wait_ready(name);
            synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        }
        let log = fs::read_to_string(synod.log("a")).unwrap();
        assert!(log.contains(&name) && log.contains("lost its memory"), "{log}");
        assert!(data.join("lost").join("journal").join(&name).exists(), "it is kept for people");
        assert_ne!(incarnation(&synod), before, "another node of the same name");
        synod.resps().into_iter().for_each(|at| book.check_kv(at));
        book.add(Book::of_some_writes(&synod.resps()));
    }
    fs::rename(data.join("lost"), synod.dir().join("a").join("aside")).unwrap();
    synod.start_node("a");
    synod.wait_ready("a");
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
    check_unharmed(&synod);
}

/// Who node a is, as its data directory says.
fn incarnation(cluster: &Cluster) -> Vec<u8> {
    let slots = Slots::open(&RealDisk, &cluster.dir().join("a").join("data").join("identity"));
    let words = slots.unwrap().read().unwrap();
    let at = words.windows(11).position(|key| key == b"incarnation").unwrap();
    words[at..at + 20].to_vec()
}

#[test]
fn a_torn_tail_of_a_journal_is_made_up_for() {
    let _machine = shared();
    let mut synod = Cluster::serving_by_hand("synod");
    let mut book = Book::of_some_writes(&synod.resps());
    synod.kill(&["a", "b", "x"]);
    for name in ["a", "b"] {
        let (file, places) = newest_segment(&synod, name);
        tear(&file, *places.last().unwrap());
    }
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    for name in ["a", "b"] {
        synod.wait_ready(name);
        let log = fs::read_to_string(synod.log(name)).unwrap();
        assert!(log.contains("the torn end of the journal is made up for"), "{name}: {log}");
    }
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
    book.add(Book::of_some_writes(&synod.resps()));
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
}

/// Puts the beginning of a batch after the last one: what a power cut leaves of a write.
fn tear(file: &Path, last_record: u64) {
    const BLOCK: u64 = 512;
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut at = last_record - last_record % BLOCK;
    let mut block = [0; BLOCK as usize];
    loop {
        file.read_exact_at(&mut block, at).unwrap();
        if block == [0; BLOCK as usize] {
            break;
        }
        at += BLOCK;
    }
    let mut half = [0x5a; BLOCK as usize];
    half[..8].copy_from_slice(b"synodjn\x01");
    file.write_all_at(&half, at).unwrap();
}

#[test]
fn a_full_disk_refuses_writes_in_words_and_loses_nothing() {
    let _machine = shared();
    let mut synod = Cluster::by_hand("synod");
    let data = synod.dir().join("a").join("data");
    let disk = match SmallDisk::memory(&data, DISK) {
        Ok(disk) => disk,
        Err(missing) => {
            eprintln!("SKIPPED, no full disk can be made here: {missing}");
            return;
        }
    };
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    let book = Book::of_some_writes(&synod.resps());
    // What others put on the disk leaves no room for one more segment.
    disk.fill_up();
    let connect = |name: &str| Resp::connect(synod.node(name).resp.unwrap(), PATIENCE).unwrap();
    let (mut a, mut b) = (connect("a"), connect("b"));
    let mut kept = Vec::new();
    for number in 0.. {
        let key = format!("large-{number}");
        match set_large(&mut a, &key) {
            Reply::Simple(_) => kept.push(key),
            Reply::Error(why) if why.starts_with("FULL not applied") => {
                println!("a full disk after {} MiB: {why}", kept.len());
                break;
            }
            Reply::Error(why) if why.starts_with("UNCERTAIN") => println!("{key}: {why}"),
            other => panic!("{other:?}"),
        }
        assert!(number < 100, "a disk of {DISK} is never full");
    }
    // It is the disk of one node; the others go on, and it serves reads.
    assert!(is_alive(synod.node("a").pid));
    assert_eq!(set_large(&mut b, "at-b"), Reply::Simple("OK".into()));
    kept.push("at-b".to_owned());
    let length = a.call(&[b"STRLEN", b"at-b"]).unwrap();
    assert_eq!(length, Reply::Integer(LARGE as i64), "a read where the disk is full");

    disk.make_room();
    until("writes where the disk has room again", || match set_large(&mut a, "after") {
        Reply::Simple(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    kept.push("after".to_owned());
    for name in ["a", "b"] {
        synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        synod.wait_ready(name);
        let mut resp = Resp::connect(synod.node(name).resp.unwrap(), PATIENCE).unwrap();
        for key in &kept {
            let length = resp.call(&[b"STRLEN", key.as_bytes()]).unwrap();
            assert_eq!(length, Reply::Integer(LARGE as i64), "{key} at {name}");
        }
    }
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
    check_unharmed(&synod);
}

fn set_large(resp: &mut Resp, key: &str) -> Reply {
    let value = vec![b'v'; LARGE];
    resp.call(&[b"SET", key.as_bytes(), &value]).expect("a reply")
}

/// Bytes of a large value.
const LARGE: usize = 1 << 20;

/// Room for a main's journal, its reserve, and a snapshot of what the test writes.
const DISK: &str = "256m";
