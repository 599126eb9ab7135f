//! Drills: tests of your own actors, with your own clients, on a cluster to which things happen.

use std::{
    cell::{Cell, Ref, RefCell},
    convert::Infallible,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use synod_runtime::sim::{FaultPlan, Simulation};

use super::{
    cluster::{Blueprint, Cluster, Shape},
    director::{Director, LIVENESS_MAX, LOOK, Story, tell},
    properties::judge,
    trial::words,
};
use crate::replicated::{CallError, Handle, Replicated};

/// A test of your own: a cluster that hosts your actor, what may go wrong, and for how long. What
/// clients do and what must hold in the end is the *body* given to [`Drill::run`] or
/// [`Drill::hunt`].
///
/// The drill is also the service manager: nodes that stop or give up are started again. All is
/// healed after [`Drill::lasting`], and every wait has an end: a body that takes longer than that
/// and [`Drill::patience`] fails.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// use synod::sim::Drill;
///
/// let drill = Drill::of::<Counter>("counter").faults("crash,loss".parse().unwrap());
/// let lost = drill.hunt(1..=3, async |scene| {
///     let counter = scene.handle::<Counter>("counter", "a");
///     let key = IdempotencyKey::new("once").unwrap();
///     scene.insist(async || counter.send(Add(1)).idempotency(key.clone()).await).await;
///     scene.calm().await;
///     match scene.insist(async || counter.query(Total).await).await {
///         1 => Ok(()),
///         other => Err(format!("added once, and the total is {other}")),
///     }
/// });
/// assert_eq!(lost, None); // else it is printed with its seed
/// ```
#[derive(Debug, Clone)]
pub struct Drill {
    blueprint: Blueprint,
    shape: Shape,
    plan: FaultPlan,
    length: Duration,
    patience: Duration,
}

impl Drill {
    /// Two mains and an auxiliary that host the replicated actor `A` as `name`; everything may go
    /// wrong, for ten simulated seconds.
    pub fn of<A: Replicated + 'static>(name: &'static str) -> Self {
        Self::new(Blueprint::hosting::<A>(name))
    }

    /// The same, with nodes made after `blueprint`.
    pub fn new(blueprint: Blueprint) -> Self {
        Self {
            blueprint,
            shape: Shape::default(),
            plan: FaultPlan::all(),
            length: Duration::from_secs(10),
            patience: 2 * LIVENESS_MAX,
        }
    }

    /// How many nodes of each kind there are.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// What may go wrong.
    #[must_use]
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.plan = plan;
        self
    }

    /// How long things go wrong, in simulated time.
    #[must_use]
    pub fn lasting(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// How much longer a body may take, in simulated time: twice [`LIVENESS_MAX`] by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs the drill of a seed, and answers what its body answers. The same seed gives the same
    /// run, on every machine.
    ///
    /// # Panics
    /// When the body panics or does not end in time, or the cluster did what no cluster may (see
    /// [`Property`](super::properties::Property)): two mains differ, or it does not become well
    /// again. The seed and the end of the story are printed.
    pub fn run<T>(&self, seed: u64, body: impl AsyncFnOnce(Scene) -> T) -> Run<T> {
        let story = Story::default();
        let run = catch_unwind(AssertUnwindSafe(|| self.play(seed, &story, body)));
        run.unwrap_or_else(|panic| {
            let story = story.take();
            let last = story.len().saturating_sub(LAST_LINES);
            panic!("seed {seed}: {}\n{}", words(panic.as_ref()), story[last..].join("\n"))
        })
    }

    /// Looks for a seed whose body answers an error or panics, or whose cluster misbehaves, and
    /// runs the first such seed again. Without a find, every seed held.
    pub fn hunt<E: fmt::Display>(
        &self,
        seeds: impl IntoIterator<Item = u64>,
        body: impl AsyncFn(Scene) -> Result<(), E>,
    ) -> Option<Find> {
        seeds.into_iter().find_map(|seed| {
            let (what, first) = self.fails(seed, &body)?;
            let again = self.fails(seed, &body);
            let same = again.is_some_and(|again| again == (what.clone(), first.clone()));
            Some(Find { seed, what, same, story: first.story, trace: first.trace })
        })
    }

    /// Runs one seed of a hunt; answers what did not hold, if anything.
    fn fails<E: fmt::Display>(
        &self,
        seed: u64,
        body: impl AsyncFn(Scene) -> Result<(), E>,
    ) -> Option<(String, Run<()>)> {
        let story = Story::default();
        let run = catch_unwind(AssertUnwindSafe(|| self.play(seed, &story, body)));
        let told = || story.borrow().clone();
        match run {
            Ok(Run { value: Ok(()), .. }) => None,
            Ok(Run { value: Err(error), seed, story, trace }) => {
                Some((error.to_string(), Run { seed, value: (), story, trace }))
            }
            // How far the events had come is unknown: the world went down with the body.
            Err(panic) => {
                Some((words(panic.as_ref()), Run { seed, value: (), story: told(), trace: 0 }))
            }
        }
    }

    fn play<T>(&self, seed: u64, story: &Story, body: impl AsyncFnOnce(Scene) -> T) -> Run<T> {
        Simulation::new(seed).run(|sim| async move {
            let cluster = Cluster::new(&sim, self.shape, self.blueprint.clone());
            let plan = self.plan.clone();
            let mut director = Director::new(cluster, plan, self.length, Rc::clone(story));
            director.found().await;
            let scene = Scene {
                sim,
                cluster: Rc::clone(&director.cluster),
                calm: Rc::default(),
                story: Rc::clone(story),
            };
            let calm = Rc::clone(&scene.calm);
            let sim = scene.sim.clone();
            let value = tokio::select! {
                biased;
                value = body(scene) => value,
                never = accompany(&mut director, &calm) => match never {},
                () = tokio::time::sleep(self.length + self.patience) => panic!(
                    "the body did not end within {:?} of simulated time",
                    self.length + self.patience
                ),
            };
            director.settle();
            let violations = judge(&director.record.open());
            assert!(violations.is_empty(), "the cluster misbehaved: {}", list(&violations));
            Run { seed, value, story: story.borrow().clone(), trace: sim.trace_digest() }
        })
    }
}

