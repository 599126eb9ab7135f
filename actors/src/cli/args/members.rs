//! `members` and its verbs.

use clap::{Args, Subcommand};
use synod_runtime::identity::NodeName;

use super::ClientArgs;
use crate::server::config::{HostPort, NodeRole};

/// `members`: a list, or one of its verbs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MembersArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<MembersVerb>,
    #[command(flatten)]
    list: ClientArgs,
}

/// What to do with the members.
#[derive(Debug, Subcommand)]
pub(crate) enum MembersVerb {
    /// Hand leadership to this main
    Lead(MemberName),
    /// Wait for this node, which counts once it has caught up
    Add(AddMember),
    /// Make a running member a main, or a main a member
    Set(SetMember),
    /// Let a node go; it learns of it and ends
    Remove(MemberName),
}

/// `members add`.
#[derive(Debug, Args)]
pub(crate) struct AddMember {
    /// Its name, as `init --add` was told it
    pub(crate) name: NodeName,
    /// What it is to be
    #[arg(long, value_name = "main|auxiliary|member")]
    pub(crate) role: NodeRole,
    /// Where its peers reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) quic: HostPort,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `members set`.
#[derive(Debug, Args)]
pub(crate) struct SetMember {
    /// Its name
    pub(crate) name: NodeName,
    /// What it is to be
    #[arg(long, value_name = "main|member")]
    pub(crate) role: NodeRole,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A member, and whom to ask.
#[derive(Debug, Args)]
pub(crate) struct MemberName {
    /// Its name
    pub(crate) name: NodeName,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl MembersArgs {
    /// Whom to ask.
    pub(crate) const fn client(&self) -> &ClientArgs {
        match &self.verb {
            None => &self.list,
            Some(MembersVerb::Lead(name) | MembersVerb::Remove(name)) => &name.client,
            Some(MembersVerb::Add(add)) => &add.client,
            Some(MembersVerb::Set(set)) => &set.client,
        }
    }
}
