//! The directory `dev` works in: made or resumed, locked, and removed at the end if temporary.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use synod_runtime::identity::NodeName;

use super::ports::FreePorts;
use crate::{
    cli::{
        args::DevArgs,
        failure::Failure,
        layout::{ClusterDir, NodePlan},
        node::REMOVED_MARKER,
    },
    server::config::{
        ConsensusConfig, Durability, Listen, NodeConfig, NodeRole, Upstream, WebOrder, check_roles,
    },
};

/// A cluster's directory, ours alone while this lives.
#[derive(Debug)]
pub(super) struct Home {
    dir: ClusterDir,
    temporary: bool,
    /// Held, not read: closing it lets the next `dev` in.
    _lock: File,
}

/// The nodes to start.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<NodeConfig>,
    /// Whether they were written just now, so that nothing is lost by writing them anew.
    pub(super) fresh: bool,
}

impl Home {
    /// Takes `dir`, or makes a temporary one. A directory another `dev` holds is refused, naming
    /// its process.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        let cannot = |path: &Path| {
            let what = path.display().to_string();
            move |e: io::Error| {
                let hint = "choose another directory";
                Failure::usage(what, format!("cannot be used: {e}"), hint)
            }
        };
        let (path, temporary) = match dir {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(cannot(dir))?;
                (fs::canonicalize(dir).map_err(cannot(dir))?, false)
            }
            None => {
                let parent = std::env::temp_dir();
                (temporary_dir(&parent).map_err(cannot(&parent))?, true)
            }
        };
        let file = path.join(LOCK_FILE);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&file);
        let mut lock = open.map_err(cannot(&file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner).ok();
                let why = format!("process {} already runs this cluster", owner.trim());
                let hint = "stop it first, or choose another directory";
                return Err(Failure::usage(path.display(), why, hint));
            }
            Err(TryLockError::Error(e)) => return Err(cannot(&file)(e)),
        }
        let sign = lock.set_len(0).and_then(|()| lock.rewind());
        sign.and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(cannot(&file))?;
        Ok(Self { dir: ClusterDir::new(path), temporary, _lock: lock })
    }

    pub(super) const fn dir(&self) -> &ClusterDir {
        &self.dir
    }

    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The nodes that are here, or those that `args` asks for, written now. `attempt` counts
    /// collisions of ports.
    pub(super) fn nodes(
        &self,
        args: &DevArgs,
        with_resp: bool,
        attempt: u32,
    ) -> Result<Nodes, Failure> {
        if self.dir.client_file().exists() {
            let nodes = self.dir.nodes()?;
            self.check_same(args, &nodes)?;
            let stays = |node: &NodeConfig| !node.data_dir.join(REMOVED_MARKER).exists();
            return Ok(Nodes { nodes: nodes.into_iter().filter(stays).collect(), fresh: false });
        }
        let mut ports = FreePorts::new(std::process::id().wrapping_add(attempt * ATTEMPT_STRIDE));
        let plans = plan(args, with_resp, &mut ports)?;
        let cluster = CLUSTER.parse().expect("a name");
        let durability = args.durability.unwrap_or(Durability::Fsync);
        let consensus = ConsensusConfig { durability, ..ConsensusConfig::default() };
        self.dir.create(&cluster, &plans, &consensus, None)?;
        Ok(Nodes { nodes: self.dir.nodes()?, fresh: true })
    }

    /// Removes what [`Home::nodes`] wrote, which must have been fresh.
    pub(super) fn clear(&self, nodes: &Nodes) -> Result<(), Failure> {
        assert!(nodes.fresh, "what was there before is never removed");
        let folders = nodes.nodes.iter().map(|node| self.dir.path().join(node.name.as_str()));
        for folder in folders.chain([self.dir.authority()]) {
            fs::remove_dir_all(&folder).map_err(|e| {
                let why = format!("cannot be removed: {e}");
                Failure::failed(folder.display(), why, "remove it and start again")
            })?;
        }
        fs::remove_file(self.dir.client_file()).map_err(|e| {
            let why = format!("cannot be removed: {e}");
            Failure::failed(self.dir.client_file().display(), why, "remove it and start again")
        })
    }

    /// Whoever resumes a cluster with other numbers than it has expects something else.
    fn check_same(&self, args: &DevArgs, nodes: &[NodeConfig]) -> Result<(), Failure> {
        let Some(first) = nodes.iter().find(|node| !node.join) else {
            let why = "has a client.toml and no nodes";
            return Err(Failure::usage(self.dir.path().display(), why, "choose another directory"));
        };
        let count = |role| first.peers.iter().filter(|peer| peer.role == role).count();
        for (flag, asked, role) in [
            ("--mains", args.mains, NodeRole::Main),
            ("--auxiliaries", args.auxiliaries, NodeRole::Auxiliary),
            ("--members", args.members, NodeRole::Member),
        ] {
            let there = count(role);
            if asked.is_some_and(|asked| asked != there) {
                let why = format!("the cluster here was made with {flag} {there}");
                let hint = format!("leave {flag} out, or choose another directory");
                return Err(Failure::usage(self.dir.path().display(), why, &hint));
            }
        }
        if !args.upstream.is_empty() {
            let mains = nodes.iter().filter(|node| node.role == NodeRole::Main && !node.join);
            let there = mains.map(|node| node.web.as_ref().map(|web| web.upstream.as_str()));
            let asked = args.upstream.iter().map(|url| Some(url.trim_end_matches('/')));
            let asked = asked.chain(std::iter::repeat(None));
            if !there.zip(asked).all(|(there, asked)| there == asked) {
                let why = "the cluster here was made with other upstreams";
                let hint = "leave --upstream out, or change [web] in the node files";
                return Err(Failure::usage(self.dir.path().display(), why, hint));
            }
        }
        let there = first.consensus.durability;
        if args.durability.is_some_and(|asked| asked != there) {
            let why = format!("the cluster here was made with --durability {there}");
            let hint = "leave it out, or choose another directory";
            return Err(Failure::usage(self.dir.path().display(), why, hint));
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // It holds nothing anybody asked to keep, and lies where the system cleans up.
            fs::remove_dir_all(self.dir.path()).ok();
        }
    }
}

