//! What the verbs' help shows: first steps, and examples of each.

pub(super) const FIRST_STEPS: &str = "First steps:
  synod dev                       a cluster on this machine, gone when you press Ctrl-C
  synod dev --dir demo            the same, kept in demo/ and resumed by the same command
  synod status --cluster demo/client.toml

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not applied, 4 outcome unknown,
5 leadership lost (elect).";

pub(super) const EXAMPLES: [(&str, &str); 12] = [
    (
        "dev",
        "  synod dev                          two mains and an auxiliary in a temporary directory
  synod dev --dir demo               kept in demo/; the same command resumes it
  synod dev --mains 1                one node alone: nothing survives its machine
  synod dev --durability memory      faster, and nothing survives a power loss
  synod dev --json | jq .            for scripts: one object a line",
    ),
    (
        "node",
        "  synod node --config /etc/synod/synod.toml
  synod node --config /etc/synod/synod.toml --check
  SYNOD_LOG=debug synod node --config /etc/synod/synod.toml
  SYNOD_LISTEN_HTTP=127.0.0.1:9000 synod node --config /etc/synod/synod.toml",
    ),
    (
        "init",
        "  synod init --out shop --cluster shop --main a=db1:7001 b=db2:7001 --auxiliary x=pi:7001
  synod init --out far --cluster far --main a=rome:7001 b=oslo:7001 --auxiliary x=bern:7001 \
      --profile wan
  scp -r shop/a db1:/etc/synod        then there: synod node --config /etc/synod/synod.toml
  synod init --out shop --add m1=web1:7001 --role member",
    ),
    (
        "status",
        "  synod status --cluster demo/client.toml
  SYNOD_CLUSTER=demo/client.toml synod status --json | jq .leader",
    ),
    (
        "members",
        "  synod members                      who is what, and how far behind
  synod members lead b               before working on the machine of a
  synod members add c --role main --quic db3:7001
  synod members remove b",
    ),
    (
        "call",
        "  synod call ledger ledger.transfer '{\"from\":\"a\",\"to\":\"b\",\"amount\":5}'
  synod call ledger ledger.balance '{\"account\":\"b\"}' --timeout 2s",
    ),
    (
        "actors",
        "  synod actors                       what `call` can reach
  synod actors --roles --json        every registered actor of every node",
    ),
    (
        "elect",
        "  synod elect --role nightly -- /usr/local/bin/nightly
  synod elect --role mail --role web --lease 5s -- sh -c 'exec serve --as \"$SYNOD_ROLE\"'",
    ),
    (
        "publish",
        "  tail -F access.log | synod publish access
  seq 1000000 | synod publish numbers --count-only",
    ),
    (
        "subscribe",
        "  synod subscribe access             what is published from now on
  synod subscribe access --from checkpoint --count 10
  synod subscribe access --from 4711 --json | jq .payload",
    ),
    (
        "simulate",
        "  synod simulate                     a hundred clusters, one simulated minute each
  synod simulate --seed 8841 --runs 1
  SYNOD_LOG=debug synod simulate --seed 8841 --runs 1
  synod simulate --runs 1000 --faults loss,partition,crash
  synod simulate --profile wan --faults none",
    ),
    (
        "bench",
        "  synod bench commands                       sets and gets on a cluster of its own
  synod bench commands --clients 64 --durability memory
  synod bench commands --cluster demo/client.toml --node b
  synod bench remote --size 1KiB --json | jq .ops_per_s
  synod bench web --seconds 5                two stock nginx behind a cluster, beside one alone
  synod bench web --large 0                  without the bodies of 100 MB

Beside each row of `commands` stand its cost, in syncs and link bytes a command at each main, and
its median over one raw disk sync and one raw QUIC round trip, measured in the same run.

Rows of `web` in the order they come. RATE/LIMIT is the rate over that of the row it is measured
beside; PEAK MiB is the most that each node, by name, had in memory during the row.
  put-nginx, get-nginx   an nginx with WebDAV alone
  put-ordered            PUTs that the log orders, at both sites by turns; beside put-nginx
  get-proxy              an nginx as a plain reverse proxy before that alone
  get-linearizable       GETs that see all that was answered; beside get-proxy
  get-local              GETs of a route with `read = \"local\"`; beside get-proxy
  put-large-nginx, put-large-proxy, put-large-ordered, get-large-nginx, get-large-proxy,
  get-large-linearizable
                         one client with large bodies, five at most, beside the proxy; about
                         1 GB in the temporary directory while they are measured
  put-sam, get-sam       put-ordered and get-linearizable, with `order = \"sam\"`, in a cluster
                         of their own; not with --durability memory",
    ),
];
