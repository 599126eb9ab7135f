//! Who is there: views, and the monitor that every main and member runs.
//!
//! ```text
//!   signs of life ──> detector ──> suspects ──> another node's opinion ──> log ──> view
//!   (one per peer)    (phi)                     "can you hear it?"                  │ every one,
//!                                                                                   v in order
//!                                              the node's manager monitor (`management`)
//! ```
//! A *view* says which nodes make up the cluster and how each is. It is never one node's opinion: it
//! follows from the log, from the configuration and the verdicts decided there. So a minority, which
//! can decide nothing, comes to no view of its own.
//!
//! - V1: a view is a function of the executed log; nodes that executed the same have the same view.
//! - V2: a verdict counts only in the view in which it was asked for.
//! - V3: nobody is accused whom another node that was asked hears.
//! - V4: whoever makes no progress with its disk is not well, however often it says that it lives.
//! - V5: nobody is accused who was not silent for three times the pause of its kind.
//! - V6: every view that a node comes to is told to its manager monitor, in order.
//! - V7: who was accused again and again must be heard for longer each time before it counts again.
//!
//! While nothing fails nothing is proposed and nobody is asked: detectors live on the signs of life
//! that mains, members and auxiliaries give in any case.
//!
//! # Layout
//! - [`detector`]: how long a silence is too long
//! - [`message`]: views, verdicts, and what monitors say to one another
//! - [`table`]: the verdicts, a deterministic state; [`store`]: it under the log
//! - [`monitor`]: the machine

/// Whether a rule is in force; a test may switch it off, to see that the judges notice.
macro_rules! when_on {
    ($rule:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        {
            !crate::mutation::is_view_rule_off(crate::mutation::ViewRule::$rule)
        }
        #[cfg(not(any(test, feature = "mutations")))]
        {
            true
        }
    }};
}

pub mod detector;
pub mod message;
pub mod monitor;
pub mod store;
pub mod table;
#[cfg(test)]
mod walk;
