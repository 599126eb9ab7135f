//! What each of QUIC's settings does between two processes of this machine, one at a time.
//!
//! ```text
//! cargo run --release -p synod-runtime --example settings [ROUNDS]
//! ```
//! Every line changes one setting of those that nodes use (the first line). Bytes are written in
//! batches of 64 KiB for a second, then 64 bytes go there and back for a second, one at a time.
//! All lines take turns, and the medians of the rounds are told. `runtime/docs/SPEED.md` keeps the
//! table.
#![expect(clippy::unwrap_used, reason = "a program for people who measure")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::ClusterName,
    quic::{
        Authority, Settings,
        bare::{BarePipe, BareQuic},
    },
    world::{Clock as _, RealClock, network::TlsFiles},
};

/// One line of the table.
#[derive(Clone, Serialize, Deserialize)]
struct Line {
    what: String,
    settings: Settings,
    /// QUIC has a thread of its own, on both sides.
    apart: bool,
}

/// What the other process begins with.
#[derive(Serialize, Deserialize)]
struct Begin {
    line: Line,
    tls: [Vec<u8>; 3],
}

fn lines() -> Vec<Line> {
    let base = Settings::default();
    let mut lines = vec![
        Line { what: "as nodes use it".into(), settings: base.clone(), apart: false },
        Line { what: "QUIC on a thread of its own".into(), settings: base.clone(), apart: true },
    ];
    let mut add = |what: &str, change: &dyn Fn(&mut Settings)| {
        let mut settings = base.clone();
        change(&mut settings);
        lines.push(Line { what: what.into(), settings, apart: false });
    };
    for bytes in [1452, 4000, 9000] {
        let what = format!("packets up to {bytes} B");
        add(&what, &|s| s.packet_bytes_max = bytes);
    }
    add("packets of 6500 B from the start", &|s| s.packet_bytes_first = 6500);
    add("no segmentation offload", &|s| s.offload = false);
    add("packets up to 60 000 B, no offload", &|s| {
        (s.packet_bytes_max, s.offload) = (60_000, false);
    });
    for kib in [208, 1024] {
        let what = format!("socket buffers of {kib} KiB");
        add(&what, &|s| s.socket_bytes = kib * 1024);
    }
    for (stream, all) in [(1, 2), (8, 16)] {
        let what = format!("receive windows of {stream} and {all} MiB");
        add(&what, &|s| {
            (s.stream_window_bytes, s.receive_window_bytes) = (stream << 20, all << 20);
        });
    }
    for mib in [1, 64] {
        let what = format!("send window of {mib} MiB");
        add(&what, &|s| s.send_window_bytes = mib << 20);
    }
    add("acknowledgements as quinn does", &|s| s.ack_packets = None);
    for packets in [2, 40] {
        let what = format!("acknowledge every {packets} packets");
        add(&what, &|s| s.ack_packets = Some(packets));
    }
    add("first guess of the round trip 333 ms", &|s| {
        s.round_trip_guess = Duration::from_millis(333);
    });
    add("congestion window starts at 12 000 B", &|s| s.congestion_window_bytes = 12_000);
    lines
}

fn cluster() -> ClusterName {
    "settings".parse().unwrap()
}

/// Opens the socket, whose tasks run here or on a thread of their own.
fn open(line: &Line, files: &TlsFiles) -> BareQuic {
    if !line.apart {
        return BareQuic::bind(&cluster(), files, &line.settings).unwrap();
    }
    let arbiter = actix::Arbiter::new();
    let (tell, opened) = std::sync::mpsc::channel();
    let (settings, files) = (line.settings.clone(), files.clone());
    arbiter.spawn_fn(move || {
        tell.send(BareQuic::bind(&cluster(), &files, &settings).unwrap()).unwrap();
    });
    opened.recv().unwrap()
}

