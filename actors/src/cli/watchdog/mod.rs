//! The watchdog: the process between whoever leads and the program that runs only while it does.
//!
//! It lives in a session of its own, so that nothing which stops or ends its master (`elect`, or a
//! node) ends it, and it is the program's parent, so that it knows when the program is gone. It
//! holds one end of a pair of sockets: from the other end its master tells it how long the lease is,
//! and when that end closes, the master is dead. Between two words it waits on a timer of
//! CLOCK_BOOTTIME, which counts also while the machine sleeps.
//!
//! Whatever the program started, and whoever of that left its process group, becomes a child of the
//! watchdog when its parent ends, and is killed before the watchdog says *gone*. Should the watchdog
//! itself be killed, the kernel kills the program.

mod dog;
mod guard;
pub(in crate::cli) mod term;

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::PermissionsExt as _, net::UnixStream, process::ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use synod_runtime::world::{Clock as _, Instant, RealClock};

use self::guard::{Act, Guard};
pub(in crate::cli) use self::{dog::Dog, guard::END_TIME};
use super::{
    failure::Failure,
    process::{self, BootTimer, Signal},
};
use crate::server::services::programs::{Order, Report};

/// What a watchdog is charged with.
pub(in crate::cli) struct Charge {
    /// The program and its arguments.
    pub(in crate::cli) command: Vec<OsString>,
    /// What it finds in its environment.
    pub(in crate::cli) environment: Vec<(&'static str, String)>,
    /// The whole lease.
    pub(in crate::cli) lease: Duration,
    /// Until when it holds.
    pub(in crate::cli) until: Instant,
    /// What asks the program to end.
    pub(in crate::cli) stop: Signal,
    /// How long it has then, if the lease lasts.
    pub(in crate::cli) within: Duration,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Kept {
    /// The program is gone, and the master knows.
    Told,
    /// The program is gone, and the master is dead.
    Alone,
    /// Nobody knows whether all that the program started is gone.
    Unknown,
}

/// Runs the program until it ends or its lease does. The master is at the other end of standard
/// input.
pub(in crate::cli) fn keep(charge: &Charge) -> Result<Kept, Failure> {
    let broken =
        |error: io::Error| Failure::failed("a watchdog", error, "it is not started by people");
    process::own_session().map_err(broken)?;
    process::adopt_orphans().map_err(broken)?;
    // The stream is standard input; the program gets none.
    let stream = io::stdin().as_fd().try_clone_to_owned().map_err(broken)?;
    let master = UnixStream::from(stream);
    let guard = Guard::new(charge.lease, charge.until, charge.within);
    if RealClock.now() >= guard.next() {
        // We were stopped before we could begin: nothing was started.
        writeln!(&master, "{}\n{}", Report::Ending, Report::Gone(0)).ok();
        return Ok(Kept::Told);
    }
    let mut dog = match Watchdog::start(charge, guard, &master) {
        Ok(dog) => dog,
        Err(error) => {
            // Whoever is gone needs no report.
            writeln!(&master, "{}", Report::NotStarted(error.to_string())).ok();
            return Ok(Kept::Told);
        }
    };
    // Without a word nobody gives the role up before its time.
    let Some(status) = dog.watch() else { return Ok(Kept::Unknown) };
    let told = writeln!(&master, "{}", Report::Gone(code(status)));
    Ok(if dog.alone || told.is_err() { Kept::Alone } else { Kept::Told })
}

struct Watchdog<'a> {
    guard: Guard,
    program: Child,
    stop: Signal,
    timer: Arc<BootTimer>,
    news: Receiver<News>,
    master: &'a UnixStream,
    /// The program is to end.
    ending: bool,
    /// The master is dead.
    alone: bool,
}

enum News {
    Order(Order),
    MasterIsDead,
    Timer,
    /// The program has ended, and was not waited for.
    Ended,
}

impl<'a> Watchdog<'a> {
    fn start(charge: &Charge, guard: Guard, master: &'a UnixStream) -> io::Result<Self> {
        let (tell, news) = channel();
        let timer = Arc::new(BootTimer::new()?);
        let orders = BufReader::new(master.try_clone()?);
        let (name, words) = charge.command.split_first().expect("clap wants one");
        let mut command = Command::new(name);
        command.args(words).stdin(Stdio::null());
        command.envs(charge.environment.iter().map(|(name, value)| (*name, value)));
        process::tie_to_us(&mut command);
        let program = command.spawn()?;
        let pid = program.id();
        let (orders_tell, timer_tell, timer_ours) = (tell.clone(), tell.clone(), timer.clone());
        std::thread::spawn(move || read_orders(orders, &orders_tell));
        std::thread::spawn(
            move || while timer_ours.wait() && timer_tell.send(News::Timer).is_ok() {},
        );
        std::thread::spawn(move || {
            process::wait_ended(pid);
            tell.send(News::Ended)
        });
        let stop = charge.stop;
        Ok(Self { guard, program, stop, timer, news, master, ending: false, alone: false })
    }

    /// Watches the program until it and all it started are gone; `None` when that cannot be known.
    fn watch(&mut self) -> Option<ExitStatus> {
        loop {
            match self.guard.act(RealClock.now(), self.ending) {
                Act::Nothing => {}
                Act::Terminate => {
                    process::signal_group(self.program.id(), self.stop);
                    if !self.ending {
                        // The program ends for want of a renewal; the master may be stopped.
                        writeln!(self.master, "{}", Report::Ending).ok();
                    }
                }
                Act::Kill => return self.end(),
            }
            self.timer.set(self.guard.next());
            match self.news.recv() {
                Ok(News::Order(Order::Until(until))) => self.guard.extend(until),
                Ok(News::Order(Order::End)) => self.ending = true,
                Ok(News::Order(Order::Kill)) => self.guard.kill(),
                Ok(News::MasterIsDead) => (self.ending, self.alone) = (true, true),
                Ok(News::Timer) => {}
                Ok(News::Ended) | Err(_) => return self.end(),
            }
        }
    }

    /// Ends the program, its group and whatever it left behind.
    fn end(&mut self) -> Option<ExitStatus> {
        // It was not waited for yet, so its group is still its own.
        process::signal_group(self.program.id(), Signal::Kill);
        let status = self.program.wait().ok()?;
        process::end_all_children().ok()?;
        Some(status)
    }
}

fn read_orders(orders: BufReader<UnixStream>, tell: &Sender<News>) {
    for line in orders.lines().map_while(Result::ok) {
        let Some(order) = Order::read(&line) else { break };
        if tell.send(News::Order(order)).is_err() {
            return;
        }
    }
    // The watchdog may be at its end too.
    tell.send(News::MasterIsDead).ok();
}

/// The exit code of a program; one that was ended by a signal has 128 more than its number.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Whether there is a program of that name on the path, or at it.
pub(in crate::cli) fn is_program(program: &OsStr) -> bool {
    let can_run = |path: &Path| {
        path.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & EXECUTABLE != 0)
    };
    let path = Path::new(program);
    match path.components().count() {
        1 if !program.as_encoded_bytes().contains(&b'/') => {
            let folders = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&folders).any(|folder| can_run(&folder.join(path)))
        }
        _ => can_run(path),
    }
}

/// For the owner, the group or others.
const EXECUTABLE: u32 = 0o111;
