//! The example's server, which keeps orders in SQLite.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use tempfile::TempDir;

use super::{
    child::Process, http::Http, machine::free_tcp_port, programs::program, sites::Server,
    wait::until,
};

/// A server with a directory; both are gone when it is dropped.
#[derive(Debug)]
pub struct Orders {
    at: SocketAddr,
    flags: Vec<String>,
    process: Option<Process>,
    folder: TempDir,
}

impl Orders {
    /// Starts one with these flags of its own.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn start(flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("synod-orders-").tempdir().expect("a folder");
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut server = Self { at: free_tcp_port(), flags, process: None, folder };
        server.resume();
        server
    }

    /// As a cluster is told of it.
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Where it keeps what it has.
    pub fn dir(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// Its orders as clients see them, one line each, by their identifiers.
    ///
    /// # Panics
    /// When it does not say.
    pub fn all(&self) -> BTreeMap<String, String> {
        let all = Http::new(self.at).get("/orders").expect("it serves").text();
        let id = |line: &str| line.split(' ').nth(1).expect("order ID of …").to_owned();
        all.split_inclusive('\n').map(|line| (id(line), line.to_owned())).collect()
    }

    /// What it said of itself.
    ///
    /// # Panics
    /// When that cannot be read.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).expect("a file of ours")
    }

    /// Ends it and forgets all that it has.
    ///
    /// # Panics
    /// When it had nothing.
    pub fn forget(&mut self) {
        self.kill();
        fs::remove_dir_all(self.dir()).expect("a folder of ours");
    }
}

impl Server for Orders {
    fn resume(&mut self) {
        let (at, dir) = (self.at.to_string(), self.dir());
        let more: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let words = [&[at.as_str(), dir.as_str()], more.as_slice()].concat();
        let said = self.folder.path().join("said");
        self.process = Some(Process::start(&program("orders"), &words, &said));
        until("orders to be taken", || Http::new(self.at).get("/orders").map(drop));
    }

    fn kill(&mut self) {
        self.process.take();
    }
}
