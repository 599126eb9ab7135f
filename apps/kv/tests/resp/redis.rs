//! The same commands to a real `redis-server` and to us: every reply must be the same bytes.
//!
//! Method: random sequences of three clients over few keys, so that commands meet keys of every
//! kind; agreed time is set to the server's. A difference is shrunk and printed with its seed.

use std::process::Command;

use super::{
    common::{Client, listen, log, run},
    dice::Dice,
    judge::Judge,
    ops::{Op, sequence},
};
use synod_kv::resp::RespOptions;

/// Sequences of an ordinary run; `SYNOD_REDIS_SEEDS=FROM..TO` runs others.
const SEEDS: std::ops::Range<u64> = 1..80;

/// Ops of one sequence.
const OPS: usize = 250;

/// Then there is enough to mend.
const VERDICTS_MAX: usize = 8;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SYNOD_REDIS_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SYNOD_REDIS_SEEDS=FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

fn words(line: &str) -> Op {
    let command = line.split(' ').map(|word| word.into()).collect();
    Op::Send { client: 0, commands: vec![command] }
}

#[test]
fn random_commands_are_answered_as_by_redis() {
    run(async {
        let Some(mut judge) = Judge::start().await else { return };
        let mut verdicts = Vec::new();
        for seed in seeds() {
            verdicts.extend(judge.verdict(seed, sequence(seed, OPS)).await);
            assert!(verdicts.len() < VERDICTS_MAX, "{}", verdicts.join("\n"));
        }
        assert!(verdicts.is_empty(), "{}", verdicts.join("\n"));
    });
}

#[test]
fn errors_of_connection_commands_are_those_of_redis() {
    run(async {
        let Some(mut judge) = Judge::start().await else { return };
        let mut differences = Vec::new();
        for line in CONNECTION_COMMANDS {
            differences.extend(judge.compare(&words(line)).await.map(|found| found.text));
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}

#[test]
fn values_up_to_the_limit_are_taken_and_larger_ones_refused_as_by_redis() {
    run(async {
        let Some(mut judge) = Judge::start().await else { return };
        let most = synod_kv::limits::VALUE_BYTES_MAX;
        let mut ops = Vec::new();
        let mut op = |command: &[&[u8]]| {
            let command = command.iter().map(|word| word.to_vec()).collect();
            ops.push(Op::Send { client: 0, commands: vec![command] });
        };
        let value: Vec<u8> = (0..most).map(|at| (at * 7 % 251) as u8).collect();
        op(&[b"SET", b"big", &value]);
        op(&[b"GET", b"big"]);
        op(&[b"STRLEN", b"big"]);
        op(&[b"GETRANGE", b"big", b"1048570", b"-1"]);
        op(&[b"APPEND", b"big", b"x"]);
        op(&[b"SETRANGE", b"big", b"1048576", b"x"]);
        op(&[b"SETRANGE", b"big", b"1048575", b"x"]);
        op(&[b"SETRANGE", b"new", b"1048575", b"x"]);
        op(&[b"SETRANGE", b"other", b"1048576", b"x"]);
        op(&[b"SETRANGE", b"other", b"9223372036854775807", b"x"]);
        op(&[b"SETRANGE", b"other", b"9223372036854775807", b""]);
        op(&[b"APPEND", b"half", &value[..most / 2]]);
        op(&[b"APPEND", b"half", &value[most / 2..]]);
        op(&[b"APPEND", b"half", b"x"]);
        op(&[b"SET", &value, b"v"]);
        op(&[b"MGET", &value, b"big", b"half"]);
        op(&[b"INCR", b"big"]);
        op(&[b"INCRBYFLOAT", b"big", b"1"]);
        op(&[b"DEL", &value]);
        judge.judge(0, ops).await;
    });
}

#[test]
fn bytes_that_are_no_command_are_answered_and_hung_up_on_as_by_redis() {
    run(async {
        let Some(judge) = Judge::start().await else { return };
        let (handle, ours) = listen(log(), RespOptions::default()).await;
        let mut differences = Vec::new();
        for bytes in GARBAGE {
            let mut said = Vec::new();
            for address in [judge.server.address, ours] {
                let mut client = Client::connect(address).await;
                client.send(bytes).await;
                client.half_close().await;
                said.push(client.rest().await.escape_ascii().to_string());
            }
            if said[0] != said[1] {
                let bytes = bytes.escape_ascii();
                differences.push(format!("{bytes}\n  redis: {}\n  ours:  {}", said[0], said[1]));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        handle.stop().await;
        judge.handle.stop().await;
    });
}

#[test]
fn floats_are_added_as_by_redis_to_the_last_digit() {
    run(async {
        let Some(mut judge) = Judge::start().await else { return };
        let mut dice = Dice::new(7);
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
            let mut ops = vec![words(&format!("SET f {start}"))];
            ops.extend([(); 2].map(|()| words(&format!("INCRBYFLOAT f {by}"))));
            judge.judge(step, ops).await;
        }
        for text in ["1e4932", "1.1e4932", "1e-4940", "1e-4951", "1e-5000", "1e4933", "0e99999"] {
            let ops = [format!("SET f {text}"), format!("INCRBYFLOAT f {text}")];
            judge.judge(0, ops.iter().map(|line| words(line)).collect()).await;
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

/// What no client sends, each on a connection of its own.
const GARBAGE: &[&[u8]] = &[
    b"*abc\r\n",
    b"*2147483648\r\n",
    b"*-1\r\nPING\r\n",
    b"*0\r\nPING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$abc\r\nPING\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$1048577\r\nPING\r\n",
    b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1 \r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\n$4\nPING\n",
    b"SET a \"b\r\nPING\r\n",
    b"SET a \"b\"c\r\nPING\r\n",
    b"\r\n\r\n  \r\nPING\r\n",
    b"PING\nPING\n",
    b"$4\r\nPING\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"QUIT\r\nPING\r\n",
    b"MULTI\r\nQUIT\r\n",
    b"MULTI\r\nINCR a\r\nPI",
];
