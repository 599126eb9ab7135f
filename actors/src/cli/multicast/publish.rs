//! `publish`: each line of standard input is a message.
//!
//! It is a publisher of its own: it numbers and stamps its messages, and sends them again, with the
//! same numbers and stamps, at whichever node answers, until each has its place.

use std::{collections::VecDeque, io::BufRead as _, time::Duration};

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
        out,
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
        printed: Ok(()),
        cluster: &cluster,
    };
    let listening = Signals::listen();
    let mut signals = listening.map_err(|e| Failure::failed("publish", e, "report this"))?;
    tokio::select! {
        stamp = press.first_stamp() => stamp?,
        () = signals.next() => return press.finish(),
    }
    let mut lines = lines();
    let mut number = 0;
    loop {
        let line = tokio::select! {
            biased;
            () = signals.next() => None,
            line = lines.recv() => line,
        };
        let Some(line) = line else { return press.finish() };
        let mut bytes = 0;
        let mut next = Some(line);
        while let Some(line) = next {
            number += 1;
            let line = line.map_err(|why| {
                Failure::failed("standard input", format!("line {number}: {why}"), "mend it")
            })?;
            bytes += line.len();
            press.add(number, line)?;
            let full = press.open.len() >= BATCH_MAX || bytes >= BATCH_BYTES;
            next = if full { None } else { lines.try_recv().ok() };
        }
        tokio::select! {
            biased;
            sent = press.send() => sent?,
            () = signals.next() => return press.stop(&mut signals).await,
        }
    }
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
    /// Whether what became of the others could be said.
    printed: Result<(), Failure>,
}

impl Press<'_> {
    fn add(&mut self, line: u64, payload: Vec<u8>) -> Result<(), Failure> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let why = format!("line {line} has more than {PAYLOAD_BYTES_MAX} bytes");
            return Err(Failure::failed("standard input", why, "publish where it can be found"));
        }
        let mid = Mid { publisher: self.publisher, number: line };
        let data = Data { mid, stamp: self.stamp, lowest_open: line, payload: payload.into() };
        self.open.push_back(data);
        Ok(())
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
    async fn send(&mut self) -> Result<(), Failure> {
        let mut until = RealClock.now() + self.args.client.timeout;
        while !self.open.is_empty() {
            let lowest_open = self.open[0].mid.number;
            self.open.iter_mut().for_each(|data| data.lowest_open = lowest_open);
            match self.post().await {
                Ok(true) => until = RealClock.now() + self.args.client.timeout,
                Ok(false) => self.turn().await,
                Err(Stop::Now(failure)) => return Err(failure),
                Err(Stop::Elsewhere(_)) => self.turn().await,
            }
            if RealClock.now() >= until {
                self.unknown.extend(self.open.drain(..).map(|data| data.mid.number));
                return self.finish();
            }
        }
        Ok(())
    }

    /// What is under way gets a little more time, unless somebody asks twice.
    async fn stop(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = signals.next() => {}
            // Sent again with the same numbers, it is taken once.
            sent = timeout(STOP_WITHIN, self.send()) => sent.unwrap_or(Ok(()))?,
        }
        self.unknown.extend(self.open.drain(..).map(|data| data.mid.number));
        self.finish()
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
        let mut page = String::new();
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
                            page += &format!("{}\n", json!({ "line": mid.number, "seq": seq }));
                        }
                        (false, false) => page += &format!("{seq}\n"),
                    }
                }
                Outcome::Expired | Outcome::Unknown => self.unknown.push(mid.number),
            }
        }
        if self.printed.is_ok() && !page.is_empty() {
            // What cannot be said is published all the same.
            self.printed = out::print(page).map(drop);
        }
        !messages.is_empty()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.args.count_only {
            let count = self.committed;
            self.printed = match self.args.client.json {
                true => out::say(json!({ "committed": count })).map(drop),
                false => out::say(count).map(drop),
            };
        }
        if self.unknown.is_empty() {
            return self.printed.clone();
        }
        let why = format!("outcome unknown, not known to be committed: {}", ranges(&self.unknown));
        let what = format!("publish {}", self.args.group);
        Err(Failure::new(Exit::Unknown, what, why, "subscribe to see which are there"))
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
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(error.to_string()),
            };
            let last = read.is_err();
            if send.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    lines
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

/// Before another node is asked.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_follow_one_another_are_one_range() {
        assert_eq!(ranges(&[3, 7, 8, 9, 12]), "lines 3, 7-9, 12");
    }
}
