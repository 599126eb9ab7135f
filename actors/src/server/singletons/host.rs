//! The side of a singleton that stands, builds the actor, and takes it down in time.

use std::{
    fmt,
    marker::PhantomData,
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, fut::wrap_future};
use synod_runtime::{node::Node, supervision::Permit, watch};

use super::{
    HaActor, HaStart, Hosting, Keeping,
    keeper::{EVERY_MIN, Keeper},
    place::Place,
    role_of, target_of,
};
use crate::{
    election::{
        message::{Refusal, Terms, check_name},
        tenure::steps_down_at,
    },
    management::message::{Spec, State},
    server::{
        elections::{Elections, Leadership, Lease, Volunteer},
        services::ToServices,
    },
};

/// A singleton that this node stands for. Dropping it changes nothing: it is hosted for as long as
/// the node runs, or until [`Singleton::stop`].
pub struct Singleton<A> {
    stop: watch::Sender<bool>,
    gone: watch::Receiver<bool>,
    actor: PhantomData<fn() -> A>,
}

impl<A> Singleton<A> {
    /// Stands no more: if the actor lives here, it steps down and another node has it at once.
    /// Returns when it is gone.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        // An error says that the host is gone, with the node.
        let _gone = self.gone.wait_for(|gone| *gone).await;
    }
}

/// All that acts on a node under leases.
#[derive(Debug)]
pub(in crate::server) struct Hosts {
    leaving: watch::Sender<bool>,
    acting: AtomicUsize,
    services: OnceLock<ToServices>,
}

impl Default for Hosts {
    fn default() -> Self {
        let leaving = watch::Sender::new(false);
        Self { leaving, acting: AtomicUsize::new(0), services: OnceLock::new() }
    }
}

impl Hosts {
    /// Where it is said who shall host what.
    pub(in crate::server) fn know(&self, services: ToServices) {
        // A node has one table.
        drop(self.services.set(services));
    }

    /// From now on nothing stands here, and what acts steps down.
    pub(in crate::server) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Whether anything acts, or its role is not passed on yet.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.acting.load(SeqCst) > 0
    }

    /// Hears when the node leaves.
    pub(in crate::server) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    pub(in crate::server) fn enter(&self) {
        self.acting.fetch_add(1, SeqCst);
    }

    pub(in crate::server) fn exit(&self) {
        self.acting.fetch_sub(1, SeqCst);
    }
}

pub(super) fn start<A: HaActor>(hosting: Hosting<A>) -> Result<Singleton<A>, Refusal> {
    let role = role_of(&hosting.name);
    check_name("role", &role)?;
    Terms::new(hosting.lease, hosting.priority)?;
    let (stop, stopping) = watch::channel(false);
    let (tell_gone, gone) = watch::channel(false);
    let leaving = hosting.elections.hosts().leaving();
    let services = hosting.elections.hosts().services.get().and_then(ToServices::get);
    if let Some(services) = &services {
        services.declare(Spec::actor(&hosting.name, hosting.lease));
    }
    let node = hosting.elections.node().clone();
    let place = Place::new(&hosting.name, services);
    let host = Host { hosting, role, place, stopping, leaving };
    node.task(async move {
        host.run().await;
        tell_gone.send_replace(true);
    });
    Ok(Singleton { stop, gone, actor: PhantomData })
}

struct Host<A: HaActor> {
    hosting: Hosting<A>,
    role: String,
    place: Place,
    stopping: watch::Receiver<bool>,
    leaving: watch::Receiver<bool>,
}

/// Why it does not lead any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is not to stand any more.
    Stopped,
    /// It may stand again at once.
    Lapsed,
    /// Others shall try first.
    Failed,
}

