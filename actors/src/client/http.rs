//! One request to one node, and what is shown to be let in.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use awc::{
    Client, ClientRequest, Connector,
    error::{ConnectError, SendRequestError},
    http::{Method, StatusCode},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::LocalBoxStream};
use serde_json::Value;
use synod_runtime::quic::client_tls;

use crate::server::{
    config::{ConfigError, HostPort, Section},
    http_guests::MESSAGE_PACK,
    patience,
};

/// One answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// The body of an answer that goes on and on.
pub(crate) type Feed = LocalBoxStream<'static, Result<Bytes, String>>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The request never left: surely not applied.
    NotSent(String),
    /// It was sent, and then nothing came.
    Lost(String),
}

impl Answer {
    /// The `error` of a JSON body, or the body, or the status.
    pub(crate) fn error_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        match json.as_ref().and_then(|json| json.get("error")?.as_str()) {
            Some(error) => error.to_owned(),
            None if text.trim().is_empty() => self.status.to_string(),
            None => text.trim().to_owned(),
        }
    }
}

/// An answer, part by part as it comes.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, String>>>>;

/// What `client.toml` says of TLS: paths as the file has them. Without an authority, plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The authority that signed the nodes' certificates.
    pub(crate) ca: Option<String>,
    /// A file that holds a token and nothing else.
    pub(crate) token: Option<String>,
    /// A client's certificate and its key.
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
}

/// The keys of [`Credentials`] in a client file.
pub(crate) const CREDENTIALS: [&str; 4] = ["ca", "token", "cert", "key"];

impl Credentials {
    pub(crate) fn read(top: &Section<'_>) -> Result<Self, ConfigError> {
        let text = |key| top.parse(key, "a path", |text| Ok::<_, String>(text.to_owned()));
        let [ca, token, cert, key] = CREDENTIALS.map(text);
        let read = Self { ca: ca?, token: token?, cert: cert?, key: key? };
        if read.cert.is_some() != read.key.is_some() {
            let why = "a certificate goes with its key";
            return Err(top.refuse("cert", why, "name both `cert` and `key`, or neither"));
        }
        if read.ca.is_none() && read != Self::default() {
            let why = "a credential is shown only over TLS";
            return Err(top.refuse("ca", why, "name the authority's certificate"));
        }
        Ok(read)
    }

    /// As lines of a client file.
    pub(crate) fn render(&self) -> String {
        let all = [&self.ca, &self.token, &self.cert, &self.key];
        let line = |(key, path): (&str, &Option<String>)| {
            path.as_ref().map(|path| format!("{key} = \"{path}\"\n"))
        };
        CREDENTIALS.into_iter().zip(all).filter_map(line).collect()
    }
}

/// Makes requests. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    scheme: &'static str,
    bearer: Option<String>,
}

impl Http {
    /// Without TLS or a credential: nodes on this machine.
    pub(crate) fn plain() -> Self {
        let connector = Connector::new().timeout(CONNECT_TIMEOUT);
        let client = Client::builder().connector(connector).disable_redirects().finish();
        Self { client, scheme: "http", bearer: None }
    }

