//! The store of roles: what every main comes to from the same commands.
//!
//! It knows no time. Whether a lease has run out is for whoever proposes `Expire` and `Drop`; here
//! it only counts whether there was a renewal since the one they name (I2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{
    Change, Client, ClientKey, Epoch, Exceptions, Grant, Holder, Op, Refusal, Renew, RoleId,
    RoleView, SYSTEM_MANAGER, Said, Terms, check_name,
};
use crate::replicated::Position;

/// All roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    names: BTreeMap<String, RoleId>,
    roles: BTreeMap<RoleId, Role>,
    next: u32,
    /// How many stand, in all roles.
    standing: usize,
    /// The highest epoch of what is no role here: of other stores, and of roles that were removed.
    fences: BTreeMap<String, Epoch>,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Who holds it.
    pub tenure: Option<Tenure>,
    /// Who stands, next first.
    pub volunteers: Vec<Volunteer>,
    /// It goes when its holder does.
    pub removing: bool,
}

/// A holder's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Who.
    pub client: Client,
    /// T, fixed by the grant.
    pub terms: Terms,
    /// Whether somebody may be acting on it (I3).
    pub confirmed: bool,
    /// The newest renewal, or the grant.
    pub renewal: Position,
}

/// Somebody who stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volunteer {
    /// Who.
    pub client: Client,
    /// What it wants.
    pub terms: Terms,
    /// The newest renewal.
    pub renewal: Position,
}

impl Roles {
    /// Executes one request at its position; holders that changed are added to `changes`.
    pub fn apply(&mut self, at: Position, op: Op, changes: &mut Vec<Change>) -> Said {
        let done = match op {
            Op::Add { role }
            | Op::Remove { role }
            | Op::Take { role, .. }
            | Op::Adopt { role, .. }
            | Op::Resign { role, .. }
            | Op::Leave { role, .. }
                if role == SYSTEM_MANAGER =>
            {
                Err(Refusal::BuiltIn)
            }
            Op::Charge { client, after } => self.charge(at, client, after, changes),
            Op::Add { role } => self.add(&role).map(|_| Said::Done),
            Op::Remove { role } => self.remove(&role),
            Op::Take { role, client, terms, stand } => {
                self.take(at, &role, client, terms, stand, changes)
            }
            Op::Renew(renew) => Ok(self.renew(at, &renew)),
            Op::Adopt { role, epoch, client } => self.adopt(at, &role, epoch, client),
            Op::Resign { role, epoch } => self.resign(at, &role, epoch, changes),
            Op::Leave { role, client } => self.leave(at, &role, client, changes),
            Op::Expire { role, epoch, renewal } => {
                self.expire(at, role, epoch, renewal, changes);
                Ok(Said::Done)
            }
            Op::Drop { role, client, renewal } => {
                self.drop_volunteer(role, client, renewal);
                Ok(Said::Done)
            }
            Op::Fence { role, epoch } => self.fence(role, epoch),
        };
        done.unwrap_or_else(Said::Refused)
    }

    /// All roles, by number.
    pub fn iter(&self) -> impl Iterator<Item = (RoleId, &Role)> {
        self.roles.iter().map(|(id, role)| (*id, role))
    }

    /// The role of that name.
    pub fn named(&self, name: &str) -> Option<&Role> {
        self.roles.get(self.names.get(name)?)
    }

    /// The name of the role of that number.
    pub fn name(&self, id: RoleId) -> Option<&str> {
        self.roles.get(&id).map(|role| role.name.as_str())
    }

    /// The newest position named anywhere.
    pub fn newest(&self) -> Position {
        let of = |role: &Role| {
            let stood = role.volunteers.iter().map(|one| one.renewal);
            stood.chain(role.tenure.as_ref().map(|tenure| tenure.renewal)).max()
        };
        self.roles.values().filter_map(of).max().unwrap_or_default()
    }

    /// The highest epoch known of a role, of this store or not.
    pub fn known_epoch(&self, role: &str) -> Epoch {
        let here = self.named(role).map_or(Epoch(0), |role| role.epoch);
        here.max(self.fences.get(role).copied().unwrap_or_default())
    }

