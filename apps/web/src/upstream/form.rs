//! HTTP as a form of the binding.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use synod::server::config::{RedoPolicy, WebConfig};

use super::{Upstream, policy};
use crate::{
    Form, Perform, Request, Response, Stamp, Touches, Unperformed, order::digest_response,
};

/// An HTTP server behind a site, and how its routes are treated.
#[derive(Debug, Clone)]
pub struct HttpForm {
    upstream: Upstream,
    config: WebConfig,
}

impl HttpForm {
    /// The server `upstream`, treated as `config` says.
    pub fn new(upstream: Upstream, config: WebConfig) -> Self {
        Self { upstream, config }
    }
}

impl Perform for HttpForm {
    fn perform(
        &self,
        request: Rc<Request>,
        stamp: Stamp,
    ) -> LocalBoxFuture<'_, Result<Response, Unperformed>> {
        Box::pin(async move {
            let mut response = self.upstream.perform(Rc::clone(&request), stamp).await?;
            policy::strip(&self.config, &request, &mut response.headers);
            Ok(response)
        })
    }
}

impl Form for HttpForm {
    fn redo(&self, request: &Request) -> RedoPolicy {
        policy::redo(&self.config, request)
    }

    fn touches(&self, request: &Request) -> Touches {
        policy::touches(&self.config, request)
    }

    fn streams(&self) -> bool {
        true
    }

    fn digest(&self, request: &Request, response: &Response) -> String {
        let route = policy::route(&self.config, request);
        digest_response(response, route.map_or(&[], |route| &route.ignore))
    }
}
