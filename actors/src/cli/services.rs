//! `services`: outside programs that the cluster keeps running.

use std::time::Duration;

use actix_rt::time::sleep;
use awc::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use synod_runtime::world::{Clock as _, Instant, RealClock};

use super::{
    args::ClientArgs,
    call::text,
    client::Cluster,
    failure::{Failure, Fate},
    out,
    table::Table,
};
use crate::{
    management::message::{Checkpoint, Probe, Spec, StopSignal},
    server::config::units,
};

/// `services`: a list, or one of its verbs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ServicesArgs {
    #[command(subcommand)]
    verb: Option<ServicesVerb>,
    /// Only this one
    #[arg(value_name = "NAME")]
    service: Option<String>,
    /// Print how it is, and then every change, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    list: ClientArgs,
}

/// What to do with services.
#[derive(Debug, Subcommand)]
enum ServicesVerb {
    /// Let the cluster keep a program running, on one node at a time
    Add(Box<Add>),
    /// Remove a service; its program is ended
    Remove(Named),
    /// Move a service to a node that provides it
    Move(Move),
    /// End its program, and start it nowhere
    Freeze(Named),
    /// Start it again
    Unfreeze(Named),
    /// Take a checkpoint now, and wait until all its secondaries have it
    Checkpoint(Named),
    /// Nodes that may run it come (+NODE) and go (-NODE)
    Providers(Providers),
    /// Change how many secondaries it wants
    Set(Set),
}

