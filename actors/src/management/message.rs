//! Services as people describe them, and what is asked of the table. These words stand in the log.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::election::{
    lease::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN},
    message::{Epoch, check_name},
};

/// A service: an outside program, or an actor of the program itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The program and its arguments; none of an actor.
    #[serde(default)]
    pub command: Vec<String>,
    /// Nodes that may run it; none: every main and member.
    #[serde(default)]
    pub providers: Vec<String>,
    /// How many are next in line; the others are spares.
    #[serde(default = "one")]
    pub secondaries: u32,
    /// It is always on the same node as this one.
    #[serde(default)]
    pub with: Option<String>,
    /// It runs only while these do: begins after them, and ends before they do.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The lease of its role; of those placed together, that of the one the others are with.
    #[serde(default = "lease_default_ms")]
    pub lease_ms: u32,
    /// Says that it serves: until then it is *starting*.
    #[serde(default)]
    pub ready: Option<Probe>,
    /// Says that it is well: else it is restarted.
    #[serde(default)]
    pub live: Option<Probe>,
    /// How its state is passed on to its secondaries.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// What asks it to end.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// How long it has then, in milliseconds.
    #[serde(default = "stop_default_ms")]
    pub stop_within_ms: u32,
    /// More restarts than this within [`RESTARTS_WITHIN`], and another node has a try.
    #[serde(default = "restarts_default")]
    pub restarts: u32,
    /// It is an actor of the program, which hosts it on nodes where it may live.
    #[serde(default)]
    pub actor: bool,
}

/// A question to a running program: a command that ends with 0 for *yes*.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How often it is asked.
    #[serde(default = "probe_every_ms")]
    pub every_ms: u32,
    /// No answer by then is a *no*.
    #[serde(default = "probe_within_ms")]
    pub within_ms: u32,
    /// So many in a row count.
    #[serde(default = "probe_failures")]
    pub failures: u32,
}

/// How the state of a service is passed on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Writes the state to its standard output, at the primary while the program runs.
    pub export: Vec<String>,
    /// Reads it from its standard input, at each secondary.
    pub import: Vec<String>,
    /// How often.
    #[serde(default = "checkpoint_every_ms")]
    pub every_ms: u32,
    /// Of its secondaries the one that has the newest takes over, whatever their names.
    #[serde(default)]
    pub freshest: bool,
}

/// What asks a program to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
}

/// What is asked of the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// A new service. `configured`: it stands in a node file, and one that is there stays as it is.
    Add {
        /// What it is.
        spec: Spec,
        /// Whether one of that name may be there.
        configured: bool,
    },
    /// No such service any more; its program is ended.
    Remove(String),
    /// That node shall be its primary.
    Move {
        /// The service.
        service: String,
        /// The node.
        node: String,
    },
    /// Its program is ended everywhere until it is unfrozen; or it is unfrozen.
    Freeze {
        /// The service.
        service: String,
        /// Which of both.
        frozen: bool,
    },
    /// Nodes that may run it come and go.
    Providers {
        /// The service.
        service: String,
        /// From now on these, too.
        add: Vec<String>,
        /// These no more.
        remove: Vec<String>,
    },
    /// Another number of secondaries.
    Set {
        /// The service.
        service: String,
        /// How many.
        secondaries: u32,
    },
    /// How it is, from its primary.
    Report(Report),
    /// These are next in line from now on, says its primary: the whole list, first come first.
    Secondaries {
        /// The service; of those placed together, the one the others are with.
        service: String,
        /// As its primary in this epoch.
        epoch: Epoch,
        /// Who they are.
        nodes: Vec<String>,
    },
}

/// How a service is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub service: String,
    /// Who says so.
    pub node: String,
    /// As its primary in this epoch.
    pub epoch: Epoch,
    /// How it is.
    pub state: State,
    /// What went wrong, if something did; at most [`WHY_BYTES_MAX`] bytes.
    pub why: Option<String>,
}

/// How a program is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was started and has not said yet that it serves.
    Starting,
    /// It runs, and serves if it can say so.
    Running,
    /// It ended, or was not well, and is started again soon.
    Restarting,
    /// It was asked to end.
    Stopping,
    /// It is gone; another node has its turn.
    Stopped,
    /// It could not be kept running here; another node has a try.
    Failed,
}

