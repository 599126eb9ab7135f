//! `subscribe`: prints the messages of a group, in order and without a gap.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use synod_runtime::world::{Clock as _, Instant, RealClock};
use tokio::time::timeout;

use super::path;
use crate::{
    cli::{
        args::ClientArgs,
        client::Cluster,
        failure::{Exit, Failure},
        node::Signals,
        out::{self, Mouth},
    },
    client::{ClientNode, NoAnswer},
    multicast::message::{Entry, Seq},
    server::multicast::http::{Feed, SIGN_EVERY},
};

/// `subscribe`.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// The group; it is made by its first use
    #[arg(value_name = "GROUP")]
    group: String,
    /// Where to begin: with the next message, the oldest kept one, or a number
    #[arg(long, value_name = "now|checkpoint|SEQ", default_value = "now", value_parser = start)]
    from: String,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

fn start(text: &str) -> Result<String, String> {
    let number = || text.parse::<u64>().is_ok_and(|number| number > 0);
    if matches!(text, "now" | "checkpoint") || number() {
        return Ok(text.to_owned());
    }
    Err("write now, checkpoint, or a number from 1".to_owned())
}

/// Prints until there were enough, or somebody ends it.
pub(crate) async fn run(args: &SubscribeArgs) -> Result<(), Failure> {
    let listening = Signals::listen();
    let mut signals = listening.map_err(|e| Failure::failed("subscribe", e, "report this"))?;
    tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        ended = follow(args) => ended,
    }
}

async fn follow(args: &SubscribeArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(&args.client)?;
    let path = path(&args.group)?;
    let mut reader = Reader { args, mouth: Mouth::open(), next: None, printed: 0 };
    let nodes: Vec<_> = cluster.servers(None).collect();
    if nodes.is_empty() {
        return Err(Failure::usage("client file", "it names no node", "name one"));
    }
    let (mut heard, mut asked) = (RealClock.now(), 0);
    for node in nodes.iter().cycle() {
        let from = reader.next.map_or_else(|| args.from.clone(), |next| next.to_string());
        let path = format!("{path}?from={from}");
        let left = (heard + args.client.timeout).since(RealClock.now());
        let patience = cluster.share(asked / nodes.len()).min(left);
        let before = heard;
        let end = reader.listen(&cluster, node, (&path, patience), &mut heard).await?;
        let End::Elsewhere(why) = end else { return Ok(()) };
        asked = if heard == before { asked + 1 } else { 0 };
        if RealClock.now().since(heard) >= args.client.timeout {
            let why = format!("nobody answers ({why})");
            let hint = "see that the nodes run, or raise --timeout";
            return Err(Failure::new(Exit::NotApplied, &args.group, why, hint));
        }
        actix_rt::time::sleep(PAUSE).await;
    }
    Ok(())
}

struct Reader<'a> {
    args: &'a SubscribeArgs,
    mouth: Mouth,
    /// The number it waits for, once that is known.
    next: Option<Seq>,
    printed: u64,
}

/// Why it listens no more.
enum End {
    /// There were enough, or nobody reads them.
    Done,
    /// This node does not go on; another may.
    Elsewhere(String),
}

