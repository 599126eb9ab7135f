//! A role from standing for it to its end, and again with `--keep`.

use std::{
    cell::Cell,
    ffi::OsString,
    fs,
    process::{ExitCode, Stdio},
    time::Duration,
};

use actix_rt::time::sleep;
use rand::Rng as _;
use synod_runtime::world::{Clock as _, Entropy as _, Instant, RealClock, RealEntropy};

use super::{
    ElectArgs,
    lease::{Asked, Lease, let_go, period, renew, resign, silence, stand},
};
use crate::{
    cli::{
        client::Cluster,
        failure::{Exit, Failure},
        out,
        watchdog::{Dog, term},
    },
    client::ClientNode,
    server::{
        StopSignal,
        services::programs::{Order, Report},
    },
};

/// One role of `elect`.
#[derive(Clone, Copy)]
pub(super) struct Campaign<'a> {
    pub(super) name: &'static str,
    pub(super) cluster: &'a Cluster,
    pub(super) args: &'a ElectArgs,
    pub(super) role: &'a str,
}

/// How leading ended.
#[derive(Debug)]
enum End {
    /// The program ended by itself.
    Ended(u8),
    /// The program was ended, or never begun, for want of a lease.
    Lost(String),
    /// We were asked to stop.
    Stopped,
}

impl Campaign<'_> {
    /// Stands, leads, and stands again if that is wanted; the exit code.
    pub(super) async fn run(self, mut stop: StopSignal) -> Result<ExitCode, Failure> {
        let keep = self.args.keep || self.args.role.len() > 1;
        loop {
            let lease = tokio::select! {
                biased;
                () = stop.stopped() => return Ok(ExitCode::SUCCESS),
                lease = self.win() => lease?,
            };
            let began = RealClock.now();
            self.say(&format!("leads in epoch {} at node {}", lease.epoch, lease.node));
            match self.lead(lease, &mut stop).await? {
                End::Stopped => return Ok(ExitCode::SUCCESS),
                End::Ended(code) if !keep => return Ok(code.into()),
                End::Lost(why) if !keep => {
                    let hint = "CMD is gone; --keep stands again";
                    let what = format!("role {}", self.role);
                    let why = format!("leadership lost, {why}");
                    return Err(Failure::new(Exit::Lost, what, why, hint));
                }
                End::Ended(code) => self.say(&format!("CMD ended with {code}; stands again")),
                End::Lost(why) => self.say(&format!("leadership lost, {why}; stands again")),
            }
            // A program that ends at once must not keep the cluster busy with elections.
            let ran = RealClock.now().since(began);
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(ExitCode::SUCCESS),
                () = sleep(TERM_MIN.saturating_sub(ran)) => (),
            }
        }
    }

    /// Stands at one node after the other until it leads.
    async fn win(&self) -> Result<Lease, Failure> {
        let nodes: Vec<&ClientNode> = self.cluster.servers(self.args.node.as_ref()).collect();
        let mut holder = new_holder();
        let mut at = 0;
        let mut vigil = Vigil::new(self.args.timeout);
        loop {
            let (node, asked) = (nodes[at % nodes.len()], RealClock.now());
            let stood = tokio::select! {
                biased;
                stood = stand(self.cluster, node, self.role, &holder, self.args.lease) => stood,
                why = silence(self.cluster, node, self.args.lease, &vigil.heard) => {
                    Asked::Nobody(why)
                }
            };
            if let Some(news) = vigil.look(&stood, RealClock.now()) {
                self.say(&news);
            }
            match stood {
                Asked::Good(lease) if RealClock.now() < lease.until - lease.length / 5 * 3 => {
                    return Ok(lease);
                }
                // A node that was stopped granted it too late to begin anything.
                Asked::Good(lease) => {
                    resign(self.cluster, &lease).await.ok();
                }
                // Answered at once, again and again, it would keep the cluster busy.
                Asked::Held(_) if RealClock.now().since(asked) < PAUSE => sleep(PAUSE).await,
                Asked::Held(_) => {}
                Asked::Nobody(_) | Asked::Late(_) => {
                    at += 1;
                    sleep(PAUSE).await;
                    // What was granted when nobody listened any more would stand in our own way.
                    let next = nodes[at % nodes.len()];
                    let_go(self.cluster, next, self.role, &holder, None).await.ok();
                    // A node that is stopped does this, and that, only when it goes on: by then we
                    // may lead, under a name that those requests do not know.
                    holder = new_holder();
                }
                Asked::Wrong(why) => {
                    let what = format!("role {}", self.role);
                    let why = format!("not applied, {why}");
                    return Err(Failure::failed(what, why, "see `roles` for what there is"));
                }
            }
        }
    }

    /// Leads until the program is gone.
    async fn lead(&self, mut lease: Lease, stop: &mut StopSignal) -> Result<End, Failure> {
        let mut dog = match Dog::start(&self.words(&lease), Stdio::inherit()) {
            Ok(dog) => dog,
            Err(error) => return Err(self.not_started(&lease, error.to_string()).await),
        };
        let (mut lost, mut stopping) = (None, false);
        loop {
            let renewed = async {
                until(lease.until - lease.length + period(lease.length)).await;
                renew(self.cluster, &lease, self.args.node.as_ref()).await
            };
            tokio::select! {
                // What the watchdog says comes first: we may have been stopped for long.
                biased;
                report = dog.next() => match report {
                    Some(Report::Ending) => {
                        lost.get_or_insert_with(|| "it was not renewed in time".to_owned());
                    }
                    Some(Report::Gone(code)) => {
                        dog.gone().await;
                        // The next need not wait; without a word the lease runs out by itself.
                        resign(self.cluster, &lease).await.ok();
                        return Ok(match lost {
                            Some(why) => End::Lost(why),
                            None if stopping => End::Stopped,
                            None => End::Ended(code),
                        });
                    }
                    Some(Report::NotStarted(why)) => {
                        return Err(self.not_started(&lease, why).await);
                    }
                    None => {
                        // The program was killed with it, but what the program started may live:
                        // nobody gives the role up before its time.
                        until(lease.until).await;
                        return Ok(End::Lost("the watchdog died".to_owned()));
                    }
                },
                () = stop.stopped(), if !stopping => {
                    stopping = true;
                    dog.tell(Order::End).await;
                }
                renewed = renewed, if lost.is_none() => match renewed {
                    Asked::Good(longer) => {
                        lease = longer;
                        dog.tell(Order::Until(lease.until)).await;
                    }
                    Asked::Held(why) => {
                        lost = Some(why);
                        dog.tell(Order::Kill).await;
                    }
                    // The watchdog knows the time too.
                    Asked::Nobody(why) | Asked::Late(why) | Asked::Wrong(why) => {
                        lost = Some(why);
                    }
                },
            }
        }
    }

    /// What makes this program the watchdog of a lease.
    fn words(&self, lease: &Lease) -> Vec<OsString> {
        let Lease { role, holder, node, epoch, .. } = lease;
        let whose =
            ["elect-watchdog".to_owned(), format!("--role={role}"), format!("--holder={holder}")];
        let term = term::words(node, *epoch, lease.until, lease.length);
        let words = whose.into_iter().chain(term).chain(["--cluster".to_owned()]);
        let words = words.map(OsString::from);
        let cluster = [self.args.cluster.clone().into_os_string(), OsString::from("--")];
        words.chain(cluster).chain(self.args.command.iter().cloned()).collect()
    }

    async fn not_started(&self, lease: &Lease, why: String) -> Failure {
        resign(self.cluster, lease).await.ok();
        let program = self.args.command[0].to_string_lossy().into_owned();
        Failure::failed(program, format!("cannot be started: {why}"), "see that it can be run")
    }

    /// For people, on standard error: standard output is the program's.
    fn say(&self, what: &str) {
        out::tell(format_args!("{}: role {}: {what}", self.name, self.role));
    }
}

