//! What people who watch a cluster see: `synod top`, the event stream, and the dashboard in a real
//! browser.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    http::Http,
    load::{KvWriter, Load},
    machine::shared,
    wait::{PATIENCE, until},
};

#[test]
fn top_shows_nodes_links_actors_and_rates_under_load() {
    let _machine = shared();
    let synod = Cluster::dev("synod", &[]);
    let client = synod.dir().join("client.toml").display().to_string();
    let load = Load::start(&synod.resps(), KvWriter::connect, 2);
    load.wait_for_more(100);
    // A disk may stand still for the second that one page is about.
    until("a page with a rate", || {
        let words = ["top", "--cluster", &client, "--count", "1"];
        let (code, page, error) = run(synod.program(), &words);
        assert_eq!((code, error.as_str()), (0, ""));
        for word in ["leader ", "CMD/S", "a - b", "b - x", "consensus/acceptor@a"] {
            assert!(page.contains(word), "{word:?} is not in\n{page}");
        }
        let node_a = page.lines().find(|line| line.starts_with("a ")).unwrap();
        let rate: f64 = node_a.split_whitespace().nth(5).unwrap().parse().unwrap();
        if rate > 0.0 { Ok(()) } else { Err(node_a.to_owned()) }
    });

    let arguments = ["top", "--cluster", &client, "--json", "--count", "2", "--every", "100ms"];
    let (code, lines, _) = run(synod.program(), &arguments);
    drop(load.finish());
    assert_eq!((code, lines.lines().count()), (0, 2));
    for line in lines.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        for name in ["a", "b", "x"] {
            assert_eq!(document["nodes"][name]["answered_by"], name);
        }
    }
}

#[test]
fn events_come_every_second_and_end_with_the_node() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &["--no-restart"]);
    let mut stream = TcpStream::connect(synod.node("a").http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut moments = Vec::new();
    while moments.len() < 3 {
        let line = lines.next().expect("events go on");
        if let Some(data) = line.strip_prefix("data: ") {
            let view: Value = serde_json::from_str(data).unwrap();
            assert_eq!(view["status"]["cluster"], "dev");
            moments.push(view["at_ms"].as_u64().unwrap());
        }
    }
    assert!(moments.windows(2).all(|pair| pair[1] >= pair[0] + 900), "{moments:?}");
    // A watcher holds up no stop.
    synod.stop();
    assert!(lines.all(|line| !line.contains("panicked")), "and then the stream ends");
}

/// Goal: the page works in a real browser, with pictures that grow. Method: a browser's screenshot
/// is taken when everything on a page is loaded, so a go-between adds a picture to the page that
/// arrives after some events.
#[test]
fn the_dashboard_works_in_a_browser() {
    let _machine = shared();
    let Some(browser) =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
            version.is_ok_and(|answer| answer.status.success())
        })
    else {
        eprintln!("SKIPPED: no browser on PATH; install Debian's package `chromium`");
        return;
    };
    let synod = Cluster::dev("synod", &["--members", "1"]);
    let load = Load::start(&synod.resps(), KvWriter::connect, 2);
    let page = go_between(synod.node("a").http);
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.png");
    let profile = synod.dir().join("browser");
    let shown = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--window-size=1100,1500", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("http://{page}/"))
        .output()
        .unwrap();
    drop(load.finish());
    let (dom, log) =
        (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(shown.status.success(), "{log}");
    assert!(!log.contains("Uncaught"), "{log}");
    for want in ["Cluster dev", "leader ", "<td class=\"up\">up</td>", "consensus/acceptor@b"] {
        assert!(dom.contains(want), "{want:?} is not in\n{dom}");
    }
    for node in ["a", "b", "m1", "x"] {
        let named =
            [format!("<td class=\"\">{node}</td>"), format!("<td class=\"\">{node} ★</td>")];
        assert!(named.iter().any(|want| dom.contains(want)), "{node} is not in\n{dom}");
    }
    // Three pictures of the node and one for each of its links.
    let traces = dom.matches("class=\"trace\"").count();
    assert!(traces >= 6, "{traces} pictures in\n{dom}");
    let size = fs::metadata(&picture).unwrap().len();
    assert!(size > 10_000, "{} has {size} bytes", picture.display());
    println!("the dashboard as {browser} shows it: {}", picture.display());
}

/// How long the page is watched before its picture is taken: a few events.
const WATCHED: Duration = Duration::from_millis(4_500);

/// Passes requests on to `node`; its page gets a picture that takes its time.
fn go_between(node: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || pass_on(stream, node));
        }
    });
    at
}

fn pass_on(mut browser: TcpStream, node: SocketAddr) {
    let mut reader = BufReader::new(browser.try_clone().unwrap());
    let mut request = String::new();
    // The browser may hang up at any time.
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    let answer = match path.as_str() {
        "/" => {
            let page = Http::new(node).get("/").unwrap().text() + "<img src=\"slow\">";
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n{page}")
        }
        "/slow" => {
            linger();
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
        }
        path => {
            let mut server = TcpStream::connect(node).unwrap();
            write!(server, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut bytes = [0; 16 * 1024];
            while let Ok(read @ 1..) = server.read(&mut bytes) {
                if browser.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
            return;
        }
    };
    drop(browser.write_all(answer.as_bytes()));
}

#[expect(clippy::disallowed_methods, reason = "this is how long a person looks, not a wait")]
fn linger() {
    thread::sleep(WATCHED);
}
