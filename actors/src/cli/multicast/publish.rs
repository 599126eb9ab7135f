//! `publish`: each line of standard input is a message.
//!
//! It is a publisher of its own: it numbers and stamps its messages, and sends them again, with the
//! same numbers and stamps, at whichever node answers, until each has its place.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read as _},
    time::Duration,
};

use clap::Args;
use serde_json::json;
use synod_runtime::world::{Clock as _, RealClock};
use tokio::{sync::mpsc, time::timeout};

use super::path;
use crate::{
    cli::{
        args::ClientArgs,
        client::Cluster,
        failure::{Exit, Failure},
        node::Signals,
        out::Mouth,
    },
    client::{ClientNode, NoAnswer},
    multicast::{
        data_server::PAYLOAD_BYTES_MAX,
        message::{Data, Mid, Outcome, Publisher, Seq},
    },
    server::multicast::http::{Publish, Published},
};

/// `publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The group; it is made by its first use
    #[arg(value_name = "GROUP")]
    group: String,
    /// Print how many were committed, not the number of each
    #[arg(long)]
    count_only: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Publishes all lines, or those that were read before somebody stops it.
pub(crate) async fn run(args: &PublishArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(&args.client)?;
    let mut press = Press {
        args,
        nodes: cluster.servers(None).collect(),
        path: path(&args.group)?,
        publisher: Publisher(rand::random()),
        open: VecDeque::new(),
        stamp: Seq(0),
        committed: 0,
        unknown: Vec::new(),
        mouth: Mouth::open(),
        page: Vec::new(),
        printed: Ok(()),
        cluster: &cluster,
    };
    let listening = Signals::listen();
    let mut signals = listening.map_err(|e| Failure::failed("publish", e, "report this"))?;
    tokio::select! {
        stamp = press.first_stamp() => stamp?,
        () = signals.next() => return press.end().await,
    }
    let mut lines = lines();
    let (mut number, mut bad) = (0, None);
    loop {
        let line = tokio::select! {
            biased;
            () = signals.next() => return press.end().await,
            line = lines.recv() => line,
        };
        let Some(line) = line else { return press.finish(&mut signals, None).await };
        let mut bytes = 0;
        let mut next = Some(line);
        while let Some(line) = next {
            number += 1;
            match line {
                Ok(line) => {
                    bytes += line.len();
                    press.add(number, line);
                    let full = press.open.len() >= BATCH_MAX || bytes >= BATCH_BYTES;
                    next = if full { None } else { lines.try_recv().ok() };
                }
                // What stands before it is published still.
                Err(why) => {
                    bad = Some(format!("line {number} {why}"));
                    next = None;
                }
            }
        }
        let sent = tokio::select! {
            biased;
            sent = press.send() => sent?,
            () = signals.next() => return press.stop(&mut signals).await,
        };
        if sent == Sent::InPart || bad.is_some() {
            return press.finish(&mut signals, bad).await;
        }
    }
}

/// What became of what was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All of it is known.
    All,
    /// Nobody answered in time.
    InPart,
}

struct Press<'a> {
    args: &'a PublishArgs,
    cluster: &'a Cluster,
    /// Whom to ask, the present one first.
    nodes: VecDeque<&'a ClientNode>,
    path: String,
    publisher: Publisher,
    open: VecDeque<Data>,
    stamp: Seq,
    committed: u64,
    /// Lines of which nobody knows.
    unknown: Vec<u64>,
    mouth: Mouth,
    /// What is to be said of the others.
    page: Vec<u8>,
    /// Whether it could be said so far.
    printed: Result<(), Failure>,
}