/// The other process: counts bytes, or sends them back.
async fn serve() {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text).unwrap();
    let Begin { line, tls: [ca, cert, key] } = serde_json::from_str(&text).unwrap();
    let quic = open(&line, &TlsFiles { ca, cert, key });
    println!("{}", quic.local_addr().unwrap());
    while let Ok(mut pipe) = quic.accept().await {
        actix_rt::spawn(async move {
            let (mut kind, mut total) = (None, 0_u64);
            while let Ok(Some(mut bytes)) = pipe.read().await {
                let kind = *kind.get_or_insert_with(|| bytes.split_to(1)[0]);
                total += bytes.len() as u64;
                if kind == b'A' && !bytes.is_empty() {
                    pipe.write(bytes).await.unwrap();
                }
            }
            if kind == Some(b'T') {
                pipe.write(Bytes::copy_from_slice(&total.to_le_bytes())).await.unwrap();
            }
            pipe.close().await;
        });
    }
}

/// MiB a second, the nanoseconds of both processes for a KiB, and microseconds there and back.
async fn measure(pipes: [BarePipe; 2], cpu: impl Fn() -> u64) -> [f64; 3] {
    let [mut tells, mut asks] = pipes;
    let batch = Bytes::from(vec![b'x'; 64 * 1024]);
    tells.write(Bytes::from_static(b"T")).await.unwrap();
    let (began, cpu_before, mut sent) = (RealClock.now(), cpu(), 0_u32);
    while RealClock.now().since(began) < SPAN {
        tells.write(batch.clone()).await.unwrap();
        sent += 1;
    }
    tells.finish();
    while tells.read().await.unwrap().is_some() {}
    let took = RealClock.now().since(began).as_secs_f64();
    let rate = f64::from(sent) / 16.0 / took;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let cost = (cpu() - cpu_before) as f64 / (f64::from(sent) * 64.0);

    asks.write(Bytes::from_static(b"A")).await.unwrap();
    let (began, mut times) = (RealClock.now(), Vec::new());
    while RealClock.now().since(began) < SPAN {
        let asked = RealClock.now();
        asks.write(Bytes::from_static(&[b'x'; 64])).await.unwrap();
        let mut back = 0;
        while back < 64 {
            back += asks.read().await.unwrap().unwrap().len();
        }
        times.push(RealClock.now().since(asked));
    }
    times.sort_unstable();
    [rate, cost, times[times.len() / 2].as_secs_f64() * 1e6]
}

async fn run(line: &Line, authority: &Authority) -> [f64; 3] {
    let issue = |name: &str| authority.issue(&name.parse().unwrap(), &[], &[]).unwrap();
    let theirs = issue("b");
    let begin = Begin { line: line.clone(), tls: [theirs.ca, theirs.cert, theirs.key] };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", serde_json::to_string(&begin).unwrap()).unwrap();
    let mut at = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut at).unwrap();
    let at: SocketAddr = at.trim().parse().unwrap();
    let quic = open(line, &issue("a"));
    let peer = "b".parse().unwrap();
    let pipes = [quic.dial(&peer, at).await.unwrap(), quic.dial(&peer, at).await.unwrap()];
    let figures = measure(pipes, || cpu_nanos("self") + cpu_nanos(&child.id().to_string())).await;
    end(child);
    figures
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// From the kernel's count, in hundredths of a second.
fn cpu_nanos(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks = |at| after_name.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * 10_000_000
}

const SPAN: Duration = Duration::from_secs(1);

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    actix::System::new().block_on(async {
        if argument == "serve" {
            return serve().await;
        }
        let rounds: usize = argument.parse().unwrap_or(3);
        let (authority, lines) = (Authority::new(&cluster()).unwrap(), lines());
        let mut all = vec![Vec::new(); lines.len()];
        for round in 1..=rounds {
            for (line, figures) in lines.iter().zip(&mut all) {
                eprintln!("round {round} of {rounds}: {}", line.what);
                figures.push(run(line, &authority).await);
            }
        }
        println!("| changed | MiB/s | CPU ns a KiB | there and back µs |\n|---|---|---|---|");
        for (line, figures) in lines.iter().zip(&all) {
            let [rate, cost, time] = [0, 1, 2].map(|column| {
                let mut column: Vec<f64> = figures.iter().map(|row| row[column]).collect();
                column.sort_unstable_by(f64::total_cmp);
                column[column.len() / 2]
            });
            println!("| {} | {rate:.0} | {cost:.0} | {time:.0} |", line.what);
        }
    });
}
