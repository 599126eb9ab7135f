//! Stock nginx servers: what `bench web` puts behind a cluster, and measures it beside.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::cli::{failure::Failure, process};

/// A running nginx; it ends when dropped.
pub(super) struct Nginx {
    pub(super) at: SocketAddr,
    _process: Child,
}

/// What one is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// Keeps files, by WebDAV.
    Files,
    /// Hands everything on to another.
    Proxy(SocketAddr),
}

impl Nginx {
    /// Starts one that keeps its things in `folder`, which is made.
    ///
    /// # Errors
    /// There is no nginx here, or it does not serve.
    pub(super) async fn start(folder: &Path, what: Use) -> Result<Self, Failure> {
        let cannot = |e: io::Error| Failure::failed("nginx", e, "try it alone: `nginx -t`");
        let program = find().ok_or_else(|| {
            let hint = "install it, on Debian `nginx-light`";
            Failure::failed("nginx", "it is not on PATH, and is what `bench web` measures", hint)
        })?;
        fs::create_dir_all(folder.join("files")).map_err(cannot)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|one| one.local_addr());
        let at = free.map_err(cannot)?;
        fs::write(folder.join("nginx.conf"), configuration(folder, at, what)).map_err(cannot)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        process::tie_to_us(command.as_std_mut());
        let server = Self { at, _process: command.spawn().map_err(cannot)? };
        let serving = async {
            while TcpStream::connect(at).await.is_err() {
                sleep(LOOK_AGAIN).await;
            }
        };
        let late = |_| Failure::failed("nginx", "it does not serve", "try it alone: `nginx -t`");
        timeout(START_TIME_MAX, serving).await.map_err(late)?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.at)
    }
}

/// On PATH, or where systems keep it that do not name that folder to everybody.
fn find() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    folders.find_map(|folder| Some(folder.join("nginx")).filter(|it| it.exists()))
}

/// One process, as ours has one for this: two cores are all that many machines have.
fn configuration(folder: &Path, at: SocketAddr, what: Use) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let (before, inside) = match what {
        Use::Files => (
            String::new(),
            format!(
                "root {folder}/files; dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on;"
            ),
        ),
        Use::Proxy(behind) => (
            format!("upstream behind {{ server {behind}; keepalive 64; }}\n"),
            "location / { proxy_pass http://behind; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }"
                .to_owned(),
        ),
    };
    format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\n{temporary}{before}\
         server {{ listen {at}; client_max_body_size 1g; {inside} }}\n}}\n"
    )
}

/// It starts in milliseconds; a busy machine takes longer.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether it serves.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
