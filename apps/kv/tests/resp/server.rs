//! A real `redis-server` for the time of a test.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// A `redis-server` on a port of its own, ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    /// None when it is not installed, or not the version whose answers are promised; both are said
    /// loudly.
    pub(crate) async fn start() -> Option<Self> {
        let version = Command::new("redis-server").arg("--version").output();
        let version = version.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
        if !version.as_ref().is_ok_and(|text| text.contains("v=7.0.")) {
            eprintln!(
                "SKIPPED: this test needs redis-server 7.0 (Debian package redis-server), found \
                 {version:?}"
            );
            return None;
        }
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--databases", "1", "--proto-max-bulk-len", "1mb", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address, _dir: dir };
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
