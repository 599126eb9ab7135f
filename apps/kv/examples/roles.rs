//! What roles cost: `cargo run --release -p synod-kv --example roles -- measure 10000 20`.
//!
//! It starts a cluster of this same program in real processes (two mains, an auxiliary and a member),
//! and counts CPU, commands of the log and messages for 20 s: idle, and while each of the three servers
//! stands for all 10 000 roles and holds a third of them.

#![expect(clippy::disallowed_methods, reason = "it measures from outside, in real time")]
#![expect(clippy::unwrap_used, reason = "it measures, or ends")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use actix_web::{HttpResponse, web};
use serde_json::Value;
use synod::{
    Cli,
    replicated::StateMachine,
    server::{Service, ServiceContext, elections::Leadership},
};
use synod_kv::KvService;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    if args.get(1).is_some_and(|verb| verb == "measure") {
        let number = |index: usize, or: u64| args.get(index).map_or(or, |n| n.parse().unwrap());
        measure(number(2, 10_000), number(3, 20));
        return ExitCode::SUCCESS;
    }
    Cli::new("roles").service(Stands(KvService)).main()
}

/// The key/value service, whose nodes stand for many roles when they are told to.
struct Stands(KvService);

impl Service for Stands {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn machine(&self) -> Box<dyn StateMachine> {
        self.0.machine()
    }

    fn http(&self, routes: &mut web::ServiceConfig, context: &ServiceContext) {
        let elections = context.elections.clone();
        routes.route(
            "/stand/{first}/{count}",
            web::post().to(move |range: web::Path<(u64, u64)>| {
                let elections = elections.clone();
                let (first, count) = range.into_inner();
                async move {
                    let pulse = elections.pulse();
                    for number in first..first + count {
                        let volunteer = elections.volunteer(&format!("role-{number}"));
                        let Ok(mut volunteer) = volunteer.pulse(&pulse).stand() else {
                            return HttpResponse::ServiceUnavailable().finish();
                        };
                        actix_rt::spawn(async move {
                            // What it leads it does nothing with.
                            while let Some(news) = volunteer.next().await {
                                if let Leadership::Ended(_) = news {
                                    break;
                                }
                            }
                        });
                    }
                    HttpResponse::Ok().finish()
                }
            }),
        );
    }
}

struct Node {
    name: String,
    role: String,
    pid: u64,
    http: String,
}

fn measure(roles: u64, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (mut dev, nodes) = start(dir.path());
    let servers: Vec<&Node> = nodes.iter().filter(|node| node.role != "auxiliary").collect();
    thread::sleep(Duration::from_secs(3));
    report("idle", &nodes, seconds);
    let share = roles / servers.len() as u64;
    for (index, node) in servers.iter().enumerate() {
        let first = share * index as u64;
        let count = if index + 1 == servers.len() { roles - first } else { share };
        ask(node, "POST", &format!("/stand/{first}/{count}"));
    }
    held(servers[0], roles);
    report(&format!("{roles} roles, a third at each server"), &nodes, seconds);
    for (index, node) in servers.iter().enumerate() {
        let first = share * ((index + 1) % servers.len()) as u64;
        ask(node, "POST", &format!("/stand/{first}/{share}"));
    }
    thread::sleep(Duration::from_secs(5));
    held(servers[0], roles);
    report("and each server stands for another's third", &nodes, seconds);
    dev.kill().unwrap();
    dev.wait().unwrap();
    for node in &nodes {
        let done = Command::new("kill").args(["-9", &node.pid.to_string()]).status();
        done.unwrap();
    }
}

fn start(dir: &std::path::Path) -> (Child, Vec<Node>) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["dev", "--members", "1", "--no-restart", "--json", "--dir"]).arg(dir);
    let mut dev = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(dev.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let nodes = ready["nodes"].as_array().unwrap().iter().map(|node| Node {
        name: node["name"].as_str().unwrap().to_owned(),
        role: node["role"].as_str().unwrap().to_owned(),
        pid: node["pid"].as_u64().unwrap(),
        http: node["http"].as_str().unwrap().to_owned(),
    });
    let nodes = nodes.collect();
    (dev, nodes)
}

/// Waits until all roles have a holder.
fn held(node: &Node, roles: u64) {
    let began = std::time::Instant::now();
    loop {
        let said = ask(node, "GET", "/roles");
        let document: Value = serde_json::from_str(&said).unwrap_or_default();
        let all = document["roles"].as_array().map_or(&[][..], Vec::as_slice);
        let led = all
            .iter()
            .filter(|role| role["leader"].is_string() && role["built_in"].is_null())
            .count();
        if led as u64 == roles {
            println!("all {roles} held {:.1?} after they were asked for", began.elapsed());
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{led} of {roles} are held");
        thread::sleep(Duration::from_millis(200));
    }
}

/// What each node does in so many seconds, each second.
fn report(what: &str, nodes: &[Node], seconds: u64) {
    println!("## {what}\n");
    println!("| node | % of a core | commands/s | messages received/s | journal B/s | changes |");
    println!("|---|---:|---:|---:|---:|---:|");
    let before: Vec<[f64; 5]> = nodes.iter().map(counts).collect();
    thread::sleep(Duration::from_secs(seconds));
    for (node, before) in nodes.iter().zip(before) {
        let after = counts(node);
        let each = |index: usize| (after[index] - before[index]) / seconds as f64;
        let (cpu, changes) = (each(0), after[4] - before[4]);
        let Node { name, role, .. } = node;
        println!(
            "| {name}, {role} | {cpu:.1} | {:.1} | {:.1} | {:.0} | {changes} |",
            each(1),
            each(2),
            each(3)
        );
    }
    println!();
}

/// CPU in hundredths of a second, commands, messages, bytes of the journal, changes of roles.
fn counts(node: &Node) -> [f64; 5] {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // Linux counts hundredths for everybody, whatever its own tick is.
    let cpu = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let metrics = ask(node, "GET", "/metrics");
    let sum = |family: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(family));
        let lines = lines.filter(|line| !line.contains("role=\"heartbeat\""));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    [
        cpu,
        sum("synod_commands_applied_total"),
        sum("synod_protocol_messages_received_total"),
        sum("synod_journal_bytes_total"),
        sum("synod_role_changes_total"),
    ]
}

fn ask(node: &Node, verb: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(&node.http).unwrap();
    let head = format!("{verb} {path} HTTP/1.0\r\nHost: node\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains(" 200 "), "{verb} {path}: {said}");
    said.split_once("\r\n\r\n").unwrap().1.to_owned()
}
