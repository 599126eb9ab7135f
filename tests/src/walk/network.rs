//! Who can reach whom, and who was told of it.

use rand::RngExt;
use synod::consensus::message::{NodeRole, Peer, ProposerMessage};
use synod_runtime::identity::NodeId;

use super::{Walk, schedule::Event};

/// See the module's documentation. Indices are places of nodes: from, then to.
#[derive(Debug)]
pub(crate) struct Network {
    cut: Vec<Vec<bool>>,
    /// Whom the proposer there believes to be connected.
    told: Vec<Vec<Option<NodeId>>>,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { cut: vec![vec![false; nodes]; nodes], told: vec![vec![None; nodes]; nodes] }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to]
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    /// Everybody reaches everybody.
    pub(crate) fn mend(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
    }

    /// A proposer was made anew and knows of nobody.
    pub(crate) fn forget(&mut self, place: usize) {
        self.told[place].fill(None);
    }
}

/// How often the links notice changes.
const NOTICE_NANOS: u64 = 15_000_000;

impl Walk {
    /// Tells every proposer what changed about its peers.
    pub(super) fn notice_links(&mut self) {
        for place in 0..self.nodes.len() {
            if !self.nodes[place].up || self.nodes[place].kind == NodeRole::Auxiliary {
                continue;
            }
            for other in (0..self.nodes.len()).filter(|other| *other != place) {
                // Links do not notice at once.
                if self.rng.random_bool(0.3) {
                    continue;
                }
                let cut = self.network.cut[place][other] || self.network.cut[other][place];
                let up = (self.nodes[other].up && !cut).then(|| self.nodes[other].id.clone());
                if self.network.told[place][other] != up {
                    self.tell_of(place, other, up);
                }
            }
        }
        let after = self.rng.random_range(NOTICE_NANOS / 4..NOTICE_NANOS);
        self.schedule.after(after, Event::Links);
    }

    fn tell_of(&mut self, place: usize, other: usize, up: Option<NodeId>) {
        let role = self.nodes[other].kind;
        let me = self.nodes[place].id.clone();
        let old = std::mem::replace(&mut self.network.told[place][other], up.clone());
        let gone = old.map(|node| Peer { node, role, up: false });
        let came = up.map(|node| Peer { node, role, up: true });
        for peer in gone.into_iter().chain(came) {
            self.deliver(place, me.clone(), ProposerMessage::Peer(peer).into());
        }
    }
}
