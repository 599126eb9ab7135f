//! Frames on their way out.

use std::sync::atomic::Ordering::Relaxed;

use super::{Node, credit::Allowance, refused};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    link::Path,
    trace,
    wire::{Frame, FrameHeader, FrameKind, name_hash},
    world::network::Lane,
};

/// All it takes to tell one target on another node, found once for many messages.
pub(crate) struct Pipe {
    path: Path,
    allowance: Allowance,
}

impl Pipe {
    /// Whether the link it was found for is still there.
    pub(crate) fn lasts(&self) -> bool {
        self.allowance.lasts()
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
        pipe.allowance.try_spend(self, body.len())?;
        self.links().send_by(&pipe.path, Lane::User, &header, body).map_err(|error| {
            pipe.allowance.give_back(body.len());
            refused(error)
        })
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
            let frame = Frame { header: *header, body: bytes::Bytes::copy_from_slice(body) };
            self.route(self.id(), lane, vec![frame]);
            return Ok(());
        }
        self.links().send(to, lane, header, body).map_err(refused)
    }

    pub(super) fn costs_credit(&self, to: &NodeName, lane: Lane) -> bool {
        lane == Lane::User && to != self.name()
    }
}
