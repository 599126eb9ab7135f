//! All that a server has, where it gives and takes it by URLs of its own (R5.41).

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use synod::server::{
    config::HookUrl,
    services::programs::{Fed, Passed},
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
    url: &HookUrl,
    bytes_max: u64,
    store: &Store,
    options: UpstreamOptions,
) -> Result<Rc<dyn Copy>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("export: {url}: {why}");
    let server = Upstream::new(&url.server, options).map_err(|why| failed(&why))?;
    let request = request("GET", url, server.address());
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
            let mut all = BytesMut::new();
            while all.len() < most {
                let piece = held.read(offset + all.len() as u64).await;
                let piece = piece.map_err(|why| why.to_string())?;
                if piece.is_empty() {
                    break;
                }
                all.extend_from_slice(&piece);
            }
            all.truncate(most);
            Ok(all.freeze())
        })
    }
}

/// Content that is put at a URL as it comes. Its last piece leaves when it is known that all before it
/// was right; dropped before, it breaks off, and no server takes it for whole.
pub(crate) struct Upload {
    url: HookUrl,
    address: UpstreamAddress,
    bytes: u64,
    /// How long each piece may take, and the answer.
    patience: Duration,
    connection: Option<Connection>,
    last: Bytes,
}

impl Upload {
    /// One of so many bytes. No connection is made yet.
    ///
    /// # Errors
    /// The URL is none.
    pub(crate) fn new(url: HookUrl, bytes: u64, patience: Duration) -> Result<Self, String> {
        let address = UpstreamAddress::parse(&url.server).map_err(|why| why.to_string())?;
        Ok(Self { url, address, bytes, patience, connection: None, last: Bytes::new() })
    }

    /// Sends the piece before, and keeps this one.
    async fn send(&mut self, next: Bytes) -> Result<(), Fault> {
        let before = std::mem::replace(&mut self.last, next);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut new = Connection::open(self.address.authority()).await?;
                let request = request("PUT", &self.url, &self.address);
                let length = [("content-length", self.bytes.to_string())];
                new.say(&head::write("", &request, &length), self.patience).await?;
                none.insert(new)
            }
        };
        connection.say(&before, self.patience).await
    }

    async fn end(&mut self) -> Result<u16, Fault> {
        let sent = self.send(Bytes::new()).await;
        let Some(connection) = &mut self.connection else { return sent.map(|()| 0) };
        let asked = Asked { method: "PUT", may_switch: false };
        // One that broke off may have said why.
        let heard = timeout(self.patience, connection.hear_head(asked)).await;
        match (sent, heard) {
            (Err(fault), Err(_) | Ok(Err(_))) => Err(fault),
            (Ok(()), Err(_)) => Err(Fault::Late(self.patience)),
            (Ok(()), Ok(Err(why))) => Err(Fault::Lost(why)),
            (_, Ok(Ok(head))) => Ok(head.status),
        }
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> String {
        format!("import: {}: {why}", self.url)
    }
}

impl Feed for Upload {
    fn put(&mut self, piece: Bytes) -> Fed<'_> {
        Box::pin(async move {
            match self.send(piece).await {
                Ok(()) => Ok(()),
                Err(fault) => Err(self.failed(&fault)),
            }
        })
    }

    fn finish(&mut self) -> Fed<'_> {
        Box::pin(async move {
            match self.end().await {
                Ok(200..=299) => Ok(()),
                Ok(status) => Err(self.failed(&format_args!("it answers {status}"))),
                Err(fault) => Err(self.failed(&fault)),
            }
        })
    }
}

fn request(method: &str, url: &HookUrl, address: &UpstreamAddress) -> Request {
    let host = Header { name: "host".to_owned(), value: address.authority().into() };
    let (method, target) = (method.to_owned(), url.target.clone());
    Request { method, target, headers: vec![host], body: Bytes::new(), apart: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    async fn got(server: &Server, bytes_max: u64, store: &Store) -> Result<Rc<dyn Copy>, String> {
        let options =
            UpstreamOptions { patience: PATIENCE, ..UpstreamOptions::new(Arc::new(RealClock)) };
        get(&url(server), bytes_max, store, options).await
    }

    #[actix_web::test]
    async fn what_is_put_piece_by_piece_is_got_as_it_is() {
        let (server, dir) = (Server::store(), tempfile::tempdir().unwrap());
        let store = store(&dir);
        for all in ["", "0123456789ab"] {
            let mut upload = Upload::new(url(&server), all.len() as u64, PATIENCE).unwrap();
            for piece in all.as_bytes().chunks(5) {
                upload.put(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            upload.finish().await.unwrap();
            assert_eq!(server.asked().last().unwrap().1, "/all?of=it");
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
        let mut upload = Upload::new(url(&server), 6, PATIENCE).unwrap();
        for piece in ["abc", "def"] {
            upload.put(Bytes::from(piece)).await.unwrap();
        }
        drop(upload);
        // It is heard behind the other.
        let mut other = Upload::new(url(&server), 1, PATIENCE).unwrap();
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
        for (say, part) in [(Some(full), "answers 507"), (None, "said nothing")] {
            let server = Server::start(move |_| match say {
                Some(said) => Say::Last(said.to_owned()),
                None => Say::Nothing,
            });
            let mut upload = Upload::new(url(&server), 1, PATIENCE).unwrap();
            upload.put(Bytes::from("x")).await.unwrap();
            let why = upload.finish().await.unwrap_err();
            assert!(why.starts_with("import: http://") && why.contains(part), "{why}");
        }
    }
}