/// Refuses numbers of nodes that make no cluster, before anything is made.
pub(super) fn check(args: &DevArgs) -> Result<(), Failure> {
    let roles = roles(args);
    let [(_, mains), (_, auxiliaries), (_, members)] = roles;
    if members > MEMBERS_MAX {
        let hint = format!("use at most {MEMBERS_MAX}");
        return Err(Failure::usage("--members", format!("{members} processes"), &hint));
    }
    if args.upstream.len() > mains {
        let why = format!("{} servers for {mains} mains", args.upstream.len());
        return Err(Failure::usage("--upstream", why, "give at most one for each main"));
    }
    let mut upstreams: Vec<Upstream> = Vec::new();
    for url in &args.upstream {
        let upstream = url.parse::<Upstream>().map_err(|why| {
            let (why, hint) = why.split_once("; ").unwrap_or((&why, "correct it"));
            Failure::usage("--upstream", why, hint)
        })?;
        if upstreams.contains(&upstream) {
            let why = format!("{url} is there twice: it would perform everything twice");
            return Err(Failure::usage("--upstream", why, "give each main a server of its own"));
        }
        if upstreams.iter().any(|other| other.is_redis() != upstream.is_redis()) {
            let why = "some of these are of Redis and some are not: they cannot become one";
            return Err(Failure::usage("--upstream", why, "give servers of one kind"));
        }
        upstreams.push(upstream);
    }
    if !args.upstream.is_empty() {
        check_order(mains.saturating_add(members), args.durability.unwrap_or(Durability::Fsync))?;
    }
    // A slip of the finger should not make us count to 10^18.
    let many = [(NodeRole::Main, mains.min(100)), (NodeRole::Auxiliary, auxiliaries.min(100))];
    check_roles(many.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count)))
        .map_err(|(why, hint)| Failure::usage("--mains, --auxiliaries", why, &hint))
}

