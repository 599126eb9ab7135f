//! `GET /services?watch=true` and `GET /services/S?watch=true`: how everything is, then every change as
//! this node sees it, as server-sent events. Changes that follow one another at once may come as one.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use synod_runtime::world::Instant;

use super::bad;
use crate::server::{
    services::Services,
    stop::StopSignal,
    view::{self, ALIVE, ALIVE_EVERY, BEGIN, Watchers, Watching},
};

#[derive(Debug, Default, Deserialize)]
struct Query {
    #[serde(default)]
    watch: bool,
}

/// Opens a feed, if the request is for one.
pub(super) fn asked(
    request: &HttpRequest,
    services: &Services,
    watchers: &Watchers,
    only: Option<&str>,
) -> Option<HttpResponse> {
    let query = match web::Query::<Query>::from_query(request.query_string()) {
        Ok(query) => query.into_inner(),
        Err(error) => return Some(bad(&format!("{error}; write ?watch=true"))),
    };
    if !query.watch {
        return None;
    }
    let Some(watching) = watchers.enter() else { return Some(view::full()) };
    let feed = Feed {
        services: services.clone(),
        only: only.map(str::to_owned),
        told: None,
        waiting: VecDeque::from([Bytes::from_static(BEGIN)]),
        spoke: services.now(),
        stop: watchers.stop.clone(),
        _watching: watching,
    };
    Some(view::sent(feed.events()))
}

/// One watcher.
struct Feed {
    services: Services,
    /// Only this service.
    only: Option<String>,
    /// What it was told, by service; nothing so far.
    told: Option<BTreeMap<String, Value>>,
    waiting: VecDeque<Bytes>,
    /// When it was told something last.
    spoke: Instant,
    stop: StopSignal,
    _watching: Watching,
}

impl Feed {
    fn events(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut feed| async move {
            while feed.waiting.is_empty() {
                feed.look().await;
                let stop = async {
                    tokio::select! {
                        biased;
                        () = feed.stop.stopped() => true,
                        () = feed.services.news(LOOK) => false,
                    }
                };
                if feed.waiting.is_empty() && stop.await {
                    return None;
                }
            }
            let next = feed.waiting.pop_front()?;
            feed.spoke = feed.services.now();
            Some((Ok(next), feed))
        })
    }

    async fn look(&mut self) {
        self.services.refresh().await;
        let all = self.services.documents().into_iter();
        let named = all.filter_map(|one| Some((one["service"].as_str()?.to_owned(), one)));
        let wanted = |name: &String| self.only.as_ref().is_none_or(|only| only == name);
        let now: BTreeMap<_, _> = named.filter(|(name, _)| wanted(name)).collect();
        self.waiting.extend(news(self.told.as_ref(), &now));
        self.told = Some(now);
        if self.waiting.is_empty() && self.services.now().since(self.spoke) >= ALIVE_EVERY {
            self.waiting.push_back(Bytes::from_static(ALIVE));
        }
    }
}

/// What to tell somebody who knows `told`.
fn news(told: Option<&BTreeMap<String, Value>>, now: &BTreeMap<String, Value>) -> Vec<Bytes> {
    let Some(told) = told else {
        let all: Vec<_> = now.values().collect();
        return vec![event("state", &json!({ "services": all }))];
    };
    let gone = told.keys().filter(|name| !now.contains_key(*name));
    let gone = gone.map(|name| event("change", &json!({ "service": name, "removed": true })));
    let other = now.iter().filter(|(name, one)| told.get(*name) != Some(one));
    gone.chain(other.map(|(_, one)| event("change", one))).collect()
}

fn event(kind: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}

/// Where nobody tells of a change it is looked for so often: who stands where roles are in registers.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_is_told_the_state_and_then_what_differs() {
        let one = |state: &str| json!({ "service": "web", "state": state });
        let all = |state: &str| BTreeMap::from([("web".to_owned(), one(state))]);
        let texts = |told: Option<&BTreeMap<String, Value>>, now: &BTreeMap<String, Value>| {
            let text = |event: &Bytes| String::from_utf8_lossy(event).into_owned();
            news(told, now).iter().map(text).collect::<Vec<_>>().concat()
        };
        let first = texts(None, &all("starting"));
        assert!(first.starts_with("event: state\ndata: {\"services\":[{"), "{first}");
        assert_eq!(texts(Some(&all("starting")), &all("starting")), "");
        let next = texts(Some(&all("starting")), &all("running"));
        assert!(next.starts_with("event: change\n") && next.contains("running"), "{next}");
        let gone = texts(Some(&all("running")), &BTreeMap::new());
        assert!(gone.contains("\"removed\":true") && gone.ends_with("\n\n"), "{gone}");
    }
}