    /// With what a client file in `folder` names.
    pub(crate) fn with(folder: &Path, credentials: &Credentials) -> Result<Self, ConfigError> {
        let Some(ca) = &credentials.ca else { return Ok(Self::plain()) };
        let read = |path: &String| {
            let path: PathBuf = folder.join(path);
            fs::read(&path).map_err(|e| {
                let hint = "name the files that `init` wrote";
                ConfigError::new(path.display(), format!("cannot be read: {e}"), hint)
            })
        };
        let own = match (&credentials.cert, &credentials.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        let own = own.as_ref().map(|(cert, key)| (&cert[..], &key[..]));
        let tls = client_tls(&read(ca)?, own)
            .map_err(|e| ConfigError::new(ca, e.to_string(), "name the files that `init` wrote"))?;
        let token = credentials.token.as_ref().map(read).transpose()?;
        let bearer = token.map(|token| String::from_utf8_lossy(&token).trim().to_owned());
        let connector = Connector::new().timeout(CONNECT_TIMEOUT).rustls_0_23(Arc::new(tls));
        let client = Client::builder().connector(connector).disable_redirects().finish();
        Ok(Self { client, scheme: "https", bearer })
    }

    /// One request with a body of JSON, waiting `patience` for its answer and a little longer, so
    /// that the node's own verdict at its deadline still arrives.
    pub(crate) async fn request(
        &self,
        method: Method,
        to: &HostPort,
        path: &str,
        body: String,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let request = self.client.request(method, format!("{}://{to}{path}", self.scheme));
        self.send(request, "application/json", body.into(), patience).await
    }

    /// The same with a body of MessagePack.
    pub(crate) async fn post_packed(
        &self,
        to: &HostPort,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let request = self.client.post(format!("{}://{to}{path}", self.scheme));
        self.send(request, MESSAGE_PACK, body, patience).await
    }

    /// `GET path`, for server-sent events behind the one of that number: what comes, as it comes;
    /// or the answer, if it is another.
    pub(crate) async fn feed(
        &self,
        to: &HostPort,
        path: &str,
        last: Option<&str>,
        patience: Duration,
    ) -> Result<Result<Feed, Answer>, String> {
        let request = self.client.get(format!("{}://{to}{path}", self.scheme)).timeout(patience);
        let mut request = request.insert_header(("Accept", "text/event-stream"));
        if let Some(last) = last {
            request = request.insert_header(("Last-Event-ID", last));
        }
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let mut response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        if status.is_success() {
            return Ok(Ok(response.map_err(|error| error.to_string()).boxed_local()));
        }
        let body = response.body().limit(ANSWER_BYTES_MAX).await;
        Ok(Err(Answer { status, body: body.map_err(|error| error.to_string())? }))
    }

    /// `GET path`, for an answer that goes on and on. `patience` is for its beginning.
    pub(crate) async fn stream(
        &self,
        to: &HostPort,
        path: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Parts), NoAnswer> {
        let mut request = self.client.get(format!("{}://{to}{path}", self.scheme));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let sent = request.timeout(FOR_EVER).send();
        let response = tokio::time::timeout(patience, sent).await;
        let response = response.map_err(|_| NoAnswer::Lost("no answer in time".to_owned()))?;
        let response = response.map_err(|e| NoAnswer::NotSent(e.to_string()))?;
        let status = response.status();
        Ok((status, Box::pin(response.map(|part| part.map_err(|e| e.to_string())))))
    }

    async fn send(
        &self,
        request: ClientRequest,
        content_type: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = request
            .timeout(patience + VERDICT_GRACE)
            .insert_header(("Content-Type", content_type))
            .insert_header((patience::HEADER, format!("{}ms", patience.as_millis())));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let mut response = request.send_body(body).await.map_err(|e| match e {
            // awc also says this when the peer hangs up after it got the request.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                NoAnswer::Lost("the connection was lost before an answer".into())
            }
            SendRequestError::Connect(_) | SendRequestError::Url(_) => {
                NoAnswer::NotSent(e.to_string())
            }
            _ => NoAnswer::Lost(e.to_string()),
        })?;
        let status = response.status();
        let body = response.body().limit(ANSWER_BYTES_MAX).await;
        body.map(|body| Answer { status, body }).map_err(|e| NoAnswer::Lost(e.to_string()))
    }
}

/// A machine that does not even take a connection in this time is not up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than the caller's time to wait for the node's verdict.
const VERDICT_GRACE: Duration = Duration::from_millis(500);

/// A stream ends when either side hangs up.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The registry of a few thousand actors is some hundred KiB; more is no answer of ours.
const ANSWER_BYTES_MAX: usize = 16 << 20;
