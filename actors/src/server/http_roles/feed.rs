//! `GET /roles?watch=true` and `GET /roles/R?watch=true`: every change in order, as server-sent
//! events. An event's `id` is its mark: whoever names the last one it heard, in `Last-Event-ID` or
//! as `after=`, goes on behind it at any node, as browsers do by themselves.

use std::{collections::VecDeque, convert::Infallible};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, document, documents};
use crate::{
    election::watch::{Mark, Notice},
    server::{
        elections::{Elections, Heard, Watch},
        stop::StopSignal,
        view::{self, ALIVE, ALIVE_EVERY, BEGIN, Watchers, Watching},
    },
};

#[derive(Debug, Default, Deserialize)]
struct Query {
    #[serde(default)]
    watch: bool,
    after: Option<String>,
}

/// Whether a request is for a feed, and behind which mark.
pub(super) fn asked(request: &HttpRequest) -> Option<Result<Option<Mark>, String>> {
    let query = match web::Query::<Query>::from_query(request.query_string()) {
        Ok(query) => query.into_inner(),
        Err(error) => return Some(Err(format!("{error}; write ?watch=true"))),
    };
    let last = request.headers().get("Last-Event-ID").and_then(|last| last.to_str().ok());
    let after = query.after.as_deref().or(last);
    query.watch.then(|| after.map(str::parse).transpose())
}

/// Opens a feed.
pub(super) fn open(
    elections: &Elections,
    watchers: &Watchers,
    role: Option<&str>,
    from: Result<Option<Mark>, String>,
) -> HttpResponse {
    let watch = elections.watch(role);
    let watch = match from {
        Ok(Some(mark)) => watch.after(mark),
        Ok(None) => watch,
        Err(why) => return Answer::bad_request(why).response(),
    };
    let Some(watching) = watchers.enter() else { return view::full() };
    view::sent(feed(watch, watching, watchers.stop.clone()))
}

fn feed(
    watch: Watch,
    watching: Watching,
    stop: StopSignal,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let begin = (watch, VecDeque::from([Bytes::from_static(BEGIN)]), stop, watching);
    stream::unfold(begin, |(mut watch, mut waiting, mut stop, watching)| async move {
        if waiting.is_empty() {
            let heard = tokio::select! {
                biased;
                () = stop.stopped() => return None,
                heard = tokio::time::timeout(ALIVE_EVERY, watch.next()) => heard,
            };
            let alive = Bytes::from_static(ALIVE);
            waiting.push_back(heard.map_or(alive, |heard| event(&heard)));
        }
        let next = waiting.pop_front()?;
        Some((Ok(next), (watch, waiting, stop, watching)))
    })
}

/// As it goes over the wire.
fn event(heard: &Heard) -> Bytes {
    let (kind, data) = match heard {
        Heard::State { roles, .. } => ("state", json!({ "roles": documents(roles, false) })),
        Heard::Changed(Notice { now: Some(view), .. }) => ("change", document(view, false)),
        Heard::Changed(Notice { role, now: None, .. }) => {
            ("change", json!({ "role": role, "leader": null, "removed": true }))
        }
        Heard::Stale(stale) => ("stale", json!({ "stale": stale })),
    };
    let id = heard.mark().map(|mark| format!("id: {mark}\n")).unwrap_or_default();
    Bytes::from(format!("event: {kind}\n{id}data: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_the_mark_to_go_on_from() {
        let mark = Mark { position: 17, part: 2 };
        let notice = Notice { mark, role: "jobs".to_owned(), now: None };
        let event = event(&Heard::Changed(notice));
        let text = std::str::from_utf8(&event).unwrap();
        assert!(text.starts_with("event: change\nid: 17.2\ndata: {"), "{text}");
        assert!(text.ends_with("}\n\n") && text.contains(r#""removed":true"#), "{text}");
    }
}
