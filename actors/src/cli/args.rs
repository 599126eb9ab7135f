//! What may be written on the command line.

use std::{num::NonZeroU64, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use synod_runtime::{
    identity::{ClusterName, NodeName},
    sim::FaultPlan,
};

mod examples;
mod members;

use self::examples::{EXAMPLES, FIRST_STEPS};
pub(crate) use self::members::{AddMember, MembersArgs, MembersVerb, SetMember};
pub(crate) use super::elect::{ElectArgs, WatchdogArgs};
pub(crate) use super::keeper::ServiceWatchdogArgs;
pub(crate) use super::roles::RolesArgs;
pub(crate) use super::services::ServicesArgs;
use super::{
    backup::FileArgs,
    call::{ActorsArgs, CallArgs},
    failure::{Exit, Failure},
    inspect::InspectArgs,
    multicast::{MulticastArgs, publish::PublishArgs, subscribe::SubscribeArgs},
    out,
    recover::RecoverArgs,
};
use crate::consensus::Profile;
use crate::server::config::{Durability, HostPort, NodeRole, units};
use crate::sim::Shape;

/// Highly available actors: two full machines, one cheap one, no data lost.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a whole cluster on this machine
    Dev(DevArgs),
    /// Run one node
    Node(NodeArgs),
    /// Write certificates and node files for real machines
    Init(InitArgs),
    /// Show how the cluster is
    Status(ClientArgs),
    /// List who belongs to the cluster, and change it while it runs
    Members(MembersArgs),
    /// Show who leads in which role, or make and remove roles
    Roles(RolesArgs),
    /// Run a program only while it leads in a role
    Elect(ElectArgs),
    /// Send each line of standard input to a group: everybody who subscribes gets the same order
    Publish(PublishArgs),
    /// Print the messages of a group, in order and without a gap
    Subscribe(SubscribeArgs),
    /// Show how the groups stand
    Multicast(MulticastArgs),
    /// The process between `elect` and its program
    #[command(hide = true)]
    ElectWatchdog(WatchdogArgs),
    /// Outside programs that the cluster keeps running; or add, move, freeze or remove one
    Services(ServicesArgs),
    #[command(hide = true)]
    ServiceWatchdog(ServiceWatchdogArgs),
    /// Show the servers behind the agreed order: how far each is, and whether it differs
    Web(ClientArgs),
    /// Watch nodes, links, actors and rates, live
    Top(TopArgs),
    /// Send a command or a query to a replicated actor
    Call(CallArgs),
    /// List the replicated actors and what can be said to them
    Actors(ActorsArgs),
    /// Write the state of a running cluster into a file
    Backup(FileArgs),
    /// Make the state of a running cluster that of a backup
    Restore(FileArgs),
    /// Show what a journal, a snapshot or a backup holds
    Inspect(InspectArgs),
    /// The last resort: begin another cluster with what one node's disk holds
    Recover(RecoverArgs),
    /// Try whole clusters under simulated faults: same arguments, same output
    Simulate(SimulateArgs),
    /// Measure messages between actors, or commands to a cluster
    Bench(BenchArgs),
    /// The other process of `bench remote`
    #[command(hide = true)]
    BenchPeer,
}

/// `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Nodes that keep all data and serve clients: a, b, … [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) mains: Option<usize>,
    /// Cheap nodes that vote only while a main is missing: x, y, … [default: mains − 1]
    #[arg(long, value_name = "N")]
    pub(crate) auxiliaries: Option<usize>,
    /// Nodes that never vote and forward: m1, m2, … [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) members: Option<usize>,
    /// Keep the cluster here, and resume it when it is already there
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// What must survive a power loss: fsync (all that was acknowledged) or memory [default: fsync]
    #[arg(long, value_name = "fsync|memory")]
    pub(crate) durability: Option<Durability>,
    /// Leave nodes that die dead
    #[arg(long)]
    pub(crate) no_restart: bool,
    /// Put the k-th of these servers (http://, redis://) behind the agreed order at the k-th main
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Vec<String>,
    /// One JSON object a line: ready, exited, restarted
    #[arg(long)]
    pub(crate) json: bool,
}

