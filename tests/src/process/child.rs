//! One process of a test's own; it dies with the test.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{
    machine::signal,
    wait::{PATIENCE, until_within},
};

/// A child process, killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `program` with standard error appended to `log` and nothing to read.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Self {
        Self::spawn(Command::new(program).args(args).stdout(Stdio::null()), log)
    }

    pub(super) fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = File::options().append(true).create(true).open(log).expect("a log file");
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("the program starts");
        Self(child)
    }

    pub(super) const fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn wait_within(&mut self, time: Duration) -> ExitStatus {
        let what = format!("the end of process {}", self.pid());
        until_within(time, &what, || match self.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => panic!("{error}"),
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(name, &[self.pid()]);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already needs no more.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a program to its end: `(exit code, standard output, standard error)`.
///
/// # Panics
/// When it cannot be started, or was ended by a signal.
pub fn run(program: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or_else(|| panic!("{args:?}: {}", output.status));
    (code, text(&output.stdout), text(&output.stderr))
}
