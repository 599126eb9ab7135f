//! Singletons of a program: hosted by each of its nodes, and called in JSON.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use actix::Handler;
use synod_runtime::message::RemoteMessage;

use super::{HaActor, SingletonRef, proxy::Way};
use crate::{
    election::message::Refusal,
    replicated::{ActorDescriptor, Function, JsonForm, JsonFunction},
    server::elections::Elections,
};

/// The messages of a singleton that people may send in JSON.
pub struct Messages<A> {
    functions: BTreeMap<&'static str, JsonFunction>,
    actor: PhantomData<fn() -> A>,
}

impl<A> Default for Messages<A> {
    fn default() -> Self {
        Self { functions: BTreeMap::new(), actor: PhantomData }
    }
}

impl<A: HaActor> Messages<A> {
    /// `M` is one of them.
    pub fn on<M>(&mut self) -> &mut Self
    where
        M: RemoteMessage,
        A: Handler<M>,
    {
        let function = Function::command(M::NAME);
        self.functions.insert(M::NAME, JsonFunction { function, form: JsonForm::of::<M>() });
        self
    }
}

/// A singleton of a program, whatever its type.
pub trait AnySingleton: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What can be said to it.
    fn descriptor(&self) -> ActorDescriptor;

    /// Stands for it, on this node.
    ///
    /// # Errors
    /// For a name that cannot be.
    fn start(&self, elections: &Elections) -> Result<(), Refusal>;
}

/// The singleton `A` of a program, built from the same arguments on every node.
pub struct Hosted<A: HaActor> {
    name: &'static str,
    args: A::Args,
}

impl<A: HaActor<Args: Clone>> Hosted<A> {
    /// Under that name.
    pub const fn new(name: &'static str, args: A::Args) -> Self {
        Self { name, args }
    }
}

impl<A: HaActor<Args: Clone>> AnySingleton for Hosted<A> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn descriptor(&self) -> ActorDescriptor {
        let functions = SingletonRef::<A>::messages().functions.into_values().collect();
        ActorDescriptor { name: self.name.to_owned(), type_name: A::NAME.to_owned(), functions }
    }

    fn start(&self, elections: &Elections) -> Result<(), Refusal> {
        elections.singleton::<A>(self.name, self.args.clone()).start().map(drop)
    }
}

/// A singleton that is called in JSON, from one node.
#[derive(Clone, Debug)]
pub(in crate::server) struct Door {
    pub(in crate::server) descriptor: ActorDescriptor,
    pub(in crate::server) way: Way,
}

impl Door {
    /// The way to a singleton of the program.
    pub(in crate::server) fn new(elections: &Elections, singleton: &dyn AnySingleton) -> Self {
        let descriptor = singleton.descriptor();
        let way = Way::new(elections, &descriptor.name);
        Self { descriptor, way }
    }
}

impl<A: HaActor> fmt::Debug for Hosted<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Messages<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.functions.keys()).finish()
    }
}
