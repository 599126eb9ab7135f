//! A server that knows the few commands that these tests need, and breaks off when it is told to.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::resp::{
    connection::RedisAddress,
    wire::{Commands, Words},
};

/// By database and key.
type Content = BTreeMap<(String, String), String>;

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) content: Rc<RefCell<Content>>,
    pub(super) address: RedisAddress,
    /// So many transactions are performed and not answered: their connections end.
    pub(super) breaks: Rc<Cell<u32>>,
    /// What it says to whatever a transaction holds, instead of taking it.
    pub(super) full: Rc<Cell<bool>>,
    life: Rc<Cell<u32>>,
    ended: Rc<Notify>,
}

/// A connection of it.
#[derive(Default)]
struct Talk {
    database: String,
    /// Keys, and what they held.
    watched: Vec<((String, String), Option<String>)>,
    queue: Option<Vec<Vec<String>>>,
    bad: bool,
}

impl Fake {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let fake = Self {
            content: Rc::default(),
            address: RedisAddress::parse(&format!("redis://{at}")).unwrap(),
            breaks: Rc::default(),
            full: Rc::default(),
            life: Rc::new(Cell::new(1)),
            ended: Rc::default(),
        };
        let serving = fake.clone();
        actix_rt::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                actix_rt::spawn(serving.clone().serve(stream));
            }
        });
        fake
    }

    /// It ends, and begins anew with what it had then.
    pub(super) fn restart(&self, content: Content) {
        *self.content.borrow_mut() = content;
        self.life.set(self.life.get() + 1);
        self.ended.notify_waiters();
    }

    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.content.borrow().get(&("0".to_owned(), key.to_owned())).cloned()
    }

    async fn serve(self, mut stream: TcpStream) {
        let (mut buffer, mut commands) = (BytesMut::new(), Commands::new(1 << 20));
        let mut talk = Talk { database: "0".to_owned(), ..Talk::default() };
        let life = self.life.get();
        loop {
            while let Some(words) = commands.next(&mut buffer).unwrap() {
                let Some(reply) = self.answer(&mut talk, &words) else { return };
                if self.life.get() != life || stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.ended.notified() => return,
                read = stream.read_buf(&mut buffer) => if read.unwrap_or_default() == 0 {
                    return;
                },
            }
        }
    }

    fn answer(&self, talk: &mut Talk, words: &Words) -> Option<String> {
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let name = words[0].to_ascii_uppercase();
        Some(match (name.as_str(), &mut talk.queue) {
            ("MULTI", _) => {
                talk.queue = Some(Vec::new());
                "+OK\r\n".to_owned()
            }
            ("EXEC", _) => {
                let (queue, watched) = (talk.queue.take()?, std::mem::take(&mut talk.watched));
                if std::mem::take(&mut talk.bad) {
                    return Some("-EXECABORT discarded\r\n".to_owned());
                }
                let content = self.content.borrow();
                let changed = watched.iter().any(|(key, held)| content.get(key) != held.as_ref());
                drop(content);
                if changed {
                    return Some("*-1\r\n".to_owned());
                }
                let answers: String = queue.iter().map(|one| self.perform(talk, one)).collect();
                if self.breaks.get() > 0 {
                    self.breaks.set(self.breaks.get() - 1);
                    return None;
                }
                format!("*{}\r\n{answers}", queue.len())
            }
            (_, Some(_)) if self.full.get() => {
                talk.bad = true;
                "-OOM no room\r\n".to_owned()
            }
            ("FROB" | "GET", Some(_)) if words.len() == 1 => {
                talk.bad = true;
                "-ERR wrong number of arguments\r\n".to_owned()
            }
            (_, Some(queue)) => {
                queue.push(words);
                "+QUEUED\r\n".to_owned()
            }
            ("WATCH", None) => {
                for key in &words[1..] {
                    let at = (talk.database.clone(), key.clone());
                    let held = self.content.borrow().get(&at).cloned();
                    talk.watched.push((at, held));
                }
                "+OK\r\n".to_owned()
            }
            (_, None) => self.perform(talk, &words),
        })
    }

    fn perform(&self, talk: &mut Talk, words: &[String]) -> String {
        let mut content = self.content.borrow_mut();
        let at = |key: &str| (talk.database.clone(), key.to_owned());
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["SELECT", number] => {
                talk.database = number.to_owned();
                "+OK\r\n".to_owned()
            }
            ["INFO"] => {
                let life = self.life.get();
                bulk(&format!("redis_version:7.0.0\r\nrole:master\r\nrun_id:{life}\r\n"))
            }
            ["GET", key] => {
                content.get(&at(key)).map_or_else(|| "$-1\r\n".to_owned(), |it| bulk(it))
            }
            ["SET", key, value] => {
                content.insert(at(key), value.to_owned());
                "+OK\r\n".to_owned()
            }
            ["APPEND", key, value] => {
                let text = content.entry(at(key)).or_default();
                text.push_str(value);
                format!(":{}\r\n", text.len())
            }
            // The guard, and what makes and compares prints, which are the only scripts.
            ["EVAL", _, "0", ref keys @ ..] => {
                let prints = keys.chunks(2).map(|key| bulk(&print(&content, key)));
                format!("*{}\r\n{}", keys.len() / 2, prints.collect::<String>())
            }
            ["EVAL", _, "1", gap, ours, ref watched @ ..] => {
                let same = watched.chunks(3).all(|one| print(&content, one) == one[2]);
                if !same {
                    content.insert((ours.to_owned(), gap.to_owned()), "changed".to_owned());
                }
                format!(":{}\r\n", u8::from(same))
            }
            ["EVAL", _, "2", number, gap, before] => {
                let last = content.get(&at(number)).cloned().unwrap_or_else(|| "0".to_owned());
                if last != before {
                    content.insert(at(gap), last.clone());
                }
                bulk(&last)
            }
            _ => "-ERR unknown command\r\n".to_owned(),
        }
    }
}

/// What a key holds, as it is told to others.
fn print(content: &Content, key: &[&str]) -> String {
    let held = content.get(&(key[0].to_owned(), key[1].to_owned()));
    held.map_or_else(|| "nothing".to_owned(), |held| format!("it {held}"))
}