/// `node`. Its flags override the environment, and that the file.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node file; several, or a directory with `*/synod.toml`, for auxiliaries of several
    /// clusters in one process
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Vec<PathBuf>,
    /// Only check the file and what it names
    #[arg(long)]
    pub(crate) check: bool,
    /// A main that was the only one left leads without waiting for the auxiliary; look first
    /// whether another main went on without it
    #[arg(long)]
    pub(crate) accept_sole: bool,
    /// Instead of `data_dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Instead of `quic` in [listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_quic: Option<String>,
    /// Instead of `http` in [listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_http: Option<String>,
    /// Instead of `resp` in [listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_resp: Option<String>,
    /// Instead of `durability` in [consensus]
    #[arg(long, value_name = "fsync|memory")]
    pub(crate) durability: Option<String>,
    /// Instead of `profile` in [consensus]
    #[arg(long, value_name = "lan|wan")]
    pub(crate) profile: Option<String>,
    /// Instead of `filter` in [log], such as debug
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write; one directory a node, to be copied as it is
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME", required_unless_present_any = ["add", "client"])]
    pub(crate) cluster: Option<ClusterName>,
    /// A node that keeps all data and serves clients
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1..)]
    pub(crate) main: Vec<NamedAddress>,
    /// A cheap node that votes only while a main is missing
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1..)]
    pub(crate) auxiliary: Vec<NamedAddress>,
    /// A node that never votes and forwards
    #[arg(long, value_name = "NAME=HOST:PORT", num_args = 1..)]
    pub(crate) member: Vec<NamedAddress>,
    /// One more node for the cluster that `init` wrote to DIR earlier
    #[arg(
        long,
        value_name = "NAME=HOST:PORT",
        requires = "role",
        conflicts_with_all = ["cluster", "main", "auxiliary", "member"]
    )]
    pub(crate) add: Option<NamedAddress>,
    /// A certificate for a client of the cluster that `init` wrote to DIR earlier
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cluster", "main", "auxiliary", "member", "add", "open"])]
    pub(crate) client: Option<NodeName>,
    /// What lies between the machines: lan, or wan (between cities: up to 100 ms a round trip)
    #[arg(long, value_name = "lan|wan", default_value_t, conflicts_with_all = ["add", "client"])]
    pub(crate) profile: Profile,
    /// Lets clients of other machines in: HTTP and RESP listen on all addresses, with TLS and a
    /// token that `client.toml` names
    #[arg(long, conflicts_with = "add")]
    pub(crate) open: bool,
    /// The role of the node to add
    #[arg(long, value_name = "main|auxiliary|member", requires = "add")]
    pub(crate) role: Option<NodeRole>,
}

/// What every verb that asks a running cluster has.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The client file that `dev` or `init` wrote
    #[arg(long, value_name = "FILE", env = "SYNOD_CLUSTER", default_value = "client.toml")]
    pub(crate) cluster: PathBuf,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
    /// One JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    pub(crate) every: Duration,
    /// Print so many pages and end
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The first run's seed; each further run has the next
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many runs
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) runs: u64,
    /// Simulated minutes in which things go wrong; then everything must become well again
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_440))]
    pub(crate) minutes_each: u32,
    /// What goes wrong: all, none, or a list such as loss,partition,crash
    #[arg(long, value_name = "all|none|LIST", default_value = "all")]
    pub(crate) faults: FaultPlan,
    /// What lies between the nodes: lan, or wan (80 ms for a round trip, one packet of a hundred
    /// lost)
    #[arg(long, value_name = "lan|wan", default_value_t)]
    pub(crate) profile: Profile,
    /// Mains, auxiliaries and members [default: by the seed: 2+1, 3+2 or 3+0, with and without a
    /// member]
    #[arg(long, value_name = "MAINS+AUXILIARIES[+MEMBERS]")]
    pub(crate) shape: Option<Shape>,
    /// Fail if anything that may go wrong never did in all these runs, or nothing came of it: for a
    /// long series
    #[arg(long)]
    pub(crate) cover: bool,
}

impl SimulateArgs {
    /// The cluster of a seed.
    pub(crate) fn shape_of(&self, seed: u64) -> Shape {
        self.shape.unwrap_or_else(|| Shape::of_seed(seed))
    }
}

/// `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    pub(crate) what: BenchKind,
    /// How long each row of the table is measured
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How many are in flight [default: the standard grid]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: Option<u32>,
    /// How many listen, at the nodes by turns [multicast; default: one at each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) subscribers: Option<u32>,
    /// Of a value or a message [default: values of 256; messages of 64 and of 1KiB; of groups 1KiB]
    #[arg(long, value_name = "BYTES", value_parser = bench_size)]
    pub(crate) size: Option<u32>,
    /// Of a large body, 0: leave these rows out [web; default: 100 MB]
    #[arg(long, value_name = "BYTES", value_parser = bench_large)]
    pub(crate) large: Option<u32>,
    /// Measure the running cluster that this client file names, not one of its own; its durability
    /// is then its own too [commands, multicast]
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: Option<PathBuf>,
    /// The nodes that clients connect to, by turns [commands, default: the leader;
    /// multicast, default: all that serve groups]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) node: Vec<NodeName>,
    /// What must survive a power loss [commands, multicast, web; default: fsync]
    #[arg(long, value_name = "fsync|memory", conflicts_with = "cluster")]
    pub(crate) durability: Option<Durability>,
    /// One JSON object a row
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchKind {
    /// Messages to an actor of the same node
    Local,
    /// Messages to an actor of another node, over QUIC
    Remote,
    /// Commands of Redis clients to a cluster
    Commands,
    /// Messages to a group, until the last subscriber has them
    Multicast,
    /// HTTP clients of two nginx servers behind a cluster, beside nginx alone
    Web,
}

