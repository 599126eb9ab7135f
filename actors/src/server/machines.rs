//! What every main and member executes beside a program's own state machines.

use std::sync::Arc;

use crate::{election, management, multicast::book::Groups, replicated::StateMachine};

/// Empty ones: the roles, the services and the groups, the first two to be seen on these desks.
pub(crate) fn built_in(
    roles: &Arc<election::store::Desk>,
    services: &Arc<management::store::Desk>,
) -> [Box<dyn StateMachine>; 3] {
    [roles.store(), services.store(), Box::new(Groups::default())]
}
