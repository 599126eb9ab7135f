//! `roles --watch`, `services --watch`: every change of one, or of all, as it happens.

use std::time::Duration;

use actix_rt::time::{sleep, timeout};
use bytes::{Buf as _, BytesMut};
use futures_util::StreamExt as _;
use serde_json::Value;
use synod_runtime::identity::NodeName;

use super::super::{
    call::text,
    client::Cluster,
    failure::Failure,
    out::{self, Reader},
};

/// Prints changes until nobody reads them, or nobody serves them within the time. It goes on at
/// another node where the one that served it ended, and tells nothing twice.
pub(crate) async fn run(
    cluster: &Cluster,
    path: &str,
    json: bool,
    lines: fn(&Value) -> String,
) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    loop {
        let (node, mut body) = cluster.feed("--watch", path, last.as_deref()).await?;
        let mut parts = Lines::default();
        while let Ok(Some(Ok(part))) = timeout(SILENCE_MAX, body.next()).await {
            for event in parts.push(&part) {
                last = event.id.clone().or(last);
                if print(&event, &node, json, lines)? == Reader::Gone {
                    return Ok(());
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// One event, as it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    id: Option<String>,
    data: String,
}

/// Cuts events out of what arrives.
#[derive(Debug, Default)]
struct Lines {
    rest: BytesMut,
    open: Event,
}

impl Lines {
    fn push(&mut self, part: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(part);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end);
            self.rest.advance(1);
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches('\r').split_once(": ") {
                Some(("event", kind)) => self.open.kind = kind.to_owned(),
                Some(("id", id)) => self.open.id = Some(id.to_owned()),
                Some(("data", data)) => self.open.data = data.to_owned(),
                Some(_) => {}
                None => events.push(std::mem::take(&mut self.open)),
            }
        }
        events.retain(|event| !event.data.is_empty());
        events
    }
}

/// A line for each of what it tells; answers whether anybody still reads.
fn print(
    event: &Event,
    node: &NodeName,
    json: bool,
    lines: fn(&Value) -> String,
) -> Result<Reader, Failure> {
    let Ok(data) = serde_json::from_str::<Value>(&event.data) else { return Ok(Reader::There) };
    let mut out = String::new();
    if json {
        out = format!("{{\"event\":\"{}\",\"data\":{data}}}\n", event.kind);
    } else if event.kind == "stale" {
        let stale = data["stale"] == Value::Bool(true);
        let what = if stale { "what follows may be old: no quorum" } else { "confirmed again" };
        out::tell(format_args!("synod: {node}: {what}"));
    } else {
        let all = data.get("roles").or_else(|| data.get("services")).and_then(Value::as_array);
        let all = all.map_or_else(|| vec![data.clone()], Clone::clone);
        out.extend(all.iter().map(lines));
    }
    out::print(out)
}

/// A line for a role.
pub(super) fn line(role: &Value) -> String {
    let [name, leader, at, epoch] = ["role", "leader", "node", "epoch"].map(|key| text(&role[key]));
    match (role["removed"] == Value::Bool(true), role["leader"].is_null()) {
        (true, _) => format!("{name}\tremoved\n"),
        (false, true) => format!("{name}\tnobody\n"),
        (false, false) => format!("{name}\t{leader}\t{at}\t{epoch}\n"),
    }
}

/// A node says something every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_of_whatever_parts_they_come_in() {
        let sent = "retry: 200\n\n: alive\n\nevent: change\nid: 7.0\ndata: {\"role\":\"jobs\"}\n\n\
                    event: stale\ndata: {\"stale\":true}\n\n";
        for size in [1, 7, 1_000] {
            let mut lines = Lines::default();
            let events: Vec<_> =
                sent.as_bytes().chunks(size).flat_map(|part| lines.push(part)).collect();
            assert_eq!(events.len(), 2, "{events:?}");
            assert_eq!(events[0].id.as_deref(), Some("7.0"));
            assert_eq!((events[1].kind.as_str(), &events[1].id), ("stale", &None));
        }
    }
}