impl Press<'_> {
    fn add(&mut self, line: u64, payload: Vec<u8>) {
        let mid = Mid { publisher: self.publisher, number: line };
        let data = Data { mid, stamp: self.stamp, lowest_open: line, payload: payload.into() };
        self.open.push_back(data);
    }

    /// Learns where the group stands. Nothing was published if that fails.
    async fn first_stamp(&mut self) -> Result<(), Failure> {
        let until = RealClock.now() + self.args.client.timeout;
        loop {
            match self.post().await {
                Ok(_) => return Ok(()),
                Err(Stop::Now(failure)) => return Err(failure),
                Err(Stop::Elsewhere(why)) if RealClock.now() >= until => {
                    let why = format!("not applied, nobody served it ({why})");
                    let hint = "see that the nodes run, or raise --timeout";
                    return Err(Failure::new(Exit::NotApplied, &self.args.group, why, hint));
                }
                Err(Stop::Elsewhere(_)) => self.turn().await,
            }
        }
    }

    /// Sends what is open until all of it has its place.
    async fn send(&mut self) -> Result<Sent, Failure> {
        let mut until = RealClock.now() + self.args.client.timeout;
        while !self.open.is_empty() {
            match self.post().await {
                Ok(true) => {
                    if !self.page.is_empty() {
                        self.tell().await;
                    }
                    until = RealClock.now() + self.args.client.timeout;
                }
                Ok(false) => self.turn().await,
                Err(Stop::Now(failure)) => return Err(failure),
                Err(Stop::Elsewhere(_)) => self.turn().await,
            }
            if RealClock.now() >= until {
                self.unknown.extend(self.open.drain(..).map(|data| data.mid.number));
                return Ok(Sent::InPart);
            }
        }
        Ok(Sent::All)
    }

    /// Says what is to be said, for as long as the reader takes; with nothing left of before.
    async fn tell(&mut self) {
        let printed = self.mouth.print(&mut self.page).await;
        if self.printed.is_ok() {
            // What cannot be said is published all the same.
            self.printed = printed.map(drop);
        }
        self.page.clear();
    }

    /// What is under way gets a little more time, unless somebody asks twice.
    async fn stop(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = signals.next() => {}
            // Sent again with the same numbers, it is taken once.
            sent = timeout(STOP_WITHIN, self.send_silently()) => sent.unwrap_or(Ok(()))?,
        }
        self.unknown.extend(self.open.drain(..).map(|data| data.mid.number));
        self.end().await
    }

    /// As [`Press::send`], for who may not be read any more.
    async fn send_silently(&mut self) -> Result<(), Failure> {
        while !self.open.is_empty() {
            match self.post().await {
                Ok(true) => {}
                Err(Stop::Now(failure)) => return Err(failure),
                Ok(false) | Err(Stop::Elsewhere(_)) => self.turn().await,
            }
        }
        Ok(())
    }

    /// The next node's turn.
    async fn turn(&mut self) {
        self.nodes.rotate_left(1);
        actix_rt::time::sleep(PAUSE).await;
    }

    /// One request; whether something got its place.
    async fn post(&mut self) -> Result<bool, Stop> {
        let patience = PATIENCE.min(self.args.client.timeout);
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let lowest_open = self.open.front().map_or(0, |data| data.mid.number);
        self.open.iter_mut().for_each(|data| data.lowest_open = lowest_open);
        let messages = self.open.iter().cloned().collect();
        let body =
            rmp_serde::to_vec(&Publish { patience_ms, messages }).expect("plain data encodes");
        let Some(node) = self.nodes.front().copied() else {
            let failure = Failure::usage("client file", "it names no node", "name one");
            return Err(Stop::Now(failure));
        };
        let answer = self.cluster.http().post_packed(&node.http, &self.path, body.into(), patience);
        let answer = answer.await.map_err(|none| match none {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) => {
                Stop::Elsewhere(format!("{} at {}: {why}", node.name, node.http))
            }
        })?;
        if answer.status.is_client_error() {
            let what = format!("publish {}", self.args.group);
            return Err(Stop::Now(Failure::failed(what, answer.error_text(), "see `--help`")));
        }
        let published = rmp_serde::from_slice::<Published>(&answer.body);
        let Ok(published) = published else {
            return Err(Stop::Elsewhere(format!("{} says: {}", node.name, answer.error_text())));
        };
        self.stamp = self.stamp.max(published.largest);
        Ok(self.note(published.messages))
    }

    fn note(&mut self, mut messages: Vec<(Mid, Outcome)>) -> bool {
        messages.sort_unstable_by_key(|(mid, _)| *mid);
        for (mid, outcome) in &messages {
            let Ok(at) = self.open.binary_search_by_key(&mid.number, |data| data.mid.number) else {
                continue;
            };
            self.open.remove(at);
            match outcome {
                Outcome::Committed(seq) => {
                    self.committed += 1;
                    match (self.args.count_only, self.args.client.json) {
                        (true, _) => {}
                        (false, true) => {
                            let line = json!({ "line": mid.number, "seq": seq });
                            self.page.extend_from_slice(format!("{line}\n").as_bytes());
                        }
                        (false, false) => {
                            self.page.extend_from_slice(format!("{seq}\n").as_bytes());
                        }
                    }
                }
                Outcome::Expired | Outcome::Unknown => self.unknown.push(mid.number),
            }
        }
        !messages.is_empty()
    }

    /// The end of its input, or of what could be published of it: `bad` is why.
    async fn finish(&mut self, signals: &mut Signals, bad: Option<String>) -> Result<(), Failure> {
        self.count();
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = self.tell() => {}
        }
        self.verdict(bad)
    }

    /// The end for whoever asked for it. A reader that stands still is as one that is gone.
    async fn end(&mut self) -> Result<(), Failure> {
        self.count();
        timeout(LAST_WORDS_WITHIN, self.tell()).await.ok();
        self.verdict(None)
    }

    fn count(&mut self) {
        if self.args.count_only {
            let count = self.committed;
            let line = match self.args.client.json {
                true => json!({ "committed": count }).to_string(),
                false => count.to_string(),
            };
            self.page = format!("{line}\n").into();
        }
    }

    fn verdict(&self, bad: Option<String>) -> Result<(), Failure> {
        if !self.unknown.is_empty() {
            let bad = bad.map_or_else(String::new, |bad| format!(", and {bad}"));
            let lines = ranges(&self.unknown);
            let why = format!("outcome unknown, not known to be committed: {lines}{bad}");
            let what = format!("publish {}", self.args.group);
            return Err(Failure::new(Exit::Unknown, what, why, "subscribe to see which are there"));
        }
        if let Some(bad) = bad {
            let hint = "mend it, and publish from there on";
            let why = format!("{bad}; it and what follows were not published, all before it was");
            return Err(Failure::failed("standard input", why, hint));
        }
        self.printed.clone()
    }
}

