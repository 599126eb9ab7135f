//! Numbers that rise and are never given twice, over HTTP: an ordinary program that runs where
//! `synod services` says, and all it knows of that are three words in its environment.
//!
//! ```text
//! synod services add issuer --export 'cat DIR/$SYNOD_NODE' --every 1s \
//!   --import 'cat > DIR/in && mv DIR/in DIR/$SYNOD_NODE' \
//!   -- issuer MODE DIR 0.0.0.0:7000 a=127.0.0.1:HTTP,b=127.0.0.1:HTTP
//! curl http://…:7000/next
//! ```
//! DIR is a folder at each node; the last word says where each node's own HTTP is. What becomes of
//! numbers when another node takes over is for MODE:
//! - `periodic`: the next one knows what was given up to the last checkpoint, and goes on above all that
//!   its epoch's predecessors can have given. It skips the rest of a million.
//! - `sync`: a hundred are set aside at a time, and none is given before the secondaries know so. The
//!   next one skips what is left of a hundred.
//! - `log`: each is a command of the log, fenced. None is skipped but those of which nobody was told.

use std::{
    env, fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [mode, dir, listen, nodes] = &words[..] else {
        return Err(io::Error::other("usage: issuer MODE DIR ADDRESS NODE=ADDRESS,…"));
    };
    let word = |name: &str| env::var(name).map_err(|_| io::Error::other(format!("no {name}")));
    let (service, node) = (word("SYNOD_SERVICE")?, word("SYNOD_NODE")?);
    let epoch: u64 = word("SYNOD_EPOCH")?.parse().map_err(io::Error::other)?;
    let ours = nodes.split(',').filter_map(|one| one.split_once('='));
    let ours = ours.filter(|(name, _)| *name == node).map(|(_, at)| at.to_owned()).next();
    let state = PathBuf::from(dir).join(&node);
    let known = fs::read_to_string(&state).ok().and_then(|text| text.trim().parse().ok());
    let mut issuer = Issuer {
        synod: ours.ok_or_else(|| io::Error::other(format!("where is the HTTP of {node}?")))?,
        fence: format!("{service}/primary {epoch}"),
        service,
        state,
        last: known.unwrap_or(0),
        aside: known.unwrap_or(0),
    };
    if mode == "periodic" {
        issuer.last = issuer.last.max(epoch * MILLION);
    }
    issuer.keep(issuer.last)?;
    let door = TcpListener::bind(listen)?;
    // Whoever looks for it finds it here.
    fs::write(issuer.state.with_extension("at"), door.local_addr()?.to_string())?;
    for client in door.incoming() {
        let next = match mode.as_str() {
            "periodic" => issuer.periodic(epoch),
            "sync" => issuer.sync(),
            "log" => issuer.log(),
            other => return Err(io::Error::other(format!("{other}: periodic, sync or log?"))),
        };
        let (status, text) = match next {
            Ok(number) => ("200 OK", format!("{number}\n")),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        };
        // One that has hung up misses its number, and nobody else gets it.
        client.and_then(|mut client| answer(&mut client, status, &text)).ok();
    }
    Ok(())
}

struct Issuer {
    /// Our own node.
    synod: String,
    service: String,
    fence: String,
    state: PathBuf,
    last: u64,
    /// Up to here numbers are set aside for us.
    aside: u64,
}

impl Issuer {
    fn periodic(&mut self, epoch: u64) -> io::Result<u64> {
        if self.last + 1 >= (epoch + 1) * MILLION {
            return Err(io::Error::other("a million in one epoch are enough"));
        }
        self.keep(self.last + 1)?;
        self.last += 1;
        Ok(self.last)
    }

    fn sync(&mut self) -> io::Result<u64> {
        if self.last == self.aside {
            self.keep(self.last + HUNDRED)?;
            // What is kept may be known to the others whatever they answer.
            let path = format!("/services/{}/checkpoint", self.service);
            let (status, text) = ask(&self.synod, "POST", &path, "", "")?;
            if status != 200 {
                return Err(io::Error::other(text));
            }
            self.aside = self.last + HUNDRED;
        }
        self.last += 1;
        Ok(self.last)
    }

    fn log(&self) -> io::Result<u64> {
        let path = format!("/kv/{}", self.service);
        let (status, text) = ask(&self.synod, "GET", &path, "", "")?;
        let number = match (status, text.trim().parse::<u64>()) {
            (200, Ok(last)) => last + 1,
            (404, _) => 1,
            _ => return Err(io::Error::other(text)),
        };
        // Nobody writes it but us: a primary before us is fenced off.
        let fence = format!("Synod-Fence: {}\r\n", self.fence);
        match ask(&self.synod, "PUT", &path, &fence, &number.to_string())? {
            (204, _) => Ok(number),
            (_, text) => Err(io::Error::other(text)),
        }
    }

    /// Notes that everything up to there may have been given.
    fn keep(&self, upto: u64) -> io::Result<()> {
        let new = self.state.with_extension("new");
        fs::write(&new, upto.to_string())?;
        fs::rename(&new, &self.state)
    }
}

/// One request: status and body.
fn ask(at: &str, verb: &str, path: &str, head: &str, body: &str) -> io::Result<(u16, String)> {
    let mut node = TcpStream::connect(at)?;
    node.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        node,
        "{verb} {path} HTTP/1.0\r\nHost: node\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut said = String::new();
    node.read_to_string(&mut said)?;
    let status = said.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = said.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

fn answer(client: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::new(client.try_clone()?).take(8_192).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let length = text.len();
    write!(client, "HTTP/1.0 {status}\r\nContent-Length: {length}\r\n\r\n{text}")
}

const MILLION: u64 = 1 << 20;

const HUNDRED: u64 = 100;

/// Nodes answer within four seconds, if at all.
const PATIENCE: Duration = Duration::from_secs(6);
