//! Somebody who watches the roles, now at one main, now at another (W2): judged by the changes that
//! the log itself made.

use std::collections::BTreeMap;

use rand::RngExt;
use synod::{
    election::{
        message::{Op, RoleView},
        roles::Roles,
        watch::{DEPUTIES_MAX, Mark, Notice, Since, Told},
    },
    replicated::Position,
};
use synod_runtime::world::Rng;

use super::{Broken, ROLES, broken};

/// What happened to the roles, by looking at them before and after every operation.
#[derive(Default)]
pub(super) struct History(Vec<Notice>);

impl History {
    /// One command, executed by `apply`, one operation after the other.
    pub(super) fn command<T>(
        &mut self,
        at: Position,
        roles: &mut Roles,
        ops: &[Op],
        mut apply: impl FnMut(&mut Roles, Op) -> T,
    ) -> Vec<T> {
        let mut part = 0;
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            let before = ROLES.map(|role| look(roles, role));
            answers.push(apply(roles, op.clone()));
            for (role, before) in ROLES.into_iter().zip(before) {
                let now = look(roles, role);
                if now != before {
                    let mark = Mark { position: at.0, part };
                    self.0.push(Notice { mark, role: role.to_owned(), now });
                    part += 1;
                }
            }
        }
        answers
    }
}

fn look(roles: &Roles, role: &str) -> Option<RoleView> {
    let mut view = roles.named(role)?.view();
    view.volunteers.truncate(DEPUTIES_MAX);
    Some(view)
}

/// See the module's documentation.
pub(super) struct Watcher {
    mark: Option<Mark>,
    /// How many changes of the history it has heard of.
    heard: usize,
    known: BTreeMap<String, RoleView>,
    rng: Rng,
}

impl Watcher {
    pub(super) fn new(rng: Rng) -> Self {
        Self { mark: None, heard: 0, known: BTreeMap::new(), rng }
    }

    /// When it asks next, and whom of so many.
    pub(super) fn next(&mut self, nodes: usize) -> (u64, usize) {
        (self.rng.random_range(5_000..200_000), self.rng.random_range(0..nodes))
    }

    pub(super) fn since(&self) -> Since {
        Since { role: None, mark: self.mark }
    }

    /// P6.
    pub(super) fn hear(&mut self, told: Told, history: &History) -> Result<(), Broken> {
        if let Some(state) = told.state {
            self.heard = history.0.partition_point(|notice| notice.mark <= told.upto);
            self.known = state.into_iter().map(|view| (view.role.clone(), view)).collect();
            let mut truth = BTreeMap::new();
            for notice in &history.0[..self.heard] {
                keep(&mut truth, notice);
            }
            if truth != self.known {
                let how = format!("at {}: {truth:?} is so, {:?} was told", told.upto, self.known);
                return Err(broken("P6", how));
            }
        }
        for notice in told.notices {
            let next = history.0.get(self.heard);
            if next != Some(&notice) {
                return Err(broken("P6", format!("{next:?} comes next, {notice:?} was told")));
            }
            self.heard += 1;
            keep(&mut self.known, &notice);
        }
        let missed = history.0.get(self.heard).filter(|next| next.mark <= told.upto);
        if let Some(missed) = missed {
            return Err(broken("P6", format!("{missed:?} was not told before {}", told.upto)));
        }
        self.mark = Some(told.upto);
        Ok(())
    }
}

fn keep(known: &mut BTreeMap<String, RoleView>, notice: &Notice) {
    match &notice.now {
        Some(view) => known.insert(notice.role.clone(), view.clone()),
        None => known.remove(&notice.role),
    };
}
