//! The history of roles, as those who watch are told it: every change, in order.
//!
//! - W1: a change has a *mark*: the position of the command that made it, and which of that
//!   command's changes it is. It is the same at every main, so whoever watched at one may go on at
//!   any other.
//! - W2: whoever names a mark hears of every change behind it, each once, in order; or, if not all
//!   of them are kept any more, hears how everything stands instead, and goes on from there. Never
//!   of some and not of others.
//!
//! A main keeps its history in memory and begins a new one whenever it starts or installs a state.

use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    message::{Op, RoleView, SYSTEM_MANAGER},
    roles::Roles,
};
use crate::replicated::Position;

/// A place in the history.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Mark {
    /// The command.
    pub position: u64,
    /// Which of its changes.
    pub part: u32,
}

impl Mark {
    /// Behind everything that the command at `position` did, and all before it.
    pub const fn behind(position: Position) -> Self {
        Self { position: position.0, part: u32::MAX }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.position, self.part)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let parts = parts.and_then(|(at, part)| Some((at.parse().ok()?, part.parse().ok()?)));
        let (position, part) =
            parts.ok_or_else(|| format!("{text:?} is no mark; give back one that was heard"))?;
        Ok(Self { position, part })
    }
}

/// One change of one role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// Where it stands.
    pub mark: Mark,
    /// The role.
    pub role: String,
    /// How it is from then on, with the first [`DEPUTIES_MAX`] of those who stand; none: removed.
    pub now: Option<RoleView>,
}

/// What is asked by whoever watches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Since {
    /// Of this role; none: of all.
    pub role: Option<String>,
    /// From there on; none: how everything stands comes first.
    pub mark: Option<Mark>,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// How everything stands, where the changes behind the mark are not all known, or none was
    /// named.
    pub state: Option<Vec<RoleView>>,
    /// What changed, in order.
    pub notices: Vec<Notice>,
    /// The mark to go on from.
    pub upto: Mark,
}

/// The newest changes, as one main has executed them.
#[derive(Debug, Clone, Default)]
pub struct Chronicle {
    /// Everything behind it is kept; none until something is executed or asked.
    floor: Option<Mark>,
    notices: VecDeque<Notice>,
}

impl Chronicle {
    /// Executes `op` by `apply`, and keeps what it changed; `part` counts the command's changes.
    pub fn around<T>(
        &mut self,
        at: Position,
        part: &mut u32,
        roles: &mut Roles,
        op: Op,
        apply: impl FnOnce(&mut Roles, Op) -> T,
    ) -> T {
        if self.floor.is_none() {
            self.floor = Some(Mark::behind(Position(at.0.saturating_sub(1))));
        }
        let Some(role) = subject(roles, &op) else { return apply(roles, op) };
        let before = look(roles, &role);
        let done = apply(roles, op);
        let now = look(roles, &role);
        let vacant = |view: &RoleView| view.holder.is_none();
        let told = !off!(EveryChangeTold) || !now.as_ref().is_some_and(vacant);
        if before != now && told {
            self.note(Notice { mark: Mark { position: at.0, part: *part }, role, now });
            *part += 1;
        }
        done
    }

    /// What whoever watches has missed. `at` is the last command executed here, of whatever actor.
    pub fn since(&mut self, at: Position, roles: &Roles, asked: &Since) -> Told {
        let (here, wanted) = (Mark::behind(at), |role: &str| match &asked.role {
            Some(only) => only == role,
            None => true,
        });
        let floor = *self.floor.get_or_insert(here);
        let Some(mark) = asked.mark.filter(|mark| *mark >= floor || off!(GapsAreTold)) else {
            let mut state: Vec<_> = match &asked.role {
                Some(role) => look(roles, role).into_iter().collect(),
                None => roles.iter().map(|(_, role)| shown(role.view())).collect(),
            };
            state.sort_by(|one, other| one.role.cmp(&other.role));
            return Told { state: Some(state), notices: Vec::new(), upto: here };
        };
        let first = self.notices.partition_point(|notice| notice.mark <= mark);
        let news = self.notices.range(first..).filter(|notice| wanted(&notice.role));
        let notices: Vec<_> = news.take(TOLD_MAX).cloned().collect();
        let upto = match notices.last() {
            Some(last) if notices.len() == TOLD_MAX => last.mark,
            // This main may be behind the one that was asked before.
            Some(_) | None => mark.max(here),
        };
        Told { state: None, notices, upto }
    }

    fn note(&mut self, notice: Notice) {
        if self.notices.len() >= NOTICES_MAX {
            self.floor = self.notices.pop_front().map(|oldest| oldest.mark);
        }
        self.notices.push_back(notice);
    }
}

/// The role that an operation may change, as people see it. A renewal changes nothing they see.
fn subject(roles: &Roles, op: &Op) -> Option<String> {
    match op {
        Op::Add { role }
        | Op::Remove { role }
        | Op::Take { role, .. }
        | Op::Adopt { role, .. }
        | Op::Resign { role, .. }
        | Op::Leave { role, .. } => Some(role.clone()),
        Op::Expire { role, .. } | Op::Drop { role, .. } => roles.name(*role).map(str::to_owned),
        Op::Charge { .. } => Some(SYSTEM_MANAGER.to_owned()),
        Op::Renew(_) | Op::Fence { .. } => None,
    }
}

fn look(roles: &Roles, role: &str) -> Option<RoleView> {
    roles.named(role).map(|role| shown(role.view()))
}

