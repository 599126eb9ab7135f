//! A server for tests: a list of what it performed, and the files that came of it. It outlives the
//! crashes of its site, and performs what it was asked whoever still waits.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{RngExt as _, SeedableRng};
use serde::{Deserialize, Serialize};
use synod::{
    runtime::{digest::Sha256, world::Rng},
    server::config::{RedoPolicy, WebConfig},
};
use tokio::sync::Notify;

use super::Running;
use crate::{
    Carrier, Copy, Feed, Form, Header, Perform, Request, Response, Stamp, Touches, Unperformed,
    order::digest_response, upstream::policy,
};

#[derive(Default)]
pub(super) struct Performed {
    /// Numbers in the order they were performed or refused, with whether they were marked.
    pub(super) list: Vec<(u64, bool)>,
    pub(super) files: BTreeMap<String, String>,
    /// What it failed.
    pub(super) failed: BTreeSet<u64>,
    /// What POST adds to, by path.
    pub(super) sums: BTreeMap<String, Vec<String>>,
    /// What it was asked since it began, or was copied.
    since: Vec<(Rc<Request>, Stamp)>,
}

pub(super) struct Server {
    pub(super) site: String,
    pub(super) done: Rc<RefCell<Performed>>,
    pub(super) down: Cell<bool>,
    /// The disk is full: 507 to everything.
    pub(super) full: Cell<bool>,
    /// Of a hundred requests so many are not answered.
    pub(super) mute: Cell<u32>,
    /// Of a hundred answers so many make their site panic.
    pub(super) panics: Cell<u32>,
    /// It keeps the number of what it performed, as a redis-server does; otherwise it knows of none,
    /// as a server of HTTP.
    numbers: bool,
    /// What its site knows that it performed.
    floor: Cell<u64>,
    lost: Notify,
    config: WebConfig,
    rng: RefCell<Rng>,
}

impl Server {
    pub(super) fn new(site: &str, seed: u64, numbers: bool, config: WebConfig) -> Rc<Self> {
        Rc::new(Self {
            site: site.to_owned(),
            done: Rc::default(),
            down: Cell::new(false),
            full: Cell::new(false),
            mute: Cell::new(0),
            panics: Cell::new(0),
            numbers,
            floor: Cell::new(0),
            lost: Notify::new(),
            config,
            rng: RefCell::new(Rng::seed_from_u64(seed)),
        })
    }

    fn draw(&self, most: u32) -> u32 {
        self.rng.borrow_mut().random_range(0..most)
    }

    /// It ends, and begins anew with what it had a while ago.
    pub(super) fn lose(&self) {
        let mut done = self.done.borrow_mut();
        let kept = self.draw(done.since.len() as u32 + 1) as usize;
        let all = std::mem::take(&mut done.since);
        let began = done.list.len() - all.len();
        if began > 0 {
            // Of what was copied nobody knows how it came to be.
            done.since = all;
            return;
        }
        *done = Performed::default();
        all[..kept].iter().for_each(|(request, stamp)| drop(done.apply(request, *stamp)));
        drop(done);
        if self.is_behind() {
            self.lost.notify_one();
        }
    }

    /// Whether it lost something, and its site does not know what.
    pub(super) fn is_behind(&self) -> bool {
        self.done.borrow().last() < self.floor.get()
    }