    fn add(&mut self, name: &str) -> Result<RoleId, Refusal> {
        check_name("role", name)?;
        if let Some(id) = self.names.get(name) {
            if let Some(role) = self.roles.get_mut(id) {
                role.removing = false;
            }
            return Ok(*id);
        }
        if self.roles.len() >= ROLES_MAX {
            return Err(Refusal::Full(format!("there are {ROLES_MAX} roles, as many as may be")));
        }
        let id = RoleId(self.next);
        self.next += 1;
        let role = Role {
            name: name.to_owned(),
            // What was fenced with before stays below what is granted from now on.
            epoch: self.fences.remove(name).unwrap_or_default(),
            tenure: None,
            volunteers: Vec::new(),
            removing: false,
        };
        self.names.insert(name.to_owned(), id);
        self.roles.insert(id, role);
        Ok(id)
    }

    fn remove(&mut self, name: &str) -> Result<Said, Refusal> {
        let id = self.id(name)?;
        if self.fences.len() >= FENCES_MAX {
            let why = format!("{FENCES_MAX} epochs of roles that are gone are kept, and no more");
            return Err(Refusal::Full(why));
        }
        let role = self.role(id);
        role.removing = true;
        let volunteers = std::mem::take(&mut role.volunteers).len();
        self.standing -= volunteers;
        self.bury(id);
        Ok(Said::Done)
    }

