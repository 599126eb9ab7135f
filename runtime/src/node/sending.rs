//! Frames on their way out.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{Node, asks::whole_ms, credit::Allowance, refused};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    link::Path,
    trace,
    wire::{BODY_BYTES_MAX, Frame, FrameHeader, FrameKind, name_hash},
    world::{Instant, network::Lane},
};

/// How soon who found the lane full tries again. A herd woken at every free byte measured half the
/// rate of one that comes back in its own time.
const FULL_RETRY: Duration = Duration::from_millis(2);

/// All it takes to tell one target on another node, found once for many messages.
pub(crate) struct Pipe {
    pub(super) path: Path,
    allowance: Allowance,
}

/// How one frame goes.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) lane: Lane,
    /// None to this node itself.
    pub(super) path: Option<&'a Path>,
    /// None where it costs nothing.
    pub(super) allowance: Option<&'a Allowance>,
}

/// Credit that was spent for a message: given back if that is not sent.
struct Paid<'a> {
    allowance: Option<&'a Allowance>,
    body_len: usize,
}

impl Drop for Paid<'_> {
    fn drop(&mut self) {
        if let Some(allowance) = self.allowance {
            allowance.give_back(self.body_len);
        }
    }
}

impl Pipe {
    /// Whether the link it was found for is still there.
    pub(crate) fn lasts(&self) -> bool {
        self.allowance.lasts()
    }

    pub(super) fn way(&self) -> Way<'_> {
        Way { lane: Lane::User, path: Some(&self.path), allowance: Some(&self.allowance) }
    }
}

impl Node {
    /// The way to a target on another node.
    ///
    /// # Errors
    /// `Unreachable` when there is no link to that very incarnation.
    pub(crate) fn pipe(&self, to: &NodeId, target: u64) -> Result<Pipe, SendError> {
        // The allowance first: a link that comes up in between makes it end, not the path.
        let allowance = self.allowance(&to.name, target).ok_or(SendError::Unreachable)?;
        let path = self.links().path(&to.name).filter(|path| path.peer == *to);
        Ok(Pipe { path: path.ok_or(SendError::Unreachable)?, allowance })
    }

    /// Tells by a way found before.
    ///
    /// # Errors
    /// As [`Node::tell`].
    pub(crate) fn tell_by(
        &self,
        pipe: &Pipe,
        target: u64,
        message: u64,
        body: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(FrameKind::Tell, target, message);
        self.post_by(&pipe.way(), &header, body)
    }

    /// As [`Node::tell_by`], but waits for room.
    ///
    /// # Errors
    /// As [`Node::tell`]; `Overloaded` when there was no room in all the time.
    pub(crate) async fn tell_when_room(
        &self,
        pipe: &Pipe,
        target: u64,
        message: u64,
        body: &[u8],
        timeout: Duration,
    ) -> Result<(), SendError> {
        let mut header = self.header(FrameKind::Tell, target, message);
        match self.post_by(&pipe.way(), &header, body) {
            Err(SendError::Overloaded) if body.len() <= BODY_BYTES_MAX => {}
            done => return done,
        }
        let way = pipe.way();
        let posted = self.post_when_room(&way, &mut header, body, None);
        tokio::time::timeout(timeout, posted).await.unwrap_or(Err(SendError::Overloaded))
    }

    /// Sends one frame, and pays for it.
    pub(super) fn post_by(
        &self,
        way: &Way<'_>,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendError> {
        if let Some(allowance) = way.allowance {
            allowance.try_spend(self, body.len())?;
        }
        let mut paid = Paid { allowance: way.allowance, body_len: body.len() };
        self.post_paid(way, header, body)?;
        paid.allowance = None;
        Ok(())
    }

    /// Sends one frame as soon as there is credit and room; the header says how long the sender
    /// then still waits, if it waits `until` a time. May be dropped at any time.
    pub(super) async fn post_when_room(
        &self,
        way: &Way<'_>,
        header: &mut FrameHeader,
        body: &[u8],
        until: Option<Instant>,
    ) -> Result<(), SendError> {
        if let Some(allowance) = way.allowance {
            allowance.spend(self, body.len()).await?;
        }
        let mut paid = Paid { allowance: way.allowance, body_len: body.len() };
        loop {
            if let Some(until) = until {
                header.deadline_ms = whole_ms(until.since(self.now()));
            }
            match self.post_paid(way, header, body) {
                Ok(()) => break,
                Err(SendError::Overloaded) => tokio::time::sleep(FULL_RETRY).await,
                Err(error) => return Err(error),
            }
        }
        paid.allowance = None;
        Ok(())
    }

