//! What a machine wants done. *Durable before said* is a type rule here: what depends on a record
//! can only be said through [`Persisted::then_send`].

use synod_runtime::identity::NodeId;

use crate::machine::Machine;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Another role of this very node.
    Here,
    /// A role of that node (this one included).
    Node(NodeId),
}

/// One message on its way out.
#[derive(Debug)]
pub struct Letter<E> {
    /// Where to.
    pub to: To,
    /// What.
    pub message: E,
}

/// The effects of one turn of a machine, taken over by its shell.
#[derive(Debug)]
pub struct Effects<M: Machine + ?Sized> {
    /// Said at once.
    pub now: Vec<Letter<M::Envelope>>,
    /// Made durable, in order.
    pub records: Vec<M::Record>,
    /// Ride along with the next records; nothing waits for them.
    pub lazy: Vec<M::Record>,
    /// Made durable if there is room.
    pub offers: Vec<Offer<M::Record, M::Envelope>>,
    /// Said once everything recorded so far, in this turn and before it, is durable.
    pub held: Vec<Letter<M::Envelope>>,
    /// What the journal may forget, if anything.
    pub truncate: Option<Truncate<M::Record>>,
    /// What is wanted of the snapshots on the disk, for roles that take them; done in order.
    pub shelf: Vec<ShelfTask>,
}

/// Records that a role can do without, in one call: a full or slow disk refuses them, and nothing else
/// comes of it.
#[derive(Debug)]
pub struct Offer<R, E> {
    /// All of them are kept, or none.
    pub records: Vec<R>,
    /// Said once they, and everything before them, are durable.
    pub kept: Letter<E>,
    /// Said if they are refused.
    pub refused: Letter<E>,
}

/// What is wanted of the shelf: the snapshots on this node's disk. Whoever asked is told by messages.
#[derive(Debug, Clone)]
pub enum ShelfTask {
    /// Appends a part to a snapshot that is being written; it is one when the last part is durable.
    Write(ShelfWrite),
    /// Reads a part of a snapshot.
    Read(ShelfRead),
    /// Goes on with what an earlier life of the node left of another node's snapshot, as the writing
    /// of this number.
    Resume(u64),
}

/// A part of a snapshot to write.
#[derive(Debug, Clone)]
pub struct ShelfWrite {
    /// The last step of the state.
    pub step: u64,
    /// Which writing of a snapshot this is; a new one of the same `lot` puts an end to the others.
    pub run: u64,
    /// Where the state comes from. One of each may be under way.
    pub lot: Lot,
    /// It begins the snapshot.
    pub first: bool,
    /// It ends the snapshot.
    pub last: bool,
    /// The part.
    pub part: bytes::Bytes,
    /// The digest of the whole, where it is known: what has another one does not become a snapshot.
    pub digest: Option<u32>,
}

/// A part of a snapshot to read.
#[derive(Debug, Clone)]
pub struct ShelfRead {
    /// Of which snapshot.
    pub step: u64,
    /// From which byte of the state.
    pub offset: u64,
    /// How much, if there is so much.
    pub bytes: usize,
    /// Who wants it; the role itself if it is nobody.
    pub reader: Option<NodeId>,
}

/// Where a state comes from that is written to the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lot {
    /// From this node.
    Own,
    /// From another.
    Fetched,
}

/// What the journal may forget: whatever was written before, in whole segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate<R> {
    /// What is of later steps stays; with [`EVERY_STEP`](synod_runtime::journal::EVERY_STEP)
    /// nothing does.
    pub upto: u64,
    /// Written with it, at once.
    pub carry: Vec<R>,
}

impl<M: Machine + ?Sized> Default for Effects<M> {
    fn default() -> Self {
        Self {
            now: Vec::new(),
            records: Vec::new(),
            lazy: Vec::new(),
            offers: Vec::new(),
            held: Vec::new(),
            truncate: None,
            shelf: Vec::new(),
        }
    }
}

impl<M: Machine + ?Sized> Effects<M> {
    /// Says something that claims nothing about this node's disk.
    pub fn send(&mut self, to: To, message: impl Into<M::Envelope>) {
        self.now.push(Letter { to, message: message.into() });
    }

    /// Says something to another role of this node.
    pub fn here(&mut self, message: impl Into<M::Envelope>) {
        self.send(To::Here, message);
    }

    /// Makes a record durable; what is said through the answer waits for it.
    pub fn persist(&mut self, record: M::Record) -> Persisted<'_, M> {
        self.records.push(record);
        Persisted { effects: self }
    }

    /// What is said through the answer waits for everything recorded so far.
    pub fn after_all_before(&mut self) -> Persisted<'_, M> {
        Persisted { effects: self }
    }

    /// Writes a record with the next ones. Only for what a crash may take back.
    pub fn persist_lazily(&mut self, record: M::Record) {
        self.lazy.push(record);
    }

    /// Makes records durable if there is room, and tells a role of this node either way.
    pub fn offer(
        &mut self,
        records: Vec<M::Record>,
        kept: impl Into<M::Envelope>,
        refused: impl Into<M::Envelope>,
    ) {
        let kept = Letter { to: To::Here, message: kept.into() };
        let refused = Letter { to: To::Here, message: refused.into() };
        self.offers.push(Offer { records, kept, refused });
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
            && self.records.is_empty()
            && self.lazy.is_empty()
            && self.offers.is_empty()
            && self.held.is_empty()
            && self.truncate.is_none()
            && self.shelf.is_empty()
    }
}

/// The right to say what depends on a record.
#[expect(missing_debug_implementations, reason = "lives for one expression")]
pub struct Persisted<'a, M: Machine + ?Sized> {
    effects: &'a mut Effects<M>,
}

impl<M: Machine + ?Sized> Persisted<'_, M> {
    /// Says this once the record, and everything before it, is durable.
    pub fn then_send(self, to: To, message: impl Into<M::Envelope>) -> Self {
        self.effects.held.push(Letter { to, message: message.into() });
        self
    }

    /// Says this to another role of this node, likewise.
    pub fn then_here(self, message: impl Into<M::Envelope>) -> Self {
        self.then_send(To::Here, message)
    }
}
