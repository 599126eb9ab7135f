//! The RESP port as a client sees it, over a log of one process.

use super::common::{Client, Gate, encode, listen, log, run};
use synod::replicated::{Outcome, Reason, Refusal};
use synod_kv::{
    limits::VALUES_UNDER_WAY_MAX,
    resp::{AskFacts, Facts, RespOptions},
};

async fn client() -> (Client, synod_kv::resp::RespHandle) {
    let (handle, address) = listen(log(), RespOptions::default()).await;
    (Client::connect(address).await, handle)
}

#[test]
fn a_pipeline_is_answered_in_order_whatever_it_asks() {
    run(async {
        let (mut client, _handle) = client().await;
        let pipeline = b"PING\r\nSET a 1\r\nGET a\r\nINCR a\r\nECHO hi\r\nNOPE\r\nMGET a b\r\n";
        client.send(pipeline).await;
        let expected = [
            "+PONG\r\n",
            "+OK\r\n",
            "$1\r\n1\r\n",
            ":2\r\n",
            "$2\r\nhi\r\n",
            "-ERR unknown command 'NOPE', with args beginning with: \r\n",
            "*2\r\n$1\r\n2\r\n$-1\r\n",
        ];
        for reply in expected {
            assert_eq!(client.reply().await, reply.as_bytes());
        }
    });
}

