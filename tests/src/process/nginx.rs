//! A stock nginx that keeps files by WebDAV.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{child::Process, disk::SmallDisk, machine::free_tcp_port, sites::Server, wait::until};

/// A server with a directory of files; both are gone when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    program: PathBuf,
    at: SocketAddr,
    process: Option<Process>,
    /// It reads its configuration again when it is told to, which it can with processes of its own only.
    rereads: bool,
    disk: Option<SmallDisk>,
    folder: TempDir,
}

impl Nginx {
    /// Starts one.
    ///
    /// # Errors
    /// What is missing here, in one line.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn start() -> Result<Self, String> {
        Self::configured(false, |_| Ok(None), files)
    }

    /// Starts one on a disk of its own, in memory, of `size` as `mount` takes it.
    ///
    /// # Errors
    /// What is missing, or not allowed, here.
    pub fn start_on_small_disk(size: &str) -> Result<Self, String> {
        Self::configured(false, |folder| SmallDisk::memory(folder, size).map(Some), files)
    }

    /// Starts one before others: those of `list`, a file of its folder that is there by then, and
    /// which it reads again at SIGHUP.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    ///
    /// # Panics
    /// When it does not serve.
    pub fn before(list: &str, servers: &[SocketAddr]) -> Result<Self, String> {
        Self::configured(
            true,
            |_| Ok(None),
            |folder, at| {
                let servers: String = servers.iter().map(|at| format!("server {at};\n")).collect();
                fs::write(folder.join(list), servers).expect("a file of ours");
                front(&folder.join(list), at)
            },
        )
    }

    fn configured(
        rereads: bool,
        disk: impl FnOnce(&Path) -> Result<Option<SmallDisk>, String>,
        servers: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<Self, String> {
        let paths = env::var_os("PATH").unwrap_or_default();
        // Where systems keep it that do not name that folder to everybody.
        let mut folders = env::split_paths(&paths).chain(["/usr/sbin".into()]);
        let program =
            folders.find_map(|folder| Some(folder.join("nginx")).filter(|it| it.exists()));
        let missing = "no nginx on PATH; install Debian's package `nginx-light`";
        let program = program.ok_or_else(|| missing.to_owned())?;
        let folder = tempfile::Builder::new().prefix("synod-nginx-").tempdir().expect("a folder");
        let disk = disk(folder.path())?;
        let at = free_tcp_port();
        fs::create_dir(folder.path().join("files")).expect("a folder of ours");
        let servers = servers(folder.path(), at);
        let configuration = configuration(folder.path(), rereads, &servers);
        fs::write(folder.path().join("nginx.conf"), configuration).expect("the same");
        let mut server = Self { program, at, process: None, rereads, disk, folder };
        server.resume();
        Ok(server)
    }

    /// Its own disk.
    ///
    /// # Panics
    /// When it has none.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it was started on a small disk")
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Its folder: `pid`, `nginx.conf` and what else there is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its files and folders by path, as they are on its disk; folders end with a slash.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.root(), "", &mut found);
        found
    }
}

impl Server for Nginx {
    fn resume(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdout(Stdio::null());
        self.process = Some(Process::spawn(&mut command, &self.folder.path().join("said")));
        until("nginx to serve", || match TcpStream::connect(self.at) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
    }

    fn kill(&mut self) {
        self.process.take();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take().filter(|_| self.rereads) {
            // Killed, it would leave others behind.
            process.signal("TERM");
            process.wait();
        }
    }
}

fn collect(folder: &Path, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder of nginx") {
        let entry = entry.expect("an entry of it");
        let name = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.insert(format!("{name}/"), Vec::new());
            collect(&entry.path(), &name, found);
        } else {
            found.insert(name, fs::read(entry.path()).expect("a file of it"));
        }
    }
}

/// What its manual's first example of WebDAV has.
fn files(folder: &Path, at: SocketAddr) -> String {
    format!(
        "  server {{\n    listen {at};\n    root {}/files;\n    client_max_body_size 128m;\n    \
         dav_methods PUT DELETE MKCOL COPY MOVE;\n    create_full_put_path on;\n  }}\n",
        folder.display()
    )
}

/// What leads to the servers of a list.
fn front(list: &Path, at: SocketAddr) -> String {
    format!(
        "  upstream sites {{ include {}; }}\n  server {{\n    listen {at};\n    \
         location / {{\n      proxy_pass http://sites;\n      proxy_connect_timeout 1s;\n      \
         proxy_next_upstream error timeout http_502 http_503;\n    }}\n  }}\n",
        list.display()
    )
}

/// In one process that dies with the test, unless it is to read this again.
fn configuration(folder: &Path, rereads: bool, servers: &str) -> String {
    let master = if rereads { "on" } else { "off" };
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    // Only root may say whose process it shall be; for others it is their own.
    format!(
        "user root;\ndaemon off;\nmaster_process {master};\npid {folder}/pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n{temporary}{servers}}}\n"
    )
}