/// Does what is to be done to a cluster, and then goes on looking after it.
async fn accompany(director: &mut Director, calm: &Cell<bool>) -> Infallible {
    director.trouble().await;
    calm.set(true);
    loop {
        director.pass(LOOK).await;
    }
}

fn list(what: &[impl fmt::Display]) -> String {
    what.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A drill in progress, for its body: the way to the actors, and to what is around them. Cloning
/// gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Scene {
    sim: Simulation,
    cluster: Rc<RefCell<Cluster>>,
    calm: Rc<Cell<bool>>,
    story: Story,
}

impl Scene {
    /// The replicated actor `name`, for a client of the main `main` (`a`, `b`, …). While that one
    /// does not run, calls go to another.
    ///
    /// # Panics
    /// When the cluster has no such main.
    pub fn handle<A: Replicated>(&self, name: &str, main: &str) -> Handle<A> {
        let main = main.parse().expect("the name of a node");
        Handle::new(self.cluster.borrow().client(&main), name)
    }

    /// Makes a call, again and again until it is answered; a pause of
    /// [`AGAIN_AFTER`] lies between. Meant for what may be repeated: queries, and commands under an
    /// idempotency key. It ends with the drill at the latest.
    pub async fn insist<T>(&self, mut call: impl AsyncFnMut() -> Result<T, CallError>) -> T {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => self.tell(&format!("again, since {error}")),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Waits until nothing more goes wrong and the cluster is well again.
    pub async fn calm(&self) {
        while !self.calm.get() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Adds a line to the story, with the time.
    pub fn tell(&self, what: &str) {
        tell(&self.sim, &self.story, what);
    }

    /// The nodes. Not to be kept across an `await`.
    pub fn cluster(&self) -> Ref<'_, Cluster> {
        self.cluster.borrow()
    }

    /// The simulated world.
    pub fn sim(&self) -> &Simulation {
        &self.sim
    }
}

/// One run of a drill. Equal for equal seeds and drills, on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<T> {
    /// Its seed.
    pub seed: u64,
    /// What the body answered.
    pub value: T,
    /// What was done to the cluster, what the body told, and when.
    pub story: Vec<String>,
    /// One number for everything that passed a port.
    pub trace: u64,
}

