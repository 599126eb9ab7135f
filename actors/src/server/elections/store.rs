//! Where roles are kept: one trait, and the log behind it. [`pages`] has the other form.

pub(super) mod pages;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use super::{super::patience::at_most, ElectionError};
use crate::{
    election::{
        message::{Holder, Op, RoleView, Said},
        store::{CHANGE, Desk, LOOK, Question, SINCE, decode, encode, store_id},
        watch::{Since, Told},
    },
    replicated::{CallError, Function, IdempotencyKey, Submission, Submit},
};

/// Hears what became of a command.
pub(super) type SaidTo = Box<dyn FnOnce(Result<Vec<Said>, CallError>) + Send>;

/// What a store of roles can do. All of them keep the same rules (I1 to I7), by the same code.
pub(super) trait RoleStore: Send + Sync {
    /// One command: `done` hears one answer for each operation. With a key the log executes it once,
    /// however often it comes; the others refuse it.
    fn change(&self, ops: Vec<Op>, key: Option<IdempotencyKey>, deadline: Duration, done: SaidTo);

    /// Who leads, for sure.
    fn look(&self, question: Question) -> BoxFuture<'static, Result<Vec<RoleView>, ElectionError>>;

    /// What changed, for sure.
    fn since(&self, since: Since) -> BoxFuture<'static, Result<Told, ElectionError>>;

    /// All roles as this node has them.
    fn known(&self) -> Vec<RoleView>;

    /// Who holds a role, as this node has it; the outer `None`: it does not know.
    fn glance(&self, role: &str) -> Option<Option<Holder>>;

    /// A role as this node has it, who stands included; from now on it is looked after for a while.
    fn seen(&self, role: &str) -> Option<RoleView>;

    /// Returns once these roles are known here as they are now, or cannot be.
    fn refresh(&self, roles: Vec<String>) -> BoxFuture<'static, ()>;

    /// Whether those who watch are woken by what happens.
    fn wakes(&self) -> bool;
}

/// Roles in the log.
pub(super) struct Log {
    pub(super) submit: Arc<dyn Submit>,
    pub(super) desk: Arc<Desk>,
}

impl RoleStore for Log {
    fn change(&self, ops: Vec<Op>, key: Option<IdempotencyKey>, deadline: Duration, done: SaidTo) {
        let read = |(reply, _): (Bytes, _)| {
            decode(&reply).map_err(|error| CallError::Failed(error.to_string()))
        };
        self.submit.submit(vec![Submission {
            actor: store_id(),
            function: CHANGE.id,
            args: Bytes::from(encode(&ops)),
            deadline,
            idempotency: key,
            done: Box::new(move |outcome| done(CallError::check(outcome).and_then(read))),
        }]);
    }

    fn look(&self, question: Question) -> BoxFuture<'static, Result<Vec<RoleView>, ElectionError>> {
        self.ask(LOOK, &question)
    }

    fn since(&self, since: Since) -> BoxFuture<'static, Result<Told, ElectionError>> {
        self.ask(SINCE, &since)
    }

    fn known(&self) -> Vec<RoleView> {
        self.desk.read(|book, now| book.views(now)).unwrap_or_default()
    }

    fn glance(&self, role: &str) -> Option<Option<Holder>> {
        self.desk.read(|book, _| book.holder(role))
    }

    fn seen(&self, role: &str) -> Option<RoleView> {
        self.desk.read(|book, now| book.seen(role, now))?
    }

    /// Nothing is to be done: what is executed here is known here.
    fn refresh(&self, _roles: Vec<String>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn wakes(&self) -> bool {
        self.desk.read(|_, _| ()).is_some()
    }
}

impl Log {
    /// One query, which is linearizable: what it answers is not old when it is asked.
    fn ask<A: DeserializeOwned + 'static>(
        &self,
        function: Function,
        question: &impl Serialize,
    ) -> BoxFuture<'static, Result<A, ElectionError>> {
        let args = encode(question).into();
        let asked = self.submit.look(store_id(), function, args, at_most(LOOK_DEADLINE));
        Box::pin(async move {
            let (reply, _) = asked.await?;
            decode(&reply)
                .map_err(|error| ElectionError::Call(CallError::Failed(error.to_string())))
        })
    }
}

/// Who asks who leads is a person or a program that falls back on what is known here.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(2);