    /// Waits until it is this number's turn, as a line before one connection does.
    async fn take_turn(&self, seq: u64) -> Result<(), Unperformed> {
        loop {
            let last = self.done.borrow().last();
            match last {
                _ if self.down.get() => return Err(Unperformed::NotSent("refused".to_owned())),
                _ if self.is_behind() => return Err(Unperformed::Behind(last)),
                _ if last >= seq => return Err(Unperformed::Performed),
                _ if last + 1 == seq => return Ok(()),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl Form for Server {
    fn redo(&self, request: &Request) -> RedoPolicy {
        if self.numbers { RedoPolicy::Resend } else { policy::redo(&self.config, request) }
    }

    fn touches(&self, request: &Request) -> Touches {
        if self.numbers { Touches::InOrder } else { policy::touches(&self.config, request) }
    }

    fn digest(&self, _: &Request, response: &Response) -> String {
        digest_response(response, &[])
    }

    fn recalls(&self) -> bool {
        self.numbers
    }

    fn recall(&self, _: u64) -> LocalBoxFuture<'_, Result<u64, String>> {
        let last = self.done.borrow().last();
        if self.down.get() {
            return std::future::ready(Err("refused".to_owned())).boxed_local();
        }
        self.floor.set(last);
        std::future::ready(Ok(last)).boxed_local()
    }

    fn lost(&self) -> LocalBoxFuture<'_, ()> {
        self.lost.notified().boxed_local()
    }
}

impl Perform for Server {
    fn perform(
        &self,
        request: Rc<Request>,
        stamp: Stamp,
    ) -> LocalBoxFuture<'_, Result<Response, Unperformed>> {
        async move {
            if self.down.get() {
                return Err(Unperformed::NotSent("refused".to_owned()));
            }
            if self.numbers {
                self.take_turn(stamp.seq).await?;
            }
            let delay = Duration::from_micros(u64::from(self.draw(3_000)));
            let (done, full) = (Rc::clone(&self.done), self.full.get());
            let numbers = self.numbers;
            // From here on it happens, whatever becomes of whoever asked.
            let work = actix_rt::spawn(async move {
                tokio::time::sleep(delay).await;
                match full {
                    // Whatever came in between, it performs only what is next.
                    _ if numbers && done.borrow().last() + 1 != stamp.seq => (0, String::new()),
                    true => {
                        done.borrow_mut().list.push((stamp.seq, stamp.redo));
                        done.borrow_mut().failed.insert(stamp.seq);
                        (507, "full".to_owned())
                    }
                    false => done.borrow_mut().apply(&request, stamp),
                }
            });
            let (status, body): (u16, String) = work.await.expect("a server does not panic");
            if status == 0 {
                return Err(Unperformed::Unknown("it was not its turn any more".to_owned()));
            }
            self.floor.set(self.floor.get().max(stamp.seq));
            if self.numbers && self.is_behind() {
                // It lost this while it said that it had performed it.
                self.lost.notify_one();
            }
            tokio::time::sleep(Duration::from_micros(u64::from(self.draw(3_000)))).await;
            if self.draw(100) < self.mute.get() {
                return Err(Unperformed::Unknown("broke off".to_owned()));
            }
            assert!(self.draw(100) >= self.panics.get(), "an answer that nobody understands");
            let by = Header { name: "server".to_owned(), value: self.site.clone().into_bytes() };
            Ok(Response { status, headers: vec![by], body: Bytes::from(body) })
        }
        .boxed_local()
    }
}

impl Performed {
    /// The number of the last that it performed.
    pub(super) fn last(&self) -> u64 {
        self.list.last().map_or(0, |(seq, _)| *seq)
    }

    fn apply(&mut self, request: &Rc<Request>, stamp: Stamp) -> (u16, String) {
        self.since.push((Rc::clone(request), stamp));
        self.list.push((stamp.seq, stamp.redo));
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match request.method.as_str() {
            "PUT" => {
                let new = self.files.insert(request.target.clone(), body).is_none();
                (if new { 201 } else { 204 }, String::new())
            }
            "DELETE" => match self.files.remove(&request.target) {
                Some(_) => (204, String::new()),
                None => (404, String::new()),
            },
            _ => {
                let sum = self.sums.entry(request.target.clone()).or_default();
                sum.push(body);
                (200, format!("{} of {}", sum.len(), stamp.seed))
            }
        }
    }
}

/// What its commands write: a line for each thing, so that a part of a copy is a part of a server.
#[derive(Serialize, Deserialize)]
enum Thing {
    Done(u64, bool),
    File(String, String),
    Sum(String, String),
}

impl Performed {
    /// The files, or all else.
    fn lines(&self, files: bool) -> String {
        let done = self.list.iter().map(|(seq, redo)| Thing::Done(*seq, *redo));
        let sums = self
            .sums
            .iter()
            .flat_map(|(path, sum)| sum.iter().map(|body| Thing::Sum(path.clone(), body.clone())));
        let named = self.files.iter().map(|(path, body)| Thing::File(path.clone(), body.clone()));
        let line = |thing: Thing| serde_json::to_string(&thing).unwrap() + "\n";
        match files {
            true => named.map(line).collect(),
            false => done.chain(sums).map(line).collect(),
        }
    }

