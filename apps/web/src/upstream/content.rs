//! All that a server has, where it gives and takes it by URLs of its own (R5.41).

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use synod::{
    runtime::world::{Clock, Instant},
    server::{
        config::HookUrl,
        services::programs::{Fed, Passed},
    },
};
use tokio::time::timeout;

use super::{
    Fault, Upstream, UpstreamAddress, UpstreamOptions,
    connection::Connection,
    head::{self, Asked},
};
use crate::{Apart, Copy, Feed, Header, Request, bodies::Store};

/// Gets all that is at `url` and keeps it on this site's disk, for as long as the answer lives.
///
/// # Errors
/// Why there is nothing of it.
pub(crate) async fn get(
    (url, id): (&HookUrl, u64),
    bytes_max: u64,
    store: &Store,
    options: UpstreamOptions,
) -> Result<Rc<dyn Copy>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("export: {url}: {why}");
    let server = Upstream::new(&url.server, options).map_err(|why| failed(&why))?;
    let request = request("GET", id, url, server.address());
    let mut reading = server.read(&request).await.map_err(|why| failed(&why))?;
    if reading.status != 200 {
        return Err(failed(&format_args!("it answers {}", reading.status)));
    }
    if !reading.says_its_end() {
        return Err(failed(&"nobody could tell whether it is whole: it wants a length, or chunks"));
    }
    let mut draft = store.draft();
    // Of a server that has nothing there is a copy, too.
    draft.put(Bytes::new()).await.map_err(|why| failed(&why))?;
    while let Some(part) = reading.part().await.map_err(|why| failed(&why))? {
        if draft.len() + part.len() as u64 > bytes_max {
            return Err(failed(&format_args!("it gives more than {bytes_max} bytes")));
        }
        draft.put(part).await.map_err(|why| failed(&why))?;
    }
    Ok(Rc::new(draft.finish().await.map_err(|why| failed(&why))?))
}

impl Copy for Apart {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn read(&self, offset: u64, most: usize) -> Passed<Bytes> {
        let held = self.held.clone();
        Box::pin(async move {
            let held = held.ok_or("it is not at hand")?;
            held.up_to(offset, most).await.map_err(|why| why.to_string())
        })
    }
}

/// Content that is put at a URL as it comes. Its last piece leaves when it is known that all before it
/// was right; dropped before, it breaks off, and no server takes it for whole.
pub(crate) struct Upload {
    url: HookUrl,
    address: UpstreamAddress,
    head: Request,
    clock: Arc<dyn Clock>,
    began: Instant,
    /// How long all of it may take.
    within: Duration,
    connection: Option<Connection>,
    last: Bytes,
}

impl Upload {
    /// One of so many bytes, for rebuild `id`. No connection is made yet.
    ///
    /// # Errors
    /// The URL is none.
    pub(crate) fn new(
        url: HookUrl,
        (id, bytes): (u64, u64),
        within: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let address = UpstreamAddress::parse(&url.server).map_err(|why| why.to_string())?;
        let mut head = request("PUT", id, &url, &address);
        // Not at hand, but so long.
        head.apart = Some(Apart { digest: String::new(), bytes, held: None });
        let began = clock.now();
        Ok(Self { url, address, head, clock, began, within, connection: None, last: Bytes::new() })
    }

    /// Sends the piece before, and keeps this one.
    async fn send(&mut self, next: Bytes) -> Result<(), String> {
        let before = std::mem::replace(&mut self.last, next);
        let left = self.left();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let new = Connection::open(self.address.authority()).await;
                let mut new = new.map_err(|fault| fault.to_string())?;
                let said = new.say(&head::write("", &self.head, &[]), left).await;
                said.map_err(|fault| fault.to_string())?;
                none.insert(new)
            }
        };
        let fault = match connection.heard(PUT) {
            // Whatever it says of what it has not read is not of all.
            Ok(Some(head)) => return Err(format!("it answers {} before it has all", head.status)),
            Err(why) => Fault::Lost(why),
            Ok(None) => match connection.say(&before, left).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            },
        };
        // It may have said why.
        let last_word = timeout(LAST_WORD, connection.hear_head(PUT)).await;
        Err(match last_word {
            Ok(Ok(head)) => format!("it answers {} before it has all", head.status),
            Ok(Err(_)) | Err(_) => fault.to_string(),
        })
    }

    async fn end(&mut self) -> Result<(), String> {
        self.send(Bytes::new()).await?;
        let left = self.left();
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let heard = timeout(left, connection.hear_head(PUT)).await;
        match heard.map_err(|_| Fault::Late(left).to_string())?.map(|head| head.status) {
            // 202 says that it is not done.
            Ok(200 | 201 | 203..=299) => Ok(()),
            Ok(status) => Err(format!("it answers {status}")),
            Err(why) => Err(Fault::Lost(why).to_string()),
        }
    }

    fn left(&self) -> Duration {
        self.within.saturating_sub(self.clock.now().since(self.began))
    }
}

impl Feed for Upload {
    fn put(&mut self, piece: Bytes) -> Fed<'_> {
        Box::pin(async move {
            let sent = self.send(piece).await;
            sent.map_err(|why| format!("import: {}: {why}", self.url))
        })
    }

    fn finish(&mut self) -> Fed<'_> {
        Box::pin(async move {
            let ended = self.end().await;
            ended.map_err(|why| format!("import: {}: {why}", self.url))
        })
    }
}

