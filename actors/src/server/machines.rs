//! What every main and member executes beside a program's own state machines.

use std::sync::Arc;

use crate::{
    election,
    management::{self, kept},
    membership,
    multicast::book::Groups,
    replicated::StateMachine,
};

/// Empty ones: the roles, the services, the views, the groups and what singletons keep, the first
/// three to be seen on these desks.
pub(crate) fn built_in(
    roles: &Arc<election::store::Desk>,
    services: &Arc<management::store::Desk>,
    views: &Arc<membership::store::Desk>,
) -> [Box<dyn StateMachine>; 5] {
    let groups = Box::<Groups>::default();
    [roles.store(), services.store(), views.store(), groups, Box::<kept::Table>::default()]
}