fn shown(mut view: RoleView) -> RoleView {
    view.volunteers.truncate(DEPUTIES_MAX);
    view
}

/// Of those who stand, so many are named in a change: the deputies, next first. A change behind
/// them is none.
pub const DEPUTIES_MAX: usize = 8;

/// Changes kept: a minute of a busy cluster, and some megabytes at worst. Whoever is further behind
/// hears how everything stands.
pub const NOTICES_MAX: usize = 4_096;

/// Changes in one answer; the rest comes with the next.
const TOLD_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::message::{ClientKey, Epoch, tests::take};

    #[derive(Default)]
    struct Main(Roles, Chronicle);

    impl Main {
        fn execute(&mut self, at: u64, ops: Vec<Op>) {
            let mut part = 0;
            for op in ops {
                let apply = |roles: &mut Roles, op| roles.apply(Position(at), op, &mut vec![]);
                self.1.around(Position(at), &mut part, &mut self.0, op, apply);
            }
        }

        fn told(&mut self, at: u64, role: Option<&str>, mark: Option<Mark>) -> Told {
            let since = Since { role: role.map(str::to_owned), mark };
            self.1.since(Position(at), &self.0, &since)
        }
    }

    fn seen(told: &Told) -> Vec<(String, Option<u64>)> {
        let leads = |view: &RoleView| view.holder.as_ref().map(|holder| holder.epoch.0);
        let seen = |notice: &Notice| (notice.role.clone(), notice.now.as_ref().and_then(leads));
        told.notices.iter().map(seen).collect()
    }

    #[test]
    fn who_watches_hears_of_every_change_in_order_and_of_nothing_twice() {
        let mut main = Main::default();
        let start = main.told(3, None, None);
        assert_eq!((start.state, start.upto), (Some(vec![]), Mark::behind(Position(3))));
        main.execute(5, vec![take("jobs", 1), take("mail", 2), take("jobs", 3)]);
        main.execute(9, vec![Op::Resign { role: "jobs".to_owned(), epoch: Epoch(5) }]);
        main.execute(11, vec![Op::Remove { role: "mail".to_owned() }]);
        let resign = Op::Resign { role: "mail".to_owned(), epoch: Epoch(5) };
        main.execute(12, vec![resign, Op::Renew(Default::default())]);
        let all = main.told(12, None, Some(start.upto));
        let jobs = |epoch| ("jobs".to_owned(), Some(epoch));
        let mail = |epoch| ("mail".to_owned(), epoch);
        let expected = [jobs(5), mail(Some(5)), jobs(5), jobs(9), mail(Some(5)), mail(None)];
        assert_eq!((seen(&all), all.state), (expected.to_vec(), None));
        assert!(all.notices[5].now.is_none(), "it is removed");
        assert_eq!(seen(&main.told(12, Some("mail"), Some(start.upto))).len(), 3);
        // From any mark on, the same again; a main that is behind says nothing yet.
        let half = main.told(12, None, Some(all.notices[1].mark));
        assert_eq!(half.notices, all.notices[2..]);
        let ahead = Mark::behind(Position(40));
        let behind = main.told(12, None, Some(ahead));
        assert_eq!((behind.notices.len(), behind.state, behind.upto), (0, None, ahead));
        assert_eq!(all.notices[2].mark.to_string().parse(), Ok(all.notices[2].mark));
        assert!("soon".parse::<Mark>().is_err());
    }

    #[test]
    fn who_was_away_for_too_long_hears_how_everything_stands_instead() {
        let mut main = Main::default();
        main.execute(1, vec![take("jobs", 1)]);
        let early = main.told(1, None, None).upto;
        for at in 0..NOTICES_MAX as u64 {
            main.execute(2 + at * 2, vec![take("mail", 2)]);
            let key = ClientKey { service: 7, number: 2 };
            main.execute(3 + at * 2, vec![Op::Leave { role: "mail".to_owned(), client: key }]);
        }
        let told = main.told(90_000, None, Some(early));
        let state = told.state.expect("not everything is kept");
        assert_eq!((state.len(), told.notices.len()), (2, 0));
        // Whoever hears only of what never changed loses nothing by it, if it asks.
        let mut mark = main.told(90_000, Some("jobs"), None).upto;
        main.execute(90_001, vec![take("jobs", 3)]);
        for (at, left) in [(90_001, 1), (90_001, 0)] {
            let told = main.told(at, Some("jobs"), Some(mark));
            assert_eq!((told.notices.len(), told.state), (left, None));
            mark = told.upto;
        }
        // A restored state has no history.
        let mut other = Main(main.0.clone(), Chronicle::default());
        other.execute(90_002, vec![take("jobs", 4)]);
        assert!(other.told(90_002, None, Some(early)).state.is_some());
        assert_eq!(other.told(90_002, None, Some(mark)).notices.len(), 1);
    }

    #[test]
    fn more_changes_than_fit_into_an_answer_come_with_the_next() {
        let mut main = Main::default();
        let mut mark = main.told(1, None, None).upto;
        let roles = 600;
        main.execute(2, (0..roles).map(|one| take(&format!("r{one:03}"), one)).collect());
        let mut heard = Vec::new();
        while heard.len() < 600 {
            let told = main.told(7, None, Some(mark));
            assert!(!told.notices.is_empty() && told.notices.len() <= TOLD_MAX);
            heard.extend(seen(&told));
            mark = told.upto;
        }
        assert!(heard.is_sorted() && main.told(7, None, Some(mark)).notices.is_empty());
    }
}
