//! Which commands a node takes: what no build here knows, or not every main can execute yet, must
//! not get into the log, where it would halt whoever meets it.

use std::collections::BTreeMap;

use crate::{
    consensus::{
        message::NewCommand,
        replica::{TAKE_PIECE, opens_session},
    },
    replicated::{FENCED, Fenced, StateMachine},
};

/// The commands of a build, each with the cluster version from which on it may be executed. The
/// default knows none and refuses nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// By actor and function.
    since: BTreeMap<(u64, u64), u32>,
}

impl Commands {
    /// Those of a build with these state machines.
    pub fn of(machines: &[Box<dyn StateMachine>]) -> Self {
        let all = machines.iter().flat_map(|machine| {
            let actor = crate::replicated::name_hash(machine.name());
            let commands = machine.functions().iter().filter(|function| !function.query);
            commands.map(move |command| ((actor, command.id), command.since))
        });
        Self { since: all.collect() }
    }

    /// Why a cluster of that version does not take the command, if so.
    pub(super) fn refusal(&self, command: &NewCommand, version: u32) -> Option<String> {
        let NewCommand { actor, function, keyed, args, .. } = command;
        let fenced = (*actor == 0 && *function == FENCED).then(|| Fenced::read(args)).flatten();
        let (actor, function) =
            fenced.map_or((*actor, *function), |behind| (behind.actor, behind.function));
        // The log's own: a piece of a state, a client's wish for a session, and a fence with a key.
        let own = actor == 0
            && (function == TAKE_PIECE || function == FENCED || *keyed && opens_session(args));
        if self.since.is_empty() || own {
            return None;
        }
        match self.since.get(&(actor, function)) {
            None => Some(format!("this build has no command {function:#018x} of that actor")),
            Some(since) if *since > version => Some(format!(
                "the command needs cluster version {since}, and the cluster is at {version} until \
                 every main runs a build that knows it"
            )),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_from_its_version_on_and_an_unknown_one_never() {
        let commands = Commands { since: BTreeMap::from([((7, 1), 0), ((7, 5), 2)]) };
        let asked = |actor, function, version| {
            let patience = std::time::Duration::from_secs(1);
            let (keyed, args) = (false, bytes::Bytes::new());
            let command = NewCommand { ticket: 1, actor, function, keyed, args, patience };
            commands.refusal(&command, version)
        };
        assert_eq!(asked(7, 1, 0), None);
        assert_eq!(asked(0, TAKE_PIECE, 0), None, "the log's own");
        for (actor, function) in [(7, 2), (8, 1), (0, 0), (0, 77)] {
            let unknown = asked(actor, function, 9);
            assert!(unknown.is_some_and(|why| why.contains("no command")), "{actor} {function}");
        }
        assert!(asked(7, 5, 1).is_some_and(|why| why.contains("needs cluster version 2")));
        assert_eq!(asked(7, 5, 2), None);
    }
}
