//! Messages as JSON, for HTTP and the command line. The log itself only knows MessagePack.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Function, RemoteMessage, Replicated,
    entry::{ArgsFromJson, ReplyToJson},
    name_hash, nearest,
};

mod path;

/// How one message and its reply look as JSON: their serde forms.
#[derive(Clone, Copy)]
pub struct JsonForm {
    args_from_json: ArgsFromJson,
    reply_to_json: ReplyToJson,
}

impl JsonForm {
    /// The serde forms of `M` and its result.
    pub const fn of<M: RemoteMessage>() -> Self {
        Self { args_from_json: args_from_json::<M>, reply_to_json: reply_to_json::<M::Result> }
    }
}

impl fmt::Debug for JsonForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonForm")
    }
}

/// One message that can be called with JSON.
#[derive(Clone, Copy, Debug)]
pub struct JsonFunction {
    /// Name, number and kind.
    pub function: Function,
    /// The conversions.
    pub form: JsonForm,
}

impl JsonFunction {
    /// The MessagePack arguments for the log. `null` and `{}` both stand for a message without
    /// fields.
    pub fn args_from_json(&self, args: &Value) -> Result<Vec<u8>, JsonError> {
        (self.form.args_from_json)(args)
    }

    /// What a MessagePack reply looks like as JSON. A `Result` is `{"Ok":…}` or `{"Err":…}`.
    pub fn reply_to_json(&self, reply: &[u8]) -> Result<Value, JsonError> {
        (self.form.reply_to_json)(reply)
    }
}

/// A replicated actor as strangers see it: its name and what can be said to it.
#[derive(Clone, Debug)]
pub struct ActorDescriptor {
    /// The name commands are addressed to.
    pub name: String,
    /// The wire name of its type.
    pub type_name: String,
    /// What can be said to it in JSON, commands first.
    pub functions: Vec<JsonFunction>,
}

impl ActorDescriptor {
    /// The actor `A` addressed as `name`.
    pub fn of<A: Replicated>(name: &str) -> Self {
        let function = |entry: &super::Entry<A>| JsonFunction {
            function: entry.function(),
            form: entry.json(),
        };
        Self {
            name: name.to_owned(),
            type_name: A::NAME.to_owned(),
            functions: A::ENTRIES.iter().map(function).collect(),
        }
    }

    /// A state machine that has protocols of its own and cannot be called with JSON.
    pub fn without_json(name: &str) -> Self {
        Self { name: name.to_owned(), type_name: name.to_owned(), functions: Vec::new() }
    }

    /// The number that stands for its name in the log.
    pub fn id(&self) -> u64 {
        name_hash(&self.name)
    }

    /// The message of wire name `message`, or an error that names the nearest.
    pub fn function(&self, message: &str) -> Result<&JsonFunction, JsonError> {
        let found = self.functions.iter().find(|known| known.function.name == message);
        found.ok_or_else(|| JsonError::UnknownMessage {
            actor: self.name.clone(),
            message: shown(message),
            nearest: hint(message, self.functions.iter().map(|known| known.function.name)),
        })
    }
}

/// The replicated actors of a node.
#[derive(Clone, Debug, Default)]
pub struct ActorCatalogue {
    actors: Vec<ActorDescriptor>,
}

impl ActorCatalogue {
    /// Lists `actors` in the order of their names.
    pub fn new(mut actors: Vec<ActorDescriptor>) -> Self {
        actors.sort_by(|a, b| a.name.cmp(&b.name));
        Self { actors }
    }

    /// All of them, in the order of their names.
    pub fn actors(&self) -> &[ActorDescriptor] {
        &self.actors
    }

    /// The actor called `name`, or an error that names the nearest.
    pub fn actor(&self, name: &str) -> Result<&ActorDescriptor, JsonError> {
        let found = self.actors.iter().find(|actor| actor.name == name);
        found.ok_or_else(|| JsonError::UnknownActor {
            actor: shown(name),
            nearest: hint(name, self.actors.iter().map(|actor| actor.name.as_str())),
        })
    }

    /// The list as `GET /actors` and `synod actors --json` show it.
    pub fn to_json(&self) -> Value {
        let message = |known: &JsonFunction| {
            let kind = if known.function.query { "query" } else { "command" };
            serde_json::json!({ "name": known.function.name, "kind": kind })
        };
        let actor = |actor: &ActorDescriptor| {
            let messages: Vec<Value> = actor.functions.iter().map(message).collect();
            serde_json::json!({ "name": actor.name, "type": actor.type_name, "messages": messages })
        };
        serde_json::json!({ "actors": self.actors.iter().map(actor).collect::<Vec<_>>() })
    }
}

/// Why JSON could not be turned into a message, or a reply into JSON. Nothing was sent, except
/// that the command was applied where its reply is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// No such actor.
    #[error("no replicated actor is called {actor:?}{nearest}")]
    UnknownActor {
        /// The name that was asked for.
        actor: String,
        /// The nearest known one, as the end of the sentence.
        nearest: String,
    },
    /// The actor has no such command or query.
    #[error("{actor} has no command or query {message:?}{nearest}")]
    UnknownMessage {
        /// The actor's name.
        actor: String,
        /// The message that was asked for.
        message: String,
        /// The nearest known one, as the end of the sentence.
        nearest: String,
    },
    /// The JSON is not that message; the text names the field.
    #[error("bad arguments for {message}: {reason}")]
    BadArguments {
        /// The message's wire name.
        message: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// Applied, but the reply has no JSON form.
    #[error("the reply has no JSON form: {0}")]
    BadReply(String),
}

fn args_from_json<M: RemoteMessage>(args: &Value) -> Result<Vec<u8>, JsonError> {
    let bad = |reason: String| JsonError::BadArguments { message: M::NAME, reason };
    let message: M = match M::deserialize(args) {
        Ok(message) => message,
        Err(error) => without_fields(args).ok_or_else(|| bad(path::blame::<M>(args, &error)))?,
    };
    rmp_serde::to_vec_named(&message).map_err(|error| bad(error.to_string()))
}

/// `struct Get;` is `null` in serde's JSON and `struct Get {}` is `{}`; people write either.
fn without_fields<M: DeserializeOwned>(args: &Value) -> Option<M> {
    match args {
        Value::Null => M::deserialize(Value::Object(serde_json::Map::new())).ok(),
        Value::Object(fields) if fields.is_empty() => M::deserialize(Value::Null).ok(),
        _ => None,
    }
}

fn reply_to_json<R: Serialize + DeserializeOwned>(reply: &[u8]) -> Result<Value, JsonError> {
    let reply: R =
        rmp_serde::from_slice(reply).map_err(|error| JsonError::BadReply(error.to_string()))?;
    serde_json::to_value(&reply).map_err(|error| JsonError::BadReply(error.to_string()))
}

fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(name) => format!("; the nearest is {name:?}"),
        None => "; there are none".to_owned(),
    }
}

/// A stranger's name, cut so that an error stays one line.
fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Longer than any name people give, shorter than a line.
const SHOWN_CHARS_MAX: usize = 80;
