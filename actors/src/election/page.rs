//! Roles outside of the log: each in a register of its own, as a *page*.
//!
//! A page holds one role as the log's store would, and counts the changes made to it: that count is
//! the page's position, and epochs and renewals are named by it. Whoever changes a role reads its
//! page, executes what is asked as the next position, and writes the page, unless somebody else was
//! faster ([`register`](crate::register)); so the rules I1…I7 hold by the same code. Nobody hears of a
//! change by itself: who stands looks at the page now and then, and counts from its first sight of
//! an unchanged page (I2).
//!
//! - E1: the position of a page rises with every change and is never used twice, also when the role is
//!   removed and made again; a new page begins above whatever the log granted before.
//! - E2: an operation may be executed twice, when nobody knows whether it was. None does harm then: a
//!   second `Take` finds the first one's grant, and is answered *held* (I3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    message::{Change, Epoch, Exceptions, Grant, Holder, Op, Refusal, Renew, RoleId, Said},
    roles::Roles,
    store::{decode, encode},
};
use crate::{register::VALUE_BYTES_MAX, replicated::Position};

/// A role in its register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Counts the changes.
    pub position: Position,
    /// The role, if there is one; its number is 0 at first and rises when it is made anew.
    pub roles: Roles,
}

/// What became of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// As it is from now on.
    pub page: Page,
    /// What to write.
    pub bytes: Vec<u8>,
    /// One answer for each operation.
    pub said: Vec<Said>,
    /// New holders.
    pub changes: Vec<Change>,
}

impl Page {
    /// Reads a page. One of no bytes is new, and begins above `above`.
    ///
    /// # Errors
    /// A text for people, when it is none.
    pub fn read(bytes: &[u8], above: Epoch) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self { position: Position(above.0), roles: Roles::default() });
        }
        decode(bytes).map_err(|error| format!("a register holds no role: {error}"))
    }

    /// Executes operations on it. One that does not fit into a register is refused with all others.
    pub fn turn(&self, ops: &[Op]) -> Turned {
        let mut page = self.clone();
        page.position = Position(page.position.0 + 1);
        let mut changes = Vec::new();
        let apply = |op: &Op| page.roles.apply(page.position, op.clone(), &mut changes);
        let said: Vec<_> = ops.iter().map(apply).collect();
        let bytes = encode(&page);
        if bytes.len() <= VALUE_BYTES_MAX {
            return Turned { page, bytes, said, changes };
        }
        let why = format!("a role and who stands for it fit into {VALUE_BYTES_MAX} bytes");
        let refused = vec![Said::Refused(Refusal::Full(why)); ops.len()];
        let (page, bytes) = (self.clone(), encode(self));
        Turned { page, bytes, said: refused, changes: Vec::new() }
    }
}

/// The numbers that one node gives to roles whose pages it has seen: they mean nothing elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Index {
    ids: BTreeMap<(String, RoleId), RoleId>,
    names: BTreeMap<RoleId, (String, RoleId)>,
}

impl Index {
    /// The number here of the role that has `id` in its page.
    pub fn id(&mut self, role: &str, id: RoleId) -> RoleId {
        let next = RoleId(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        let here = *self.ids.entry((role.to_owned(), id)).or_insert(next);
        self.names.entry(here).or_insert_with(|| (role.to_owned(), id));
        here
    }

    /// The name of the role of that number here, and its number in its page.
    pub fn name(&self, id: RoleId) -> Option<&(String, RoleId)> {
        self.names.get(&id)
    }

    /// The same change, by the numbers of this node.
    pub fn change(&mut self, change: Change) -> Change {
        Change { role: self.id(&change.name, change.role), ..change }
    }
}

/// A command, cut into what concerns each role.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// For each role what to execute on its page.
    pub by_role: BTreeMap<String, Vec<Op>>,
    /// Whose answer each of these is, in the same order.
    owners: BTreeMap<String, Vec<Owner>>,
    /// Answers that are known already.
    said: BTreeMap<usize, Said>,
    len: usize,
}

/// Which operation an answer belongs to.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Whole(usize),
    /// The place in `held` of a renewal.
    Held(usize, u32),
    /// In `stood`.
    Stood(usize, u32),
}

