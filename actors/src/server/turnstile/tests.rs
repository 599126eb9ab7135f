use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use actix_http::Protocol;
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, DuplexStream, ReadBuf,
    duplex,
};
use tokio::task::coop::unconstrained;

use super::{HungUp, Turnstile, WITHHELD_BYTES_MAX};

const GET: &str = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\n\r\nabc";

/// How often somebody was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server that reads from a turnstile, and the client.
struct Both {
    client: DuplexStream,
    server: Turnstile<DuplexStream>,
    woken: Arc<Woken>,
}

impl Both {
    fn new(protocol: Protocol, hung_up: HungUp) -> Self {
        let (client, server) = duplex(4_096);
        let server = Turnstile::new(server, protocol, hung_up);
        Self { client, server, woken: Arc::default() }
    }

    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// What one read of the server brings; nothing: it has to wait.
    fn read(&mut self) -> Option<String> {
        let mut space = [0; 1_000];
        let mut buf = ReadBuf::new(&mut space);
        let waker = Waker::from(Arc::clone(&self.woken));
        let read = Pin::new(&mut self.server).poll_read(&mut Context::from_waker(&waker), &mut buf);
        match read {
            Poll::Ready(read) => {
                read.unwrap();
                Some(String::from_utf8(buf.filled().to_vec()).unwrap())
            }
            Poll::Pending => None,
        }
    }

    fn answered(&mut self) {
        self.server.latch.as_ref().unwrap().answered();
    }

    fn woken(&self) -> usize {
        self.woken.0.swap(0, Ordering::Relaxed)
    }
}

#[actix_web::test]
async fn requests_go_in_one_by_one() {
    let mut both = Both::new(Protocol::Http1, HungUp::InTurn);
    both.say(&[GET, PUT, &GET[..9]].concat()).await;
    assert_eq!(both.read().as_deref(), Some(GET));
    assert_eq!((both.read(), both.woken()), (None, 0));
    both.say(&GET[9..]).await;
    both.woken();
    assert_eq!((both.read(), both.woken()), (None, 0));
    both.answered();
    assert_eq!((both.woken(), both.read().as_deref()), (1, Some(PUT)));
    assert_eq!((both.read(), both.woken()), (None, 0));
    both.answered();
    assert_eq!((both.woken(), both.read().as_deref()), (1, Some(GET)));
    both.answered();
    assert_eq!((both.read(), both.woken()), (None, 0), "nobody waits for what is not there");
    assert_eq!(both.server.withheld.capacity(), 0);
}

#[actix_web::test]
async fn one_at_a_time_they_are_not_touched() {
    let mut both = Both::new(Protocol::Http1, HungUp::InTurn);
    for _ in 0..3 {
        both.say(&PUT[..40]).await;
        assert_eq!(both.read().as_deref(), Some(&PUT[..40]));
        both.say(&PUT[40..]).await;
        assert_eq!(both.read().as_deref(), Some(&PUT[40..]));
        assert_eq!(both.read(), None);
        both.woken();
        both.answered();
        assert_eq!(both.woken(), 0, "nothing waited");
        assert_eq!(both.server.withheld.capacity(), 0);
    }
}

/// Goal: whoever hangs up while a request is served is noticed, also with requests that wait; where
/// it may only have said all, those come first.
#[actix_web::test]
async fn a_hang_up_is_noticed() {
    for hung_up in [HungUp::AtOnce, HungUp::InTurn] {
        for waiting in [0, 2] {
            let mut both = Both::new(Protocol::Http1, hung_up);
            both.say(&GET.repeat(1 + waiting)).await;
            assert_eq!(both.read().as_deref(), Some(GET));
            assert_eq!(both.read(), None);
            both.client.shutdown().await.unwrap();
            assert_eq!(both.woken(), 1, "the end is heard of");
            if hung_up == HungUp::InTurn {
                for _ in 0..waiting {
                    assert_eq!(both.read(), None);
                    both.answered();
                    assert_eq!((both.woken(), both.read().as_deref()), (1, Some(GET)));
                }
            }
            for _ in 0..2 {
                assert_eq!(both.read().as_deref(), Some(""), "{hung_up:?} {waiting}");
            }
        }
    }
}

#[actix_web::test]
async fn what_waits_is_bounded() {
    // Otherwise the runtime makes whoever does much wait for its next turn.
    unconstrained(fill()).await;
}

async fn fill() {
    let mut both = Both::new(Protocol::Http1, HungUp::AtOnce);
    both.say(GET).await;
    assert_eq!(both.read().as_deref(), Some(GET));
    let mut said = 0;
    loop {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(more) = Pin::new(&mut both.client).poll_write(&mut context, PUT.as_bytes())
        else {
            break;
        };
        said += more.unwrap();
        assert_eq!(both.read(), None);
    }
    let withheld = both.server.withheld.len();
    assert!((WITHHELD_BYTES_MAX..WITHHELD_BYTES_MAX + 1_000).contains(&withheld), "{withheld}");
    assert!(said <= withheld + 4_096, "{said} bytes were taken");
    // None of it was lost.
    let mut heard = String::new();
    while heard.len() < said / PUT.len() * PUT.len() {
        both.answered();
        while let Some(more) = both.read() {
            heard += &more;
        }
    }
    assert_eq!(heard, PUT.repeat(said / PUT.len()));
}

#[actix_web::test]
async fn whoever_does_not_read_gets_nothing_in() {
    let mut both = Both::new(Protocol::Http1, HungUp::InTurn);
    both.say(GET).await;
    assert_eq!(both.read().as_deref(), Some(GET));
    let write = async |both: &mut Both| {
        let waker = Waker::from(Arc::clone(&both.woken));
        let server = &mut both.server;
        poll_fn(|_| {
            let mut context = Context::from_waker(&waker);
            Poll::Ready(Pin::new(&mut *server).poll_write(&mut context, &[b'x'; 4_096]))
        })
        .await
    };
    assert!(write(&mut both).await.is_ready());
    assert!(write(&mut both).await.is_pending());
    both.answered();
    both.say(GET).await;
    assert_eq!(both.read(), None, "its answers do not go out");
    both.woken();
    both.client.read_exact(&mut [0; 4_096]).await.unwrap();
    assert_eq!(both.woken(), 1, "it can be written again");
    assert!(write(&mut both).await.is_ready());
    assert_eq!((both.woken(), both.read().as_deref()), (1, Some(GET)));
}

#[actix_web::test]
async fn http_2_passes_as_it_is() {
    let mut both = Both::new(Protocol::Http2, HungUp::InTurn);
    let text = GET.repeat(5);
    both.say(&text).await;
    assert_eq!(both.read(), Some(text));
    assert_eq!(both.read(), None);
}
