//! Roles in registers: reads and turns their pages, and looks now and then at those that matter here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use rand::RngExt as _;
use synod_runtime::{
    wire::name_hash,
    world::{Instant, Rng},
};

use super::{ElectionError, LOOK_DEADLINE, RoleStore, SaidTo};
use crate::{
    election::{
        count::Count,
        lease::waits_for,
        message::{Change, Epoch, Holder, Op, RoleView, SYSTEM_MANAGER, Said},
        page::{Cut, Index, Page, Turned},
        store::{Question, decode, encode},
        watch::{Mark, Since, Told},
    },
    register::VALUE_BYTES_MAX,
    replicated::{CallError, IdempotencyKey, Position},
    server::{
        registers::{RegisterError, Registers},
        site::lock,
    },
};

/// See the module's documentation. Cloning is cheap.
#[derive(Clone)]
pub(in crate::server) struct Pages(Arc<Inner>);

/// Hears of new holders, and, with nothing, of whatever else people see.
pub(in crate::server) type Hears = Box<dyn Fn(Vec<Change>) + Send + Sync>;

struct Inner {
    registers: Registers,
    hears: Hears,
    /// What it granted of a role before: a page begins above that (E1).
    log: Arc<dyn RoleStore>,
    known: Mutex<Known>,
    rng: Mutex<Rng>,
}

#[derive(Default)]
struct Known {
    index: Index,
    roles: BTreeMap<String, Seen>,
    /// Names that are surely in the list of all roles.
    listed: BTreeSet<String>,
    /// Counts what people see of changes here.
    changes: u64,
}

/// A role as it was seen last.
struct Seen {
    page: Page,
    count: Count,
    at: Instant,
    /// Until when it is looked after here.
    wanted: Instant,
    /// Which change here was its last.
    changed: u64,
}

impl Seen {
    /// One of which nothing is known.
    fn never(now: Instant) -> Self {
        let (page, count) = (Page::default(), Count::starting(now));
        Self { page, count, at: now, wanted: now, changed: 0 }
    }
}

impl Pages {
    pub(in crate::server) fn new(
        registers: Registers,
        hears: Hears,
        log: Arc<dyn RoleStore>,
    ) -> Self {
        let rng = Mutex::new(registers.node().rng("pages"));
        Self(Arc::new(Inner { registers, hears, log, known: Mutex::default(), rng }))
    }

    /// Looks after the roles that somebody here stands for or asks about, until the node ends.
    pub(in crate::server) async fn look_out(self) {
        loop {
            let pause = lock(&self.0.rng).random_range(LOOK_MIN..LOOK_MAX);
            tokio::time::sleep(pause).await;
            let now = self.now();
            let wanted: Vec<_> = {
                let known = lock(&self.0.known);
                let wanted = known
                    .roles
                    .iter()
                    .filter(|(_, seen)| seen.wanted > now && now.since(seen.at) >= LOOK_MIN);
                wanted.map(|(role, _)| role.clone()).collect()
            };
            let looks = wanted.into_iter().map(|role| {
                let me = self.clone();
                async move { me.look_at(&role).await.is_ok() }
            });
            stream::iter(looks).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
            self.expire();
        }
    }

    /// Proposes what has run out by this node's own count (I2): whoever is first has it done.
    fn expire(&self) {
        let now = self.now();
        let mut ops = Vec::new();
        {
            let mut known = lock(&self.0.known);
            let Known { index, roles, .. } = &mut *known;
            for (name, seen) in roles.iter_mut().filter(|(_, seen)| seen.wanted > now) {
                let overdue = seen.count.overdue(&seen.page.roles, now);
                ops.extend(overdue.ops.into_iter().map(|op| match op {
                    Op::Expire { role, epoch, renewal } => {
                        Op::Expire { role: index.id(name, role), epoch, renewal }
                    }
                    Op::Drop { role, client, renewal } => {
                        Op::Drop { role: index.id(name, role), client, renewal }
                    }
                    other => other,
                }));
            }
        }
        if !ops.is_empty() {
            self.change(ops, None, PROPOSAL, Box::new(|_| {}));
        }
    }