#[test]
fn hello_changes_the_protocol_from_its_own_reply_on() {
    run(async {
        let (mut client, _handle) = client().await;
        client.send(b"GET a\r\nHELLO 3 SETNAME me\r\nGET a\r\nCLIENT GETNAME\r\n").await;
        assert_eq!(client.reply().await, b"$-1\r\n");
        assert!(client.reply().await.starts_with(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
        assert_eq!(client.reply().await, b"_\r\n");
        assert_eq!(client.reply().await, b"$2\r\nme\r\n");
        assert_eq!(client.ask("HELLO 4").await, "-NOPROTO unsupported protocol version\r\n");
        assert!(client.ask("HELLO 2").await.starts_with("*14\r\n"));
        assert_eq!(client.ask("RESET").await, "+RESET\r\n");
        assert_eq!(client.ask("CLIENT GETNAME").await, "$-1\r\n");
    });
}

#[test]
fn a_transaction_is_queued_run_and_spoilt_as_in_redis() {
    run(async {
        let (mut client, _handle) = client().await;
        client
            .send(b"MULTI\r\nMULTI\r\nWATCH a\r\nINCR a\r\nPING\r\nCLIENT ID\r\nEXEC\r\nEXEC\r\n")
            .await;
        let expected = [
            "+OK\r\n",
            "-ERR MULTI calls can not be nested\r\n",
            "-ERR WATCH inside MULTI is not allowed\r\n",
            "+QUEUED\r\n",
            "+QUEUED\r\n",
            "+QUEUED\r\n",
            "*3\r\n:1\r\n+PONG\r\n:1\r\n",
            "-ERR EXEC without MULTI\r\n",
        ];
        for reply in expected {
            assert_eq!(String::from_utf8(client.reply().await).unwrap(), reply);
        }
        client.send(b"MULTI\r\nSET a\r\nINCR a\r\nEXEC\r\nGET a\r\nDISCARD\r\n").await;
        let expected = [
            "+OK\r\n",
            "-ERR wrong number of arguments for 'set' command\r\n",
            "+QUEUED\r\n",
            "-EXECABORT Transaction discarded because of previous errors.\r\n",
            "$1\r\n1\r\n",
            "-ERR DISCARD without MULTI\r\n",
        ];
        for reply in expected {
            assert_eq!(String::from_utf8(client.reply().await).unwrap(), reply);
        }
    });
}

#[test]
fn a_watched_key_that_changed_stops_the_transaction_even_in_one_pipeline() {
    run(async {
        let (handle, address) = listen(log(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let mut other = Client::connect(address).await;
        client.send(b"SET a 1\r\nWATCH a\r\nMULTI\r\nINCR a\r\nEXEC\r\n").await;
        let last = |replies: Vec<Vec<u8>>| String::from_utf8(replies.concat()).unwrap();
        let mut replies = Vec::new();
        for _ in 0..5 {
            replies.push(client.reply().await);
        }
        assert_eq!(last(replies), "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n");
        assert_eq!(client.ask("WATCH a b").await, "+OK\r\n");
        assert_eq!(other.ask("SET b 1").await, "+OK\r\n");
        client.send(b"MULTI\r\nINCR a\r\nEXEC\r\n").await;
        let replies = vec![client.reply().await, client.reply().await, client.reply().await];
        assert_eq!(last(replies), "+OK\r\n+QUEUED\r\n*-1\r\n");
        // What was watched is forgotten with EXEC.
        assert_eq!(other.ask("SET a 7").await, "+OK\r\n");
        client.send(b"MULTI\r\nINCR a\r\nEXEC\r\n").await;
        let replies = vec![client.reply().await, client.reply().await, client.reply().await];
        assert_eq!(last(replies), "+OK\r\n+QUEUED\r\n*1\r\n:8\r\n");
        assert_eq!(handle.connections(), 2);
    });
}

#[test]
fn a_read_that_comes_with_a_write_goes_behind_it_through_the_log() {
    run(async {
        let gate = Gate::closed(log());
        let (_handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        client.send(b"GET a\r\nSET a 1\r\nGET a\r\n").await;
        gate.batches(1).await;
        client.send(b"GET a\r\n").await;
        gate.batches(2).await;
        assert_eq!(gate.ways(), ["3 commands", "1 commands"]);
        gate.let_commands_go();
        for reply in ["$-1\r\n", "+OK\r\n", "$1\r\n1\r\n", "$1\r\n1\r\n"] {
            assert_eq!(client.reply().await, reply.as_bytes());
        }
        client.send(b"GET a\r\nGET b\r\n").await;
        gate.batches(3).await;
        assert_eq!(gate.ways()[2], "2 queries");
    });
}

#[test]
fn a_time_to_live_is_asked_through_the_log_where_time_passes() {
    run(async {
        let gate = Gate::closed(log());
        let (_handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        client.send(b"TTL a\r\n").await;
        gate.batches(1).await;
        assert_eq!(gate.ways(), ["1 commands"]);
        gate.let_commands_go();
        assert_eq!(client.reply().await, b":-2\r\n");
        client.send(b"READONLY\r\n").await;
        client.reply().await;
        client.send(b"PTTL a\r\n").await;
        gate.batches(2).await;
        assert_eq!(gate.ways()[1], "1 queries");
        gate.let_queries_go();
        assert_eq!(client.reply().await, b":-2\r\n");
    });
}

#[test]
fn a_write_does_not_overtake_a_read_before_it() {
    run(async {
        let gate = Gate::closed(log());
        let (_handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        client.send(b"GET a\r\n").await;
        gate.batches(1).await;
        client.send(b"SET a 1\r\nGET a\r\n").await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.ways(), ["1 queries"]);
        gate.let_queries_go();
        gate.batches(2).await;
        assert_eq!(gate.ways()[1], "2 commands");
        gate.let_commands_go();
        for reply in ["$-1\r\n", "+OK\r\n", "$1\r\n1\r\n"] {
            assert_eq!(client.reply().await, reply.as_bytes());
        }
    });
}

#[test]
fn outcomes_are_told_in_the_words_of_the_contract() {
    run(async {
        let log = log();
        let (_handle, address) = listen(log.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let refused = |reason| Outcome::NotApplied(Refusal::new(reason, "needs main b"));
        let cases = [
            (refused(Reason::Unavailable), "-CLUSTERDOWN not applied: needs main b\r\n"),
            (refused(Reason::Full), "-FULL not applied: needs main b\r\n"),
            (Outcome::Unknown("5s".into()), "-UNCERTAIN outcome unknown: 5s\r\n"),
            (Outcome::Failed("it panicked".into()), "-ERR it panicked\r\n"),
        ];
        for (outcome, expected) in cases {
            log.refuse(Some(outcome));
            assert_eq!(client.ask("SET a 1").await, expected);
            assert_eq!(client.ask("GET a").await, expected);
            client.send(b"MULTI\r\nINCR a\r\nEXEC\r\n").await;
            client.reply().await;
            client.reply().await;
            assert_eq!(client.reply().await, expected.as_bytes());
        }
        // What needs no replica is answered without one.
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        log.refuse(None);
        assert_eq!(client.ask("GET a").await, "$-1\r\n");
    });
}

#[test]
fn garbage_is_told_and_hung_up_on_and_others_are_served_on() {
    run(async {
        let (_handle, address) = listen(log(), RespOptions::default()).await;
        let mut other = Client::connect(address).await;
        let cases: [(&[u8], &[u8]); 4] = [
            (b"PING\r\n*x\r\n", b"+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
            (b"*1\r\n$99999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
            (b"GET \"a\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nFLUSHALL\r\n", b""),
        ];
        for (garbage, expected) in cases {
            let mut client = Client::connect(address).await;
            client.send(garbage).await;
            assert_eq!(client.rest().await, expected);
            assert_eq!(other.ask("PING").await, "+PONG\r\n");
        }
    });
}

#[test]
fn a_client_that_only_stops_sending_still_gets_its_answers() {
    run(async {
        let gate = Gate::closed(log());
        let (handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        client.send(b"SET a 1\r\nSET b 2\r\n").await;
        client.half_close().await;
        gate.batches(1).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.let_commands_go();
        assert_eq!(client.rest().await, b"+OK\r\n+OK\r\n");
        handle.stop().await;
    });
}

#[test]
fn stopping_answers_what_is_under_way_and_takes_nothing_more() {
    run(async {
        let gate = Gate::closed(log());
        let (handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        client.send(b"SET a 1\r\n").await;
        gate.batches(1).await;
        let stopped = tokio::task::spawn_local(handle.stop());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.let_commands_go();
        assert_eq!(client.rest().await, b"+OK\r\n");
        stopped.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn no_client_has_more_values_made_for_it_than_the_limit() {
    run(async {
        let log = log();
        let (_handle, address) = listen(log.clone(), RespOptions::default()).await;
        let value = vec![b'x'; 1024 * 1024];
        let mut writer = Client::connect(address).await;
        assert_eq!(writer.call(&[&b"SET"[..], b"a", &value]).await, b"+OK\r\n");

        let gate = Gate::closed(log);
        let (_handle, address) = listen(gate.clone(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let count = 4 * VALUES_UNDER_WAY_MAX;
        client.send(&b"GET a\r\n".repeat(count)).await;
        gate.batches(1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.queries(), VALUES_UNDER_WAY_MAX);

        // Who reads at last gets them all.
        let opener = tokio::task::spawn_local(async move {
            loop {
                gate.let_queries_go();
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..count {
            assert_eq!(client.reply().await.len(), b"$1048576\r\n\r\n".len() + value.len());
        }
        opener.abort();
    });
}

#[test]
fn more_connections_than_the_limit_are_told_so() {
    run(async {
        let options = RespOptions { connections_max: 1, ..RespOptions::default() };
        let (_handle, address) = listen(log(), options).await;
        let mut first = Client::connect(address).await;
        assert_eq!(first.ask("PING").await, "+PONG\r\n");
        let mut second = Client::connect(address).await;
        assert_eq!(second.rest().await, b"-ERR max number of clients reached\r\n");
    });
}

#[test]
fn a_long_pipeline_is_taken_in_pieces_and_answered_whole() {
    run(async {
        let (handle, address) = listen(log(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let count = 5_000;
        client.send(&encode(&["INCR", "n"]).repeat(count)).await;
        for n in 1..=count {
            assert_eq!(client.reply().await, format!(":{n}\r\n").as_bytes());
        }
        assert_eq!(handle.commands(), 5_000);
    });
}

/// Goal: commands that need no log end no connection's progress, however many come at once. Method: more
/// than may be under way of each kind, in one write, alone and behind one that needs the log.
#[test]
fn a_long_pipeline_that_the_node_answers_itself_is_answered_whole() {
    run(async {
        let (_handle, address) = listen(log(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let count = 5_000;
        for (command, reply) in [("PING", "+PONG\r\n"), ("ECHO a", "$1\r\na\r\n")] {
            client.send(format!("{command}\r\n").repeat(count).as_bytes()).await;
            for _ in 0..count {
                assert_eq!(client.reply().await, reply.as_bytes());
            }
        }
        client.send(format!("SET a 1\r\n{}", "PING\r\n".repeat(count)).as_bytes()).await;
        assert_eq!(client.reply().await, b"+OK\r\n");
        for _ in 0..count {
            assert_eq!(client.reply().await, b"+PONG\r\n");
        }
        client.send(format!("MULTI\r\n{}", "INCR n\r\n".repeat(count)).as_bytes()).await;
        assert_eq!(client.reply().await, b"+OK\r\n");
        for _ in 0..count {
            assert_eq!(client.reply().await, b"+QUEUED\r\n");
        }
        assert!(client.ask("EXEC").await.starts_with("*5000\r\n:1\r\n"));
        let silent = format!("CLIENT REPLY OFF\r\n{}", "PING\r\n".repeat(count));
        client.send(format!("{silent}CLIENT REPLY ON\r\n").as_bytes()).await;
        assert_eq!(client.reply().await, b"+OK\r\n");
    });
}

#[test]
fn clients_are_listed_named_silenced_and_killed() {
    run(async {
        let (handle, address) = listen(log(), RespOptions::default()).await;
        let mut client = Client::connect(address).await;
        let mut other = Client::connect(address).await;
        assert_eq!(client.ask("CLIENT SETNAME me").await, "+OK\r\n");
        assert_eq!(other.ask("CLIENT ID").await, ":2\r\n");
        let list = client.ask("CLIENT LIST").await;
        assert_eq!(list.matches("addr=127.0.0.1:").count(), 4, "{list}");
        assert!(list.contains("name=me") && list.contains("cmd=client|list"), "{list}");
        client.send(b"CLIENT REPLY OFF\r\nPING\r\nSET a 1\r\nCLIENT REPLY ON\r\n").await;
        assert_eq!(client.reply().await, b"+OK\r\n");
        client.send(b"CLIENT REPLY SKIP\r\nPING\r\nECHO heard\r\n").await;
        assert_eq!(client.reply().await, b"$5\r\nheard\r\n");
        assert_eq!(client.ask("CLIENT KILL ID 2").await, ":1\r\n");
        assert_eq!(other.rest().await, b"");
        assert_eq!(client.ask("QUIT").await, "+OK\r\n");
        assert_eq!(client.rest().await, b"");
        while handle.connections() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn info_and_wait_tell_of_the_node() {
    run(async {
        let facts = AskFacts::new(|| Facts {
            node: "a".into(),
            leader: Some("b".into()),
            mains: 2,
            ..Facts::default()
        });
        let options = RespOptions { facts, ..RespOptions::default() };
        let (_handle, address) = listen(log(), options).await;
        let mut client = Client::connect(address).await;
        assert_eq!(client.ask("WAIT 1 0").await, ":1\r\n");
        client.ask("SET a 1").await;
        let info = client.ask("INFO").await;
        for line in ["role:master", "synod_node:a", "synod_leader:b", "db0:keys=1,expires=0"] {
            assert!(info.contains(line), "{line} in {info}");
        }
        let info = client.ask("INFO replication").await;
        assert!(info.contains("connected_slaves:1") && !info.contains("db0"), "{info}");
    });
}

#[test]
fn benchmarks_and_libraries_find_what_they_ask_for_first() {
    run(async {
        let (mut client, _handle) = client().await;
        assert_eq!(client.ask("CONFIG GET save").await, "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
        let appendonly = "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n";
        assert_eq!(client.ask("CONFIG GET appendonly").await, appendonly);
        assert_eq!(client.ask("CLIENT SETINFO LIB-NAME redis-py").await, "+OK\r\n");
        assert_eq!(client.ask("SELECT 0").await, "+OK\r\n");
        assert!(client.ask("COMMAND").await.contains("\r\n*10\r\n$6\r\nappend\r\n:3\r\n"));
        assert!(client.ask("COMMAND DOCS get").await.starts_with("*2\r\n$3\r\nget\r\n*4\r\n"));
        let keys = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        assert_eq!(client.ask("COMMAND GETKEYS MSET a 1 b 2").await, keys);
        let unknown = client.ask("synod.versions a").await;
        assert!(unknown.starts_with("-ERR unknown command 'synod.versions'"), "{unknown}");
    });
}

#[test]
fn every_command_answers_once_whatever_its_arguments() {
    run(async {
        let (mut client, _handle) = client().await;
        let odd: [&[u8]; 6] = [b"", b"\xff\x00\r\n", b"-9223372036854775808", b"*", b"get", b"3"];
        for command in synod_kv::execute::commands().filter(|command| command.name != "quit") {
            for count in 0..5 {
                for first in 0..odd.len() {
                    let mut arguments = vec![command.name.as_bytes()];
                    arguments.extend((0..count).map(|n| odd[(first + n * 5) % odd.len()]));
                    client.call(&arguments).await;
                }
            }
            // Replies and commands still belong together.
            client.call(&["RESET"]).await;
            assert_eq!(client.ask("ECHO here").await, "$4\r\nhere\r\n", "{}", command.name);
        }
    });
}
