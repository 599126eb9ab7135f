//! What is spoken behind TLS: agreed in the handshake, HTTP/1.1 or HTTP/2.

use actix_http::Protocol;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

/// Offers what a server of HTTP speaks, the better first, and nothing else.
pub fn offer_protocols(tls: &mut ServerConfig) {
    tls.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
}

/// What the client of a connection chose of it; one that chose nothing speaks HTTP/1.1.
pub fn protocol_of(session: &ServerConnection) -> Protocol {
    match session.alpn_protocol() {
        Some(HTTP_2) => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