/// A new service.
#[derive(Debug, Args)]
struct Add {
    /// Its name
    name: String,
    /// Nodes that may run it [default: all mains and members]
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    providers: Vec<String>,
    /// How many are next in line
    #[arg(long, value_name = "N", default_value_t = 1)]
    secondaries: u32,
    /// It is always on the same node as this one, and moves with it
    #[arg(long, value_name = "OTHER")]
    with: Option<String>,
    /// It starts after this one and stops before it; several by commas
    #[arg(long, value_name = "OTHER", value_delimiter = ',')]
    needs: Vec<String>,
    /// How long nobody else may have it once its node falls silent
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::duration)]
    lease: Duration,
    /// A shell command that ends with 0 once the program serves
    #[arg(long, value_name = "CMD")]
    ready: Option<String>,
    /// A shell command that ends with 0 while the program is well; else it is restarted
    #[arg(long, value_name = "CMD")]
    live: Option<String>,
    /// How often these are asked
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    probe_every: Duration,
    /// A shell command that writes the program's state, at its primary
    #[arg(long, value_name = "CMD", requires = "import")]
    export: Option<String>,
    /// A shell command that reads that state, at each secondary
    #[arg(long, value_name = "CMD", requires = "export")]
    import: Option<String>,
    /// How often the state is passed on
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    every: Duration,
    /// Of its secondaries the one with the newest state takes over, whatever their names
    #[arg(long, requires = "export")]
    freshest: bool,
    /// What asks the program to end: term, int, quit or hup
    #[arg(long, value_name = "SIGNAL", default_value = "term", value_parser = signal)]
    stop_signal: StopSignal,
    /// How long it has then
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = units::duration)]
    stop_within: Duration,
    /// More restarts in a minute, and another node has a try
    #[arg(long, value_name = "N", default_value_t = 3)]
    restarts: u32,
    #[command(flatten)]
    client: ClientArgs,
    /// The program and its arguments; it gets SYNOD_SERVICE, SYNOD_NODE and SYNOD_EPOCH
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// A service, and whom to ask.
#[derive(Debug, Args)]
struct Named {
    /// Its name
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to.
#[derive(Debug, Args)]
struct Move {
    /// The service
    name: String,
    /// The node
    node: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Who may run it.
#[derive(Debug, Args)]
struct Providers {
    /// The service
    name: String,
    /// +NODE or -NODE
    #[arg(required = true, allow_hyphen_values = true, value_name = "+NODE|-NODE")]
    changes: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// What to change.
#[derive(Debug, Args)]
struct Set {
    /// The service
    name: String,
    /// How many are next in line
    #[arg(long, value_name = "N")]
    secondaries: u32,
    #[command(flatten)]
    client: ClientArgs,
}

impl ServicesArgs {
    /// Whom to ask.
    pub(crate) fn client(&self) -> &ClientArgs {
        match &self.verb {
            None => &self.list,
            Some(ServicesVerb::Add(add)) => &add.client,
            Some(
                ServicesVerb::Remove(one)
                | ServicesVerb::Freeze(one)
                | ServicesVerb::Unfreeze(one)
                | ServicesVerb::Checkpoint(one),
            ) => &one.client,
            Some(ServicesVerb::Move(to)) => &to.client,
            Some(ServicesVerb::Providers(providers)) => &providers.client,
            Some(ServicesVerb::Set(set)) => &set.client,
        }
    }
}

/// Does what the verb says; without one, lists.
pub(crate) async fn run(args: &ServicesArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(args.client())?;
    let Some(verb) = &args.verb else { return list(&cluster, args).await };
    let Change { method, what, path, body, goal } = verb.change()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = cluster.send(method, &path, body).await?;
    if let Err(exit) = answer.outcome() {
        return Err(answer.refusal(exit, what, "see `services` for what there is"));
    }
    if args.client().json {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let has = said.get("nodes").map(|nodes| json!({"outcome": "applied", "nodes": nodes}));
        out::say(has.unwrap_or_else(|| json!({"outcome": "applied"})))?;
    }
    match goal {
        Some((service, goal)) => settle(&cluster, args.client(), &what, service, &goal).await,
        None => Ok(()),
    }
}

/// What is asked of a node, and when it is done.
struct Change<'a> {
    method: Method,
    what: String,
    path: String,
    body: Value,
    goal: Option<(&'a str, Goal)>,
}

/// What a change was for. It is applied before; that it came so far is waited for.
enum Goal {
    Runs,
    RunsAt(String),
    Frozen,
}

impl ServicesVerb {
    fn change(&self) -> Result<Change<'_>, Failure> {
        let post = |service: &str, verb: &str, body| {
            let (what, path) = (format!("services {verb} {service}"), path(service)?);
            let path = format!("{path}/{verb}");
            Ok::<_, Failure>(Change { method: Method::POST, what, path, body, goal: None })
        };
        let (change, service, goal) = match self {
            Self::Add(add) => {
                let spec = add.spec();
                spec.check().map_err(|why| Failure::usage("services add", why, "see --help"))?;
                let body = serde_json::to_value(&spec).expect("plain data encodes");
                let (method, path) = (Method::PUT, path(&add.name)?);
                let what = format!("services add {}", add.name);
                (Change { method, what, path, body, goal: None }, &add.name, Some(Goal::Runs))
            }
            Self::Remove(one) => {
                let (what, path) = (format!("services remove {}", one.name), path(&one.name)?);
                let (method, body) = (Method::DELETE, Value::Null);
                (Change { method, what, path, body, goal: None }, &one.name, None)
            }
            Self::Move(to) => {
                let change = post(&to.name, "move", json!({ "node": to.node }))?;
                (change, &to.name, Some(Goal::RunsAt(to.node.clone())))
            }
            Self::Freeze(one) => {
                (post(&one.name, "freeze", Value::Null)?, &one.name, Some(Goal::Frozen))
            }
            Self::Unfreeze(one) => {
                (post(&one.name, "unfreeze", Value::Null)?, &one.name, Some(Goal::Runs))
            }
            Self::Checkpoint(one) => (post(&one.name, "checkpoint", Value::Null)?, &one.name, None),
            Self::Providers(providers) => {
                (post(&providers.name, "providers", providers.body()?)?, &providers.name, None)
            }
            Self::Set(set) => {
                let body = json!({ "secondaries": set.secondaries });
                (post(&set.name, "set", body)?, &set.name, None)
            }
        };
        Ok(Change { goal: goal.map(|goal| (service.as_str(), goal)), ..change })
    }
}

/// Waits, as long as answers are waited for, until the change has shown; says what stands in its way.
async fn settle(
    cluster: &Cluster,
    args: &ClientArgs,
    what: &str,
    service: &str,
    goal: &Goal,
) -> Result<(), Failure> {
    let (began, path) = (RealClock.now(), path(service)?);
    let mut ran: Option<(Value, Instant)> = None;
    let mut last = "no node shows it yet".to_owned();
    while RealClock.now().since(began) < args.timeout {
        // The change is made, whether or not anybody says so.
        let Ok(answer) = cluster.read(Method::GET, &path, String::new()).await else { break };
        // The node that answers may not have heard of it yet.
        let document: Value = match answer.outcome() {
            Ok(()) => serde_json::from_slice(&answer.body).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let document = if is_stale(&document) { Value::Null } else { document };
        let (state, why) = (document["state"].as_str().unwrap_or_default(), &document["why"]);
        last = format!(
            "{service} is {state}{}",
            why.as_str().map_or_else(String::new, |why| format!(": {why}"))
        );
        match (goal, state) {
            (Goal::Runs | Goal::RunsAt(_), "restarting" | "failed") if why.is_string() => {
                let why = format!("applied, but at {}: {}", text(&document["primary"]), text(why));
                let hint = "see the node's log; `services remove` takes it back";
                return Err(Failure::failed(what, why, hint).with(Fate::Applied));
            }
            (Goal::Runs, "running") if document["primary"].is_string() => {
                // One without a probe *runs* as soon as it was begun.
                let (epoch, since) =
                    ran.take().unwrap_or_else(|| (document["epoch"].clone(), RealClock.now()));
                if epoch == document["epoch"] && RealClock.now().since(since) >= STEADY {
                    return Ok(());
                }
                ran = (epoch == document["epoch"]).then_some((epoch, since));
            }
            (Goal::RunsAt(node), "running") if document["primary"] == **node => return Ok(()),
            (Goal::Frozen, "frozen") => return Ok(()),
            (Goal::Runs | Goal::RunsAt(_), "waiting") if why.is_string() => break,
            _ => {}
        }
        sleep(LOOK).await;
    }
    out::tell(format_args!("{what}: applied; {last}"));
    Ok(())
}

/// Between two looks at a change that was made.
const LOOK: Duration = Duration::from_millis(50);

/// A program that runs for so long was begun well.
const STEADY: Duration = Duration::from_millis(300);

impl Add {
    fn spec(&self) -> Spec {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let words = |command: &str| ["sh", "-c", command].map(str::to_owned).to_vec();
        let probe = |command: &Option<String>| {
            let (command, every_ms) = (words(command.as_deref()?), ms(self.probe_every));
            Some(Probe { every_ms, within_ms: every_ms, ..Probe::new(command) })
        };
        let passed_on = self.export.as_ref().zip(self.import.as_ref());
        let checkpoint = passed_on.map(|(export, import)| Checkpoint {
            export: words(export),
            import: words(import),
            every_ms: ms(self.every),
            freshest: self.freshest,
        });
        Spec {
            name: self.name.clone(),
            command: self.command.clone(),
            providers: self.providers.clone(),
            secondaries: self.secondaries,
            with: self.with.clone(),
            needs: self.needs.clone(),
            lease_ms: ms(self.lease),
            ready: probe(&self.ready),
            live: probe(&self.live),
            checkpoint,
            stop_signal: self.stop_signal,
            stop_within_ms: ms(self.stop_within),
            restarts: self.restarts,
            actor: false,
        }
    }
}

impl Providers {
    fn body(&self) -> Result<Value, Failure> {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for change in &self.changes {
            match change.split_at_checked(1) {
                Some(("+", node)) if !node.is_empty() => add.push(node),
                Some(("-", node)) if !node.is_empty() => remove.push(node),
                _ => {
                    let why = format!("{change:?} says neither +NODE nor -NODE");
                    return Err(Failure::usage("services providers", why, "write +m2 or -b"));
                }
            }
        }
        Ok(json!({ "add": add, "remove": remove }))
    }
}

/// Whether the node that answered may not know how it is by now.
fn is_stale(service: &Value) -> bool {
    service["stale"] == Value::Bool(true)
}

/// A line for a service that changed.
fn line(service: &Value) -> String {
    let [name, state, primary, epoch] =
        ["service", "state", "primary", "epoch"].map(|key| text(&service[key]));
    let why = service["why"].as_str().map_or_else(String::new, |why| format!("\t{why}"));
    match service["removed"] == Value::Bool(true) {
        true => format!("{name}\tremoved\n"),
        false => format!("{name}\t{state}\t{primary}\t{epoch}{why}\n"),
    }
}

async fn list(cluster: &Cluster, args: &ServicesArgs) -> Result<(), Failure> {
    if args.watch {
        let path = args.service.as_deref().map_or_else(|| Ok("/services".to_owned()), path)?;
        let path = format!("{path}?watch=true");
        return super::roles::watch::run(cluster, &path, args.list.json, line).await;
    }
    let document = match &args.service {
        None => cluster.get("/services").await?.1,
        Some(service) => {
            let answer = cluster.read(Method::GET, &path(service)?, String::new()).await?;
            if let Err(exit) = answer.outcome() {
                let (what, why) = (format!("services {service}"), answer.error_text());
                let failure = Failure::new(exit, what, why, "see `services` for what there is");
                return Err(failure.with(Fate::NotApplied));
            }
            serde_json::from_slice(&answer.body).unwrap_or_default()
        }
    };
    if args.list.json {
        return out::say(document).map(drop);
    }
    let services = document["services"].as_array().cloned().unwrap_or_else(|| vec![document]);
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        "PRIMARY",
        "EPOCH",
        "SECONDARIES",
        "SPARES",
        "DOWN",
        "COMMAND",
    ]);
    for service in &services {
        let list = |key: &str, by: &str| {
            let words = service[key].as_array().into_iter().flatten().map(text);
            words.collect::<Vec<_>>().join(by)
        };
        let [name, state, primary, epoch] =
            ["service", "state", "primary", "epoch"].map(|key| text(&service[key]));
        let [secondaries, spares, down] =
            ["secondaries", "spares", "down"].map(|key| list(key, ","));
        let command = match service["kind"] == "actor" {
            true => "(an actor of the program)".to_owned(),
            false => list("command", " "),
        };
        table.row([name, state, primary, epoch, secondaries, spares, down, command]);
    }
    table.print()?;
    if services.iter().any(is_stale) {
        out::tell(format_args!(
            "this may be old: no quorum confirms it, or the node that answered catches up"
        ));
    }
    for service in &services {
        if let Some(why) = service["why"].as_str() {
            out::say(format!("{}: {why}", text(&service["service"])))?;
        }
    }
    Ok(())
}

/// A service's name becomes a part of a path.
fn path(service: &str) -> Result<String, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    if service.is_empty() || !service.chars().all(good) {
        let why = format!("{service:?} is no name of a service");
        return Err(Failure::usage("NAME", why, "write letters, digits and . _ - @ :"));
    }
    Ok(format!("/services/{service}"))
}

pub(super) fn signal(text: &str) -> Result<StopSignal, String> {
    serde_json::from_value(json!(text)).map_err(|_| "write term, int, quit or hup".to_owned())
}