/// A seed that fails, for people: print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// The seed: all that is needed to have the run again.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// Whether it went the same way again. If not, something in the body or in the actors asks the
    /// real world for time, chance or order.
    pub same: bool,
    /// What happened, and when.
    pub story: Vec<String>,
    /// One number for everything that passed a port; 0 after a panic.
    pub trace: u64,
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, same, story, trace } = self;
        writeln!(f, "seed {seed}: {what}")?;
        for line in story {
            writeln!(f, "{line}")?;
        }
        let same = if *same { "the same run" } else { "ANOTHER RUN: it is not deterministic" };
        write!(f, "seed {seed} again: {same}, trace {trace:016x}")
    }
}

/// The pause between two attempts of [`Scene::insist`]: short against a fail-over.
pub const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How much of its story a failed run prints: what led to the failure is rarely longer.
const LAST_LINES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicated::IdempotencyKey;
    use crate::sim::witness::{Append, Length, NAME, Witness};

    fn drill() -> Drill {
        Drill::of::<Witness>(NAME).lasting(Duration::from_secs(5))
    }

    #[test]
    fn a_drill_goes_the_same_way_twice_and_nodes_that_give_up_are_started_again() {
        // Failed syncs and damaged disks make nodes give up.
        let faults: FaultPlan = "crash,eio,bitrot,diskloss,panic".parse().unwrap();
        let drill = drill().faults(faults);
        let body = async |scene: Scene| {
            let witness = scene.handle::<Witness>(NAME, "a");
            for call in 0..20 {
                let append = || Append { list: 0, call, filler: Vec::new() };
                let key = || IdempotencyKey::new(&call.to_string()).unwrap();
                scene.insist(async || witness.send(append()).idempotency(key()).await).await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            scene.calm().await;
            scene.insist(async || witness.query(Length { list: 0 }).await).await
        };
        let runs: Vec<_> = (1..=6).map(|seed| drill.run(seed, body)).collect();
        assert!(runs.iter().all(|run| run.value == 20), "each exactly once");
        assert!(runs.iter().any(|run| run.story.iter().any(|line| line.contains("gives up"))));
        assert_eq!(runs[0], drill.run(1, body));
    }

    #[test]
    fn a_body_that_waits_for_ever_is_a_find_and_so_is_one_that_panics() {
        let drill = drill().faults(FaultPlan::none()).patience(Duration::from_secs(1));
        let find = drill.hunt(1..=2, async |scene| {
            let witness = scene.handle::<Witness>("nobody", "a");
            scene.insist(async || witness.query(Length { list: 0 }).await).await;
            Ok::<_, String>(())
        });
        let find = find.expect("nobody answers");
        assert!(find.same && find.seed == 1 && find.what.contains("did not end within 6s"));
        assert!(find.story.iter().any(|line| line.contains("again, since")), "{find}");
        let find = drill.hunt([7], async |_| -> Result<(), String> { panic!("of the body's own") });
        assert!(find.is_some_and(|find| find.what == "of the body's own" && find.same));
    }

    #[test]
    fn seeds_that_hold_are_no_find() {
        let drill = drill().faults("loss,cut".parse().unwrap());
        let find = drill.hunt(1..=3, async |scene| {
            scene.calm().await;
            Ok::<_, String>(())
        });
        assert_eq!(find, None);
    }
}