/// What the environment says of the order every node will hear of; better refused before there are any.
fn check_order(servers: usize, durability: Durability) -> Result<(), Failure> {
    let Ok(order) = std::env::var(WEB_ORDER) else { return Ok(()) };
    match order.parse() {
        Ok(WebOrder::Paxos) => Ok(()),
        Ok(WebOrder::Sam) => match WebOrder::refuse_sam(servers, durability) {
            Some((why, hint)) => Err(Failure::usage(WEB_ORDER, why, hint)),
            None => Ok(()),
        },
        Err(why) => {
            let (why, hint) = why.split_once("; ").unwrap_or((&why, "correct it"));
            Err(Failure::usage(WEB_ORDER, why, hint))
        }
    }
}

/// How many of each role are asked for.
fn roles(args: &DevArgs) -> [(NodeRole, usize); 3] {
    let mains = args.mains.unwrap_or(2);
    [
        (NodeRole::Main, mains),
        (NodeRole::Auxiliary, args.auxiliaries.unwrap_or_else(|| mains.saturating_sub(1))),
        (NodeRole::Member, args.members.unwrap_or(0)),
    ]
}

fn plan(args: &DevArgs, with_resp: bool, ports: &mut FreePorts) -> Result<Vec<NodePlan>, Failure> {
    let mut plans = Vec::new();
    for (role, count) in roles(args) {
        for index in 0..count {
            let mut free = || {
                let hint = "stop something that listens on this machine";
                ports.take().ok_or_else(|| Failure::failed("ports", "none is free", hint))
            };
            let (quic, http) = (free()?, free()?);
            let resp = if with_resp && role != NodeRole::Auxiliary { Some(free()?) } else { None };
            let listen = Listen { quic, http, resp };
            let web = match args.upstream.get(index).filter(|_| role == NodeRole::Main) {
                Some(upstream) => Some((free()?, upstream.clone())),
                None => None,
            };
            plans.push(NodePlan { name: name(role, index), role, quic: quic.into(), listen, web });
        }
    }
    Ok(plans)
}

/// Mains are a, b, …; auxiliaries x, y, z, w, …; members m1, m2, …
fn name(role: NodeRole, index: usize) -> NodeName {
    let text = match role {
        NodeRole::Main => MAIN_NAMES[index..=index].to_owned(),
        NodeRole::Auxiliary => AUXILIARY_NAMES[index..=index].to_owned(),
        NodeRole::Member => format!("m{}", index + 1),
    };
    text.parse().expect("letters and digits")
}

/// Makes a directory that only its owner may look into.
fn temporary_dir(parent: &Path) -> io::Result<PathBuf> {
    for number in 0..TEMPORARY_TRIES {
        let path = parent.join(format!("synod-dev-{}-{number}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return fs::canonicalize(path),
            // Left by one of our process id that was killed.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Holds the process id of the `dev` that runs the cluster.
const LOCK_FILE: &str = "dev.lock";

/// Stands for `order` in [web] of every node.
pub(in crate::cli) const WEB_ORDER: &str = "SYNOD_WEB_ORDER";

/// What a cluster on one machine is called in its certificates.
const CLUSTER: &str = "dev";

/// As many as there may be mains.
const MAIN_NAMES: &str = "abcdefg";

/// One fewer than there may be mains, from x on.
const AUXILIARY_NAMES: &str = "xyzwvu";

/// Each is a process; a laptop should survive a slip of the finger.
const MEMBERS_MAX: usize = 32;

/// Old directories to step over before giving up.
const TEMPORARY_TRIES: u32 = 1000;

/// Moves the search for ports well away from where the last attempt met somebody.
const ATTEMPT_STRIDE: u32 = 101;
