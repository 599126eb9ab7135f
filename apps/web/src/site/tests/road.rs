//! The way of large bodies between sites: messages take their time, get lost, and now and then a byte of
//! one is not what it was.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::RngExt as _;
use synod::runtime::world::Rng;

use super::{Running, Site};
use crate::{Apart, Courier, Holding};

/// That of one site.
pub(super) struct Road {
    pub(super) site: String,
    /// How far the others are.
    pub(super) way: Duration,
    pub(super) sites: Rc<RefCell<BTreeMap<String, Running>>>,
    /// Of a hundred messages so many get lost.
    pub(super) broken: Rc<Cell<u32>>,
    pub(super) rng: RefCell<Rng>,
}

impl Road {
    fn draw(&self, most: u32) -> u32 {
        self.rng.borrow_mut().random_range(0..most)
    }

    async fn to(&self, site: &str) -> Result<Site, String> {
        tokio::time::sleep(self.way * 2 + Duration::from_micros(self.draw(500).into())).await;
        let there = self.sites.borrow().get(site).map(|(site, _)| site.clone());
        there.filter(|_| self.draw(100) >= self.broken.get()).ok_or_else(|| "no way".to_owned())
    }
}

impl Courier for Road {
    fn hold<'a>(
        &'a self,
        at: &'a str,
        body: &'a Apart,
    ) -> LocalBoxFuture<'a, Result<Holding, String>> {
        async move { self.to(at).await?.hold(&self.site, body).await }.boxed_local()
    }

    fn fetch<'a>(
        &'a self,
        from: &'a str,
        body: &'a Apart,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Option<Bytes>, String>> {
        async move {
            let piece = self.to(from).await?.body_piece(body, offset).await?;
            Ok(piece.map(|piece| match self.draw(200) < self.broken.get() {
                true => piece.iter().map(|byte| byte ^ 1).collect(),
                false => piece,
            }))
        }
        .boxed_local()
    }
}