/// Whether anybody lets it stand, for who looks on: it goes on trying for as long as it takes.
struct Vigil {
    /// When any node said last that it serves, or answered.
    heard: Cell<Instant>,
    patience: Duration,
    told: bool,
}

impl Vigil {
    fn new(patience: Duration) -> Self {
        Self { heard: Cell::new(RealClock.now()), patience, told: false }
    }

    /// What is to be said now that it `stood` and had this answer: that nobody answers, once, and when
    /// that is over.
    fn look<T>(&mut self, stood: &Asked<T>, now: Instant) -> Option<String> {
        let why = match stood {
            Asked::Good(_) | Asked::Held(_) => {
                self.heard.set(now);
                None
            }
            Asked::Nobody(why) | Asked::Late(why) => Some(why),
            Asked::Wrong(_) => return None,
        };
        let silent = now.since(self.heard.get()) >= self.patience;
        match why.filter(|_| silent) {
            Some(why) if !self.told => {
                self.told = true;
                Some(format!("nobody lets it stand, there may be no quorum ({why}); tries on"))
            }
            None if self.told && !silent => {
                self.told = false;
                Some("nodes serve again, and it stands".to_owned())
            }
            _ => None,
        }
    }
}

/// A name that nobody else has, nor had: the machine's, ours, and a number.
fn new_holder() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let good = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    let host: String = host.trim().chars().filter(good).take(HOST_CHARS_MAX).collect();
    let number = RealEntropy.rng("elect/holder").next_u32();
    format!("{host}:{}:{number:08x}", std::process::id())
}

/// Timers count no sleep of the machine, and none of ours; so ask the clock again.
async fn until(moment: Instant) {
    loop {
        let left = moment.since(RealClock.now());
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}

/// A program that ran for less is started again only after this time.
const TERM_MIN: Duration = Duration::from_secs(1);

/// Between two nodes that cannot be stood at.
const PAUSE: Duration = Duration::from_millis(100);

/// Names of holders are bounded.
const HOST_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nobody_answers_is_said_once_and_when_it_is_over() {
        let mut vigil = Vigil::new(Duration::from_secs(5));
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        vigil.heard.set(at(1));
        let nobody = || Asked::<()>::Nobody("b says: no quorum".to_owned());
        assert_eq!(vigil.look(&nobody(), at(5)), None);
        let said = vigil.look(&nobody(), at(6)).unwrap();
        assert!(said.contains("(b says: no quorum); tries on"), "{said}");
        assert_eq!(vigil.look(&nobody(), at(60)), None);
        // Whoever holds the role is waited for at a node that serves.
        vigil.heard.set(at(61));
        let late = || Asked::<()>::Late("no answer in 5s".to_owned());
        assert!(vigil.look(&late(), at(62)).unwrap().contains("serve again"));
        assert_eq!(vigil.look(&late(), at(63)), None);
        assert!(vigil.look(&nobody(), at(80)).is_some());
        assert!(vigil.look(&Asked::Good(()), at(81)).is_some());
    }
}