/// What the table answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// It is so now.
    Done,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why the table did nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No service of that name.
    #[error("there is no service {0}")]
    Unknown(String),
    /// One of that name is there.
    #[error("there is a service {0} already")]
    There(String),
    /// The description cannot be.
    #[error("{0}")]
    Bad(String),
    /// Another service stands in the way.
    #[error("{0}")]
    Tied(String),
    /// It needs another, or is placed with it, and that is not there.
    #[error("service {service}: there is no service {other}; add {other} first")]
    Missing {
        /// The service.
        service: String,
        /// What it named.
        other: String,
    },
    /// That node does not provide it.
    #[error("{node} does not provide {service}; its providers are {providers}")]
    NoProvider {
        /// The service.
        service: String,
        /// The node.
        node: String,
        /// Who does.
        providers: String,
    },
    /// An older epoch than the known one.
    #[error("epoch {epoch} of service {service} is over")]
    Stale {
        /// The service.
        service: String,
        /// The reporter's epoch.
        epoch: Epoch,
    },
    /// A bound is reached.
    #[error("{0}")]
    Full(String),
}

impl Spec {
    /// A service of that name and command, with what is usual for the rest.
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            providers: Vec::new(),
            secondaries: one(),
            with: None,
            needs: Vec::new(),
            lease_ms: lease_default_ms(),
            ready: None,
            live: None,
            checkpoint: None,
            stop_signal: StopSignal::default(),
            stop_within_ms: stop_default_ms(),
            restarts: restarts_default(),
            actor: false,
        }
    }

    /// An actor of the program, under a lease of that length.
    pub fn actor(name: &str, lease: Duration) -> Self {
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        Self { lease_ms, actor: true, ..Self::new(name, &[]) }
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// What is wrong with it, and what would do.
    pub fn check(&self) -> Result<(), Refusal> {
        let bad = |why: String| Err(Refusal::Bad(format!("service {}: {why}", self.name)));
        check_name("service", &self.name).map_err(|error| Refusal::Bad(error.to_string()))?;
        if self.name.len() > SERVICE_NAME_BYTES_MAX {
            return bad(format!("a name has {SERVICE_NAME_BYTES_MAX} bytes at most"));
        }
        let probes = [("ready", &self.ready), ("live", &self.live)];
        let commands = probes
            .iter()
            .filter_map(|(what, probe)| probe.as_ref().map(|probe| (*what, &probe.command)));
        let passed_on = self.checkpoint.iter();
        let passed_on = passed_on.flat_map(|c| [("export", &c.export), ("import", &c.import)]);
        let own = [("command", &self.command)].into_iter().filter(|_| !self.actor);
        for (what, command) in commands.chain(passed_on).chain(own) {
            let bytes: usize = command.iter().map(String::len).sum();
            if command.first().is_none_or(String::is_empty) {
                return bad(format!("{what}: name a program"));
            }
            if command.iter().any(|word| word.contains('\0')) || bytes > COMMAND_BYTES_MAX {
                return bad(format!(
                    "{what}: {COMMAND_BYTES_MAX} bytes at most, none of them zero"
                ));
            }
        }
        if let Some(what) = self.not_of_actors() {
            return bad(format!("it is an actor of the program, and those have no `{what}`"));
        }
        for probe in probes.iter().filter_map(|(_, probe)| probe.as_ref()) {
            if probe.every_ms < PROBE_MS_MIN
                || probe.within_ms < PROBE_MS_MIN
                || probe.failures == 0
            {
                return bad(format!("a probe takes {PROBE_MS_MIN} ms at least, and one failure"));
            }
        }
        if self.checkpoint.as_ref().is_some_and(|one| one.every_ms < CHECKPOINT_EVERY_MS_MIN) {
            return bad(format!("checkpoints are {CHECKPOINT_EVERY_MS_MIN} ms apart at least"));
        }
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease()) {
            return bad(format!("a lease lasts {LEASE_MIN:?} to {LEASE_MAX:?}"));
        }
        if self.stop_within() > STOP_WITHIN_MAX {
            return bad(format!("it has {STOP_WITHIN_MAX:?} to end at most"));
        }
        if self.needs.len() > NEEDS_MAX {
            return bad(format!("it needs {NEEDS_MAX} others at most"));
        }
        if self.needs.iter().chain(&self.with).any(|other| *other == self.name) {
            return bad("it names itself; name another service".to_owned());
        }
        self.check_providers()
    }

    /// What only outside programs have, if this is an actor and has some.
    fn not_of_actors(&self) -> Option<&'static str> {
        let has = [
            ("command", !self.command.is_empty()),
            ("with", self.with.is_some()),
            ("needs", !self.needs.is_empty()),
            ("ready", self.ready.is_some()),
            ("live", self.live.is_some()),
            ("export", self.checkpoint.is_some()),
        ];
        let one = has.into_iter().find(|(_, has)| *has);
        one.filter(|_| self.actor).map(|(what, _)| what)
    }

    pub(super) fn check_providers(&self) -> Result<(), Refusal> {
        let mut known = std::collections::BTreeSet::new();
        for provider in &self.providers {
            if !known.insert(provider) {
                let why = format!("service {}: provider {provider} is there twice", self.name);
                return Err(Refusal::Bad(why));
            }
        }
        if self.providers.len() > PROVIDERS_MAX {
            return Err(Refusal::Full(format!("a service has {PROVIDERS_MAX} providers at most")));
        }
        match self.providers.is_empty() {
            true => Ok(()),
            false => self.check_secondaries(self.providers.len()),
        }
    }

    /// Whether so many nodes are enough for its secondaries. One secondary may always be wanted.
    pub(crate) fn check_secondaries(&self, nodes: usize) -> Result<(), Refusal> {
        let others = nodes.saturating_sub(1);
        if self.secondaries as usize <= others.max(1) {
            return Ok(());
        }
        let (name, wanted) = (&self.name, self.secondaries);
        let why = format!(
            "service {name}: {wanted} secondaries, and {others} other nodes that may run it; want \
             {others} or name more providers"
        );
        Err(Refusal::Bad(why))
    }

    /// The lease of its role.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    /// How long it has to end.
    pub fn stop_within(&self) -> Duration {
        Duration::from_millis(self.stop_within_ms.into())
    }

    /// All its commands: the program, and what else is run for it.
    pub fn commands(&self) -> impl Iterator<Item = &[String]> {
        let probes = self.ready.iter().chain(&self.live).map(|probe| &probe.command);
        let passed_on = self.checkpoint.iter().flat_map(|one| [&one.export, &one.import]);
        let own = [&self.command].into_iter().filter(|_| !self.actor);
        own.chain(probes).chain(passed_on).map(Vec::as_slice)
    }
}