    fn now(&self) -> Instant {
        self.0.registers.node().now()
    }

    /// Turns the page of one role; what it came to.
    async fn turn(
        &self,
        role: String,
        ops: Vec<Op>,
        deadline: Duration,
    ) -> Result<(String, Vec<Said>), RegisterError> {
        let makes = |op: &Op| matches!(op, Op::Add { .. } | Op::Take { .. });
        if role != SYSTEM_MANAGER && ops.iter().any(makes) {
            self.list(&role, deadline).await?;
        }
        let above = self.above(&role).await?;
        let turned = Arc::<Mutex<Option<Turned>>>::default();
        let last = Arc::clone(&turned);
        let register = register_of(&role);
        let written = self.0.registers.change_within(deadline, &register, move |old| {
            let Ok(page) = Page::read(old, above) else { return old.to_vec() };
            let turned = page.turn(&ops);
            let bytes = turned.bytes.clone();
            *lock(&last) = Some(turned);
            bytes
        });
        let written = written.await?;
        let turned = lock(&turned).take().filter(|turned| turned.bytes == written);
        let Some(Turned { page, said, .. }) = turned else {
            return Err(RegisterError::Unknown(format!("the register of role {role} is no page")));
        };
        self.saw(&role, page, true);
        Ok((role, said))
    }

    /// Above which epoch the page of a role begins, if it is new.
    async fn above(&self, role: &str) -> Result<Epoch, RegisterError> {
        let is_known = |seen: &Seen| seen.page.position > Position(0);
        if lock(&self.0.known).roles.get(role).is_some_and(is_known)
            || !self.0.registers.read(&register_of(role)).await?.is_empty()
        {
            return Ok(Epoch(0));
        }
        let before = self.0.log.look(Question::One(role.to_owned())).await;
        let before = before.map_err(|error| RegisterError::NotApplied(error.to_string()))?;
        Ok(before.first().map_or(Epoch(0), |view| view.epoch))
    }

    /// Reads the page of one role.
    async fn look_at(&self, role: &str) -> Result<(), RegisterError> {
        let bytes = self.0.registers.read(&register_of(role)).await?;
        let page = Page::read(&bytes, Epoch(0)).map_err(RegisterError::NotApplied)?;
        self.saw(role, page, false);
        Ok(())
    }

    /// A page was seen: whatever it names counts from now at the latest.
    fn saw(&self, role: &str, page: Page, wanted: bool) {
        let now = self.now();
        let mut changes = Vec::new();
        let mut visible = false;
        {
            let mut known = lock(&self.0.known);
            let Known { index, roles, changes: counted, .. } = &mut *known;
            let seen = roles.entry(role.to_owned()).or_insert_with(|| Seen::never(now));
            seen.at = now;
            if wanted {
                seen.wanted = now + WANTED_FOR;
            }
            if page.position <= seen.page.position {
                return;
            }
            let (before, after) = (only(&seen.page), only(&page));
            seen.count.applied(page.position, now);
            if before != after {
                seen.count.changed(now);
                *counted += 1;
                (seen.changed, visible) = (*counted, true);
            }
            let holder = |view: &Option<RoleView>| view.as_ref().and_then(|one| one.holder.clone());
            if holder(&before) != holder(&after)
                && let Some((id, _)) = page.roles.iter().next()
            {
                let (role, name) = (index.id(role, id), role.to_owned());
                changes.push(Change { role, name, holder: holder(&after) });
            }
            seen.page = page;
        }
        if visible {
            (self.0.hears)(changes);
        }
    }

    /// Sees to it that a role is in the list of all, before it is made.
    async fn list(&self, role: &str, deadline: Duration) -> Result<(), RegisterError> {
        if lock(&self.0.known).listed.contains(role) {
            return Ok(());
        }
        let name = role.to_owned();
        let list = list_of(name_hash(role) % LISTS);
        self.0
            .registers
            .change_within(deadline, &list, move |old| {
                let mut names: BTreeSet<String> = names(old);
                names.insert(name.clone());
                let new = encode(&names);
                // Who is not listed is only not shown among all.
                if new.len() <= VALUE_BYTES_MAX { new } else { old.to_vec() }
            })
            .await?;
        lock(&self.0.known).listed.insert(role.to_owned());
        Ok(())
    }