    fn take(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            // What broke off in the middle of a line is not taken.
            match serde_json::from_slice(line) {
                Ok(Thing::Done(seq, redo)) => self.list.push((seq, redo)),
                Ok(Thing::File(path, body)) => drop(self.files.insert(path, body)),
                Ok(Thing::Sum(path, body)) => self.sums.entry(path).or_default().push(body),
                Err(_) => {}
            }
        }
    }
}

/// The commands of a server, and the way to other sites.
pub(super) struct Walked {
    pub(super) server: Rc<Server>,
    pub(super) sites: Rc<RefCell<BTreeMap<String, Running>>>,
    /// Of a hundred commands and pieces so many fail.
    pub(super) broken: Rc<Cell<u32>>,
}

impl Walked {
    fn fails(&self) -> bool {
        self.server.draw(100) < self.broken.get()
    }
}

struct Text(Bytes, String);

impl Copy for Text {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn digest(&self) -> &str {
        &self.1
    }

    fn read(&self, offset: u64, most: usize) -> LocalBoxFuture<'static, Result<Bytes, String>> {
        let from = (offset as usize).min(self.0.len());
        let piece = self.0.slice(from..(from + most).min(self.0.len()));
        std::future::ready(Ok(piece)).boxed_local()
    }
}

/// A server that is made anew. It begins empty.
struct Renewed {
    server: Rc<Server>,
    text: Vec<u8>,
    fails: bool,
}

impl Feed for Renewed {
    fn put(&mut self, piece: Bytes) -> LocalBoxFuture<'_, Result<(), String>> {
        self.text.extend_from_slice(&piece);
        std::future::ready(Ok(())).boxed_local()
    }

    fn finish(&mut self) -> LocalBoxFuture<'_, Result<(), String>> {
        if self.fails {
            return std::future::ready(Err("it failed".to_owned())).boxed_local();
        }
        self.server.done.borrow_mut().take(&self.text);
        self.server.full.set(false);
        std::future::ready(Ok(())).boxed_local()
    }
}

impl Carrier for Walked {
    fn export(&self, _: u64) -> LocalBoxFuture<'_, Result<Rc<dyn Copy>, String>> {
        async {
            let done = Rc::clone(&self.server.done);
            // What is copied last is of a later moment.
            let mut text = done.borrow().lines(true);
            tokio::time::sleep(Duration::from_millis(8)).await;
            text += &done.borrow().lines(false);
            if self.fails() {
                return Err("the disk is full".to_owned());
            }
            let mut digest = Sha256::default();
            digest.update(text.as_bytes());
            Ok(Rc::new(Text(text.into(), digest.finish())) as Rc<dyn Copy>)
        }
        .boxed_local()
    }

    fn import(&self, _: u64, _: u64) -> Result<Box<dyn Feed>, String> {
        *self.server.done.borrow_mut() = Performed::default();
        let server = Rc::clone(&self.server);
        Ok(Box::new(Renewed { server, text: Vec::new(), fails: self.fails() }))
    }

    fn fetch<'a>(
        &'a self,
        from: &'a str,
        id: u64,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Bytes, String>> {
        async move {
            tokio::time::sleep(Duration::from_micros(u64::from(self.server.draw(500)))).await;
            let source = self.sites.borrow().get(from).map(|(site, _)| site.clone());
            match source.filter(|_| !self.fails()) {
                Some(source) => source.piece(id, offset).await,
                None => Err("no way".to_owned()),
            }
        }
        .boxed_local()
    }

    fn within(&self) -> Duration {
        Duration::from_secs(5)
    }
}
