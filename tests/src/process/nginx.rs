//! A stock nginx that keeps files by WebDAV.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{child::Process, machine::free_tcp_port, sites::Server, wait::until};

/// A server with a directory of files; both are gone when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    program: PathBuf,
    at: SocketAddr,
    process: Option<Process>,
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
        let paths = env::var_os("PATH").unwrap_or_default();
        // Where systems keep it that do not name that folder to everybody.
        let mut folders = env::split_paths(&paths).chain(["/usr/sbin".into()]);
        let program =
            folders.find_map(|folder| Some(folder.join("nginx")).filter(|it| it.exists()));
        let missing = "no nginx on PATH; install Debian's package `nginx-light`";
        let program = program.ok_or_else(|| missing.to_owned())?;
        let folder = tempfile::Builder::new().prefix("synod-nginx-").tempdir().expect("a folder");
        let at = free_tcp_port();
        fs::create_dir(folder.path().join("files")).expect("a folder of ours");
        fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), at))
            .expect("the same");
        let mut server = Self { program, at, process: None, folder };
        server.resume();
        Ok(server)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Its files and folders by path, as they are on its disk; folders end with a slash.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.folder.path().join("files"), "", &mut found);
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

/// What its manual's first example of WebDAV has, in one process that dies with the test.
fn configuration(folder: &Path, at: SocketAddr) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    // Only root may say whose process it shall be; for others it is their own.
    format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n{temporary}  server {{\n    listen {at};\n    \
         root {folder}/files;\n    client_max_body_size 128m;\n    \
         dav_methods PUT DELETE MKCOL COPY MOVE;\n    create_full_put_path on;\n  }}\n}}\n"
    )
}
