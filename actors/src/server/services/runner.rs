//! The services of one role at one node: stands for it, runs their programs while it leads, gives it
//! up in time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use synod_runtime::{watch, world::Instant};
use tokio::sync::mpsc;

use super::{
    asked::{Asked, Why},
    mail::{self, Mail, Sent},
    post::{Came, Post, next_of_all},
    programs::{Order, Programs, Report, Station},
};
use crate::{
    election::message::Epoch,
    management::{
        message::{Report as Told, State},
        placement,
        run::{Act, Over},
        table::{Nodes, Task},
        unit::{Deed, Unit},
    },
    server::{
        elections::{Leadership, Lease, Volunteer},
        services::Services,
    },
};

/// What a node is to do about the services of a role, as the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// They may run here, and not all are frozen.
    pub(super) here: bool,
    /// Who may run them.
    pub(super) nodes: Nodes,
    /// The node that shall be their primary, if somebody said so.
    pub(super) preferred: Option<String>,
    /// Who is next in line.
    pub(super) secondaries: Vec<String>,
    /// The lease of the role.
    pub(super) lease: Duration,
    /// No node has ever led in it.
    pub(super) fresh: bool,
    /// What is to run.
    pub(super) tasks: Vec<Task>,
}

impl Wanted {
    /// With what rank that node stands, among those that may run it.
    fn rank(&self, node: &str, nodes: &[String]) -> u8 {
        let preferred = self.preferred.as_deref() == Some(node);
        let secondary = self.secondaries.iter().any(|one| one == node);
        placement::priority(node, preferred, secondary, nodes)
    }
}

pub(super) struct Runner {
    pub(super) services: Services,
    pub(super) programs: Arc<dyn Programs>,
    /// The service that the others are placed with.
    pub(super) root: String,
    /// It ends when the sender is gone: there is no such service any more.
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) leaving: watch::Receiver<bool>,
    /// Until then another shall have it, who has newer checkpoints.
    pub(super) yields_until: Option<Instant>,
}

/// A unit that leads, and all that is under way about it.
struct Led {
    unit: Unit,
    lease: Lease,
    epoch: Epoch,
    posts: BTreeMap<String, Post>,
    /// The checkpoints of those that have some.
    mails: BTreeMap<String, Mail>,
    /// Who wants one at once.
    asked: mpsc::Receiver<Asked>,
    /// Nothing more comes of its role.
    lost: bool,
    line: Line,
}

/// What is known of those next in line.
#[derive(Default)]
struct Line {
    /// Who stood, and when last.
    seen: BTreeMap<String, Instant>,
    /// What the table was told last, and when.
    told: Option<(Vec<String>, Instant)>,
    /// Who they shall be, once they have the checkpoints.
    next: Vec<String>,
}

impl Runner {
    pub(super) async fn run(mut self) {
        while self.wait_wanted().await {
            self.let_higher_ranks_begin().await;
            match self.stand().await {
                Some(Over::Failed) => self.rest().await,
                Some(Over::Stopped | Over::Lapsed) | None => {}
            }
        }
    }

    /// Waits until it may run here; false when it never will.
    async fn wait_wanted(&mut self) -> bool {
        // What a sender that is gone said last does not count.
        if self.wanted.has_changed().is_err() {
            return false;
        }
        let wanted = self.wanted.wait_for(|wanted| wanted.here);
        tokio::select! {
            biased;
            _ = self.leaving.wait_for(|leaving| *leaving) => false,
            wanted = wanted => wanted.is_ok(),
        }
    }

    /// At the very first start the highest rank that is up begins, not whoever heard of it first.
    async fn let_higher_ranks_begin(&mut self) {
        let there = self.services.up_among(self.services.nodes_of(&self.root));
        let place = placement::place(self.services.me(), &there);
        if self.wanted.borrow().fresh {
            let _begun = tokio::time::timeout(
                FIRST_STEP * u32::from(place),
                self.wanted.wait_for(|wanted| !wanted.fresh || !wanted.here),
            )
            .await;
        }
    }