    async fn all_names(&self) -> Result<BTreeSet<String>, RegisterError> {
        let mut all = BTreeSet::new();
        for number in 0..LISTS {
            all.extend(names(&self.0.registers.read(&list_of(number)).await?));
        }
        Ok(all)
    }

    async fn refresh(&self, role: Option<&str>) -> Result<(), RegisterError> {
        let Some(role) = role else { return self.look_at_all(self.all_names().await?).await };
        self.look_at(role).await
    }

    async fn look_at_all(
        &self,
        roles: impl IntoIterator<Item = String>,
    ) -> Result<(), RegisterError> {
        let looks = roles.into_iter().map(|role| {
            let me = self.clone();
            async move { me.look_at(&role).await }
        });
        let looked = stream::iter(looks).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        looked.into_iter().collect()
    }

    fn views(&self, role: Option<&str>) -> Vec<RoleView> {
        let (now, known) = (self.now(), lock(&self.0.known));
        let wanted = known.roles.iter().filter(|(name, _)| role.is_none_or(|role| role == *name));
        let view = |(_, seen): (&String, &Seen)| {
            let (_, role) = seen.page.roles.iter().next()?;
            let until = role
                .tenure
                .as_ref()
                .map(|tenure| seen.count.since(tenure.renewal) + waits_for(tenure.terms.lease()));
            Some(RoleView { expires_in: until.map(|until| until.since(now)), ..role.view() })
        };
        wanted.filter_map(view).collect()
    }
}

impl RoleStore for Pages {
    fn change(&self, ops: Vec<Op>, key: Option<IdempotencyKey>, deadline: Duration, done: SaidTo) {
        if key.is_some() {
            let why = "roles kept in registers take no idempotency key: ask again without one";
            return done(Err(CallError::NotApplied(why.into())));
        }
        let me = self.clone();
        self.0.registers.node().task_anywhere(async move {
            let mut cut = Cut::new(&ops, &lock(&me.0.known).index);
            let turns = std::mem::take(&mut cut.by_role).into_iter();
            let turns = turns.map(|(role, ops)| me.turn(role, ops, deadline));
            let turned = stream::iter(turns).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
            let (mut failed, mut applied) = (None, false);
            for one in turned {
                match one {
                    Ok((role, said)) => {
                        applied = true;
                        cut.answered(&role, said, &mut lock(&me.0.known).index);
                    }
                    Err(error) => failed = Some(worse(failed, call_error(error))),
                }
            }
            done(match failed {
                None => Ok(cut.joined()),
                // What is said of all must hold of each.
                Some(CallError::NotApplied(why)) if applied => {
                    Err(CallError::Unknown(why.to_string()))
                }
                Some(error) => Err(error),
            });
        });
    }