impl Cut {
    /// Cuts a command.
    pub fn new(ops: &[Op], index: &Index) -> Self {
        let mut cut = Self { len: ops.len(), ..Self::default() };
        for (number, op) in ops.iter().enumerate() {
            match op {
                Op::Add { role }
                | Op::Remove { role }
                | Op::Take { role, .. }
                | Op::Adopt { role, .. }
                | Op::Resign { role, .. }
                | Op::Leave { role, .. }
                | Op::Fence { role, .. } => cut.add(role, op.clone(), Owner::Whole(number)),
                Op::Expire { role, epoch, renewal } => {
                    cut.by_number(index, number, *role, |role| Op::Expire {
                        role,
                        epoch: *epoch,
                        renewal: *renewal,
                    });
                }
                Op::Drop { role, client, renewal } => {
                    cut.by_number(index, number, *role, |role| Op::Drop {
                        role,
                        client: *client,
                        renewal: *renewal,
                    });
                }
                Op::Renew(renew) => cut.renewal(index, number, renew),
                // That one is kept in the log, whatever keeps the others.
                Op::Charge { .. } => {
                    cut.said.insert(number, Said::Refused(Refusal::BuiltIn));
                }
            }
        }
        cut
    }

    fn add(&mut self, role: &str, op: Op, owner: Owner) {
        self.by_role.entry(role.to_owned()).or_default().push(op);
        self.owners.entry(role.to_owned()).or_default().push(owner);
    }

    fn by_number(
        &mut self,
        index: &Index,
        number: usize,
        role: RoleId,
        make: impl FnOnce(RoleId) -> Op,
    ) {
        match index.name(role) {
            Some((name, id)) => self.add(name, make(*id), Owner::Whole(number)),
            None => drop(self.said.insert(number, Said::Done)),
        }
    }

    fn renewal(&mut self, index: &Index, number: usize, renew: &Renew) {
        let mut exceptions = Exceptions::default();
        for (place, (role, epoch)) in (0..).zip(&renew.held) {
            let Some((name, id)) = index.name(*role) else {
                exceptions.lost.push(place);
                continue;
            };
            let held = vec![(*id, *epoch)];
            let one = Renew { service: renew.service, held, stood: Vec::new() };
            self.add(name, Op::Renew(one), Owner::Held(number, place));
        }
        for (place, (role, client)) in (0..).zip(&renew.stood) {
            let Some((name, id)) = index.name(*role) else {
                exceptions.gone.push(place);
                continue;
            };
            let stood = vec![(*id, *client)];
            let one = Renew { service: renew.service, held: Vec::new(), stood };
            self.add(name, Op::Renew(one), Owner::Stood(number, place));
        }
        self.said.insert(number, Said::Renewed(exceptions));
    }

    /// What was answered for one role, in the order of its operations.
    pub fn answered(&mut self, role: &str, said: Vec<Said>, index: &mut Index) {
        let owners = self.owners.remove(role).unwrap_or_default();
        for (owner, said) in owners.into_iter().zip(said) {
            let said = here(role, said, index);
            match owner {
                Owner::Whole(number) => drop(self.said.insert(number, said)),
                Owner::Held(number, place) | Owner::Stood(number, place) => {
                    let Said::Renewed(one) = said else { continue };
                    let Some(Said::Renewed(all)) = self.said.get_mut(&number) else { continue };
                    all.lost.extend(one.lost.iter().map(|_| place));
                    all.gone.extend(one.gone.iter().map(|_| place));
                    all.granted.extend(one.granted.iter().map(|(_, grant)| (place, *grant)));
                }
            }
        }
    }

    /// One answer for each operation, once all roles have answered.
    pub fn joined(self) -> Vec<Said> {
        let mut said: Vec<_> = (0..self.len).map(|_| Said::Done).collect();
        for (number, one) in self.said {
            said[number] = match one {
                Said::Renewed(mut exceptions) => {
                    exceptions.lost.sort_unstable();
                    exceptions.gone.sort_unstable();
                    exceptions.granted.sort_by_key(|(place, _)| *place);
                    Said::Renewed(exceptions)
                }
                other => other,
            };
        }
        said
    }
}

/// The same answer, by the numbers of this node.
fn here(role: &str, said: Said, index: &mut Index) -> Said {
    let mut grant = |grant: Grant| Grant { role: index.id(role, grant.role), ..grant };
    match said {
        Said::Granted(one) => Said::Granted(grant(one)),
        Said::Renewed(Exceptions { lost, granted, gone }) => {
            let granted = granted.into_iter().map(|(place, one)| (place, grant(one))).collect();
            Said::Renewed(Exceptions { lost, granted, gone })
        }
        Said::Standing(id, holder) => held(role, id, holder, index, Said::Standing),
        Said::Held(id, holder) => held(role, id, holder, index, Said::Held),
        Said::Done | Said::Refused(_) => said,
    }
}

