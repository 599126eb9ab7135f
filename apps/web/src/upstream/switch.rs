//! Another protocol with the server, when it agrees.

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{Fault, Reading, Upstream, connection::Connection, head};
use crate::{Header, Request};

/// A server that speaks another protocol from here on.
#[derive(Debug)]
pub(crate) struct Switched {
    /// 101, or what it answered to CONNECT.
    pub(crate) status: u16,
    /// Without those of the connection; sorted by name.
    pub(crate) headers: Vec<Header>,
    pub(crate) stream: TcpStream,
    /// What it said already.
    pub(crate) heard: BytesMut,
}

/// What a server makes of a request for another protocol.
#[derive(Debug)]
pub(crate) enum Turned {
    /// It agrees.
    Switched(Switched),
    /// It answers in HTTP.
    Answered(Reading),
}

impl Upstream {
    /// Asks the server to speak another protocol, with `more` headers; on a connection of its own.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn switch(
        &self,
        request: &Request,
        more: &[(&str, String)],
    ) -> Result<Turned, Fault> {
        // What CONNECT asks for is no path.
        let base = if request.method == "CONNECT" { "" } else { self.0.address.base() };
        let bytes = head::write(base, request, more);
        let mut new = Connection::open_to_switch(self.0.address.authority()).await?;
        let head = new.exchange(request, &bytes, self.0.options.patience).await?;
        if !head.switched {
            let answer = Reading::new(self.clone(), request, (new, head), None);
            return Ok(Turned::Answered(answer));
        }
        let (stream, heard) = new.into_parts();
        let (status, headers) = (head.status, head.headers);
        Ok(Turned::Switched(Switched { status, headers, stream, heard }))
    }
}