/// Why a request came to nothing.
enum Stop {
    /// Another node may do.
    Elsewhere(String),
    /// None would.
    Now(Failure),
}

/// `lines 3, 7-9`.
fn ranges(lines: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *line => *last = *line,
            _ => ranges.push((*line, *line)),
        }
    }
    let one = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    format!("lines {}", ranges.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Standard input by the line, read where it may block.
fn lines() -> mpsc::Receiver<Result<Vec<u8>, String>> {
    let (send, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let read = match line(&mut input) {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(error) => Err(format!("cannot be read: {error}")),
            };
            let last = read.is_err();
            if send.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    lines
}

/// The next line without its end, or what is wrong with it; none at the end.
fn line(input: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    // No more than it takes to see that a line is too long.
    let most = PAYLOAD_BYTES_MAX as u64 + 1;
    if input.take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(match line.len() <= PAYLOAD_BYTES_MAX {
        true => Ok(line),
        false => {
            Err(format!("has more than the {PAYLOAD_BYTES_MAX} bytes that a message may have"))
        }
    }))
}

/// Lines read ahead of what was sent.
const LINES_AHEAD: usize = 4_096;

/// Messages under way at a time.
const BATCH_MAX: usize = 1_000;

/// Their bytes.
const BATCH_BYTES: usize = 1 << 20;

/// A node that has no answer by then may have lost its group's sequencer, or all its friends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever stops a program waits for five seconds at most.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// For a reader that may stand still, when somebody stops it.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(300);

/// Before another node is asked.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_follow_one_another_are_one_range() {
        assert_eq!(ranges(&[3, 7, 8, 9, 12]), "lines 3, 7-9, 12");
    }

    #[test]
    fn a_line_has_at_most_what_a_message_may_have() {
        let largest = vec![b'x'; PAYLOAD_BYTES_MAX];
        let input = [&largest[..], b"\n\nlast\n", &largest[..], b"x"].concat();
        let mut input = io::Cursor::new(input);
        assert_eq!(line(&mut input).unwrap(), Some(Ok(largest)));
        assert_eq!(line(&mut input).unwrap(), Some(Ok(Vec::new())));
        assert_eq!(line(&mut input).unwrap(), Some(Ok(b"last".to_vec())));
        let why = line(&mut input).unwrap().unwrap().unwrap_err();
        assert!(why.contains("65536 bytes"), "{why}");
    }
}
