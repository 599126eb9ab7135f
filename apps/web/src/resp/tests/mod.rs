//! The shell and the port before a server that breaks off, loses what it had, and is full.

mod fake;

use std::{
    cell::{Cell, RefCell},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use synod::{
    runtime::{telemetry::Metrics, world::RealClock},
    server::{
        Access, StopTrigger,
        config::{ReadPolicy, WebConfig, WebRoute},
        stop_pair,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use self::fake::Fake;
use super::{RedisServer, serve, wire};
use crate::{
    Answer, Form as _, Fresh, Identity, Order, OrderError, Past, Perform as _, Request, Response,
    Stamp, Unperformed, edge::EdgeOptions, tireless::restarts,
};

fn server(fake: &Fake) -> RedisServer {
    RedisServer::start(fake.address.clone(), restarts(&Metrics::new(), "web/redis"))
}

fn request(lines: &[&str]) -> Rc<Request> {
    let mut body = Vec::new();
    lines.iter().for_each(|line| wire::write(&mut body, &line.split(' ').collect::<Vec<_>>()));
    let (method, target) = ("PIPELINE".to_owned(), "/0".to_owned());
    Rc::new(Request { method, target, headers: Vec::new(), body: body.into(), apart: None })
}

const fn stamp(seq: u64) -> Stamp {
    Stamp { seq, time_ms: 5_000, seed: 0, redo: false }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it comes to an end")
}

fn body(answer: Result<Response, Unperformed>) -> String {
    String::from_utf8(answer.unwrap().body.to_vec()).unwrap()
}

#[actix_web::test]
async fn what_was_performed_on_a_connection_that_broke_is_not_performed_again() {
    let fake = Fake::start();
    let server = server(&fake);
    assert_eq!(soon(server.recall(1)).await, Ok(0));
    fake.breaks.set(2);
    let all: Vec<_> =
        (1..=5).map(|seq| server.perform(request(&["APPEND k x"]), stamp(seq))).collect();
    let all = soon(futures_util::future::join_all(all)).await;
    let lost = all.iter().filter(|one| **one == Err(Unperformed::Performed)).count();
    assert_eq!((lost, fake.get("k").as_deref()), (2, Some("xxxxx")), "{all:?}");
    // Whoever comes behind finds out by the server's number.
    let other = self::server(&fake);
    assert_eq!(soon(other.recall(1)).await, Ok(5));
    let again = soon(other.perform(request(&["APPEND k x"]), stamp(5))).await;
    assert_eq!(again, Err(Unperformed::Performed));
    assert_eq!(soon(other.recall(2)).await, Ok(0), "of another order it has performed nothing");
}

#[actix_web::test]
async fn a_server_that_lost_something_is_found_out_before_anybody_reads_it() {
    let fake = Fake::start();
    let server = server(&fake);
    assert_eq!(soon(server.recall(1)).await, Ok(0));
    let before = server.instance().unwrap();
    body(soon(server.perform(request(&["APPEND k x"]), stamp(1))).await);
    let kept = fake.content.borrow().clone();
    body(soon(server.perform(request(&["APPEND k y"]), stamp(2))).await);
    fake.restart(kept);
    let third = soon(server.perform(request(&["APPEND k z"]), stamp(3))).await;
    assert_eq!(third, Err(Unperformed::Behind(1)));
    soon(server.lost()).await;
    assert!(server.instance().is_err(), "nobody is shown the old state");
    assert_eq!(soon(server.recall(1)).await, Ok(1));
    for (seq, line) in [(2, "APPEND k y"), (3, "APPEND k z")] {
        body(soon(server.perform(request(&[line]), stamp(seq))).await);
    }
    assert_eq!(fake.get("k").as_deref(), Some("xyz"));
    assert_ne!(server.instance().unwrap(), before);
}

#[actix_web::test]
async fn a_full_server_performs_nothing_and_what_it_does_not_take_is_answered_so() {
    let fake = Fake::start();
    let server = server(&fake);
    assert_eq!(soon(server.recall(1)).await, Ok(0));
    fake.full.set(true);
    let full = soon(server.perform(request(&["APPEND k x"]), stamp(1))).await;
    assert!(matches!(&full, Err(Unperformed::NotSent(why)) if why.contains("OOM")), "{full:?}");
    fake.full.set(false);
    let (one, two) = (request(&["APPEND k x", "GET", "APPEND k y"]), request(&["APPEND k z"]));
    let both = [server.perform(one, stamp(1)), server.perform(two, stamp(2))];
    let both = soon(futures_util::future::join_all(both)).await;
    let said: Vec<String> = both.into_iter().map(body).collect();
    assert_eq!(said, [":1\r\n-ERR wrong number of arguments\r\n:2\r\n", ":3\r\n"]);
    let strange = Request { target: "/a".to_owned(), ..(*request(&["GET k"])).clone() };
    let strange = soon(server.perform(Rc::new(strange), stamp(3))).await;
    assert!(matches!(strange, Err(Unperformed::NotSent(_))));
}

/// An order of one site, in memory.
struct Alone {
    server: RedisServer,
    last: Cell<u64>,
    /// Done by somebody else, who comes before the next request.
    before: RefCell<Option<Rc<Request>>>,
    /// Told to whoever asks for anything, instead of doing it.
    refuse: RefCell<Option<OrderError>>,
    asked: RefCell<Vec<Fresh>>,
}

impl Order for Alone {
    fn perform(
        &self,
        request: Request,
        _: Identity,
    ) -> LocalBoxFuture<'_, Result<Answer, OrderError>> {
        Box::pin(async move {
            if let Some(why) = self.refuse.borrow().clone() {
                return Err(why);
            }
            let next = || {
                self.last.set(self.last.get() + 1);
                self.last.get()
            };
            if let Some(before) = self.before.take() {
                self.server.perform(before, stamp(next())).await.unwrap();
            }
            let seq = next();
            let response = self.server.perform(Rc::new(request), stamp(seq)).await;
            let response = response.map_err(|why| OrderError::Unknown(why.to_string()))?;
            Ok(Answer { seq, response, replayed: false })
        })
    }

    fn fresh(&self, fresh: Fresh) -> LocalBoxFuture<'_, Result<u64, OrderError>> {
        self.asked.borrow_mut().push(fresh);
        let refused = self.refuse.borrow().clone();
        let refused = refused.map_or_else(|| Ok(self.last.get()), Err);
        Box::pin(std::future::ready(refused))
    }

    fn outcome<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Past, OrderError>> {
        Box::pin(std::future::ready(Ok(Past::Never)))
    }

    fn behind(&self) -> u64 {
        0
    }
}

/// A port before a server. It stops when dropped.
struct Port {
    at: SocketAddr,
    order: Rc<Alone>,
    _stop: StopTrigger,
}

impl Port {
    async fn open(fake: &Fake, configure: impl FnOnce(&mut WebConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut web = WebConfig::new(at, fake.address.to_string());
        configure(&mut web);
        let server = server(fake);
        assert_eq!(soon(server.recall(1)).await, Ok(0));
        let (refuse, asked) = (RefCell::default(), RefCell::default());
        let (last, before) = (Cell::new(0), RefCell::default());
        let order = Rc::new(Alone { server: server.clone(), last, before, refuse, asked });
        let (trigger, stop) = stop_pair();
        let options = EdgeOptions {
            web,
            access: Access::open(),
            site: "a".to_owned(),
            metrics: Metrics::new(),
            clock: Arc::new(RealClock),
            connections_max: 8,
            bodies: None,
            stop,
        };
        let agreed: Rc<dyn Order> = Rc::<Alone>::clone(&order);
        serve(listener, agreed, server, options).unwrap();
        Self { at, order, _stop: trigger }
    }

    /// All that comes back for these lines and QUIT.
    async fn talk(&self, lines: &[&str]) -> String {
        let mut bytes = Vec::new();
        for line in lines.iter().chain(&["QUIT"]) {
            wire::write(&mut bytes, &line.split(' ').collect::<Vec<_>>());
        }
        self.raw(&bytes).await
    }

    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut heard = Vec::new();
        // A reset after the last word is an end, too.
        drop(soon(stream.read_to_end(&mut heard)).await);
        String::from_utf8(heard).unwrap()
    }
}

#[actix_web::test]
async fn commands_of_one_client_are_done_in_its_order_and_together_where_that_cannot_show() {
    let fake = Fake::start();
    let port = Port::open(&fake, |_| ()).await;
    let said = port.talk(&["SET k a", "APPEND k b", "GET k", "GET l", "SPOP s", "GET k"]).await;
    let refused = "-ERR SPOP is not done here";
    assert!(said.starts_with(&format!("+OK\r\n:2\r\n$2\r\nab\r\n$-1\r\n{refused}")), "{said}");
    assert!(said.ends_with("$2\r\nab\r\n+OK\r\n"), "{said}");
    assert_eq!(port.order.last.get(), 1, "two writes right behind one another are one request");
    assert_eq!(*port.order.asked.borrow(), [Fresh::Linearizable; 2]);
    let said = port.talk(&["MULTI", "SET k c", "GET k", "EXEC", "EXEC"]).await;
    let all =
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\nc\r\n-ERR EXEC without MULTI\r\n+OK\r\n";
    assert_eq!(said, all);
    let said = port.talk(&["MULTI", "APPEND k x", "GET", "EXEC", "GET k"]).await;
    assert!(said.contains("-EXECABORT") && said.ends_with("$1\r\nc\r\n+OK\r\n"), "{said}");
    let said =
        port.talk(&["MULTI", "BLPOP k 0", "EXEC", "MULTI", "DISCARD", "MULTI", "EXEC"]).await;
    assert!(said.contains("-EXECABORT") && said.ends_with("+OK\r\n*0\r\n+OK\r\n"), "{said}");
    let said = port.talk(&["SELECT 3", "SET k d", "SELECT 15", "SELECT 0", "GET k"]).await;
    assert!(said.ends_with("+OK\r\n$1\r\nc\r\n+OK\r\n"), "{said}");
    assert!(said.contains("use 0 to 14"), "{said}");
    assert!(fake.content.borrow().contains_key(&("3".to_owned(), "k".to_owned())));
}

#[actix_web::test]
async fn readers_see_what_their_policy_says() {
    let fake = Fake::start();
    let policy =
        |path: &str, read: ReadPolicy| WebRoute { read: Some(read), ..WebRoute::new(path) };
    let routes = vec![
        policy("/0", ReadPolicy::Local),
        policy("/1", ReadPolicy::Session),
        policy("/2", ReadPolicy::Ordered),
    ];
    let port = Port::open(&fake, |web| web.routes = routes).await;
    port.talk(&["GET k", "SELECT 1", "SET k a", "GET k", "SELECT 2", "GET k", "SELECT 4", "GET k"])
        .await;
    let asked = [Fresh::Local, Fresh::Since(1), Fresh::Linearizable];
    assert_eq!((&port.order.asked.borrow()[..], port.order.last.get()), (&asked[..], 2));
}

#[actix_web::test]
async fn who_is_not_served_is_told_what_became_of_it() {
    let fake = Fake::start();
    let port = Port::open(&fake, |_| ()).await;
    for (why, code) in [
        (OrderError::NotApplied("no quorum".to_owned()), "-CLUSTERDOWN not applied: no quorum\r\n"),
        (OrderError::Quarantined("it differs".to_owned()), "-CLUSTERDOWN not applied: the server"),
        (OrderError::Unknown("late".to_owned()), "-UNCERTAIN outcome unknown: late\r\n"),
    ] {
        *port.order.refuse.borrow_mut() = Some(why);
        let said = port.talk(&["SET k a", "SET k b", "GET k"]).await;
        assert_eq!(said.matches(code).count(), 3, "each is told: {said}");
    }
    *port.order.refuse.borrow_mut() = None;
    // Another process at the same address, and nobody has looked what it has.
    let kept = fake.content.borrow().clone();
    fake.restart(kept);
    let mut tries = 0;
    while !port.talk(&["GET k"]).await.starts_with("$-1") {
        tries += 1;
        assert!(tries < 100, "the site connects anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn what_is_no_command_ends_its_connection_and_nothing_else() {
    let fake = Fake::start();
    let port = Port::open(&fake, |web| web.body_bytes_max = 1_000).await;
    for bad in [
        &b"*1\r\n+PING\r\n"[..],
        b"*9999999\r\n",
        b"*2\r\n$4\r\nPING\r\n$2000\r\n",
        b"*1\r\n$4\r\nPINGPING\r\n",
    ] {
        let said = port.raw(bad).await;
        assert!(said.starts_with("-ERR Protocol error"), "{said}");
    }
    assert_eq!(
        port.raw(b"PING\r\nping  there\r\nquit\r\n").await,
        "+PONG\r\n$5\r\nthere\r\n+OK\r\n"
    );
    let large = "x".repeat(600);
    let said =
        port.talk(&["MULTI", &format!("SET k {large}"), &format!("SET l {large}"), "EXEC"]).await;
    assert!(said.contains("1000 bytes at most") && said.contains("-EXECABORT"), "{said}");
    let said =
        port.talk(&["HELLO 3", "HELLO 2", "CLIENT SETNAME x", "CLIENT KILL y", "AUTH x"]).await;
    assert!(said.starts_with("-NOPROTO") && said.contains("\r\nproto\r\n:2\r\n"), "{said}");
    assert_eq!(said.matches("-ERR").count(), 2, "{said}");
    let lines = ["HELLO x", "HELLO 2 SETNAME", "HELLO 2 SETNAME me", "CLIENT GETNAME", "HELLO"];
    let said = port.talk(&lines).await;
    assert!(said.starts_with("-ERR Protocol version is not an integer"), "{said}");
    assert!(said.contains("-ERR Syntax error in HELLO option 'SETNAME'\r\n*14\r\n"), "{said}");
    assert!(said.contains("$7\r\nversion\r\n$5\r\n7.0.0\r\n"), "{said}");
    assert!(said.contains("$7\r\nmodules\r\n*0\r\n$2\r\nme\r\n*14\r\n"), "{said}");
    assert_eq!(Bytes::from(fake.get("k").unwrap_or_default()), "");
}

#[actix_web::test]
async fn a_transaction_is_performed_only_where_what_was_watched_is_as_its_client_saw_it() {
    let fake = Fake::start();
    let port = Port::open(&fake, |_| ()).await;
    let watch = ["WATCH k l", "GET k", "MULTI", "SET l b", "EXEC"];
    let end = "+OK\r\n+QUEUED\r\n";
    let said = port.talk(&watch).await;
    assert_eq!(said, format!("+OK\r\n$-1\r\n{end}*1\r\n+OK\r\n+OK\r\n"));
    // Somebody else comes first, in the order only.
    let other = |line| *port.order.before.borrow_mut() = Some(request(&[line]));
    other("SET k a");
    assert_eq!(port.talk(&watch).await, format!("+OK\r\n$-1\r\n{end}*-1\r\n+OK\r\n"));
    assert_eq!((fake.get("k").as_deref(), fake.get("l").as_deref()), (Some("a"), Some("b")));
    other("SET m a");
    let said = port.talk(&watch).await;
    assert_eq!(said, format!("+OK\r\n$1\r\na\r\n{end}*1\r\n+OK\r\n+OK\r\n"));
    // It changes what it watches itself, or forgets that it watched.
    for (between, end) in [("SET k c", "*-1\r\n+OK\r\n"), ("UNWATCH", "*1\r\n+OK\r\n+OK\r\n")] {
        let said = port.talk(&["WATCH k", between, "MULTI", "SET l d", "EXEC"]).await;
        assert!(said.ends_with(end), "{between}: {said}");
    }
    // Of another database, and in a transaction.
    let lines = ["WATCH k", "SELECT 3", "WATCH k", "SET k x", "MULTI", "SET l x", "EXEC"];
    assert!(port.talk(&lines).await.ends_with("+QUEUED\r\n*-1\r\n+OK\r\n"));
    let said = port.talk(&["MULTI", "WATCH k", "MULTI", "SET l e", "EXEC"]).await;
    assert_eq!(said.matches("-ERR").count(), 2, "{said}");
    assert!(said.ends_with("*1\r\n+OK\r\n+OK\r\n"), "{said}");
    // What could not be watched was perhaps changed.
    *port.order.refuse.borrow_mut() = Some(OrderError::NotApplied("no quorum".to_owned()));
    let said = port.talk(&["WATCH k", "MULTI", "SET l f", "EXEC", "MULTI", "EXEC"]).await;
    assert!(said.starts_with("-CLUSTERDOWN") && said.contains("-EXECABORT"), "{said}");
    assert!(said.ends_with("+OK\r\n*0\r\n+OK\r\n"), "{said}");
    assert_eq!(fake.get("l").as_deref(), Some("e"));
    let many = vec!["k"; 1_001].join(" ");
    *port.order.refuse.borrow_mut() = None;
    let said = port.talk(&[&format!("WATCH {many}"), "WATCH k", "UNWATCH", "WATCH k"]).await;
    assert_eq!(said.matches("-ERR").count(), 2, "{said}");
    assert!(said.ends_with("+OK\r\n+OK\r\n+OK\r\n"), "{said}");
}
