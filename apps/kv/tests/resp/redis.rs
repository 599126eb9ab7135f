//! The same commands to a real `redis-server` and to us: every reply must be the same bytes.
//!
//! Method: random sequences over few keys, so that commands meet keys of every kind; agreed time is
//! set to the server's. Replies without an order (`KEYS`) are sorted, times to live may differ by the
//! time that passes between the two.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{
    common::{Client, listen, log, run},
    dice::Dice,
};
use synod::replicated::local::LocalLog;
use synod_kv::resp::RespOptions;
use tempfile::TempDir;

/// A `redis-server` on a port of its own, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    /// None when it is not installed, which is said loudly.
    async fn start() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--databases", "1", "--proto-max-bulk-len", "1mb", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: this test needs redis-server (Debian package redis-server)");
            return None;
        };
        let server = Self { child, address, _dir: dir };
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection to each, and our log, whose time follows the server's.
struct Pair {
    theirs: Client,
    clock: Client,
    ours: Client,
    log: Arc<LocalLog>,
    _server: Server,
    _handle: synod_kv::resp::RespHandle,
}

impl Pair {
    async fn connect() -> Option<Self> {
        let server = Server::start().await?;
        let log = log();
        let (handle, address) = listen(log.clone(), RespOptions::default()).await;
        let theirs = Client::connect(server.address).await;
        let ours = Client::connect(address).await;
        let clock = Client::connect(server.address).await;
        Some(Self { theirs, clock, ours, log, _server: server, _handle: handle })
    }

    /// The server's time in milliseconds becomes agreed time.
    async fn set_time(&mut self) -> u64 {
        let reply = self.clock.ask("TIME").await;
        let number = |line: &str| line.parse::<u64>().unwrap();
        let lines: Vec<&str> = reply.split("\r\n").collect();
        let now_ms = number(lines[2]) * 1000 + number(lines[4]) / 1000;
        self.log.set_time_ms(now_ms);
        now_ms
    }

    /// What differs, if anything.
    async fn difference(&mut self, arguments: &[Vec<u8>]) -> Option<String> {
        let theirs = self.theirs.call(arguments).await;
        let ours = self.ours.call(arguments).await;
        let command: Vec<String> = arguments.iter().map(|a| a.escape_ascii().to_string()).collect();
        let command = command.join(" ");
        let (shown, differs) = (ours.escape_ascii(), !same(arguments, &theirs, &ours));
        differs
            .then(|| format!("{command}\n  redis: {}\n  ours:  {shown}\n", theirs.escape_ascii()))
    }

    async fn compare(&mut self, arguments: &[Vec<u8>], context: &str) {
        let difference = self.difference(arguments).await;
        assert_eq!(difference, None, "{context}");
    }
}

fn same(arguments: &[Vec<u8>], theirs: &[u8], ours: &[u8]) -> bool {
    let number = |reply: &[u8]| -> Option<i64> {
        std::str::from_utf8(reply).ok()?.strip_prefix(':')?.trim_end().parse().ok()
    };
    match arguments[0].to_ascii_uppercase().as_slice() {
        b"TTL" | b"PTTL" => match (number(theirs), number(ours)) {
            (Some(theirs), Some(ours)) if theirs > 0 && ours > 0 => (theirs - ours).abs() < 3_000,
            _ => theirs == ours,
        },
        b"KEYS" => sorted(theirs) == sorted(ours),
        _ => theirs == ours,
    }
}

fn sorted(reply: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(reply).into_owned();
    let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn random_commands_are_answered_as_by_redis() {
    run(async {
        let Some(mut pair) = Pair::connect().await else { return };
        for seed in 1..=150_u64 {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            pair.compare(&[b"RESET".to_vec()], "reset").await;
            if seed % 2 == 0 {
                // The head of HELLO differs in the connection's number.
                pair.theirs.ask("HELLO 3").await;
                pair.ours.ask("HELLO 3").await;
            }
            pair.compare(&[b"FLUSHALL".to_vec()], "flush").await;
            let mut queueing = false;
            for step in 0..400 {
                if step % 20 == 0 {
                    pair.set_time().await;
                }
                let command = dice.command();
                match &*command[0] {
                    b"MULTI" => queueing = true,
                    b"EXEC" | b"DISCARD" => queueing = false,
                    // Their replies could not be told apart in the array of EXEC.
                    b"KEYS" | b"TTL" | b"PTTL" if queueing => continue,
                    _ => {}
                }
                pair.compare(&command, &format!("seed {seed}, step {step}")).await;
            }
        }
    });
}

#[test]
fn errors_of_connection_commands_are_those_of_redis() {
    run(async {
        let Some(mut pair) = Pair::connect().await else { return };
        let mut differences = Vec::new();
        for line in CONNECTION_COMMANDS {
            let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.into()).collect();
            differences.extend(pair.difference(&words).await);
        }
        assert!(differences.is_empty(), "{}", differences.concat());
    });
}