impl Reader<'_> {
    /// Prints what one node says; `patience` is for the beginning of it.
    async fn listen(
        &mut self,
        cluster: &Cluster,
        node: &ClientNode,
        (path, patience): (&str, Duration),
        heard: &mut Instant,
    ) -> Result<End, Failure> {
        let opened = cluster.http().stream(&node.http, path, patience).await;
        let (status, mut body) = match opened {
            Ok(opened) => opened,
            Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => {
                return Ok(End::Elsewhere(format!("{} at {}: {why}", node.name, node.http)));
            }
        };
        let what = || format!("subscribe {}", self.args.group);
        if !status.is_success() {
            let mut text = BytesMut::new();
            while let Some(Ok(part)) = body.next().await {
                text.extend_from_slice(&part);
            }
            let said: Value = serde_json::from_slice(&text).unwrap_or_default();
            let why = said["error"].as_str().unwrap_or(status.as_str()).to_owned();
            if status.is_client_error() {
                let hint = "use --from checkpoint for the oldest there is";
                return Err(Failure::failed(what(), why, hint));
            }
            return Ok(End::Elsewhere(format!("{} says: {why}", node.name)));
        }
        let mut carry = BytesMut::new();
        loop {
            let part = match timeout(SIGN_EVERY * SILENT_SIGNS, body.next()).await {
                Ok(Some(Ok(part))) => part,
                Ok(Some(Err(why))) => return Ok(End::Elsewhere(why)),
                Ok(None) => return Ok(End::Elsewhere(format!("{} hung up", node.name))),
                Err(_silent) => return Ok(End::Elsewhere(format!("{} is silent", node.name))),
            };
            *heard = RealClock.now();
            carry.extend_from_slice(&part);
            while let Some(frame) = cut(&mut carry) {
                let Ok(feed) = rmp_serde::from_slice::<Feed>(&frame) else {
                    return Ok(End::Elsewhere(format!("{} speaks strangely", node.name)));
                };
                match feed {
                    Feed::Next(next) => {
                        self.next.get_or_insert(next);
                    }
                    Feed::Collected(oldest) => {
                        let why = format!("collected: the oldest is {oldest}");
                        return Err(Failure::failed(what(), why, "it was read too slowly"));
                    }
                    Feed::Entries(entries) => {
                        if self.print(&entries).await? {
                            return Ok(End::Done);
                        }
                    }
                }
            }
        }
    }

    /// Prints what is new; whether that was enough.
    async fn print(&mut self, entries: &[Entry]) -> Result<bool, Failure> {
        let mut page = Vec::new();
        let mut enough = false;
        for entry in entries {
            if self.next.is_some_and(|next| entry.seq < next) {
                continue; // another node showed it before
            }
            self.next = Some(entry.seq.next());
            render(entry, self.args.client.json, &mut page);
            self.printed += u64::from(entry.pair.mid.is_some());
            enough = self.args.count.is_some_and(|count| self.printed >= count);
            if enough {
                break;
            }
        }
        Ok(self.mouth.print(&mut page).await? == out::Reader::Gone || enough)
    }
}

fn render(entry: &Entry, as_json: bool, out: &mut Vec<u8>) {
    let sender = entry.pair.mid.map(|mid| mid.publisher.to_string());
    if as_json {
        let payload = sender.as_ref().map(|_| String::from_utf8_lossy(&entry.payload));
        let line = json!({ "seq": entry.seq, "sender": sender, "payload": payload });
        out.extend_from_slice(line.to_string().as_bytes());
    } else {
        let sender = sender.as_deref().unwrap_or("-");
        out.extend_from_slice(format!("{}\t{sender}\t", entry.seq).as_bytes());
        out.extend_from_slice(&entry.payload);
    }
    out.push(b'\n');
}

/// The next whole frame.
pub(in crate::cli) fn cut(carry: &mut BytesMut) -> Option<Bytes> {
    let head = carry.get(..4)?;
    let len = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
    if carry.len() < 4 + len {
        return None;
    }
    carry.advance(4);
    Some(carry.split_to(len).freeze())
}

/// A node that gives no sign for so many times the usual does not live.
const SILENT_SIGNS: u32 = 3;

/// Before another node is asked.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::message::{Mid, Pair, Publisher};

    #[test]
    fn a_line_is_number_sender_and_payload_and_a_void_has_none() {
        let mid = Mid { publisher: Publisher(0xab), number: 1 };
        let pair = Pair { mid: Some(mid), stamp: Seq(0), lowest_open: 1 };
        let entry = Entry { seq: Seq(7), pair, payload: Bytes::from_static(b"hi\tyou") };
        let void = Entry { seq: Seq(8), pair: Pair::VOID, payload: Bytes::new() };
        let mut out = Vec::new();
        render(&entry, false, &mut out);
        render(&void, false, &mut out);
        render(&void, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        let json = r#"{"payload":null,"sender":null,"seq":8}"#;
        assert_eq!(text, format!("7\t00000000000000ab\thi\tyou\n8\t-\t\n{json}\n"));
    }

    #[test]
    fn frames_are_cut_wherever_the_stream_breaks() {
        let mut carry = BytesMut::from(&[2, 0, 0][..]);
        assert_eq!(cut(&mut carry), None);
        carry.extend_from_slice(&[0, 1, 2, 3]);
        assert_eq!(cut(&mut carry), Some(Bytes::from_static(&[1, 2])));
        assert_eq!(&carry[..], [3]);
    }
}
