//! What every main and member executes beside a program's own state machines.

use std::sync::Arc;

use crate::{election, management, membership, multicast::book::Groups, replicated::StateMachine};

/// Empty ones: the roles, the services, the views and the groups, the first three to be seen on
/// these desks.
pub(crate) fn built_in(
    roles: &Arc<election::store::Desk>,
    services: &Arc<management::store::Desk>,
    views: &Arc<membership::store::Desk>,
) -> [Box<dyn StateMachine>; 4] {
    [roles.store(), services.store(), views.store(), Box::new(Groups::default())]
}