    /// Stands until it has led once, or is not wanted like that any more.
    async fn stand(&mut self) -> Option<Over> {
        let me = self.services.me().to_owned();
        let nodes = self.services.nodes_of(&self.root);
        let (rank, lease) = {
            let wanted = self.wanted.borrow();
            (wanted.rank(&me, &nodes), wanted.lease)
        };
        let candidacy = self.services.elections().volunteer(&self.role()).lease(lease);
        let priority = if self.yields().is_some() { placement::LAST } else { rank };
        let mut volunteer = match candidacy.priority(priority).stand() {
            Ok(volunteer) => volunteer,
            Err(refusal) => {
                tracing::error!(service = self.root, %refusal, "cannot stand");
                return Some(Over::Failed);
            }
        };
        let otherwise = |wanted: &Wanted| !wanted.here || wanted.rank(&me, &nodes) != rank;
        loop {
            let yields = self.yields();
            let news = tokio::select! {
                biased;
                _ = self.leaving.wait_for(|leaving| *leaving) => return None,
                _ = self.wanted.wait_for(otherwise) => return None,
                news = volunteer.next() => news?,
                () = tokio::time::sleep(yields.unwrap_or_default()), if yields.is_some() => {
                    return None;
                }
            };
            match news {
                Leadership::Leading(lease) if self.is_behind().await => {
                    // Nothing runs here, so whoever is next has it at once.
                    self.yields_until = Some(self.services.now() + lease.length());
                    return None;
                }
                Leadership::Leading(lease) => return Some(self.lead(lease, volunteer).await),
                Leadership::Following(_) | Leadership::Lost(_) => {}
                Leadership::Ended(_) => return Some(Over::Failed),
            }
        }
    }

