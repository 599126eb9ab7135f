//! The repository reads itself: whatever a rule of the house forbids is a failing test that names
//! the file, the line and what to do instead.

mod source;

use std::fmt::Write as _;

use self::source::Source;

/// What is wrong, one line each.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, file: &Source, line: usize, why: &str) {
        self.0.push(format!("{}:{line}: {why}", file.path));
    }

    fn expect_none(self, promise: &str) {
        let mut list = String::new();
        self.0.iter().for_each(|finding| writeln!(list, "  {finding}").expect("memory"));
        assert!(self.0.is_empty(), "{promise}\n{list}");
    }
}

/// Goal: tests → apps → actors → runtime. Method: read what each package says it stands on.
#[test]
fn arrows_between_packages_go_down_only() {
    let mut findings = Findings::default();
    let files = Source::all();
    for (manifest, allowed) in PACKAGES {
        let file = files.iter().find(|file| file.path == *manifest);
        let file = file.unwrap_or_else(|| panic!("{manifest} is gone: name it in PACKAGES"));
        let mut ours = false;
        for (number, line) in file.text_lines() {
            if line.starts_with('[') {
                ours = line == "[dependencies]";
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_ours = name == "synod" || name.starts_with("synod-");
            if ours && is_ours && !allowed.contains(&name) {
                let why = format!("{name} is not below this package; it may use {allowed:?}");
                findings.add(file, number, &why);
            }
        }
    }
    let unlisted = files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    for file in unlisted.filter(|file| PACKAGES.iter().all(|(path, _)| file.path != *path)) {
        findings.add(file, 1, "a package without a place: name it in PACKAGES of this test");
    }
    findings.expect_none("a package may only stand on those below it");
}

/// Goal: inside a package too, lower rooms never call upper ones. Method: read `crate::…`.
#[test]
fn arrows_between_rooms_go_down_only() {
    let mut findings = Findings::default();
    for file in Source::all() {
        let Some((folder, rooms)) = HOUSES.iter().find(|(at, _)| file.path.starts_with(at)) else {
            continue;
        };
        let floor = |name: &str| rooms.iter().position(|floor| floor.contains(&name));
        let room = file.path[folder.len()..].split(['/', '.']).next().unwrap_or_default();
        let Some(mine) = floor(room) else {
            if room != "lib" {
                findings.add(&file, 1, "a room without a floor: name it in HOUSES of this test");
            }
            continue;
        };
        for (line, name) in file.names_behind("crate") {
            if floor(&name).is_some_and(|theirs| theirs > mine) {
                let why = format!("`{room}` must not know `{name}`, which is above it");
                findings.add(&file, line, &why);
            }
        }
    }
    findings.expect_none("a room may only use rooms below it");
}

/// Goal: machines decide and do nothing, so that the simulator sees every effect. Method: no name
/// that could reach a runtime, a file, a clock or chance.
#[test]
fn machines_are_pure() {
    let mut findings = Findings::default();
    for file in Source::all() {
        if !MACHINES.iter().any(|at| file.path.starts_with(at)) {
            continue;
        }
        for (number, line) in file.product_lines() {
            for (forbidden, instead) in NOT_IN_MACHINES {
                if contains_path(line, forbidden) {
                    findings.add(&file, number, &format!("`{forbidden}` in a machine: {instead}"));
                }
            }
        }
    }
    findings.expect_none("a machine gets arguments and returns effects");
}

/// Goal: nothing passes by the ports, or the simulated world would not be the whole world.
#[test]
fn the_outside_is_reached_through_the_ports() {
    let mut findings = Findings::default();
    for file in Source::all().iter().filter(|file| file.is_rust()) {
        let product = ["runtime/src/", "actors/src/", "apps/"];
        let mine = product.iter().any(|at| file.path.starts_with(at));
        let room = ROOMS_OUTSIDE.iter().find(|(at, _, _)| file.path.starts_with(at));
        let may = |what| room.is_some_and(|(_, may, _why)| may.is_empty() || may.contains(what));
        let lines = file.product_lines().filter(|_| mine);
        for (number, line) in lines {
            for (forbidden, instead) in THROUGH_PORTS {
                if contains_path(line, forbidden) && !may(forbidden) {
                    findings.add(file, number, &format!("`{forbidden}`: {instead}"));
                }
            }
        }
    }
    findings.expect_none("clock, chance, files and threads are the world's (runtime/src/world)");
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let mut findings = Findings::default();
    for file in Source::all().iter().filter(|file| file.is_rust()) {
        for (number, line) in file.code_lines() {
            let allows = contains_path(line, "unsafe_code");
            if allows && !ROOMS_UNSAFE.contains(&file.path.as_str()) {
                findings.add(file, number, "use a safe call, or name the room in ROOMS_UNSAFE");
            }
        }
    }
    findings.expect_none("`unsafe` has few rooms, each with its reason");
}

#[test]
fn files_can_be_read_in_one_go() {
    let mut findings = Findings::default();
    for file in Source::all().iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            let why = format!("{lines} lines, {FILE_LINES_MAX} at most: split it by what it does");
            findings.add(file, lines, &why);
        }
    }
    findings.expect_none("a file is one thought");
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Findings::default();
    for file in Source::all().iter().filter(|file| file.is_rust()) {
        for (number, line) in file.code_lines() {
            for name in ["todo", "unimplemented", "dbg"] {
                if line.contains(&format!("{name}!(")) {
                    findings.add(file, number, &format!("`{name}!`: finish it or leave it out"));
                }
            }
        }
        for (number, line) in file.text_lines() {
            // Spelt apart, or this line would find itself.
            for mark in [["FIX", "ME"], ["XX", "X"], ["TO", "DO"]].map(|parts| parts.concat()) {
                if line.contains(&mark) {
                    findings.add(file, number, &format!("`{mark}`: do it now or leave it out"));
                }
            }
        }
    }
    findings.expect_none("what is here is finished");
}

