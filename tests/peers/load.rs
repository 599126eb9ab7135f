//! The load generator of the comparison, without dependencies: `rustc -O load.rs`. One thread and
//! one connection a client, the same for every peer: RESP for Synod and Redis, gRPC for etcd (the
//! few HTTP/2 frames that takes).
//!
//! ```text
//! load KIND ADDRESS,… CLIENTS PIPELINE SECONDS     {"ops":N,"p50_us":N,"p99_us":N}
//! load gap KIND ADDRESS SECONDS                    {"ops":N,"gap_ms":N}
//! ```
//! KIND is `resp-set`, `resp-get`, `grpc-put` or `grpc-range`. Each client has 1 000 keys of its own
//! and values of 16 bytes; those who read write them first. `gap` is one client that goes on through
//! errors, and tells the longest time without an answer.

use std::{
    env,
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["gap", kind, address, seconds] => gap(kind, address, number(seconds)),
        [kind, addresses, clients, pipeline, seconds] => {
            load(kind, addresses, number(clients), number(pipeline), number(seconds));
        }
        _ => panic!("load KIND ADDRESSES CLIENTS PIPELINE SECONDS | load gap KIND ADDRESS SECONDS"),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn load(kind: &str, addresses: &str, clients: usize, pipeline: usize, seconds: usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let ready = Arc::new(Barrier::new(clients + 1));
    let addresses: Vec<&str> = addresses.split(',').collect();
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let (stop, ready) = (stop.clone(), ready.clone());
            let mut peer = Peer::connect(kind, addresses[client % addresses.len()]).unwrap();
            thread::spawn(move || {
                if peer.reads() {
                    (0..KEYS).for_each(|key| peer.write(client, key).unwrap());
                }
                ready.wait();
                let mut times: Vec<u32> = Vec::with_capacity(1 << 16);
                let mut next = 0;
                while !stop.load(Relaxed) {
                    let began = Instant::now();
                    for _ in 0..pipeline {
                        peer.put(client, next % KEYS);
                        next += 1;
                    }
                    peer.flush().unwrap();
                    for _ in 0..pipeline {
                        peer.take().unwrap();
                        times.push(u32::try_from(began.elapsed().as_micros()).unwrap());
                    }
                }
                times
            })
        })
        .collect();
    ready.wait();
    let began = Instant::now();
    thread::sleep(Duration::from_secs(seconds as u64));
    stop.store(true, Relaxed);
    let mut times: Vec<u32> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
    let took = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let part = |permille: usize| times[(times.len() - 1) * permille / 1_000];
    let ops = times.len() as f64 / took;
    println!("{{\"ops\":{ops:.0},\"p50_us\":{},\"p99_us\":{}}}", part(500), part(990));
}

