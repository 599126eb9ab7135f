//! `publish`, `subscribe` and `multicast status`.

pub(super) mod publish;
mod status;
pub(super) mod subscribe;

use clap::{Args, Subcommand};

pub(super) use self::status::run;
use super::{args::ClientArgs, failure::Failure};

/// `multicast`: one of its verbs.
#[derive(Debug, Args)]
pub(crate) struct MulticastArgs {
    #[command(subcommand)]
    verb: MulticastVerb,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
enum MulticastVerb {
    /// Show how the groups stand: who orders them, and how far each node is
    Status(ClientArgs),
}

impl MulticastArgs {
    /// Whom to ask.
    pub(crate) const fn client(&self) -> &ClientArgs {
        let MulticastVerb::Status(client) = &self.verb;
        client
    }
}

/// The path of a group.
fn path(group: &str) -> Result<String, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if group.is_empty() || !group.chars().all(good) {
        let why = format!("{group:?} is no name of a group");
        return Err(Failure::usage("GROUP", why, "write letters, digits and - _ ."));
    }
    Ok(format!("/multicast/{group}"))
}