/// Goal: the repository speaks about itself only. Method: no path of one machine, no word on how
/// it came about.
#[test]
fn the_repository_stands_alone() {
    let mut findings = Findings::default();
    let roots = ["work", "farm", "root", "home"].map(|root| format!("/{root}/"));
    for file in Source::all() {
        if file.path == "LICENSE-APACHE" {
            continue;
        }
        for (number, line) in file.text_lines() {
            for root in &roots {
                let after = line.split(root.as_str()).nth(1).and_then(|rest| rest.chars().next());
                if after.is_some_and(|c| c.is_ascii_lowercase()) {
                    let why = format!("a path below {root}: use a relative one");
                    findings.add(&file, number, &why);
                }
            }
            let line = line.to_lowercase();
            for words in MAKING_OF.map(|parts| parts.concat()) {
                if line.contains(&words) {
                    let why = format!("\"{words}\": say what is, not how it came about");
                    findings.add(&file, number, &why);
                }
            }
        }
    }
    findings.expect_none("the repository mentions neither its making nor one machine");
}

#[test]
fn the_readmes_two_commands_are_there_and_checks_run_the_second() {
    let files = Source::all();
    let text = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        &file.unwrap_or_else(|| panic!("{path} is missing")).text
    };
    for command in [COMMAND_DEV, COMMAND_TEST] {
        let first = text("README.md").lines().take(README_LINES_BEFORE_COMMANDS);
        let there = first.into_iter().any(|line| line.starts_with(command));
        assert!(there, "README.md: `{command}` belongs at the top, as a line of its own");
    }
    let runs = text(".ci/run").lines().any(|line| line == COMMAND_TEST);
    assert!(runs, ".ci/run: run the README's `{COMMAND_TEST}`, exactly");
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = "use crate::{a::{x, y}, b};\nlet s = \"crate::c\"; // crate::d\nlet c = '\"'; f::<'a>();\n\
                let r = r#\"crate::e \"# ; crate::g::h();\n#[cfg(test)]\nmod tests { use crate::i; }\n";
    let file = Source::new("actors/src/a.rs".to_owned(), text.to_owned());
    let names = file.names_behind("crate");
    let names: Vec<_> = names.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "a"), (1, "b"), (4, "g")]);
    assert_eq!(file.code.lines().count(), text.lines().count());
    assert!(contains_path("let x = std::fs::read()", "std::fs"));
    assert!(!contains_path("let x = std::fsx::read()", "std::fs"));
}

/// Whether `line` names `path`, as whole words.
fn contains_path(line: &str, path: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(path).any(|(at, _)| {
        edge(line[..at].chars().next_back()) && edge(line[at + path.len()..].chars().next())
    })
}

/// Every package, and which of ours it may stand on.
const PACKAGES: &[(&str, &[&str])] = &[
    ("runtime/derive/Cargo.toml", &[]),
    ("runtime/Cargo.toml", &["synod-derive"]),
    ("actors/Cargo.toml", &["synod-runtime", "synod-derive"]),
    ("apps/kv/Cargo.toml", &["synod"]),
    ("apps/web/Cargo.toml", &["synod"]),
    ("apps/routes/Cargo.toml", &["synod"]),
    ("apps/examples/Cargo.toml", &["synod"]),
    // The binary with the stock services.
    ("apps/cli/Cargo.toml", &["synod", "synod-kv", "synod-web", "synod-routes"]),
    ("tests/Cargo.toml", &["synod", "synod-kv", "synod-routes", "synod-runtime", "synod-derive"]),
    // Made of others' parts, to be measured beside ours.
    ("tests/peers/openraft/Cargo.toml", &[]),
];

