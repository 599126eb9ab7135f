//! The watchdog: the process between `elect` and the program.
//!
//! It lives in a session of its own, so that nothing which stops or ends `elect` ends it, and it is
//! the program's parent, so that it knows when the program is gone. It holds one end of a pair of
//! sockets: from the other end `elect` tells it how long the lease is, and when that end closes,
//! `elect` is dead. Between two words it waits on a timer of CLOCK_BOOTTIME, which counts also while
//! the machine sleeps.
//!
//! Whatever the program started, and whoever of that left its process group, becomes a child of the
//! watchdog when its parent ends, and is killed before the watchdog says *gone*. Should the watchdog
//! itself be killed, the kernel kills the program.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream, unix::process::ExitStatusExt as _},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use actix_rt::System;
use synod_runtime::world::{Clock as _, Instant, RealClock};

use super::{
    WatchdogArgs,
    guard::{Act, Guard},
    lease::{Lease, resign},
    words::{Order, Report},
};
use crate::cli::{
    client::Cluster,
    failure::Failure,
    process::{self, BootTimer, Signal},
};

/// Runs the program until it ends or its lease does.
pub(in crate::cli) fn run(args: &WatchdogArgs) -> Result<ExitCode, Failure> {
    let broken = |error: io::Error| {
        Failure::failed("elect's watchdog", error, "it is started by `elect` only")
    };
    process::own_session().map_err(broken)?;
    process::adopt_orphans().map_err(broken)?;
    // The stream is standard input; the program gets none.
    let stream = io::stdin().as_fd().try_clone_to_owned().map_err(broken)?;
    let elect = UnixStream::from(stream);
    let until = Instant::from_nanos(args.until);
    let guard = Guard::new(args.lease, until);
    if RealClock.now() >= guard.next() {
        // We were stopped before we could begin: nothing was started.
        writeln!(&elect, "{}\n{}", Report::Ending, Report::Gone(0)).ok();
        return Ok(ExitCode::SUCCESS);
    }
    let mut dog = match Watchdog::start(args, guard, &elect) {
        Ok(dog) => dog,
        Err(error) => {
            // Whoever is gone needs no report.
            writeln!(&elect, "{}", Report::NotStarted(error.to_string())).ok();
            return Ok(ExitCode::SUCCESS);
        }
    };
    // Without a word nobody gives the role up before its time.
    let Some(status) = dog.watch() else { return Ok(ExitCode::FAILURE) };
    let told = writeln!(&elect, "{}", Report::Gone(code(status)));
    if dog.alone || told.is_err() {
        resign_for_the_dead(args);
    }
    Ok(ExitCode::SUCCESS)
}

struct Watchdog<'a> {
    guard: Guard,
    program: Child,
    timer: Arc<BootTimer>,
    news: Receiver<News>,
    elect: &'a UnixStream,
    /// The program is to end.
    ending: bool,
    /// `elect` is dead.
    alone: bool,
}

enum News {
    Order(Order),
    ElectIsDead,
    Timer,
    /// The program has ended, and was not waited for.
    Ended,
}

impl<'a> Watchdog<'a> {
    fn start(args: &WatchdogArgs, guard: Guard, elect: &'a UnixStream) -> io::Result<Self> {
        let (tell, news) = channel();
        let timer = Arc::new(BootTimer::new()?);
        let orders = BufReader::new(elect.try_clone()?);
        let (name, words) = args.command.split_first().expect("clap wants one");
        let mut command = Command::new(name);
        command.args(words).stdin(Stdio::null());
        command.env("SYNOD_ROLE", &args.role).env("SYNOD_NODE", args.node.as_str());
        command.env("SYNOD_EPOCH", args.epoch.to_string());
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
        Ok(Self { guard, program, timer, news, elect, ending: false, alone: false })
    }

    /// Watches the program until it and all it started are gone; `None` when that cannot be known.
    fn watch(&mut self) -> Option<ExitStatus> {
        loop {
            match self.guard.act(RealClock.now(), self.ending) {
                Act::Nothing => {}
                Act::Terminate => {
                    process::signal_group(self.program.id(), Signal::Terminate);
                    if !self.ending {
                        // The program ends for want of a renewal; `elect` may be stopped.
                        writeln!(self.elect, "{}", Report::Ending).ok();
                    }
                }
                Act::Kill => return self.end(),
            }
            self.timer.set(self.guard.next());
            match self.news.recv() {
                Ok(News::Order(Order::Until(until))) => self.guard.extend(until),
                Ok(News::Order(Order::End)) => self.ending = true,
                Ok(News::Order(Order::Kill)) => self.guard.kill(),
                Ok(News::ElectIsDead) => (self.ending, self.alone) = (true, true),
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
    tell.send(News::ElectIsDead).ok();
}

/// The exit code of a program; one that was ended by a signal has 128 more than its number.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Nobody else is left to give the role up, and the program is gone: the next need not wait for
/// the lease to run out.
fn resign_for_the_dead(args: &WatchdogArgs) {
    let Ok(cluster) = Cluster::open(&args.client) else { return };
    let lease = Lease {
        role: args.role.clone(),
        holder: args.holder.clone(),
        node: args.node.clone(),
        epoch: args.epoch,
        length: args.lease,
        until: Instant::from_nanos(args.until),
    };
    // Without it the lease runs out by itself.
    System::new().block_on(resign(&cluster, &lease)).ok();
}