#[test]
fn floats_are_added_as_by_redis_to_the_last_digit() {
    run(async {
        let Some(mut pair) = Pair::connect().await else { return };
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        for step in 0..2_000 {
            let mut number = |whole: usize, decimals: usize| {
                let mut text = if dice.below(2) == 0 { "-".to_owned() } else { String::new() };
                let digits = |dice: &mut Dice, count| {
                    (0..count).map(|_| char::from(b'0' + dice.below(10) as u8)).collect::<String>()
                };
                let (whole, decimals) = (dice.below(whole) + 1, dice.below(decimals) + 1);
                text += &digits(&mut dice, whole);
                text += ".";
                text += &digits(&mut dice, decimals);
                if dice.below(4) == 0 {
                    text += &format!("e{}", dice.below(60) as i64 - 30);
                }
                text
            };
            let (start, by) = (number(22, 25), number(6, 20));
            let context = format!("step {step}: {start} + {by}");
            let words =
                |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let set: Vec<Vec<u8>> = words(&["SET", "f", &start]);
            pair.compare(&set, &context).await;
            let add: Vec<Vec<u8>> = words(&["INCRBYFLOAT", "f", &by]);
            pair.compare(&add, &context).await;
            pair.compare(&add, &context).await;
        }
        for text in ["1e4932", "1.1e4932", "1e-4940", "1e-4951", "1e-5000", "1e4933", "0e99999"] {
            let set: Vec<Vec<u8>> = vec![b"SET".to_vec(), b"f".to_vec(), text.into()];
            pair.compare(&set, text).await;
            let add = vec![b"INCRBYFLOAT".to_vec(), b"f".to_vec(), text.into()];
            pair.compare(&add, text).await;
        }
    });
}

#[test]
fn redis_benchmark_and_redis_cli_work_unmodified() {
    run(async {
        let (handle, address) = listen(log(), RespOptions::default()).await;
        let port = address.port().to_string();
        let run = |program: &'static str, arguments: Vec<String>| {
            tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output())
        };
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let arguments = words(&format!("-p {port} -q -n 200 -c 8 -P 4 -r 20 -t set,get,incr,mset"));
        let Ok(output) = run("redis-benchmark", arguments).await.unwrap() else {
            eprintln!("SKIPPED: this test needs redis-benchmark (Debian package redis-tools)");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        for test in ["SET: ", "GET: ", "INCR: ", "MSET (10 keys): "] {
            assert!(text.contains(test), "{test} in {text}");
        }
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let cli = run("redis-cli", words(&format!("-p {port} -3 SET greeting hello")));
        assert_eq!(cli.await.unwrap().unwrap().stdout, b"OK\n");
        let cli = run("redis-cli", words(&format!("-p {port} --scan --pattern gree*")));
        assert_eq!(cli.await.unwrap().unwrap().stdout, b"greeting\n");
        handle.stop().await;
    });
}

/// Right and wrong uses of what needs no key.
const CONNECTION_COMMANDS: &[&str] = &[
    "AUTH x",
    "AUTH a b",
    "AUTH default x",
    "AUTH a b c",
    "SELECT 0",
    "SELECT 1",
    "SELECT x",
    "SELECT 99999999999",
    "HELLO 4",
    "HELLO x",
    "HELLO 3 foo",
    "HELLO 3 AUTH a",
    "HELLO 2 AUTH a b",
    "CLIENT",
    "CLIENT foo",
    "CLIENT GETNAME",
    "CLIENT SETNAME a\tb",
    "CLIENT SETNAME ok",
    "CLIENT GETNAME x",
    "CLIENT REPLY foo",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT on",
    "CLIENT KILL 1.1.1.1:1",
    "CLIENT KILL ID 999",
    "CLIENT KILL",
    "CLIENT KILL foo bar",
    "CLIENT LIST foo",
    "CLIENT LIST TYPE pubsub",
    "CONFIG",
    "CONFIG foo",
    "CONFIG GET",
    "CONFIG SET foo bar",
    "CONFIG RESETSTAT",
    "CONFIG REWRITE",
    "CONFIG GET nosuch",
    "COMMAND foo",
    "COMMAND COUNT x",
    "COMMAND GETKEYS GET",
    "COMMAND GETKEYS PING x",
    "COMMAND GETKEYS MSET a b c d",
    "COMMAND GETKEYS foo bar",
    "COMMAND GETKEYS GET a b",
    "COMMAND INFO nosuch",
    "COMMAND LIST FILTERBY PATTERN get",
    "COMMAND LIST FILTERBY x y",
    "COMMAND DOCS nosuch",
    "WAIT x 0",
    "WAIT 0 x",
    "WAIT 0 -1",
    "WAIT 0 0",
    "EXEC",
    "DISCARD",
    "UNWATCH",
    "UNWATCH x",
    "WATCH",
    "FLUSHALL x",
    "FLUSHDB SYNC",
    "FLUSHALL ASYNC",
    "SCAN x",
    "SCAN 0 COUNT 0",
    "SCAN 0 COUNT x",
    "SCAN 0 MATCH",
    "SCAN 0 FOO 1",
    "PING a b",
    "RANDOMKEY",
    "RANDOMKEY x",
    "DBSIZE x",
    "nosuch a b",
    "INFO nosuch",
    "QUIT",
];
