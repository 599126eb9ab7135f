//! Servers of a walk that are replaced.

use std::sync::Arc;

use rand::RngExt;
use synod::multicast::{joining::Progress, message::Seq};

use super::{Event, Walk};
use crate::judge::Broken;

impl Walk {
    /// A server is lost, or only thought to be: it has a spare one's place. One at a time, so that
    /// no more than one is lost.
    pub(super) fn lose(&mut self, node: usize) -> Result<(), Broken> {
        let spare = self.rng.random_range(0..self.nodes.len());
        let (out, comes) = (self.nodes[node].id.clone(), self.nodes[spare].id.clone());
        if self.nodes[spare].lost || self.group.is_host(&comes) {
            return Ok(());
        }
        let Ok(group) = self.group.replacing(&out, comes) else { return Ok(()) };
        // Who is lost for good had the place that it leaves.
        let dies = self.group.joining.is_none() && self.rng.random_ratio(1, 2);
        if dies {
            self.nodes[node].crash(&mut self.rng);
            self.nodes[node].lost = true;
        }
        self.group = Arc::new(group);
        self.walked.replaced += 1;
        self.spread();
        Ok(())
    }

    /// Nodes learn one after the other, some late, who serves the group.
    fn spread(&mut self) {
        for node in 0..self.nodes.len() {
            let wait = self.rng.random_range(500..if self.calm { 20_000 } else { 400_000 });
            self.after(wait, Event::Learn(node));
        }
    }

    pub(super) fn learn(&mut self, node: usize) -> Result<(), Broken> {
        let group = Arc::clone(&self.group);
        if self.nodes[node].roles.is_none() || self.nodes[node].group.version >= group.version {
            return Ok(());
        }
        // What it has said belongs to the time before.
        self.collect(node)?;
        self.progress[node] = Progress::of(&group);
        if group.is_joining(&self.nodes[node].id) {
            self.cursors[node] = Seq(0);
        }
        self.nodes[node].regroup(self.now, &group, &mut self.rng);
        if self.leader == Some(node) {
            self.after(2_000, Event::Lead);
        }
        self.collect(node)
    }

    /// Who is on its way in has what it needs.
    pub(super) fn join(&mut self, node: usize) -> Result<(), Broken> {
        let mine = self.nodes[node].group.version;
        if mine != self.group.version || !self.progress[node].is_in() {
            return Ok(());
        }
        if let Ok(group) = self.group.joined(&self.nodes[node].id) {
            self.group = Arc::new(group);
            self.spread();
        }
        Ok(())
    }
}
