//! An ordinary web server that keeps orders in files, as one stands behind a cluster (`synod dev
//! --upstream`): POST /orders makes one, GET, PUT and DELETE /orders/ID as one expects.
//!
//! It knows nothing of Synod but three headers: identifiers are made of `Synod-Seq` and dates of
//! `Synod-Time` where a request has them, so that two such servers make the same ones. On purpose it
//! can do worse: `--random` makes identifiers of its own, `--odd N` answers the N-th request that
//! changes something as no other server would, `--slow MS` takes its time, `--crash N` ends in the
//! middle of the N-th.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

struct Orders {
    dir: PathBuf,
    random: bool,
    slow: Duration,
    crash_at: Option<u64>,
    odd_at: Option<u64>,
    changes: AtomicU64,
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let (Some(listen), Some(dir)) = (words.next(), words.next()) else {
        eprintln!("usage: orders HOST:PORT DIR [--random] [--odd N] [--slow MS] [--crash N]");
        return ExitCode::from(2);
    };
    let rest: Vec<String> = words.collect();
    let number = |flag: &str| {
        let at = rest.iter().position(|word| word == flag)?;
        rest.get(at + 1)?.parse::<u64>().ok()
    };
    let orders = Arc::new(Orders {
        dir: dir.into(),
        random: rest.iter().any(|word| word == "--random"),
        slow: Duration::from_millis(number("--slow").unwrap_or(0)),
        crash_at: number("--crash"),
        odd_at: number("--odd"),
        changes: AtomicU64::new(0),
    });
    let served = fs::create_dir_all(&orders.dir).and_then(|()| TcpListener::bind(&listen));
    let listener = match served {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("orders: {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for stream in listener.incoming().map_while(Result::ok) {
        let orders = Arc::clone(&orders);
        // A client that hangs up in the middle has heard enough.
        thread::spawn(move || orders.serve(stream).ok());
    }
    ExitCode::SUCCESS
}

impl Orders {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut to = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        while let Some(request) = Request::read(&mut from)? {
            let (status, body) = self.answer(&request)?;
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            to.write_all(&[head.as_bytes(), &body].concat())?;
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "it is to be slow, and is no node")]
    fn answer(&self, request: &Request) -> io::Result<(&'static str, Vec<u8>)> {
        let changes = matches!(request.method.as_str(), "POST" | "PUT" | "DELETE");
        if changes {
            thread::sleep(self.slow);
            let change = Some(self.changes.fetch_add(1, Ordering::Relaxed) + 1);
            if change == self.crash_at {
                std::process::abort();
            }
            if change == self.odd_at {
                return Ok(("202 Accepted", b"not as the others".to_vec()));
            }
        }
        let Some(id) = request.path.strip_prefix("/orders") else {
            return Ok(("404 Not Found", Vec::new()));
        };
        let id = id.trim_start_matches('/');
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(("400 Bad Request", Vec::new()));
        }
        let file = self.dir.join(id);
        Ok(match request.method.as_str() {
            "POST" if id.is_empty() => {
                let id = self.new_id(request);
                let at = request.header("synod-time").unwrap_or("today");
                let text = String::from_utf8_lossy(&request.body);
                let order = format!("order {id} of {at}: {text}\n").into_bytes();
                fs::write(self.dir.join(&id), &order)?;
                ("201 Created", order)
            }
            _ if id.is_empty() => ("405 Method Not Allowed", Vec::new()),
            "GET" => match fs::read(file) {
                Ok(order) => ("200 OK", order),
                Err(_) => ("404 Not Found", Vec::new()),
            },
            "PUT" => {
                fs::write(file, &request.body)?;
                ("200 OK", request.body.clone())
            }
            "DELETE" => match fs::remove_file(file) {
                Ok(()) => ("204 No Content", Vec::new()),
                Err(_) => ("404 Not Found", Vec::new()),
            },
            _ => ("405 Method Not Allowed", Vec::new()),
        })
    }

    /// The agreed number, or one that no other server would make.
    fn new_id(&self, request: &Request) -> String {
        match request.header("synod-seq") {
            Some(seq) if !self.random => seq.to_owned(),
            _ => format!("{}x{}", std::process::id(), self.changes.load(Ordering::Relaxed)),
        }
    }
}

impl Request {
    /// The next one; none when the client hung up.
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, headers, body: Vec::new() };
        let length = request.header("content-length").and_then(|length| length.parse().ok());
        from.take(length.unwrap_or(0)).read_to_end(&mut request.body)?;
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}