    /// For how long it leaves the services to another yet, if it does.
    fn yields(&self) -> Option<Duration> {
        let left = self.yields_until?.since(self.services.now());
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether another that stands has newer checkpoints, and the services want those to count.
    async fn is_behind(&self) -> bool {
        let names: Vec<_> = {
            let wanted = self.wanted.borrow();
            if wanted.preferred.as_deref() == Some(self.services.me()) {
                return false;
            }
            let counts = |task: &&Task| task.spec.checkpoint.as_ref().is_some_and(|c| c.freshest);
            wanted.tasks.iter().filter(counts).map(|task| task.spec.name.clone()).collect()
        };
        let asks = !names.is_empty() && self.yields().is_none();
        asks && self.services.is_behind(&self.root, &names).await
    }

    /// Runs the programs until all are gone, and gives the role up then.
    async fn lead(&mut self, lease: Lease, mut volunteer: Volunteer) -> Over {
        let (services, epoch) = (self.services.clone(), lease.epoch());
        services.elections().hosts().enter();
        tracing::info!(service = self.root, %epoch, "leads");
        let mut led = Led {
            unit: Unit::default(),
            lease,
            epoch,
            posts: BTreeMap::new(),
            mails: BTreeMap::new(),
            asked: services.0.askers.open(&self.root),
            lost: false,
            line: Line::default(),
        };
        let over = loop {
            self.look(&mut led).await;
            if let Some(over) = led.unit.over() {
                break over;
            }
            self.wait(&mut led, &mut volunteer).await;
        };
        tracing::info!(service = self.root, %epoch, ?over, "leads no more");
        for (service, mail) in &led.mails {
            services.0.checkpoints.led(service, epoch, mail.newest());
        }
        // Only now: their programs are gone.
        drop(volunteer);
        services.elections().hosts().exit();
        over
    }

    /// Does what is to be done now.
    async fn look(&mut self, led: &mut Led) {
        let now = self.services.now();
        let mut tasks = self.wanted.borrow_and_update().tasks.clone();
        if self.gives_up(led) {
            led.unit.leave();
        }
        if now >= led.lease.deadline() {
            led.unit.lapse();
        }
        self.keep_line(led, now);
        if led.unit.leaves() {
            wait_for_last_checkpoints(led, &mut tasks);
        }
        led.unit.wants(&tasks);
        let deeds = led.unit.acts(now);
        self.act(led, deeds, &tasks).await;
        let until = led.lease.deadline();
        for post in led.posts.values_mut() {
            post.extend(until).await;
        }
    }

    /// Whether it is not wanted here any more, or another shall have it and stands for it (G4).
    fn gives_up(&self, led: &Led) -> bool {
        let wanted = self.wanted.borrow();
        if !wanted.here || *self.leaving.borrow() || self.wanted.has_changed().is_err() {
            return true;
        }
        let Some(preferred) = wanted.preferred.as_ref().filter(|node| **node != self.services.me())
        else {
            return false;
        };
        led.lease.is_valid() && self.services.next_in_line(&self.root).as_ref() == Some(preferred)
    }

    /// Promotes spares and drops who is gone, so that as many are next in line as are wanted; passes
    /// checkpoints on to them.
    fn keep_line(&self, led: &mut Led, now: Instant) {
        let Some((known, wanted, epoch)) = self.services.line(&self.root) else { return };
        if epoch != Some(led.epoch) || !led.lease.is_valid() {
            return;
        }
        let Led { mails, posts, line, lease, epoch, .. } = led;
        for node in self.services.standing(&self.root) {
            line.seen.insert(node, now);
        }
        line.seen.remove(self.services.me());
        // One that takes another rank stands anew: it is away for a moment.
        line.seen.retain(|_, last| now.since(*last) < lease.length());
        let standing: Vec<_> = line.seen.keys().cloned().collect();
        line.next = placement::secondaries(&known, &standing, wanted);
        for (service, mail) in mails.iter_mut() {
            if posts.get(service).is_some_and(Post::runs) {
                let station = station_of(&self.services, service, *epoch);
                mail.look(&self.services, &self.programs, &station, &line.next);
                mail.settle(&known);
            }
        }
        let mut next = line.next.clone();
        // A spare that has not what the others have is promoted later.
        next.retain(|node| known.contains(node) || mails.values().all(|mail| mail.has(node)));
        let said = |(nodes, at): &(Vec<String>, Instant)| {
            *nodes == next && now.since(*at) < lease.length()
        };
        if next != known && !line.told.as_ref().is_some_and(said) {
            line.told = Some((next.clone(), now));
            self.services.tell_line(&self.root, *epoch, next);
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self, led: &mut Led, volunteer: &mut Volunteer) {
        let now = self.services.now();
        let due = led.unit.deadline().map_or(Duration::MAX, |at| at.since(now));
        let nap = due.min(led.lease.length() / LOOKS).max(NAP_MIN);
        let leaves = led.unit.leaves();
        let changed = async {
            // There is no such service any more, and it is known.
            if self.wanted.changed().await.is_err() && leaves {
                std::future::pending::<()>().await;
            }
        };
        let came = tokio::select! {
            // What the guards say comes first: we may have been stopped for long.
            biased;
            came = next_of_all(&mut led.posts) => came,
            (service, sent) = mail::next_of_all(&mut led.mails) => {
                return self.mailed(led, &service, sent);
            }
            Some(asked) = led.asked.recv() => return ask(led, asked),
            news = volunteer.next(), if !led.lost => match news {
                Some(Leadership::Leading(_) | Leadership::Following(_)) => return,
                Some(Leadership::Lost(_) | Leadership::Ended(_)) | None => {
                    led.lost = true;
                    led.unit.lapse();
                    for post in led.posts.values_mut() {
                        post.tell(Order::Kill).await;
                    }
                    return;
                }
            },
            () = changed => return,
            () = tokio::time::sleep(nap) => return,
        };
        let (service, came) = came;
        let now = self.services.now();
        let deeds = match came {
            Came::Answer(yes) => {
                let deeds = led.unit.probed(&service, now, yes);
                if deeds.iter().any(|(_, act)| *act == Act::End)
                    && let Some(post) = led.posts.get_mut(&service)
                {
                    post.note(Some("it was not well, said its live probe".to_owned()));
                }
                deeds
            }
            Came::Report(Some(Report::Ending)) => return led.unit.lapse(),
            Came::Report(report) => {
                self.ended(led, &service, report).await;
                led.unit.gone(&service, self.services.now())
            }
        };
        let tasks = self.wanted.borrow().tasks.clone();
        self.act(led, deeds, &tasks).await;
    }

    /// A checkpoint was taken or arrived; that it was not is shown.
    fn mailed(&self, led: &mut Led, service: &str, sent: Sent) {
        let Some(mail) = led.mails.get_mut(service) else { return };
        let came = mail.came(self.services.now(), sent);
        let Some(post) = led.posts.get_mut(service) else { return };
        if let Err(why) = &came {
            tracing::warn!(service, why, "no checkpoint");
        }
        // One that arrived says nothing of the others.
        let all_well = came.is_ok() && led.line.next.iter().all(|node| mail.has(node));
        let why = came.err();
        if post.serves() && post.why != why && (why.is_some() || all_well) {
            post.note(why);
            self.tell(led, service, State::Running);
        }
    }

    /// A program is gone, or was never there.
    async fn ended(&self, led: &mut Led, service: &str, report: Option<Report>) {
        let why = match report {
            Some(Report::NotStarted(why)) => {
                tracing::error!(service, why, "its program cannot be started");
                format!("its program cannot be started: {why}")
            }
            Some(Report::Gone(code)) => {
                tracing::info!(service, code, "its program has ended");
                format!("its program ended with {code}")
            }
            Some(Report::Ending) | None => {
                // The program was killed with its guard, but what it started may live: nobody gives
                // the role up before its time.
                tracing::error!(service, "the guard of its program died");
                led.unit.lapse();
                let left = led.lease.deadline().since(self.services.now());
                tokio::time::sleep(left).await;
                "the guard of its program died".to_owned()
            }
        };
        if let Some(post) = led.posts.get_mut(service) {
            post.leave(why);
        }
    }

    async fn act(&self, led: &mut Led, deeds: Vec<Deed>, tasks: &[Task]) {
        for (service, act) in deeds {
            if act == Act::Start {
                let Some(task) = tasks.iter().find(|task| task.spec.name == service) else {
                    continue;
                };
                let station = self.station(led, &service);
                self.services.0.checkpoints.lead(&service, led.epoch, led.lease.length()).await;
                if let Some(checkpoint) = task.spec.checkpoint.clone() {
                    let mail = || Mail::new(checkpoint, self.services.now());
                    led.mails.entry(service.clone()).or_insert_with(mail);
                }
                let why = led.posts.get_mut(&service).and_then(|post| post.why.take());
                let mut post = Post::start(&self.programs, &task.spec, station, &led.lease);
                post.why = why;
                led.posts.insert(service, post);
                continue;
            }
            if let Act::Tell(state) = act {
                if let Some(post) = led.posts.get_mut(&service) {
                    post.told(state);
                }
                self.tell(led, &service, state);
                continue;
            }
            let station = self.station(led, &service);
            if let Some(post) = led.posts.get_mut(&service) {
                post.act(&self.programs, station, act).await;
            }
        }
    }

    fn station(&self, led: &Led, service: &str) -> Station {
        station_of(&self.services, service, led.epoch)
    }

    fn tell(&self, led: &Led, service: &str, state: State) {
        let why = led.posts.get(service).and_then(|post| post.why.clone());
        let told = matches!(state, State::Restarting | State::Failed | State::Running);
        let why = why.filter(|_| told);
        let (service, node) = (service.to_owned(), self.services.me().to_owned());
        self.services.report(Told { service, node, epoch: led.epoch, state, why });
    }

    fn role(&self) -> String {
        super::role_of(&self.root)
    }

    /// Lets others try first.
    async fn rest(&mut self) {
        let pause = self.wanted.borrow().lease.max(PAUSE_MIN);
        tokio::select! {
            biased;
            _ = self.leaving.wait_for(|leaving| *leaving) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A checkpoint is asked for.
fn ask(led: &mut Led, asked: Asked) {
    let Asked { service, answer } = asked;
    let runs = led.posts.get(&service).is_some_and(Post::runs);
    match led.mails.get_mut(&service).filter(|_| runs) {
        Some(mail) => mail.ask(answer),
        None => drop(answer.send(Err(Why::NotTaken("its program does not run now".to_owned())))),
    }
}

fn station_of(services: &Services, service: &str, epoch: Epoch) -> Station {
    Station { service: service.to_owned(), node: services.name().clone(), epoch }
}

/// A program that ends in order ends once those next in line have its last state, or had their time.
fn wait_for_last_checkpoints(led: &mut Led, tasks: &mut [Task]) {
    for task in tasks {
        let runs = led.posts.get(&task.spec.name).is_some_and(Post::runs);
        let Some(mail) = led.mails.get_mut(&task.spec.name).filter(|_| runs) else { continue };
        if task.needed.is_none() {
            mail.finish();
        }
        if !mail.is_finished(&led.line.next) {
            task.needed = Some(task.needed.unwrap_or_default().max(LAST_WITHIN));
        }
    }
}

/// A last checkpoint is waited for so long.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// How much longer each lower rank waits at the very first start: what a command takes to be
/// executed everywhere, on a busy machine.
const FIRST_STEP: Duration = Duration::from_millis(50);

/// A lease is looked at so often in its length: often enough to pass on each renewal.
const LOOKS: u32 = 20;

/// Nothing is looked at more often.
const NAP_MIN: Duration = Duration::from_millis(5);

/// A node that cannot run what others can must not keep the cluster busy with elections.
const PAUSE_MIN: Duration = Duration::from_secs(1);
