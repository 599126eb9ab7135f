//! Whether clients are to be led to this site (T19): what a balancer, or whoever holds an address, asks.

use std::time::Duration;

use actix_http::{Method, Response, StatusCode, body::BoxBody};
use tokio::time::timeout;

use super::{
    answer::{self, Refusal},
    service::Edge,
};
use crate::{Fresh, OrderError};

impl Edge {
    /// 200 where a request would be served now: the order answers, this site has performed all of it,
    /// and its server is there. 503 with what is missing otherwise.
    pub(super) async fn ready(&self, method: &Method) -> Result<Response<BoxBody>, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "whether a site is ready is asked by GET";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text));
        }
        let not = |why: String| Refusal::of_read(&OrderError::NotApplied(why));
        let asked = async {
            let seen = self.order.fresh(Fresh::Linearizable).await;
            let applied = seen.map_err(|why| Refusal::of_read(&why))?;
            self.upstream.is_there().await.map_err(|fault| not(fault.to_string()))?;
            Ok(answer::ready(applied))
        };
        let late = |_| Err(not("this site, or the server behind it, is slow".to_owned()));
        timeout(READY_TIME_MAX, asked).await.unwrap_or_else(late)
    }
}

/// Where it is asked.
pub(super) const READY: &str = "/.well-known/synod/ready";

/// Longer than a site takes that is well, shorter than who asks waits.
const READY_TIME_MAX: Duration = Duration::from_millis(900);