impl<A: HaActor> Host<A> {
    async fn run(mut self) {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping, &mut self.leaving) => return,
            () = self.place.known() => {}
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping, &mut self.leaving) => return,
                () = self.place.wait(|stand| stand.here) => {}
            }
            match self.stand().await {
                End::Stopped => return,
                End::Lapsed => {}
                End::Failed => {
                    let pause = self.hosting.lease.max(PAUSE_MIN);
                    tokio::select! {
                        biased;
                        () = stopped(&mut self.stopping, &mut self.leaving) => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Stands until it has led once.
    async fn stand(&mut self) -> End {
        let Hosting { elections, lease, priority, .. } = &self.hosting;
        let stand = self.place.stand();
        // Where people want it comes before what the program says.
        let priority = if stand.preferred { u8::MAX } else { *priority.min(&(u8::MAX - 1)) };
        let candidacy = elections.volunteer(&self.role).lease(*lease).priority(priority);
        let mut volunteer = match candidacy.stand() {
            Ok(volunteer) => volunteer,
            Err(refusal) => {
                tracing::error!(role = self.role, %refusal, "cannot stand");
                return End::Failed;
            }
        };
        loop {
            let news = tokio::select! {
                biased;
                () = stopped(&mut self.stopping, &mut self.leaving) => return End::Stopped,
                () = self.place.wait(|now| now != stand) => return End::Lapsed,
                news = volunteer.next() => news,
            };
            match news {
                Some(Leadership::Leading(_)) if !self.place.stand().here => return End::Lapsed,
                Some(Leadership::Leading(lease)) => return self.lead(lease, volunteer).await,
                Some(Leadership::Following(_) | Leadership::Lost(_)) => {}
                Some(Leadership::Ended(why)) => {
                    tracing::warn!(role = self.role, ?why, "stands no more for a while");
                    return End::Failed;
                }
                None => return End::Failed,
            }
        }
    }

    /// Leads until the actor is gone, and gives the role up then.
    async fn lead(&mut self, lease: Lease, mut volunteer: Volunteer) -> End {
        let elections = self.hosting.elections.clone();
        let (node, epoch) = (elections.node().clone(), lease.epoch());
        elections.hosts().enter();
        let target = target_of(&self.role, epoch);
        let tenure = Arc::new(Tenure::new(lease.clone()));
        let end = match self.recall(&lease).await {
            Err(end) => end,
            Ok(keeper) if self.begin(&node, &target, &tenure, keeper.as_ref()) => {
                tracing::info!(role = self.role, %epoch, "leads");
                self.place.tell(&lease, State::Running, None);
                let act = self.act(&node, &target, &tenure, &mut volunteer);
                let end = act_and_keep(act, keeper.as_deref(), &lease, &node).await;
                tracing::info!(role = self.role, %epoch, ?end, "leads no more");
                end
            }
            Ok(_) => End::Failed,
        };
        match end {
            End::Failed => self.place.tell(&lease, State::Failed, Some(FAILED)),
            End::Stopped | End::Lapsed => self.place.tell(&lease, State::Stopped, None),
        }
        node.unregister(&target);
        // Only now: nothing acts for it any more.
        drop(volunteer);
        passed_on(&elections, &self.role, &lease).await;
        elections.hosts().exit();
        end
    }

    /// What was kept before, if it keeps anything.
    async fn recall(&mut self, lease: &Lease) -> Result<Option<Arc<Keeper>>, End> {
        if A::keeping() == Keeping::Nothing {
            return Ok(None);
        }
        let begun = Keeper::begin(self.hosting.elections.submit(), &self.hosting.name, lease);
        let begun = tokio::select! {
            biased;
            () = stopped(&mut self.stopping, &mut self.leaving) => return Err(End::Stopped),
            begun = begun => begun,
        };
        let begun = begun.map(|keeper| Some(Arc::new(keeper)));
        begun.map_err(|why| {
            tracing::warn!(role = self.role, why, "cannot begin with what was kept");
            if lease.is_valid() { End::Failed } else { End::Lapsed }
        })
    }

    /// Builds the actor, and lets it be reached.
    fn begin(
        &self,
        node: &Node,
        target: &str,
        tenure: &Arc<Tenure>,
        keeper: Option<&Arc<Keeper>>,
    ) -> bool {
        let lease = &tenure.lease;
        let start = HaStart {
            name: self.hosting.name.clone(),
            role: self.role.clone(),
            node: node.name().clone(),
            lease: lease.clone(),
            keeper: keeper.map(Arc::clone),
        };
        let (args, life) = (Arc::clone(&self.hosting.args), Arc::clone(tenure));
        let build = move |context: &mut Context<A>| {
            let actor = <A as HaActor>::create(&args, &start).unwrap_or_else(|error| {
                resume_unwind(Box::new(format!("it cannot be created: {error}")))
            });
            let takes = start.keeper.clone().and_then(|keeper| takes_checkpoints(context, keeper));
            let closing = wrap_future::<_, A>(life.closed());
            context.spawn(closing.map(move |(), actor, context| {
                if let Some(keeper) = takes {
                    keeper.note(actor.checkpoint());
                }
                actor.step_down(context);
            }));
            actor
        };
        let permit = || Arc::clone(tenure) as Arc<dyn Permit>;
        let policy = self.hosting.policy.clone();
        let begun = node
            .spawn_while(target, policy, permit(), build)
            .and_then(|addr| node.register_while(target, addr, permit()));
        match begun {
            Ok(_) => {
                node.set_epoch(target, Some(lease.epoch().0));
                true
            }
            Err(error) => {
                tracing::error!(role = self.role, %error, "cannot be hosted");
                node.stop(target);
                false
            }
        }
    }

    /// Lets the actor act until it must not, and waits until it is gone.
    async fn act(
        &mut self,
        node: &Node,
        target: &str,
        tenure: &Tenure,
        volunteer: &mut Volunteer,
    ) -> End {
        let lease = &tenure.lease;
        let ended = node.watch_name(node.id(), target);
        tokio::pin!(ended);
        let end = loop {
            let left = steps_down_at(lease.length(), lease.deadline()).since(node.now());
            if left.is_zero() {
                break End::Lapsed;
            }
            tokio::select! {
                biased;
                _ = &mut ended => return End::Failed,
                () = stopped(&mut self.stopping, &mut self.leaving) => break End::Stopped,
                () = self.place.unwanted(lease) => break End::Lapsed,
                news = volunteer.next() => match news {
                    Some(Leadership::Leading(_) | Leadership::Following(_)) => {}
                    Some(Leadership::Lost(_) | Leadership::Ended(_)) | None => break End::Lapsed,
                },
                // It may have been renewed meanwhile.
                () = tokio::time::sleep(left) => {}
            }
        };
        tenure.close();
        // However often it is renewed meanwhile.
        let left = lease.deadline().since(node.now()).min(lease.length() / 4);
        if tokio::time::timeout(left, &mut ended).await.is_err() {
            node.stop(target);
            ended.await;
        }
        end
    }
}

/// Takes checkpoints of an actor, if that wants so; answers who gets them.
fn takes_checkpoints<A: HaActor>(
    context: &mut Context<A>,
    keeper: Arc<Keeper>,
) -> Option<Arc<Keeper>> {
    let Keeping::Every(every) = A::keeping() else { return None };
    let taken = Arc::clone(&keeper);
    context.run_interval(every.max(EVERY_MIN), move |actor, _| taken.note(actor.checkpoint()));
    Some(keeper)
}

/// Hands on what an actor keeps while it acts, and then what is left of it: the next one begins once
/// the role is given up.
async fn act_and_keep(
    act: impl Future<Output = End>,
    keeper: Option<&Keeper>,
    lease: &Lease,
    node: &Node,
) -> End {
    let Some(keeper) = keeper else { return act.await };
    let end = tokio::select! {
        biased;
        end = act => end,
        never = keeper.run() => match never {},
    };
    let left = lease.deadline().since(node.now()).min(FLUSH_MAX);
    if tokio::time::timeout(left, keeper.flush()).await.is_err() {
        tracing::warn!(epoch = %lease.epoch(), "what was to be kept last is not known to be");
    }
    keeper.close();
    end
}

/// Waits until the next one has the role, so that a node that leaves is not gone before its word
/// is; not for long, since the lease ends in any case.
async fn passed_on(elections: &Elections, role: &str, lease: &Lease) {
    let passed_on = async {
        let held = || match elections.glance(role) {
            Some(Some(holder)) => holder.epoch == lease.epoch(),
            Some(None) | None => false,
        };
        while held() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _late = tokio::time::timeout(PASS_ON_MAX, passed_on).await;
}

/// Returns once either is to end.
async fn stopped(stopping: &mut watch::Receiver<bool>, leaving: &mut watch::Receiver<bool>) {
    // Whoever dropped the handle wants it to go on.
    let asked = async {
        if stopping.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = asked => {}
        // An error says that the node is gone.
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
}

/// The permit of one primary in its epoch.
#[derive(Debug)]
struct Tenure {
    lease: Lease,
    closed: watch::Sender<bool>,
    over: AtomicBool,
}

impl Tenure {
    fn new(lease: Lease) -> Self {
        Self { lease, closed: watch::Sender::new(false), over: AtomicBool::new(false) }
    }

    /// No more messages; the actor hears of it.
    fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Returns once it was closed.
    fn closed(&self) -> impl Future<Output = ()> + use<> + 'static {
        let mut closed = self.closed.subscribe();
        async move {
            // Dropped without a word, there is nobody left to step down.
            if closed.wait_for(|closed| *closed).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Permit for Tenure {
    fn takes(&self) -> bool {
        !*self.closed.borrow() && self.acts()
    }

    fn acts(&self) -> bool {
        if self.over.load(SeqCst) {
            return false;
        }
        let valid = self.lease.is_valid();
        // A renewal whose answer comes late does not bring it back.
        if !valid {
            self.over.store(true, SeqCst);
        }
        valid
    }
}

/// How long what is kept last may take: a few commands of the log, while nobody has the singleton.
const FLUSH_MAX: Duration = Duration::from_millis(200);

/// What people are shown of it; the node's log says more.
const FAILED: &str = "it could not be kept alive; see the log of its node";

/// How often to look whether a role has passed on.
const LOOK: Duration = Duration::from_millis(5);

/// How long to look.
const PASS_ON_MAX: Duration = Duration::from_millis(200);

/// A node that cannot host what others can must not keep the cluster busy with elections.
const PAUSE_MIN: Duration = Duration::from_secs(1);

impl<A> fmt::Debug for Singleton<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singleton").field("gone", &*self.gone.borrow()).finish_non_exhaustive()
    }
}
