//! A server for tests: a list of what it performed, and the files that came of it. It outlives the
//! crashes of its site, and performs what it was asked whoever still waits.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{RngExt as _, SeedableRng};
use synod::runtime::world::Rng;

use crate::{Header, Perform, Request, Response, Stamp, Unperformed};

#[derive(Default)]
pub(super) struct Performed {
    /// Numbers in the order they were performed or refused, with whether they were marked.
    pub(super) list: Vec<(u64, bool)>,
    pub(super) files: BTreeMap<String, String>,
    /// What POST adds to.
    pub(super) sum: Vec<String>,
}

pub(super) struct Server {
    pub(super) site: String,
    pub(super) done: Rc<RefCell<Performed>>,
    pub(super) down: Cell<bool>,
    /// The disk is full: 507 to everything.
    pub(super) full: Cell<bool>,
    /// Of a hundred requests so many are not answered.
    pub(super) mute: Cell<u32>,
    rng: RefCell<Rng>,
}

impl Server {
    pub(super) fn new(site: &str, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            site: site.to_owned(),
            done: Rc::default(),
            down: Cell::new(false),
            full: Cell::new(false),
            mute: Cell::new(0),
            rng: RefCell::new(Rng::seed_from_u64(seed)),
        })
    }

    fn draw(&self, most: u32) -> u32 {
        self.rng.borrow_mut().random_range(0..most)
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
            let delay = Duration::from_micros(u64::from(self.draw(3_000)));
            let (done, full) = (Rc::clone(&self.done), self.full.get());
            // From here on it happens, whatever becomes of whoever asked.
            let work = actix_rt::spawn(async move {
                tokio::time::sleep(delay).await;
                match full {
                    true => {
                        done.borrow_mut().list.push((stamp.seq, stamp.redo));
                        (507, "full".to_owned())
                    }
                    false => done.borrow_mut().apply(&request, stamp),
                }
            });
            let (status, body) = work.await.expect("a server does not panic");
            tokio::time::sleep(Duration::from_micros(u64::from(self.draw(3_000)))).await;
            if self.draw(100) < self.mute.get() {
                return Err(Unperformed::Unknown("broke off".to_owned()));
            }
            let by = Header { name: "server".to_owned(), value: self.site.clone().into_bytes() };
            Ok(Response { status, headers: vec![by], body: Bytes::from(body) })
        }
        .boxed_local()
    }
}

impl Performed {
    fn apply(&mut self, request: &Request, stamp: Stamp) -> (u16, String) {
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
                self.sum.push(body);
                (200, format!("{} of {}", self.sum.len(), stamp.seed))
            }
        }
    }
}
