//! The same commands to a real `redis-server` and to us: every reply must be the same bytes.
//!
//! Method: random sequences over few keys, so that commands meet keys of every kind; agreed time is
//! set to the server's. Replies without an order (`KEYS`) are sorted, times to live may differ by the
//! time that passes between the two.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the other tests of the listener use the rest")]
mod common;

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Client, listen, log, run};
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

/// Numbers that only depend on a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn key(&mut self) -> Vec<u8> {
        self.pick(&["a", "b", "c", "key:1", "key:2", "k[x]", "", "\u{1}\r\n"]).into()
    }

    fn value(&mut self) -> Vec<u8> {
        const VALUES: &[&str] = &[
            "",
            "0",
            "1",
            "-1",
            "42",
            "-0",
            "007",
            "+5",
            " 1",
            "3.0e3",
            "0.1",
            "-1.5",
            "1e400",
            "nan",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "hello world",
            "a\r\nb",
            "\u{0}",
            "99999999999999999999.5",
            "1.",
            ".5",
            "inf",
            "0.30000000000000004",
        ];
        self.pick(VALUES).into()
    }

    fn number(&mut self) -> Vec<u8> {
        const NUMBERS: &[&str] = &[
            "0",
            "1",
            "-1",
            "3",
            "5",
            "10",
            "-3",
            "100",
            "x",
            "1.5",
            "",
            "9223372036854775807",
            "-9223372036854775808",
            "2000000",
            "-7",
        ];
        self.pick(NUMBERS).into()
    }

    /// A time to live in seconds or milliseconds: in the far future, at once, or nonsense. Hardly
    /// any comes twice, since the two clocks differ by some milliseconds.
    fn ttl(&mut self) -> Vec<u8> {
        const TIMES: &[&str] = &["0", "-1", "x", "9223372036854775807", "9223372036854775"];
        if self.below(2) == 0 {
            return self.pick(TIMES).into();
        }
        (1_000_000 + self.below(100_000) * 10_000).to_string().into()
    }

    /// An end in seconds or milliseconds.
    fn end(&mut self) -> Vec<u8> {
        const ENDS: &[&str] =
            &["9999999999", "9999999999999", "99999999999999", "1", "0", "-5", "y", "4000000000"];
        self.pick(ENDS).into()
    }

    fn pattern(&mut self) -> Vec<u8> {
        const PATTERNS: &[&str] =
            &["*", "key:*", "?", "[a-b]", "[^a]", "k\\[x\\]", "k[[]x]", "", "*:*", "[", "a\\"];
        self.pick(PATTERNS).into()
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let name = self.pick(NAMES);
        let mut arguments: Vec<Vec<u8>> = vec![name.into()];
        // Now and then too many or too few arguments.
        if self.below(40) == 0 {
            arguments.extend((0..self.below(5)).map(|_| self.value()));
            return arguments;
        }
        let mut args: Vec<Vec<u8>> = match name {
            "GET" | "GETDEL" | "STRLEN" | "TYPE" | "INCR" | "DECR" | "TTL" | "PTTL"
            | "EXPIRETIME" | "PERSIST" => vec![self.key()],
            "SET" => vec![self.key(), self.value()],
            "SETNX" | "GETSET" | "APPEND" => vec![self.key(), self.value()],
            "SETEX" | "PSETEX" => vec![self.key(), self.ttl(), self.value()],
            "GETEX" => vec![self.key()],
            "MSET" | "MSETNX" => vec![self.key(), self.value(), self.key(), self.value()],
            "MGET" | "DEL" | "UNLINK" | "EXISTS" => vec![self.key(), self.key(), self.key()],
            "GETRANGE" => vec![self.key(), self.number(), self.number()],
            "SETRANGE" => vec![self.key(), self.number(), self.value()],
            "INCRBY" | "DECRBY" => vec![self.key(), self.number()],
            "INCRBYFLOAT" => vec![self.key(), self.value()],
            "EXPIRE" | "PEXPIRE" => vec![self.key(), self.ttl()],
            "EXPIREAT" | "PEXPIREAT" => vec![self.key(), self.end()],
            "RENAME" => vec![self.key(), self.key()],
            "KEYS" => vec![self.pattern()],
            "ECHO" | "PING" => vec![self.value()],
            _ => Vec::new(),
        };
        match name {
            "SET" => {
                self.options(
                    &mut args,
                    &["NX", "XX", "GET", "KEEPTTL", "ex", "PX", "EXAT", "pxat"],
                );
            }
            "GETEX" => self.options(&mut args, &["PERSIST", "EX", "px", "EXAT", "PXAT", "NX"]),
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
                self.options(&mut args, &["nx", "XX", "GT", "LT", "FOO"]);
            }
            _ => {}
        }
        arguments.append(&mut args);
        arguments
    }

    fn options(&mut self, args: &mut Vec<Vec<u8>>, of: &[&str]) {
        for _ in 0..self.below(8).saturating_sub(4) {
            let option = self.pick(of);
            args.push(option.into());
            let argument = match option.to_ascii_uppercase().as_str() {
                "EX" | "PX" => Some(self.ttl()),
                "EXAT" | "PXAT" => Some(self.end()),
                _ => None,
            };
            args.extend(argument);
        }
    }
}

const NAMES: &[&str] = &[
    "GET",
    "GET",
    "SET",
    "SET",
    "SET",
    "SET",
    "GETDEL",
    "STRLEN",
    "TYPE",
    "INCR",
    "DECR",
    "TTL",
    "PTTL",
    "EXPIRETIME",
    "PERSIST",
    "SETNX",
    "GETSET",
    "APPEND",
    "SETEX",
    "PSETEX",
    "GETEX",
    "GETEX",
    "MSET",
    "MSETNX",
    "MGET",
    "DEL",
    "UNLINK",
    "EXISTS",
    "GETRANGE",
    "SETRANGE",
    "INCRBY",
    "DECRBY",
    "INCRBYFLOAT",
    "INCRBYFLOAT",
    "EXPIRE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "RENAME",
    "KEYS",
    "ECHO",
    "PING",
    "MULTI",
    "EXEC",
    "DISCARD",
    "nosuch",
];

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
        for line in include_str!("redis/errors.txt").lines() {
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
