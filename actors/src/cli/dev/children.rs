//! One task per node: keeps its process running and tells what happens to it.

use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use synod_runtime::world::{Clock as _, RealClock};
use tokio::{
    process::{Child, Command},
    sync::mpsc::Sender,
};

use crate::{
    cli::{node::REMOVED_MARKER, process},
    server::{StopSignal, config::NodeConfig},
};

/// What happened to the process of the node with this index.
#[derive(Debug)]
pub(super) enum Event {
    /// It runs.
    Started { node: usize, pid: u32, again: bool },
    /// It ended.
    Ended { node: usize, pid: u32, status: ExitStatus, removed: bool },
    /// It could not even be started.
    NotStarted { node: usize, error: io::Error },
}

/// How to keep one node running.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) node: usize,
    pub(super) config_file: PathBuf,
    /// Where the node's standard error goes.
    pub(super) log_file: PathBuf,
    pub(super) removed_marker: PathBuf,
    pub(super) restart: bool,
}

impl Keeper {
    pub(super) fn new(node: usize, config: &NodeConfig, restart: bool) -> Self {
        Self {
            node,
            config_file: config.file.clone(),
            log_file: log_file(&config.file),
            removed_marker: config.data_dir.join(REMOVED_MARKER),
            restart,
        }
    }

    /// Runs the node until `stop`, or until it ended and is not to be started again.
    pub(super) async fn keep(self, mut stop: StopSignal, events: Sender<Event>) {
        let node = self.node;
        let mut pause = PAUSE_MIN;
        let mut again = false;
        loop {
            let started = RealClock.now();
            let event = match self.start(again) {
                Ok(mut child) => {
                    let pid = child.id().expect("not waited for yet");
                    events.send(Event::Started { node, pid, again }).await.ok();
                    match wait(&mut child, &mut stop).await {
                        Ok(status) => {
                            let removed = status.success() && self.removed_marker.exists();
                            Event::Ended { node, pid, status, removed }
                        }
                        Err(error) => Event::NotStarted { node, error },
                    }
                }
                Err(error) => Event::NotStarted { node, error },
            };
            let removed = matches!(event, Event::Ended { removed: true, .. });
            // Nobody listens any more only when everything is being dropped.
            events.send(event).await.ok();
            if removed || !self.restart || stop.is_stopped() {
                return;
            }
            if RealClock.now().since(started) > HEALTHY_AFTER {
                pause = PAUSE_MIN;
            }
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = sleep(pause) => (),
            }
            pause = PAUSE_MAX.min(pause * 2);
            again = true;
        }
    }

    fn start(&self, again: bool) -> io::Result<Child> {
        let log = match again {
            false => File::create(&self.log_file)?,
            true => File::options().append(true).create(true).open(&self.log_file)?,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("node").arg("--config").arg(&self.config_file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        // What overrides one node's addresses and files must not override every node's.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if OF_ONE_NODE.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        process::tie_to_us(command.as_std_mut());
        command.spawn()
    }
}

/// Waits for the child's end; when `stop` comes first, asks it to stop, and kills it if it does
/// not within the time.
async fn wait(child: &mut Child, stop: &mut StopSignal) -> io::Result<ExitStatus> {
    tokio::select! {
        biased;
        status = child.wait() => return status,
        () = stop.stopped() => (),
    }
    if let Some(pid) = child.id() {
        process::ask_to_stop(pid);
    }
    match timeout(STOP_TIME, child.wait()).await {
        Ok(status) => status,
        Err(_elapsed) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

/// Where the standard error of the node of `config_file` goes.
pub(super) fn log_file(config_file: &Path) -> PathBuf {
    config_file.with_file_name("log")
}

/// The last lines of a log: what a node that died had to say.
pub(super) fn last_words(log_file: &Path) -> Vec<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log_file)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_WORDS_LINES_MAX);
    lines[from..].iter().map(|line| (*line).to_owned()).collect()
}

/// `exit N` or `signal N`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// The first pause before a dead node is started again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A node that ran this long did not die of its start.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// A stop must be done within 5 s; this leaves time to kill and to clean up.
const STOP_TIME: Duration = Duration::from_millis(4500);

/// Enough for a panic's message or a refused configuration.
const LAST_WORDS_LINES_MAX: usize = 8;

/// Longer lines than these many hold are cut at the front.
const LAST_WORDS_BYTES_MAX: u64 = 4096;

/// Variables that mean one node's own things.
const OF_ONE_NODE: [&str; 3] = ["SYNOD_DATA_DIR", "SYNOD_LISTEN_", "SYNOD_TLS_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_said_as_exit_or_signal() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit 3");
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9");
    }

    #[test]
    fn last_words_are_the_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..2000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(file.path(), lines.concat()).unwrap();
        let words = last_words(file.path());
        assert_eq!((words.len(), words[7].as_str()), (8, "line 1999"));
        assert!(last_words(Path::new("/nowhere")).is_empty());
    }
}
