//! Ordered requests at the server of this site.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use super::Upstream;
use crate::{
    Header, Perform, Request, Response, Stamp, Unperformed,
    time::{http_date, rfc3339},
};

impl Perform for Upstream {
    fn perform(
        &self,
        request: Rc<Request>,
        stamp: Stamp,
    ) -> LocalBoxFuture<'_, Result<Response, Unperformed>> {
        Box::pin(async move {
            let answer = self.send_once(&request, &agreed(&request, stamp)).await?;
            let (status, mut headers) = (answer.status, answer.headers.clone());
            let length = answer.length.filter(|_| request.method == "HEAD" || status == 304);
            let Some(body) = answer.whole(self.0.options.answer_bytes_max).await? else {
                return Ok(too_long(self.0.options.answer_bytes_max, stamp));
            };
            // The only one that tells how long a body is which is not there.
            if let Some(length) = length {
                headers.push(header("content-length", length.to_string()));
            }
            headers.retain(|header| header.name != "date");
            headers.push(header("date", http_date(stamp.time_ms)));
            headers.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(Response { status, headers, body })
        })
    }
}

/// What the sites agreed on, for the server (R5.27). With `Date` a server dates what it keeps, as
/// nginx does with files, so that it has the same date, and the same `ETag`, at every site.
fn agreed(request: &Request, stamp: Stamp) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("synod-seq", stamp.seq.to_string()),
        ("synod-time", rfc3339(stamp.time_ms)),
        ("synod-seed", format!("{:016x}", stamp.seed)),
    ];
    if stamp.redo {
        all.push(("synod-redo", "1".to_owned()));
    }
    if !request.headers.iter().any(|header| header.name == "date") {
        all.push(("date", http_date(stamp.time_ms)));
    }
    all
}

/// In place of an answer that nobody can keep: the same at every site.
fn too_long(most: usize, stamp: Stamp) -> Response {
    let error = format!("the server's answer to an ordered request has more than {most} bytes");
    let body = json!({ "error": error, "outcome": "applied" }).to_string();
    let headers = vec![
        header("content-type", "application/json".to_owned()),
        header("date", http_date(stamp.time_ms)),
    ];
    Response { status: 502, headers, body: Bytes::from(body) }
}

fn header(name: &str, value: String) -> Header {
    Header { name: name.to_owned(), value: value.into_bytes() }
}