impl Probe {
    /// That command, asked as is usual.
    pub const fn new(command: Vec<String>) -> Self {
        Self {
            command,
            every_ms: probe_every_ms(),
            within_ms: probe_within_ms(),
            failures: probe_failures(),
        }
    }
}

const fn one() -> u32 {
    1
}

fn lease_default_ms() -> u32 {
    u32::try_from(LEASE_DEFAULT.as_millis()).expect("two seconds fit")
}

/// What service managers give a program.
const fn stop_default_ms() -> u32 {
    4_000
}

const fn restarts_default() -> u32 {
    3
}

const fn checkpoint_every_ms() -> u32 {
    5_000
}

const fn probe_every_ms() -> u32 {
    1_000
}

const fn probe_within_ms() -> u32 {
    1_000
}

const fn probe_failures() -> u32 {
    3
}

/// More restarts within this time than a service may have, and another node has a try.
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// Its role has a name of its own, a little longer.
pub const SERVICE_NAME_BYTES_MAX: usize = 200;

/// Longer than any command line that people write.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// What went wrong is told in a line.
pub const WHY_BYTES_MAX: usize = 200;

/// More would be a plan that nobody oversees.
pub const NEEDS_MAX: usize = 32;

/// As many nodes as a cluster has.
pub const PROVIDERS_MAX: usize = 128;

/// A node is stopped within five seconds; whoever needs longer is killed at its lease's end.
pub const STOP_WITHIN_MAX: Duration = Duration::from_mins(5);

/// A node has other work than to pass on states.
pub const CHECKPOINT_EVERY_MS_MIN: u32 = 100;

/// The largest checkpoint: it goes in one message, which must not hold up a link for long.
pub const CHECKPOINT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Finer probes would cost more than what they ask about.
pub const PROBE_MS_MIN: u32 = 50;
