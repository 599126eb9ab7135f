//! Reads from the server behind a site, beside what is ordered.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    connection::{Connection, RedisAddress},
    wire::Replies,
};

/// Connections for reads. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Reader(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    address: RedisAddress,
    /// The most lately used last.
    idle: RefCell<Vec<Connection>>,
    /// Reads under way.
    slots: Arc<Semaphore>,
}

/// Answers that come.
#[derive(Debug)]
pub(super) struct Reading {
    reader: Reader,
    connection: Option<Connection>,
    replies: Replies,
    _slot: OwnedSemaphorePermit,
}

impl Reader {
    pub(super) fn new(address: RedisAddress) -> Self {
        let slots = Arc::new(Semaphore::new(READS_MAX));
        Self(Rc::new(Inner { address, idle: RefCell::default(), slots }))
    }

    /// Sends `count` commands that change nothing, to the process of that name if one is given.
    ///
    /// # Errors
    /// There is no answer; nothing changed.
    pub(super) async fn read(
        &self,
        instance: Option<&str>,
        database: u32,
        (bytes, count): (&[u8], u64),
    ) -> Result<Reading, String> {
        let slot = timeout(PATIENCE, Arc::clone(&self.0.slots).acquire_owned()).await;
        let busy = || "too many reads are under way".to_owned();
        let slot = slot.ok().and_then(Result::ok).ok_or_else(busy)?;
        let is_it = |one: &Connection| instance.is_none_or(|name| one.instance() == name);
        let mut connection = match self.take(database, is_it) {
            Some(kept) => kept,
            None => {
                let new = Connection::open(&self.0.address, database).await?;
                if !is_it(&new) {
                    return Err("the server began anew, and is not what it was yet".to_owned());
                }
                new
            }
        };
        let sent = timeout(PATIENCE, connection.stream.write_all(bytes)).await;
        let late = |_| format!("it took nothing for {PATIENCE:?}");
        sent.map_err(late)?.map_err(|error| error.to_string())?;
        let (reader, connection, replies) = (self.clone(), Some(connection), Replies::new(count));
        Ok(Reading { reader, connection, replies, _slot: slot })
    }

    /// A kept connection in that database, if there is a good one.
    fn take(&self, database: u32, is_it: impl Fn(&Connection) -> bool) -> Option<Connection> {
        let mut idle = self.0.idle.borrow_mut();
        // Those that are closed, or lead to a process of before, are of no use to anybody.
        let good = |one: &Connection| one.database() != database || (is_it(one) && one.is_quiet());
        idle.retain(good);
        let at = idle.iter().rposition(|one| one.database() == database)?;
        Some(idle.remove(at))
    }
}

impl Reading {
    /// What came next of the answers; none at their end.
    ///
    /// # Errors
    /// They broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        loop {
            let known = self.replies.advance(&connection.buffer)?;
            if known > 0 {
                let came = connection.buffer.split_to(known).freeze();
                if self.replies.is_done() {
                    self.keep();
                }
                return Ok(Some(came));
            }
            connection.buffer.reserve(READ_BYTES);
            let read = timeout(PATIENCE, connection.stream.read_buf(&mut connection.buffer)).await;
            match read {
                Ok(Ok(0)) => return Err("it hung up".to_owned()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("it said nothing for {PATIENCE:?}")),
            }
        }
    }

    fn keep(&mut self) {
        let mut idle = self.reader.0.idle.borrow_mut();
        if let Some(connection) = self.connection.take().filter(|_| idle.len() < IDLE_MAX) {
            idle.push(connection);
        }
    }
}

/// Longer than honest work takes, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one system call may bring; a large answer takes no more memory than this.
const READ_BYTES: usize = 32 << 10;

/// As many as are ever busy at once in steady work.
const IDLE_MAX: usize = 64;

/// Each holds a connection to the server, which takes ten thousand as it comes.
const READS_MAX: usize = 256;
