//! A small blocking HTTP/1.1 client that keeps one connection.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A client of one address.
#[derive(Debug)]
pub struct Http {
    at: SocketAddr,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

/// One answer, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// There was no connection: the request never left.
    NotSent(io::Error),
    /// The request may have arrived.
    Lost(io::Error),
}

impl Http {
    /// A client of `at` that waits ten seconds for an answer: longer than a node's own deadline.
    pub fn new(at: SocketAddr) -> Self {
        Self { at, patience: Duration::from_secs(10), stream: None }
    }

    /// Waits at most `patience` for an answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// [`NoAnswer`]; the next request makes a new connection.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, NoAnswer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().map_err(NoAnswer::NotSent)?,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.at);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), body].concat();
        stream.get_mut().write_all(&whole).map_err(NoAnswer::Lost)?;
        let answer = read_answer(&mut stream, method != "HEAD").map_err(NoAnswer::Lost)?;
        if answer.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// `GET path`, which must be answered.
    ///
    /// # Errors
    /// What happened instead, as a text to wait with.
    pub fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.request("GET", path, &[], &[]).map_err(|error| format!("{}: {error:?}", self.at))
    }

    /// The JSON document at `path`.
    ///
    /// # Errors
    /// What happened instead, as a text to wait with.
    pub fn json(&mut self, path: &str) -> Result<Value, String> {
        let answer = self.get(path)?;
        if answer.status != 200 {
            return Err(format!("{path}: {} {}", answer.status, answer.text()));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
    }

    /// The beginning of an answer that goes on and on, up to the line that holds `last`.
    ///
    /// # Panics
    /// When it ends before, or nothing comes for so long as this client is patient.
    pub fn first_bytes(&mut self, path: &str, last: &str) -> String {
        let mut stream = self.connect().expect("the node is up");
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.at);
        stream.get_mut().write_all(head.as_bytes()).expect("it listens");
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = stream.read_line(&mut line).expect("it goes on");
            assert!(read > 0, "it ended after {all}");
            all += &line;
            if line.contains(last) {
                return all;
            }
        }
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.at, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

impl Answer {
    /// A header's value; `name` in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>, has_body: bool) -> io::Result<Answer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = read_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(&first))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if !has_body {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = read_line(stream)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad(&size))?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(answer);
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    }
    let length = answer.header("content-length").map_or(Ok(0), str::parse);
    answer.body = vec![0; length.map_err(|_| bad("content-length"))?];
    stream.read_exact(&mut answer.body)?;
    Ok(answer)
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
