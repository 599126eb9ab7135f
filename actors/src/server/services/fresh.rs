//! What a node knows of services, and whether that may be old.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::{super::patience::at_most, ServiceError, Services, Table, role_of};
use crate::{
    election::store::decode,
    management::store::{LOOK, REACH, store_id},
    replicated::{CallError, Function, Position},
};

impl Services {
    /// All services, as `GET /services` shows them, with all that was changed before this was called;
    /// and whether they may be older than that all the same, as they say themselves: where this node
    /// does not know within two seconds, since it catches up still or hears nobody.
    pub async fn show(&self) -> (Vec<Value>, bool) {
        let stale = !self.is_fresh().await;
        self.refresh().await;
        (self.documents_as(stale), stale)
    }

    /// Waits until this node knows of all that was changed before.
    pub(super) async fn is_fresh(&self) -> bool {
        let until = self.now() + at_most(LOOK_DEADLINE);
        let Ok((_, newest)) = self.ask(REACH).await else { return false };
        while self.0.board.reached().position < newest.0 {
            if self.now() >= until {
                return false;
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
        true
    }

    /// Waits until it is known here who has which service, where roles are kept in registers: nobody
    /// tells a node that does not stand.
    pub(in crate::server) async fn refresh(&self) {
        let roots: BTreeSet<_> = self
            .desk()
            .read(|table| table.iter().map(|one| table.root(&one.spec.name).to_owned()).collect());
        self.elections().refresh(roots.iter().map(|root| role_of(root)).collect()).await;
    }

    /// Waits until something may have changed, at most so long.
    pub(in crate::server) async fn news(&self, most: Duration) {
        let mut changed = self.0.changed.subscribe();
        tokio::select! {
            biased;
            _ = changed.changed() => {}
            () = self.elections().news() => {}
            () = tokio::time::sleep(most) => {}
        }
    }

    /// All services, as the log has them.
    pub(super) async fn look(&self) -> Result<Table, ServiceError> {
        let (reply, _) = self.ask(LOOK).await?;
        decode(&reply).map_err(|error| CallError::Failed(error.to_string()).into())
    }

    /// One query, which is linearizable, and the position of the state that answered.
    async fn ask(&self, function: Function) -> Result<(Bytes, Position), CallError> {
        self.0.submit.look(store_id(), function, Bytes::new(), at_most(LOOK_DEADLINE)).await
    }
}

/// Who asks is a person, or a program that asks again.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Between two looks at how far this node has come.
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);