fn held(
    role: &str,
    id: RoleId,
    holder: Holder,
    index: &mut Index,
    make: impl FnOnce(RoleId, Holder) -> Said,
) -> Said {
    make(index.id(role, id), holder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::message::{ClientKey, tests::take};

    /// Executes a command over pages.
    fn execute(pages: &mut BTreeMap<String, Vec<u8>>, index: &mut Index, ops: &[Op]) -> Vec<Said> {
        let mut cut = Cut::new(ops, index);
        for (role, ops) in cut.by_role.clone() {
            let bytes = pages.entry(role.clone()).or_default();
            let turned = Page::read(bytes, Epoch(100)).unwrap().turn(&ops);
            *bytes = turned.bytes;
            cut.answered(&role, turned.said, index);
        }
        cut.joined()
    }

    #[test]
    fn a_command_for_many_roles_is_cut_and_its_answers_joined() {
        let (mut pages, mut index) = (BTreeMap::new(), Index::default());
        let ops = [take("mail", 1), take("jobs", 1), take("jobs", 2)];
        let said = execute(&mut pages, &mut index, &ops);
        let [Said::Granted(mail), Said::Granted(jobs), Said::Standing(id, holder)] = &said[..]
        else {
            panic!("{said:?}");
        };
        assert_eq!((mail.epoch, jobs.epoch), (Epoch(101), Epoch(101)), "above what was before");
        assert!(mail.role != jobs.role && *id == jobs.role && holder.epoch == jobs.epoch);
        let renew = |held, stood| Op::Renew(Renew { service: 7, held, stood });
        let resign = Op::Resign { role: "mail".to_owned(), epoch: mail.epoch };
        let unknown = RoleId(9);
        let both = vec![(unknown, Epoch(1)), (mail.role, mail.epoch), (jobs.role, jobs.epoch)];
        let said = execute(
            &mut pages,
            &mut index,
            &[resign, renew(both, vec![(jobs.role, 2), (unknown, 3)])],
        );
        let lost = Exceptions { lost: vec![0, 1], granted: vec![], gone: vec![1] };
        assert_eq!(said, [Said::Done, Said::Renewed(lost)]);
        let leave =
            Op::Leave { role: "jobs".to_owned(), client: ClientKey { service: 7, number: 1 } };
        let said = execute(&mut pages, &mut index, &[leave, renew(vec![], vec![(jobs.role, 2)])]);
        let Said::Renewed(Exceptions { granted, .. }) = &said[1] else { panic!("{said:?}") };
        assert!(granted[0].1.epoch > jobs.epoch && granted[0].1.role == jobs.role, "{granted:?}");
    }

    #[test]
    fn epochs_rise_though_a_role_is_removed_and_made_anew() {
        let (mut pages, mut index) = (BTreeMap::new(), Index::default());
        let Said::Granted(first) = execute(&mut pages, &mut index, &[take("jobs", 1)])[0] else {
            panic!("nobody has it");
        };
        let name = || "jobs".to_owned();
        execute(&mut pages, &mut index, &[Op::Remove { role: name() }]);
        execute(&mut pages, &mut index, &[Op::Resign { role: name(), epoch: first.epoch }]);
        let Said::Granted(second) = execute(&mut pages, &mut index, &[take("jobs", 2)])[0] else {
            panic!("nobody has it");
        };
        assert!(second.epoch > first.epoch && second.role != first.role);
        // What was said of the old one is not taken for the new one's.
        let late =
            Op::Renew(Renew { service: 7, held: vec![(first.role, first.epoch)], stood: vec![] });
        let said = execute(&mut pages, &mut index, &[late]);
        assert_eq!(said, [Said::Renewed(Exceptions { lost: vec![0], ..Exceptions::default() })]);
    }

    #[test]
    fn who_does_not_fit_into_the_register_is_refused() {
        let mut page = Page::default();
        for number in 0..200 {
            let mut op = take("jobs", number);
            if let Op::Take { client, .. } = &mut op {
                client.name = "x".repeat(100);
            }
            let turned = page.turn(&[op]);
            if let Said::Refused(refusal) = &turned.said[0] {
                assert!(number > 20 && matches!(refusal, Refusal::Full(_)), "{number}: {refusal}");
                assert_eq!(turned.page, page);
                return;
            }
            page = turned.page;
        }
        panic!("it is bounded");
    }
}