/// One closed loop; a call that is not answered in [`AGAIN`] is given up with its connection.
fn gap(kind: &str, address: &str, seconds: usize) {
    let (began, mut last) = (Instant::now(), Instant::now());
    let (mut longest, mut ops) = (Duration::ZERO, 0);
    let mut peer = None;
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        let connected = match peer.take() {
            Some(peer) => Ok(peer),
            None => Peer::connect(kind, address),
        };
        let done = connected.and_then(|mut peer| {
            peer.input.get_ref().set_read_timeout(Some(AGAIN))?;
            peer.put(0, ops % KEYS);
            peer.flush()?;
            peer.take()?;
            Ok(peer)
        });
        match done {
            Ok(good) => {
                let now = Instant::now();
                // The first answer ends no gap.
                if ops > 0 {
                    longest = longest.max(now - last);
                }
                (last, ops) = (now, ops + 1);
                peer = Some(good);
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    longest = longest.max(last.elapsed());
    println!("{{\"ops\":{ops},\"gap_ms\":{}}}", longest.as_millis());
}

/// One connection.
struct Peer {
    kind: Kind,
    input: BufReader<TcpStream>,
    output: Vec<u8>,
    /// Of the next request, over HTTP/2.
    stream: u32,
    /// Responses that brought a body and are not at their end: one without is an error.
    bodies: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Set,
    Get,
    Put,
    Range,
}

impl Peer {
    fn connect(kind: &str, address: &str) -> io::Result<Self> {
        let kind = match kind {
            "resp-set" => Kind::Set,
            "resp-get" => Kind::Get,
            "grpc-put" => Kind::Put,
            "grpc-range" => Kind::Range,
            _ => panic!("no kind of load: {kind}"),
        };
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut peer =
            Self { kind, input: BufReader::new(stream), output: Vec::new(), stream: 1, bodies: 0 };
        if matches!(kind, Kind::Put | Kind::Range) {
            peer.output.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            frame(&mut peer.output, SETTINGS, 0, 0, &[]);
            // All that will ever be answered may be sent.
            frame(&mut peer.output, WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
        }
        Ok(peer)
    }

    fn reads(&self) -> bool {
        matches!(self.kind, Kind::Get | Kind::Range)
    }

    /// Writes one key, whatever this connection is for.
    fn write(&mut self, client: usize, key: usize) -> io::Result<()> {
        let kind = self.kind;
        self.kind = if kind == Kind::Get { Kind::Set } else { Kind::Put };
        self.put(client, key);
        self.flush()?;
        self.take()?;
        self.kind = kind;
        Ok(())
    }

    /// Lays a request out.
    fn put(&mut self, client: usize, key: usize) {
        let key = format!("key-{client:05}-{key:05}");
        let out = &mut self.output;
        match self.kind {
            Kind::Set => {
                let length = key.len();
                write!(out, "*3\r\n$3\r\nSET\r\n${length}\r\n{key}\r\n$16\r\n{VALUE}\r\n").unwrap();
            }
            Kind::Get => write!(out, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).unwrap(),
            Kind::Put | Kind::Range => {
                let is_put = self.kind == Kind::Put;
                let path: &[u8] =
                    if is_put { b"/etcdserverpb.KV/Put" } else { b"/etcdserverpb.KV/Range" };
                frame(out, HEADERS, END_HEADERS, self.stream, &headers(path));
                // Field 1 is the key, field 2 of a Put the value.
                let mut message = vec![0x0a, u8::try_from(key.len()).unwrap()];
                message.extend_from_slice(key.as_bytes());
                if is_put {
                    message.extend_from_slice(&[0x12, 16]);
                    message.extend_from_slice(VALUE.as_bytes());
                }
                let mut body = vec![0];
                body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
                body.extend_from_slice(&message);
                frame(out, DATA, END_STREAM, self.stream, &body);
                self.stream += 2;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.get_mut().write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Waits for one good answer.
    fn take(&mut self) -> io::Result<()> {
        match self.kind {
            Kind::Set | Kind::Get => self.take_reply(),
            Kind::Put | Kind::Range => self.take_response(),
        }
    }

    fn take_reply(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        match (line[0], self.kind) {
            (b'+', Kind::Set) => Ok(()),
            (b'$', Kind::Get) if line[1] != b'-' => {
                let length = number(std::str::from_utf8(&line[1..line.len() - 2]).unwrap());
                self.input.read_exact(&mut vec![0; length + 2])
            }
            _ => Err(bad(&String::from_utf8_lossy(&line))),
        }
    }

    /// Frames until a stream ends. Answers may come in any order; only their number counts.
    fn take_response(&mut self) -> io::Result<()> {
        loop {
            let mut head = [0; 9];
            self.input.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let mut payload = vec![0; length];
            self.input.read_exact(&mut payload)?;
            let mut answer = Vec::new();
            match kind {
                DATA => self.bodies += 1,
                SETTINGS if flags & ACK == 0 => frame(&mut answer, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut answer, PING, ACK, 0, &payload),
                RST_STREAM | GOAWAY => return Err(bad("the stream was refused")),
                _ => {}
            }
            if !answer.is_empty() {
                self.input.get_mut().write_all(&answer)?;
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                let rest = self.bodies.checked_sub(1);
                self.bodies = rest.ok_or_else(|| bad("an answer without a body"))?;
                return Ok(());
            }
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::other(what.trim().to_owned())
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// HPACK without a table: names of the static one, or spelt out.
fn headers(path: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &[u8]| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value);
    };
    literal(&[0x04], path);
    literal(&[0x01], b"etcd");
    literal(&[0x0f, 0x10], b"application/grpc");
    literal(b"\x00\x02te", b"trailers");
    block
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const KEYS: usize = 1_000;
const VALUE: &str = "0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