/// The rooms of a package, ground floor first. Rooms of one floor know each other.
const HOUSES: &[(&str, &[&[&str]])] = &[
    (
        "runtime/src/",
        &[
            &["identity", "telemetry", "digest", "watch"],
            &["world", "wire"],
            &["trace"],
            &["journal", "snapshot", "slots", "quic"],
            &["link"],
            &["message", "address", "registry", "supervision", "node", "serial"],
            &["sim"],
        ],
    ),
    (
        "actors/src/",
        &[
            &["mutation", "sometimes", "trace"],
            &["replicated"],
            &["machine", "effects"],
            &["consensus", "election", "membership", "register"],
            &["management"],
            &["multicast"],
            &["role"],
            &["server"],
            &["client"],
            &["sim"],
            &["cli"],
            &["manual"],
        ],
    ),
];

/// Where machines live.
const MACHINES: &[&str] = &[
    "actors/src/consensus/",
    "actors/src/election/",
    "actors/src/membership/",
    "actors/src/register/",
    "actors/src/management/",
    "actors/src/multicast/",
    "actors/src/machine.rs",
    "actors/src/effects.rs",
];

/// What no machine may name, and what it does instead.
const NOT_IN_MACHINES: &[(&str, &str)] = &[
    ("actix", "the shell is the actor"),
    ("actix_rt", "the shell is the actor"),
    ("tokio", "ask for a timer as an effect"),
    (".await", "a machine answers at once"),
    ("std::fs", "ask for a record as an effect"),
    ("std::net", "ask for a message as an effect"),
    ("std::thread", "a machine answers at once"),
    ("std::time::Instant", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "agreed time is in the step"),
    ("rand::rng", "the generator is an argument of `new`"),
    ("HashMap", "its order is chance: use a BTreeMap"),
    ("HashSet", "its order is chance: use a BTreeSet"),
];

/// What only the world may call.
const THROUGH_PORTS: &[(&str, &str)] = &[
    ("Instant::now", "ask the world's Clock"),
    ("SystemTime", "ask the world's Clock"),
    ("std::thread", "give a Worker to the world's Disk"),
    ("thread::spawn", "give a Worker to the world's Disk"),
    ("thread::sleep", "wait on the world's Clock"),
    ("std::fs", "use the world's Disk"),
    ("tokio::fs", "use the world's Disk"),
    ("rand::rng", "draw a stream from the world's Entropy"),
    ("rand::random", "draw a stream from the world's Entropy"),
];

/// Rooms that may reach outside: for what, and why.
const ROOMS_OUTSIDE: &[(&str, &[&str], &str)] = &[
    ("runtime/src/world/", ANY, "the ports' real forms"),
    ("runtime/src/sim/", ANY, "the ports' simulated forms, on tokio's paused clock"),
    ("runtime/src/quic/", &["rand::random"], "the network port's real form"),
    ("runtime/src/link/mod.rs", &["Instant::now"], "waits on tokio's timers, so counts by them"),
    ("actors/src/client/", ANY, "runs in programs that are no node"),
    ("actors/src/cli/", ANY, "what a person started, before and beside any node"),
    ("actors/src/server/config", &["std::fs"], "reads the node file before there is a world"),
    ("apps/examples/src/orders.rs", ANY, "is no node, but a server behind one"),
    ("apps/kv/examples/", ANY, "measures a store from outside"),
    ("apps/kv/src/resp/", &["Instant::now"], "idle times of connections, shown to people"),
];

/// Everything of [`THROUGH_PORTS`].
const ANY: &[&str] = &[];

/// Files that may say `unsafe`.
const ROOMS_UNSAFE: &[&str] = &[
    "actors/src/cli/process.rs",
    "actors/src/cli/resident.rs",
    "apps/cli/src/main.rs",
    "runtime/src/world/clock.rs",
    "tests/src/process/namespaces.rs",
];

/// Words on the making of the repository; spelt apart, or these lines would find themselves.
const MAKING_OF: [[&str; 2]; 8] = [
    ["this ", "issue"],
    ["issue ", "#"],
    ["the brief", "ing"],
    ["coding ", "agent"],
    ["sub", "agent"],
    ["language ", "model"],
    ["previous ", "session"],
    ["requirements", ".md"],
];

const COMMAND_DEV: &str = "cargo run --release -p synod-cli -- dev";
const COMMAND_TEST: &str = "cargo test --workspace";

/// The commands come before anything that must be scrolled to.
const README_LINES_BEFORE_COMMANDS: usize = 20;

/// Tests inside the file count.
const FILE_LINES_MAX: usize = 500;