/// Of which rebuild it is lets a server tell a late one from a new one.
fn request(method: &str, id: u64, url: &HookUrl, address: &UpstreamAddress) -> Request {
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.into() };
    let headers = vec![header("host", address.authority()), header("synod-epoch", &id.to_string())];
    let (method, target) = (method.to_owned(), url.target.clone());
    Request { method, target, headers, body: Bytes::new(), apart: None }
}

const PUT: Asked<'static> = Asked { method: "PUT", may_switch: false };

/// What a server that hung up said before is here by then.
const LAST_WORD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use synod::runtime::{
        journal::Durability,
        world::{Disk, RealClock, disk::RealDisk},
    };

    use super::*;
    use crate::testing::{PATIENCE, Say, Server};

    fn store(dir: &tempfile::TempDir) -> Store {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Store::open(&disk, dir.path().to_owned(), Durability::Fsync).unwrap()
    }

    fn url(server: &Server) -> HookUrl {
        HookUrl { server: server.url.clone(), target: "/all?of=it".to_owned() }
    }

    fn upload(server: &Server, bytes: usize) -> Upload {
        Upload::new(url(server), (7, bytes as u64), PATIENCE, Arc::new(RealClock)).unwrap()
    }

    async fn got(server: &Server, bytes_max: u64, store: &Store) -> Result<Rc<dyn Copy>, String> {
        let options =
            UpstreamOptions { patience: PATIENCE, ..UpstreamOptions::new(Arc::new(RealClock)) };
        get((&url(server), 7), bytes_max, store, options).await
    }

    #[actix_web::test]
    async fn what_is_put_piece_by_piece_is_got_as_it_is() {
        let (server, dir) = (Server::store(), tempfile::tempdir().unwrap());
        let store = store(&dir);
        for all in ["", "0123456789ab"] {
            let mut upload = upload(&server, all.len());
            for piece in all.as_bytes().chunks(5) {
                upload.put(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            upload.finish().await.unwrap();
            assert_eq!(server.asked().last().unwrap().1, "/all?of=it");
            assert_eq!(server.heard.borrow().last().unwrap().header("synod-epoch"), Some("7"));
            let copy = got(&server, 12, &store).await.unwrap();
            assert_eq!(copy.len(), all.len() as u64);
            for (offset, most) in [(0, 12), (0, 4), (3, 7), (7, 100), (12, 5)] {
                let end = (offset + most).min(all.len());
                let piece = copy.read(offset as u64, most).await.unwrap();
                assert_eq!(piece, all.get(offset..end).unwrap_or_default(), "{offset}, {most}");
            }
            store.sweep(|_| false);
            assert!(!store.is_empty(), "it is in use");
            drop(copy);
            store.sweep(|_| false);
            assert!(store.is_empty(), "it is not");
        }
        let why = got(&server, 11, &store).await.err().unwrap();
        assert!(why.contains("more than 11 bytes"), "{why}");
    }

    #[actix_web::test]
    async fn a_server_sees_no_end_of_what_was_not_finished() {
        let server = Server::store();
        let mut broken = upload(&server, 6);
        for piece in ["abc", "def"] {
            broken.put(Bytes::from(piece)).await.unwrap();
        }
        drop(broken);
        // It is heard behind the other.
        let mut other = upload(&server, 1);
        other.put(Bytes::from("x")).await.unwrap();
        other.finish().await.unwrap();
        let bodies: Vec<_> = server.asked().into_iter().map(|(_, _, body)| body).collect();
        assert_eq!(bodies, ["x"]);
    }

    #[actix_web::test]
    async fn what_is_not_given_or_taken_whole_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        for (said, part) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
            ("HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx", "answers 206"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "hung up"),
            ("HTTP/1.1 200 OK\r\n\r\nabc", "whole"),
        ] {
            let server = Server::start(move |_| Say::Last(said.to_owned()));
            let why = got(&server, 99, &store).await.err().unwrap();
            assert!(why.starts_with("export: http://") && why.contains(part), "{said}: {why}");
            assert!(store.is_empty(), "{said}");
        }
        let full = "HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n";
        let later = "HTTP/1.1 202 Later\r\nContent-Length: 0\r\n\r\n";
        for (say, part) in
            [(Some(full), "answers 507"), (Some(later), "answers 202"), (None, "said nothing")]
        {
            let server = Server::start(move |_| match say {
                Some(said) => Say::Last(said.to_owned()),
                None => Say::Nothing,
            });
            let mut upload = upload(&server, 1);
            upload.put(Bytes::from("x")).await.unwrap();
            let why = upload.finish().await.unwrap_err();
            assert!(why.starts_with("import: http://") && why.contains(part), "{why}");
        }
    }

    #[actix_web::test]
    async fn what_a_server_says_before_it_has_all_is_not_about_all() {
        for (said, part) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "answers 200 before"),
            ("HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n", "answers 413 before"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "said nothing"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let server = Server { url, ..Server::start(|_| Say::Nothing) };
            let mut upload = upload(&server, 9);
            upload.put(Bytes::from("abc")).await.unwrap();
            upload.put(Bytes::from("def")).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, said.as_bytes()).await.unwrap();
            // It is here once it can be read.
            upload.connection.as_ref().unwrap().readable().await;
            let put = upload.put(Bytes::from("ghi")).await;
            let why = put.and(upload.finish().await).unwrap_err();
            assert!(why.contains(part), "{said}: {why}");
        }
    }
}
