//! Where the programs under test are.
//!
//! A test of this package has no `CARGO_BIN_EXE_…` for programs of other packages. They lie two
//! folders above the test executable; `cargo test --workspace` has put them there. When one is
//! missing or older than its sources (only this package's tests were asked for), the first test
//! that needs it runs `cargo build -p synod-cli -p synod-examples`, so that no test judges
//! yesterday's program. `SYNOD_PROGRAMS=DIR` names a folder to take them from as they are.

use std::{
    env::{self, consts::EXE_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The program called `name`: one of [`PROGRAMS`].
///
/// # Panics
/// When it cannot be built.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match env::var_os("SYNOD_PROGRAMS") {
        Some(folder) => folder.into(),
        None => up_to_date(),
    });
    let path = file(folder, name);
    assert!(path.exists(), "there is no {}", path.display());
    path
}

/// The programs that tests start.
pub const PROGRAMS: [&str; 7] =
    ["synod", "bank", "counter", "counter-next", "issuer", "orders", "tickets"];

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{EXE_SUFFIX}"))
}

/// The folder of the programs, brought up to date.
fn up_to_date() -> PathBuf {
    let this = env::current_exe().expect("a test knows its own file");
    // TARGET/PROFILE/deps/this
    let folder = this.ancestors().nth(2).expect("cargo puts tests into TARGET/PROFILE/deps");
    if !PROGRAMS.iter().all(|name| is_fresh(&file(folder, name))) {
        build(folder);
    }
    folder.to_owned()
}

/// Whether the program is newer than every source that cargo's list beside it names.
fn is_fresh(program: &Path) -> bool {
    let list = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let Some((_, sources)) = list.split_once(": ") else { return false };
    let Some(made) = changed(program) else { return false };
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    // Cargo writes a backslash before a space in a name.
    let sources = sources.trim().replace("\\ ", "\0");
    let mut names = sources.split(' ').map(|name| name.replace('\0', " "));
    names.all(|name| changed(Path::new(&name)).is_some_and(|at| at <= made))
        && changed(Path::new(lock)).is_some_and(|at| at <= made)
}

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|about| about.modified()).ok()
}

fn build(folder: &Path) {
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
}
