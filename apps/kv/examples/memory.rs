//! What a key costs in memory, beside a real `redis-server`:
//! `cargo run --release -p synod-kv --example memory -- 10000000`.
//!
//! Both hold the same keys (`key:0`, `key:1`, …) and eight bytes each. Ours is one store, measured by
//! what the process keeps resident; theirs is filled by `DEBUG POPULATE` and asked by `INFO`.

#![expect(clippy::disallowed_methods, reason = "it measures from outside, in real time")]

use std::{fs, net::TcpListener, process::Command, thread, time::Duration};

use synod_kv::store::Store;

/// A value as people count with.
const VALUE: &[u8] = b"12345678";

fn main() {
    let keys: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let mut store = Store::default();
    let clock = std::time::Instant::now();
    for number in 0..keys {
        store.set(format!("key:{number}").as_bytes(), VALUE, None, moment(number + 1));
    }
    let made = clock.elapsed();
    let ours = resident_bytes() - before;
    println!("synod: {} bytes a key, {keys} keys made in {made:.1?}", ours / keys);
    let clock = std::time::Instant::now();
    let found = (0..keys).step_by(1_000).filter(|n| {
        let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        store.get(format!("key:{number}").as_bytes(), 0).is_some()
    });
    let found = found.count().max(1);
    println!("synod: {:?} a read of a random key", clock.elapsed() / found as u32);
    let clock = std::time::Instant::now();
    let bytes = store.snapshot();
    println!("synod: snapshot of {} MB in {:.1?}", bytes.len() / 1_000_000, clock.elapsed());
    let clock = std::time::Instant::now();
    let restored = Store::restore(&bytes).map(|store| store.len(0));
    println!("synod: restored {restored:?} keys in {:.1?}", clock.elapsed());
    match redis_bytes(keys) {
        Some(theirs) => println!("redis: {} bytes a key", theirs / keys),
        None => println!("redis: SKIPPED, it needs redis-server and redis-cli"),
    }
}

fn moment(position: u64) -> synod::replicated::Moment {
    synod::replicated::Moment { position: synod::replicated::Position(position), time_ms: 0 }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn redis_bytes(keys: u64) -> Option<u64> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
    let options =
        ["--port", &port, "--save", "", "--enable-debug-command", "yes", "--loglevel", "warning"];
    let mut server = Command::new("redis-server").args(options).spawn().ok()?;
    let ask = |words: &[&str]| {
        let said = Command::new("redis-cli").args(["-p", &port]).args(words).output().ok()?;
        Some(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let used = || {
        let info = ask(&["INFO", "memory"])?;
        let line =
            info.lines().find_map(|line| line.strip_prefix("used_memory:"))?.trim().to_owned();
        line.parse::<u64>().ok()
    };
    let mut before = None;
    for _ in 0..100 {
        before = used();
        if before.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let filled = before.and_then(|before| {
        ask(&["DEBUG", "POPULATE", &keys.to_string(), "key", "8"])?;
        Some(used()? - before)
    });
    server.kill().ok()?;
    server.wait().ok()?;
    filled
}