    fn post_paid(&self, way: &Way<'_>, header: &FrameHeader, body: &[u8]) -> Result<(), SendError> {
        match way.path {
            Some(path) => self.links().send_by(path, way.lane, header, body).map_err(refused),
            None => {
                self.route_own(way.lane, header, body);
                Ok(())
            }
        }
    }

    /// The short way, to this node itself.
    fn route_own(&self, lane: Lane, header: &FrameHeader, body: &[u8]) {
        let frame = Frame { header: *header, body: bytes::Bytes::copy_from_slice(body) };
        self.route(self.id(), lane, vec![frame]);
    }

    /// Sends a raw tell to whatever is bound to `target` on `to`; to this node itself too.
    ///
    /// # Errors
    /// Nothing was sent. What was sent may still be lost with the link or the node.
    pub fn tell(
        &self,
        to: &NodeName,
        target: &str,
        message: u64,
        lane: Lane,
        body: &[u8],
    ) -> Result<(), SendError> {
        self.tell_hashed(to, name_hash(target), message, lane, body)
    }

    /// As [`Node::tell`], with the target's number computed before: for hot paths.
    ///
    /// # Errors
    /// As [`Node::tell`].
    pub fn tell_hashed(
        &self,
        to: &NodeName,
        target: u64,
        message: u64,
        lane: Lane,
        body: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(FrameKind::Tell, target, message);
        self.post(to, lane, &header, body)
    }

    /// As [`Node::tell_hashed`], by a datagram: it may be lost, doubled or overtaken, and holds nothing
    /// up. The body fits one: a thousand bytes always do.
    ///
    /// # Errors
    /// As [`Node::tell`]; also when it is too large.
    pub fn tell_by_datagram(
        &self,
        to: &NodeName,
        target: u64,
        message: u64,
        body: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(FrameKind::Tell, target, message);
        self.links().datagram(to, &header, body).map_err(refused)
    }

    /// Bytes of datagrams to a node that wait on this machine until the path takes them. Signs of life wait
    /// behind them, and of more than a megabyte the oldest is dropped.
    pub fn datagrams_waiting(&self, to: &NodeName) -> usize {
        self.links().datagrams_waiting(to)
    }

    /// The header of a message that is sent now, in the trace this thread is in.
    pub(super) fn header(&self, kind: FrameKind, target: u64, message: u64) -> FrameHeader {
        let trace = trace::outgoing(|| self.draw_trace());
        FrameHeader { target, message, trace, ..FrameHeader::new(kind) }
    }

    /// A number for a trace, as good as drawn at random: the node's nonce is, and traces are
    /// counted. It takes no chance from anybody, so a simulated run is the same with traces.
    fn draw_trace(&self) -> u64 {
        let count = self.0.traces.fetch_add(1, Relaxed) + 1;
        let mut word = self.0.start_nonce.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 0 stands for no trace.
        (word ^ (word >> 31)).max(1)
    }

    /// Puts one frame on its way, the short one for this node itself. Tells and asks of the user
    /// lane are paid for.
    pub(super) fn post(
        &self,
        to: &NodeName,
        lane: Lane,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendError> {
        if !self.costs_credit(to, lane) || !matches!(header.kind, FrameKind::Tell | FrameKind::Ask)
        {
            return self.post_free(to, lane, header, body);
        }
        let allowance = self.allowance(to, header.target).ok_or(SendError::Unreachable)?;
        allowance.try_spend(self, body.len())?;
        self.post_free(to, lane, header, body).inspect_err(|_| allowance.give_back(body.len()))
    }

    /// As [`Node::post`], for what is paid already or costs nothing.
    pub(super) fn post_free(
        &self,
        to: &NodeName,
        lane: Lane,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendError> {
        if to == self.name() {
            self.route_own(lane, header, body);
            return Ok(());
        }
        self.links().send(to, lane, header, body).map_err(refused)
    }

    pub(super) fn costs_credit(&self, to: &NodeName, lane: Lane) -> bool {
        lane == Lane::User && to != self.name()
    }
}
