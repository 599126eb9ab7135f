use std::net::TcpListener;

use actix_web::{App, middleware::from_fn, test, web};
use awc::{Client, Connector, http::StatusCode};
use synod_runtime::{
    identity::NodeName,
    quic::{Authority, client_tls},
    world::network::TlsFiles,
};

use super::*;
use crate::server::listener::{self, Listening};

const TOKEN: &str = "0123456789abcdef";

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn issue(authority: &Authority, node: &str) -> TlsFiles {
    authority.issue(&name(node), &[], &[[127, 0, 0, 1].into()]).unwrap()
}

fn config(files: TlsFiles, clients: ClientAccess) -> TlsConfig {
    TlsConfig { files, revoked: [].into(), clients }
}

fn tokens(text: &str) -> ClientAccess {
    ClientAccess::Token(Tokens::parse(text).unwrap())
}

/// A listener behind `access`; gives its port.
fn serve(access: &Access) -> (u16, Listening) {
    let door = access.clone();
    let app = move || {
        let access = door.clone();
        App::new()
            .wrap(from_fn(move |request, next| guard(access.clone(), request, next)))
            .route("/status", web::get().to(|| async { "told" }))
            .route("/healthz", web::get().to(|| async { "alive" }))
    };
    let tls = (*access.tls().unwrap().config()).clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, listener::serve(listener, Some(tls), 100, app).unwrap())
}

async fn get(
    port: u16,
    path: &str,
    ca: &Authority,
    own: Option<&TlsFiles>,
    token: Option<&str>,
) -> Result<StatusCode, String> {
    let own = own.map(|own| (&own.cert[..], &own.key[..]));
    let tls = client_tls(ca.ca_pem().as_bytes(), own).unwrap();
    let connector = Connector::new().rustls_0_23(Arc::new(tls));
    let client = Client::builder().connector(connector).finish();
    let mut request = client.get(format!("https://127.0.0.1:{port}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.map(|answer| answer.status()).map_err(|error| error.to_string())
}

#[actix_web::test]
async fn http_with_tls_answers_only_who_shows_a_good_token() {
    let ca = Authority::new(&name("bank")).unwrap();
    let files = issue(&ca, "a");
    let settings = config(files.clone(), tokens(&format!("ann {TOKEN}")));
    let access = Access::new(&name("bank"), &settings).unwrap();
    let (port, server) = serve(&access);
    let status = async |token| get(port, "/status", &ca, None, token).await;
    assert_eq!(status(Some(TOKEN)).await, Ok(StatusCode::OK));
    assert_eq!(status(None).await, Ok(StatusCode::UNAUTHORIZED));
    assert_eq!(status(Some("0123456789abcdee")).await, Ok(StatusCode::UNAUTHORIZED));
    assert_eq!(get(port, "/healthz", &ca, None, None).await, Ok(StatusCode::OK));
    let other = Authority::new(&name("bank")).unwrap();
    assert!(get(port, "/healthz", &other, None, None).await.is_err(), "another authority's");
    let plain = Client::new().get(format!("http://127.0.0.1:{port}/healthz")).send().await;
    assert!(plain.is_err(), "no word without TLS");

    // New tokens count at once.
    let settings = config(files, tokens("ann fedcba9876543210"));
    assert!(access.take(&settings).unwrap());
    assert_eq!(status(Some(TOKEN)).await, Ok(StatusCode::UNAUTHORIZED));
    assert_eq!(status(Some("fedcba9876543210")).await, Ok(StatusCode::OK));
    server.stop(false).await;
}

#[actix_web::test]
async fn http_with_certificates_answers_only_the_clusters_own_and_no_revoked_ones() {
    let ca = Authority::new(&name("bank")).unwrap();
    let settings = config(issue(&ca, "a"), ClientAccess::Certificate);
    let access = Access::new(&name("bank"), &settings).unwrap();
    let (port, server) = serve(&access);
    let ann = ca.issue_client(&name("ann")).unwrap();
    let status = async |own| get(port, "/status", &ca, own, None).await;
    assert_eq!(status(Some(&ann)).await, Ok(StatusCode::OK));
    assert!(status(None).await.is_err());
    let shop = Authority::from_pem(&name("shop"), ca.ca_pem(), &ca.key_pem()).unwrap();
    let stranger = shop.issue_client(&name("ann")).unwrap();
    assert!(status(Some(&stranger)).await.is_err(), "one authority, another cluster");

    let revoked = TlsConfig { revoked: [name("ann")].into(), ..settings.clone() };
    assert!(access.take(&revoked).unwrap());
    assert!(status(Some(&ann)).await.is_err());

    // A new certificate of the node, by a new authority, is shown from now on.
    let new = Authority::new(&name("bank")).unwrap();
    let renewed = config(issue(&new, "a"), ClientAccess::Certificate);
    assert!(access.take(&renewed).unwrap());
    assert!(status(Some(&ann)).await.is_err());
    let bob = new.issue_client(&name("bob")).unwrap();
    assert_eq!(get(port, "/status", &new, Some(&bob), None).await, Ok(StatusCode::OK));
    let open = TlsConfig { clients: ClientAccess::Open, ..renewed };
    assert!(!access.take(&open).unwrap(), "the door itself changes only with a restart");
    server.stop(false).await;
}

/// Goal: a page that somebody's browser shows cannot make it start programs here.
#[actix_web::test]
async fn pages_from_elsewhere_are_refused_and_this_machines_own_are_not() {
    let door = from_fn(|request, next| guard(Access::open(), request, next));
    let app = App::new().wrap(door).route("/status", web::post().to(|| async { "told" }));
    let app = test::init_service(app).await;
    for (origin, admitted) in [
        (None, true),
        (Some("http://127.0.0.1:9001"), true),
        (Some("http://localhost"), true),
        (Some("http://[::1]:9001"), true),
        (Some("http://evil.example:9001"), false),
        (Some("http://127.0.0.1.evil.example"), false),
        (Some("https://[2001:db8::1]"), false),
        (Some("null"), false),
    ] {
        let mut request = test::TestRequest::post().uri("/status");
        if let Some(origin) = origin {
            request = request.insert_header(("Origin", origin));
        }
        let answer = test::call_service(&app, request.to_request()).await;
        let wanted = if admitted { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status(), wanted, "{origin:?}");
    }
}
