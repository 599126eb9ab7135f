//! The place of a passive auxiliary in a node: questions of its roles go to a worker, which may
//! block, and answers come back to the arbiter.

use std::{
    rc::Rc,
    sync::{Arc, Mutex},
};

use rand::RngExt as _;
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::{
        Clock,
        disk::{Waker, Worker},
    },
};
use tokio::sync::Notify;

use super::{
    BEAT_EVERY, SharedObject,
    caller::{Answers, Caller, Question},
};
use crate::{
    consensus::message::{Message, NodeRole, Peer, ProposerMessage},
    machine::Now,
    server::site::{Site, lock},
};

/// See the module's documentation.
pub(in crate::server) struct Passive {
    desk: Arc<Desk>,
    waker: Arc<dyn Waker>,
}

impl Site {
    /// Asks the auxiliary `name`, which is that object, from now on.
    pub(in crate::server) fn open_passive(
        self: &Rc<Self>,
        name: &NodeName,
        object: Arc<dyn SharedObject>,
    ) {
        let passive = Passive::open(self, name, object);
        self.passives.borrow_mut().insert(name.clone(), passive);
    }

    /// Passive auxiliaries, as far as their objects were found, as proposers are told of them.
    pub(in crate::server) fn passives_found(&self) -> Vec<Peer> {
        let passives = self.passives.borrow();
        let found = passives.values().filter_map(Passive::known);
        found.map(|node| Peer { node, role: NodeRole::Auxiliary, up: true }).collect()
    }
}

/// Between the arbiter and the worker.
#[derive(Default)]
struct Desk {
    questions: Mutex<Vec<Question>>,
    /// It is time for a beat.
    due: Mutex<bool>,
    /// Who the auxiliary was at the last look.
    known: Mutex<Option<NodeId>>,
    answers: Mutex<Vec<Answers>>,
    answered: Notify,
}

impl Passive {
    /// Begins to serve the roles of `site`, until its node ends.
    pub(in crate::server) fn open(
        site: &Rc<Site>,
        name: &NodeName,
        object: Arc<dyn SharedObject>,
    ) -> Self {
        let desk = Arc::new(Desk::default());
        let mut rng = site.rng(&format!("passive-{name}"));
        let fresh = (Incarnation(rng.random()), rng.random_range(1..u64::MAX / 2));
        let worker = Asker {
            caller: Caller::new(site.me.clone(), name.clone(), object, fresh),
            clock: Arc::clone(site.node.clock()),
            desk: Arc::clone(&desk),
            trouble: None,
        };
        let waker = site.node.world().disk.spawn_worker("passive", Box::new(worker));
        site.node.task(serve(Rc::downgrade(site), Arc::clone(&desk), Arc::clone(&waker)));
        Self { desk, waker }
    }

    /// Who it is, once its object was found or made.
    pub(in crate::server) fn known(&self) -> Option<NodeId> {
        lock(&self.desk.known).clone()
    }

    /// Puts a question. More than fit are dropped: the protocol asks again.
    pub(in crate::server) fn ask(&self, to: &NodeId, message: Message) {
        let mut questions = lock(&self.desk.questions);
        if questions.len() < QUESTIONS_MAX {
            questions.push(Question { to: to.clone(), message });
            drop(questions);
            self.waker.wake();
        }
    }
}

/// Hands answers to the roles, and sees to the beats.
async fn serve(site: std::rc::Weak<Site>, desk: Arc<Desk>, waker: Arc<dyn Waker>) {
    loop {
        *lock(&desk.due) = true;
        waker.wake();
        let beat = tokio::time::sleep(BEAT_EVERY);
        tokio::pin!(beat);
        loop {
            tokio::select! {
                biased;
                () = desk.answered.notified() => {
                    let Some(site) = site.upgrade() else { return };
                    let answers = std::mem::take(&mut *lock(&desk.answers));
                    for Answers { id, messages } in answers {
                        messages.into_iter().for_each(|message| site.deliver(&id, message));
                    }
                }
                () = &mut beat => break,
            }
        }
    }
}

/// Puts the questions, where blocking is allowed.
struct Asker {
    caller: Caller,
    clock: Arc<dyn Clock>,
    desk: Arc<Desk>,
    /// What went wrong last, told once.
    trouble: Option<String>,
}

impl Asker {
    fn now(&self) -> Now {
        Now { at: self.clock.now(), wall_ms: self.clock.wall_ms() }
    }

    fn turn(&mut self) -> std::io::Result<()> {
        let questions = std::mem::take(&mut *lock(&self.desk.questions));
        if std::mem::take(&mut *lock(&self.desk.due)) {
            let id = self.caller.beat(self.now())?;
            if lock(&self.desk.known).replace(id.clone()).as_ref() != Some(&id) {
                let peer = Peer { node: id.clone(), role: NodeRole::Auxiliary, up: true };
                let news = Message::Proposer(ProposerMessage::Peer(peer));
                self.say(Answers { id, messages: vec![news] });
            }
        }
        if !questions.is_empty() {
            let answers = self.caller.ask(self.now(), &questions)?;
            self.say(answers);
        }
        Ok(())
    }

    fn say(&self, answers: Answers) {
        let mut waiting = lock(&self.desk.answers);
        if waiting.len() < ANSWERS_MAX {
            waiting.push(answers);
            drop(waiting);
            self.desk.answered.notify_one();
        }
    }
}

impl Worker for Asker {
    fn run(&mut self) {
        let trouble = self.turn().err().map(|error| error.to_string());
        if self.trouble != trouble {
            match &trouble {
                Some(why) => tracing::warn!(why, "the passive auxiliary cannot be asked"),
                None => tracing::info!("the passive auxiliary can be asked again"),
            }
            self.trouble = trouble;
        }
    }
}

/// Questions waiting at once: roles ask a few at a time.
const QUESTIONS_MAX: usize = 256;

/// Answers waiting at once; the arbiter takes them at every turn.
const ANSWERS_MAX: usize = 256;
