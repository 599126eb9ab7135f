//! Managed services: outside programs of which exactly one runs, on one of the nodes that provide it.
//!
//! ```text
//!   services add … ──> log ──> table (the same at every main and member)
//!                               │ what is wanted
//!                               v
//!   role SERVICE/primary ──> run (one per node and service) ──> program, under its watchdog
//!       lease, epoch            │ what came of it                 probes
//!                               └──> log ──> table
//! ```
//! The table says what services there are and who may provide them; the role `SERVICE/primary` says
//! who does. The table is never needed for safety: a program runs only under its role's lease.
//!
//! - G1: a program runs only at the holder of its service's role, from after the grant until before
//!   the lease ends.
//! - G2: a change of the table is one command: it is applied whole, or refused and nothing was.
//! - G3: what a node reports of a service counts only in an epoch that is not below the one known.
//! - G4: a primary gives its service up for another only once its program is gone, and only to a
//!   node that stands for it.
//! - G5: services that are placed together share one role, that of the service the others are with:
//!   they lead and move as one.
//! - G6: a program runs only while all that its service needs serve, and ends before they do.
//! - G7: a secondary stands before any spare, whatever their names.
//! - G8: checkpoints go to secondaries only; a node takes one in only while it does not lead, of the
//!   newest epoch it knows of.
//!
//! # Layout
//! - [`message`]: services as people describe them, and what is asked of the table
//! - [`table`]: the table, a deterministic state; [`store`]: it under the log
//! - [`mod@unit`]: the machine of a role's services at the node that leads; [`run`]: that of one program:
//!   start, probes, restarts, end
//! - [`courier`]: the machine of a service's checkpoints, at its primary
//! - [`placement`]: ranks of nodes, and who is next in line
//! - [`candidate`]: how the nodes of a view agree on one of them (disqualification);
//!   [`manager`]: so is the manager found, at every node
//! - [`hold`]: how long those who need a service are held off
//! - [`kept`]: checkpoints of singletons, in the log

/// Whether a rule is in force; a test may switch it off, to see that the judges notice.
macro_rules! when_on {
    ($rule:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        {
            !crate::mutation::is_service_rule_off(crate::mutation::ServiceRule::$rule)
        }
        #[cfg(not(any(test, feature = "mutations")))]
        {
            true
        }
    }};
}

pub mod candidate;
pub mod courier;
pub mod hold;
pub mod kept;
pub mod manager;
pub mod message;
pub mod placement;
pub mod run;
pub mod store;
pub mod table;
pub mod unit;