    fn take(
        &mut self,
        at: Position,
        name: &str,
        client: Client,
        terms: Terms,
        stand: bool,
        changes: &mut Vec<Change>,
    ) -> Result<Said, Refusal> {
        check_name("holder", &client.name)?;
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => self.add(name)?,
        };
        let standing = self.standing;
        let role = self.role(id);
        if role.removing {
            return Err(Refusal::Removing(name.to_owned()));
        }
        let key = client.key;
        let Some(holder) = role.holder() else {
            // Nobody stands for a role that nobody holds: it would have been handed over.
            let volunteer = Volunteer { client, terms, renewal: at };
            let epoch = role.grant(id, at, volunteer, true, changes);
            return Ok(Said::Granted(Grant { role: id, epoch, terms }));
        };
        if off!(SameNameIsAnother) && holder.client.name == client.name {
            let (epoch, terms) = (holder.epoch, holder.terms);
            role.tenure.as_mut().expect("it has a holder").client = client;
            return Ok(Said::Granted(Grant { role: id, epoch, terms }));
        }
        if holder.client.key == key || !stand {
            return Ok(Said::Held(id, holder));
        }
        if let Some(known) = role.volunteers.iter_mut().find(|known| known.client.key == key) {
            known.renewal = at;
            return Ok(Said::Standing(id, holder));
        }
        if role.volunteers.len() >= VOLUNTEERS_MAX || standing >= STANDING_MAX {
            let why = format!("{VOLUNTEERS_MAX} stand for role {name}, as many as may");
            return Err(Refusal::Full(why));
        }
        let before =
            role.volunteers.partition_point(|other| other.terms.priority >= terms.priority);
        role.volunteers.insert(before, Volunteer { client, terms, renewal: at });
        self.standing += 1;
        Ok(Said::Standing(id, holder))
    }

    fn renew(&mut self, at: Position, renew: &Renew) -> Said {
        let mut exceptions = Exceptions::default();
        for (place, (id, epoch)) in (0..).zip(&renew.held) {
            let named = |role: &Role| role.epoch == *epoch || off!(RenewalNamesEpoch);
            let held = self.roles.get_mut(id).filter(|role| named(role) && !role.removing);
            let tenure = held.and_then(|role| role.tenure.as_mut()).filter(|tenure| {
                tenure.client.key.service == renew.service || off!(RenewalNamesEpoch)
            });
            match tenure {
                Some(tenure) => (tenure.renewal, tenure.confirmed) = (at, true),
                None => exceptions.lost.push(place),
            }
        }
        for (place, (id, number)) in (0..).zip(&renew.stood) {
            let key = ClientKey { service: renew.service, number: *number };
            let Some(role) = self.roles.get_mut(id) else {
                exceptions.gone.push(place);
                continue;
            };
            let volunteer = role.volunteers.iter_mut().find(|one| one.client.key == key);
            let stands = volunteer.map(|volunteer| volunteer.renewal = at).is_some();
            match role.tenure.as_ref().filter(|tenure| tenure.client.key == key) {
                Some(tenure) => {
                    let grant = Grant { role: *id, epoch: role.epoch, terms: tenure.terms };
                    exceptions.granted.push((place, grant));
                }
                None if stands => {}
                None => exceptions.gone.push(place),
            }
        }
        Said::Renewed(exceptions)
    }

    fn adopt(
        &mut self,
        at: Position,
        name: &str,
        epoch: Epoch,
        client: Client,
    ) -> Result<Said, Refusal> {
        let id = self.id(name)?;
        let role = self.role(id);
        if role.removing {
            return Err(Refusal::Removing(name.to_owned()));
        }
        let held = role.epoch == epoch;
        match role.tenure.as_mut().filter(|tenure| held && tenure.client.name == client.name) {
            Some(tenure) => {
                let terms = tenure.terms;
                (tenure.client, tenure.renewal, tenure.confirmed) = (client, at, true);
                Ok(Said::Granted(Grant { role: id, epoch, terms }))
            }
            None => Err(Refusal::NotHeld { role: name.to_owned(), holder: role.holder() }),
        }
    }

    fn resign(
        &mut self,
        at: Position,
        name: &str,
        epoch: Epoch,
        changes: &mut Vec<Change>,
    ) -> Result<Said, Refusal> {
        let id = self.id(name)?;
        let role = self.role(id);
        let named = role.epoch == epoch || off!(ResignationNamesEpoch);
        if role.tenure.is_none() || !named {
            return Err(Refusal::NotHeld { role: name.to_owned(), holder: role.holder() });
        }
        self.vacate(id, at, changes);
        Ok(Said::Done)
    }

    fn leave(
        &mut self,
        at: Position,
        name: &str,
        client: ClientKey,
        changes: &mut Vec<Change>,
    ) -> Result<Said, Refusal> {
        let id = self.id(name)?;
        let role = self.role(id);
        let before = role.volunteers.len();
        role.volunteers.retain(|one| one.client.key != client);
        let left = before - role.volunteers.len();
        let held = role
            .tenure
            .as_ref()
            .is_some_and(|tenure| tenure.client.key == client || off!(ExitNamesProcess));
        self.standing -= left;
        if held {
            self.vacate(id, at, changes);
        }
        Ok(Said::Done)
    }

    /// The built-in role passes to who leads the log, unless somebody who knows more was faster.
    fn charge(
        &mut self,
        at: Position,
        client: Client,
        after: Epoch,
        changes: &mut Vec<Change>,
    ) -> Result<Said, Refusal> {
        let id = self.add(SYSTEM_MANAGER)?;
        let role = self.role(id);
        if let Some(holder) = role.holder().filter(|_| role.epoch != after) {
            return Ok(Said::Held(id, holder));
        }
        let terms = Terms::default();
        let epoch = role.grant(id, at, Volunteer { client, terms, renewal: at }, true, changes);
        Ok(Said::Granted(Grant { role: id, epoch, terms }))
    }

    fn expire(
        &mut self,
        at: Position,
        id: RoleId,
        epoch: Epoch,
        renewal: Position,
        changes: &mut Vec<Change>,
    ) {
        let may = |role: &&Role| role.epoch == epoch && !role.is_built_in();
        let Some(role) = self.roles.get(&id).filter(may) else { return };
        let overdue = |tenure: &Tenure| tenure.renewal == renewal || off!(ExpiryNamesRenewal);
        if role.tenure.as_ref().is_some_and(overdue) {
            self.vacate(id, at, changes);
        }
    }

    fn drop_volunteer(&mut self, id: RoleId, client: ClientKey, renewal: Position) {
        let Some(role) = self.roles.get_mut(&id) else { return };
        let before = role.volunteers.len();
        role.volunteers.retain(|one| one.client.key != client || one.renewal != renewal);
        self.standing -= before - role.volunteers.len();
    }

    fn fence(&mut self, role: String, epoch: Epoch) -> Result<Said, Refusal> {
        check_name("role", &role)?;
        if epoch > EPOCH_MAX {
            return Err(Refusal::BadEpoch(epoch));
        }
        let known = self.known_epoch(&role);
        if epoch < known && !off!(OldEpochsRefused) {
            return Err(Refusal::Fenced { role, epoch, known });
        }
        // A role of this store knows its own epochs.
        if epoch > known && !self.names.contains_key(&role) {
            if self.fences.len() >= FENCES_MAX && !self.fences.contains_key(&role) {
                let why = format!("epochs of {FENCES_MAX} other roles are kept, and no more");
                return Err(Refusal::Full(why));
            }
            self.fences.insert(role, epoch);
        }
        Ok(Said::Done)
    }

    /// The holder is gone: the next one has it, or the role ends if it was to.
    fn vacate(&mut self, id: RoleId, at: Position, changes: &mut Vec<Change>) {
        let role = self.role(id);
        role.tenure = None;
        if !role.hand_over(id, at, changes) {
            changes.push(Change { role: id, name: role.name.clone(), holder: None });
        } else {
            self.standing -= 1;
        }
        self.bury(id);
    }

    /// Removes a role that is to go, once nobody holds it. Its epoch is remembered.
    fn bury(&mut self, id: RoleId) {
        let over = |role: &Role| role.removing && role.tenure.is_none();
        if let Some(role) = self.roles.get(&id)
            && over(role)
        {
            if role.epoch > Epoch(0) {
                self.fences.insert(role.name.clone(), role.epoch);
            }
            self.names.remove(&role.name);
            self.roles.remove(&id);
        }
    }

    fn id(&self, name: &str) -> Result<RoleId, Refusal> {
        let unknown = || Refusal::UnknownRole(name.to_owned());
        self.names.get(name).copied().ok_or_else(unknown)
    }

    fn role(&mut self, id: RoleId) -> &mut Role {
        self.roles.get_mut(&id).expect("every name has its role")
    }
}

