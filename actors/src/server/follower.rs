//! What a program lets its nodes do with the order of a group.

use actix_web::web;

use super::{multicast::Multicast, service::NodeAddresses};
use crate::multicast::application::Application;

/// The state that follows a group on every node that uses it, and its ways in. It comes with
/// [`Cli::follower`](crate::Cli::follower).
pub trait Follower: Send + Sync + 'static {
    /// The name of the group, and of its application.
    fn group(&self) -> &str;

    /// The state, empty: whenever a node takes the group up, and again after a panic.
    fn application(&self) -> Box<dyn Application>;

    /// Adds routes to the node's HTTP listener, beside `/multicast`; called once for each of its
    /// workers. By default there are none.
    fn http(&self, _routes: &mut web::ServiceConfig, _multicast: &Multicast) {}

    /// Commands to try against a running node, for people who just started one.
    fn hints(&self, _at: &NodeAddresses) -> Vec<String> {
        Vec::new()
    }
}
