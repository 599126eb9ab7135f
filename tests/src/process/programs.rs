//! Where the programs under test are.
//!
//! A test of this package has no `CARGO_BIN_EXE_…` for programs of other packages. They lie two
//! folders above the test executable; the first test that asks has cargo bring them up to date
//! (`cargo build -p synod-cli -p synod-examples`), so that no test judges yesterday's program.
//! `SYNOD_PROGRAMS=DIR` names a folder to take them from as they are.

use std::{
    env::{self, consts::EXE_SUFFIX},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program called `name`: `synod`, `bank`, `counter`.
///
/// # Panics
/// When it cannot be built.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match env::var_os("SYNOD_PROGRAMS") {
        Some(folder) => folder.into(),
        None => build(),
    });
    let path = folder.join(format!("{name}{EXE_SUFFIX}"));
    assert!(path.exists(), "there is no {}", path.display());
    path
}

fn build() -> PathBuf {
    let this = env::current_exe().expect("a test knows its own file");
    // TARGET/PROFILE/deps/this
    let folder = this.ancestors().nth(2).expect("cargo puts tests into TARGET/PROFILE/deps");
    let target = folder.parent().expect("cargo puts profiles into a target directory");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of a workspace");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "-p", "synod-cli", "-p", "synod-examples"]);
    command.arg("--profile").arg(profile).arg("--target-dir").arg(target).current_dir(root);
    let built = command.status().expect("cargo runs");
    assert!(built.success(), "the programs under test do not build");
    folder.to_owned()
}