impl Role {
    /// Who holds it, as others are told.
    pub fn holder(&self) -> Option<Holder> {
        let holder = |tenure: &Tenure| Holder {
            client: tenure.client.clone(),
            epoch: self.epoch,
            terms: tenure.terms,
        };
        self.tenure.as_ref().map(holder)
    }

    /// Whether it is the [built-in role](SYSTEM_MANAGER), which knows no lease.
    pub fn is_built_in(&self) -> bool {
        self.name == SYSTEM_MANAGER
    }

    /// As people are shown it, without the time.
    pub fn view(&self) -> RoleView {
        RoleView {
            role: self.name.clone(),
            epoch: self.epoch,
            holder: self.holder(),
            volunteers: self.volunteers.iter().map(|one| one.client.clone()).collect(),
            removing: self.removing,
            expires_in: None,
        }
    }

    /// Gives a free role to who is next; answers whether somebody was.
    fn hand_over(&mut self, id: RoleId, at: Position, changes: &mut Vec<Change>) -> bool {
        if self.volunteers.is_empty() || self.removing {
            return false;
        }
        let next = self.volunteers.remove(0);
        self.grant(id, at, next, false, changes);
        true
    }

    fn grant(
        &mut self,
        id: RoleId,
        at: Position,
        to: Volunteer,
        confirmed: bool,
        changes: &mut Vec<Change>,
    ) -> Epoch {
        let Volunteer { client, terms, .. } = to;
        // Its position, unless this very command granted it before, or another store did.
        self.epoch = Epoch(at.0.max(self.epoch.0 + 1));
        self.tenure = Some(Tenure { client, terms, confirmed, renewal: at });
        changes.push(Change { role: id, name: self.name.clone(), holder: self.holder() });
        self.epoch
    }
}

/// Nobody counts so far: what is granted later must still be above.
pub const EPOCH_MAX: Epoch = Epoch(1 << 62);

/// Roles at once: ten times what has been measured.
pub const ROLES_MAX: usize = 100_000;

/// Who may stand for one role: more than the nodes of the largest cluster.
pub const VOLUNTEERS_MAX: usize = 128;

/// Who may stand in all roles: each takes up to half a kilobyte at every main.
pub const STANDING_MAX: usize = 500_000;

/// Epochs kept of roles of other stores, and of roles that were removed.
pub const FENCES_MAX: usize = 100_000;

#[cfg(test)]
mod tests;