/// Bytes as a plain number, or written like `1KiB`.
fn bench_size(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<u64>().or_else(|_| units::size(text))?;
    let fits = u32::try_from(bytes).ok().filter(|n| (1..=BENCH_BYTES_MAX).contains(n));
    fits.ok_or_else(|| format!("{text} is out of range; use 1 to {BENCH_BYTES_MAX}"))
}

/// Bytes of a large body, written alike.
fn bench_large(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<u64>().or_else(|_| units::size(text))?;
    let fits = u32::try_from(bytes).ok().filter(|n| *n <= BENCH_LARGE_BYTES_MAX);
    fits.ok_or_else(|| format!("{text} is out of range; use 0 to {BENCH_LARGE_BYTES_MAX}"))
}

/// The largest body that a site takes where its node file says nothing else.
const BENCH_LARGE_BYTES_MAX: u32 = 1 << 30;

/// The largest value the key/value service takes.
const BENCH_BYTES_MAX: u32 = 1 << 20;

/// `a=db1.example.com:7001`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedAddress {
    pub(crate) name: NodeName,
    pub(crate) address: HostPort,
}

impl FromStr for NamedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} has no name; write it like a=db1:7001"))?;
        let name = name.parse().map_err(|e| format!("{e}"))?;
        Ok(Self { name, address: address.parse()? })
    }
}

/// Reads the command line of the program `program`. `Ok(None)` when it asked for help or the
/// version, which was printed.
pub(crate) fn parse(
    program: &'static str,
    line: impl Iterator<Item = std::ffi::OsString>,
) -> Result<Option<Verb>, Failure> {
    use clap::{CommandFactory as _, FromArgMatches as _, error::ErrorKind};
    let mut command = CommandLine::command().name(program).bin_name(program);
    for (verb, examples) in EXAMPLES {
        let examples = format!("Examples:\n{}", examples.replace("synod", program));
        command = command.mut_subcommand(verb, |one| one.after_help(examples));
    }
    command = command.after_help(FIRST_STEPS.replace("synod", program));
    let parsed = command
        .try_get_matches_from_mut(line)
        .and_then(|mut matches| CommandLine::from_arg_matches_mut(&mut matches));
    let error = match parsed {
        Ok(line) => return Ok(Some(line.verb)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            out::verdict(error.print())?;
            Ok(None)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.print().ok();
            let why = "nothing to do";
            Err(Failure::usage("command line", why, &format!("try '{program} --help'")))
        }
        _ => Err(one_line(program, &error)),
    }
}

/// clap explains over several lines; ours has one: what is wrong, its tips, where help is.
fn one_line(program: &str, error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<_> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = said.join(" ");
    let said = said.trim_start_matches("error: ").trim_end_matches('.');
    let said = said.split(" For more information, try").next().unwrap_or(said);
    Failure::new(Exit::Usage, "command line", said, &format!("try '{program} --help'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Verb>, Failure> {
        parse("bank", line.split_whitespace().map(Into::into))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_one_line_and_exit_2() {
        for (line, part) in [
            ("bank dev --mians 3", "--mains"),
            ("bank dev --mains x", "invalid value 'x'"),
            ("bank dev --durability disk", "no durability"),
            ("bank node", "--config <FILE>"),
            ("bank frob", "unrecognized subcommand 'frob'"),
            ("bank status --timeout 5", "150ms"),
            ("bank init --out d", "--cluster"),
            ("bank init --out d --add a=h:1", "--role"),
            ("bank init --out d --cluster c --main ah:1", "a=db1:7001"),
            ("bank simulate --faults crahs", "did you mean \"crash\""),
            ("bank simulate --runs 0", "0"),
        ] {
            let failure = read(line).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            let said = failure.to_string();
            assert!(said.contains(part) && said.ends_with("; try 'bank --help'"), "{said}");
        }
    }

    #[test]
    fn several_nodes_may_follow_one_flag_or_each_have_their_own() {
        for mains in ["--main a=h:1 b=h:2", "--main a=h:1 --main b=h:2"] {
            let verb = read(&format!("bank init --out d --cluster c {mains}")).unwrap();
            let Some(Verb::Init(init)) = verb else { panic!("{verb:?}") };
            assert_eq!(init.main.len(), 2);
        }
    }
}
