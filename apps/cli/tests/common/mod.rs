//! What the tests of the command line share.

use std::process::{Command, Output};

/// Runs `synod` and gives its exit code, standard output and standard error.
pub(crate) fn synod(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    let Output { status, stdout, stderr } =
        command.args(args).env_remove("SYNOD_CLUSTER").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}