    fn look(&self, question: Question) -> BoxFuture<'static, Result<Vec<RoleView>, ElectionError>> {
        if question == Question::One(SYSTEM_MANAGER.to_owned()) {
            return self.0.log.look(question);
        }
        let me = self.clone();
        Box::pin(async move {
            let role = match &question {
                Question::All => None,
                Question::One(role) => Some(role.as_str()),
            };
            let look = tokio::time::timeout(LOOK_DEADLINE, me.refresh(role)).await;
            look.unwrap_or_else(|_| Err(late())).map_err(call_error)?;
            Ok(if role.is_none() { me.known() } else { me.views(role) })
        })
    }

    fn since(&self, since: Since) -> BoxFuture<'static, Result<Told, ElectionError>> {
        if since.role.as_deref() == Some(SYSTEM_MANAGER) {
            return self.0.log.since(since);
        }
        let me = self.clone();
        Box::pin(async move {
            let role = since.role.as_deref();
            let look = tokio::time::timeout(LOOK_DEADLINE, me.refresh(role)).await;
            look.unwrap_or_else(|_| Err(late())).map_err(call_error)?;
            let here = u32::try_from(me.0.registers.node().start_nonce() >> 32).unwrap_or(0);
            let (newest, changed) = {
                let mut known = lock(&me.0.known);
                let until = me.now() + WANTED_FOR;
                let mut changed = 0;
                for (name, seen) in &mut known.roles {
                    if role.is_none_or(|role| role == name) {
                        seen.wanted = seen.wanted.max(until);
                        changed = changed.max(seen.changed);
                    }
                }
                (known.changes, changed)
            };
            let upto = Mark { position: newest, part: here };
            let known =
                since.mark.is_some_and(|mark| mark.part == here && mark.position >= changed);
            let state = (!known).then(|| me.views(role));
            Ok(Told { state, notices: Vec::new(), upto })
        })
    }

    fn known(&self) -> Vec<RoleView> {
        let mut known = self.views(None);
        known.extend(self.0.log.seen(SYSTEM_MANAGER));
        known.sort_by(|one, other| one.role.cmp(&other.role));
        known
    }

    fn seen(&self, role: &str) -> Option<RoleView> {
        if role == SYSTEM_MANAGER {
            return self.0.log.seen(role);
        }
        let now = self.now();
        {
            let mut known = lock(&self.0.known);
            let seen = known.roles.entry(role.to_owned()).or_insert_with(|| Seen::never(now));
            seen.wanted = now + WANTED_FOR;
        }
        self.views(Some(role)).pop()
    }

    fn refresh(&self, roles: Vec<String>) -> BoxFuture<'static, ()> {
        let me = self.clone();
        Box::pin(async move {
            // Whoever asks is shown what was known before where it cannot be.
            let _known = tokio::time::timeout(LOOK_DEADLINE, me.look_at_all(roles)).await;
        })
    }

    fn glance(&self, role: &str) -> Option<Option<Holder>> {
        if role == SYSTEM_MANAGER {
            return self.0.log.glance(role);
        }
        let known = lock(&self.0.known);
        let seen = known.roles.get(role).filter(|seen| seen.wanted > self.now())?;
        Some(only(&seen.page).and_then(|view| view.holder))
    }

    fn wakes(&self) -> bool {
        true
    }
}

/// The role of a page, without the time.
fn only(page: &Page) -> Option<RoleView> {
    page.roles.iter().next().map(|(_, role)| role.view())
}

fn names(bytes: &[u8]) -> BTreeSet<String> {
    decode(bytes).unwrap_or_default()
}

fn register_of(role: &str) -> String {
    format!("role {role}")
}

fn list_of(number: u64) -> String {
    format!("roles {number}")
}

fn late() -> RegisterError {
    RegisterError::NotApplied("too few answered".to_owned())
}

fn call_error(error: RegisterError) -> CallError {
    match error {
        RegisterError::Refused(refusal) => CallError::NotApplied(refusal.to_string().into()),
        RegisterError::NotApplied(why) => CallError::NotApplied(why.into()),
        RegisterError::Unknown(why) => CallError::Unknown(why),
    }
}

/// Of two reasons the one that promises less.
fn worse(one: Option<CallError>, other: CallError) -> CallError {
    match one {
        Some(unknown @ CallError::Unknown(_)) => unknown,
        Some(_) | None => other,
    }
}

/// Between two looks at a role, at least: a takeover waits for one, beyond its lease.
const LOOK_MIN: Duration = Duration::from_millis(50);

/// …and at most. Drawn each time, so that nodes that wait for the same thing do not meet.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// A role that nobody here asked about for so long is not looked after any more.
const WANTED_FOR: Duration = Duration::from_mins(1);

/// Registers that are asked at once.
const AT_ONCE: usize = 64;

/// An expiry that is not done by then is proposed again.
const PROPOSAL: Duration = Duration::from_millis(500);

/// Registers that list the names of roles, some hundred each.
const LISTS: u64 = 16;
