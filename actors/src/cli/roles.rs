//! `roles`: who leads in what, and which roles there are.

pub(super) mod watch;

use awc::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    args::ClientArgs,
    call::text,
    client::Cluster,
    failure::{Failure, Fate},
    out,
    table::Table,
};

/// `roles`: a list, one role, or one of its verbs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RolesArgs {
    #[command(subcommand)]
    verb: Option<RolesVerb>,
    /// Only this one
    #[arg(value_name = "ROLE")]
    role: Option<String>,
    /// Go on and print every change, as it happens
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    list: ClientArgs,
}

/// What to do with roles.
#[derive(Debug, Subcommand)]
enum RolesVerb {
    /// Make a role; taking one makes it too
    Add(RoleName),
    /// Remove a role; one that is held goes when its holder does
    Remove(RoleName),
}

/// A role, and whom to ask.
#[derive(Debug, Args)]
struct RoleName {
    /// Its name
    role: String,
    #[command(flatten)]
    client: ClientArgs,
}

impl RolesArgs {
    /// Whom to ask.
    pub(crate) const fn client(&self) -> &ClientArgs {
        match &self.verb {
            None => &self.list,
            Some(RolesVerb::Add(one) | RolesVerb::Remove(one)) => &one.client,
        }
    }
}

/// Does what the verb says; without one, lists.
pub(crate) async fn run(args: &RolesArgs) -> Result<(), Failure> {
    let client = args.client();
    let cluster = Cluster::open(client)?;
    let (method, what, role) = match &args.verb {
        Some(RolesVerb::Add(one)) => (Method::PUT, "roles add", &one.role),
        Some(RolesVerb::Remove(one)) => (Method::DELETE, "roles remove", &one.role),
        None if args.watch => {
            let path = args.role.as_deref().map_or_else(|| Ok("/roles".to_owned()), path)?;
            let path = format!("{path}?watch=true");
            return watch::run(&cluster, &path, client.json, watch::line).await;
        }
        None => return list(&cluster, args).await,
    };
    let path = path(role)?;
    let answer = cluster.send(method, &path, String::new()).await?;
    match answer.outcome() {
        Ok(()) if client.json => out::say(json!({"outcome": "applied"})).map(drop),
        Ok(()) => Ok(()),
        Err(exit) => {
            Err(answer.refusal(exit, format!("{what} {role}"), "see `roles` for what there is"))
        }
    }
}

async fn list(cluster: &Cluster, args: &RolesArgs) -> Result<(), Failure> {
    let roles = match &args.role {
        None => {
            let (_, document) = cluster.get("/roles").await?;
            if args.list.json {
                return out::say(document).map(drop);
            }
            document["roles"].as_array().cloned().unwrap_or_default()
        }
        Some(role) => {
            let answer = cluster.read(Method::GET, &path(role)?, String::new()).await?;
            if let Err(exit) = answer.outcome() {
                let (what, why) = (format!("roles {role}"), answer.error_text());
                let failure = Failure::new(exit, what, why, "see `roles` for what there is");
                return Err(failure.with(Fate::NotApplied));
            }
            let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if args.list.json {
                return out::say(document).map(drop);
            }
            vec![document]
        }
    };
    table(&roles).print()
}

fn table(roles: &[Value]) -> Table {
    let mut table = Table::new(&["ROLE", "LEADER", "NODE", "EPOCH", "EXPIRES", "VOLUNTEERS"]);
    for role in roles {
        let expires = match role["expires_in_ms"].as_u64() {
            Some(ms) => format!("{ms}ms"),
            None => String::new(),
        };
        let volunteers = role["volunteers"].as_array().into_iter().flatten();
        let volunteers: Vec<_> = volunteers.map(text).collect();
        let [name, leader, node, epoch] =
            ["role", "leader", "node", "epoch"].map(|key| text(&role[key]));
        table.row([name, leader, node, epoch, expires, volunteers.join(",")]);
    }
    table
}

/// A role's name becomes a path: a question mark, say, would ask something else.
pub(crate) fn path(role: &str) -> Result<String, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/@:".contains(c);
    if role.is_empty() || !role.chars().all(good) {
        let why = format!("{role:?} is no name of a role");
        return Err(Failure::usage("ROLE", why, "write letters, digits and . _ - / @ :"));
    }
    Ok(format!("/roles/{role}"))
}
