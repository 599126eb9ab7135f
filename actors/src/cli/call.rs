//! `call` and `actors`: replicated actors from the command line.

use awc::http::Method;
use clap::Args;
use serde_json::{Value, json};

use super::{
    args::ClientArgs,
    client::Cluster,
    failure::{Exit, Failure},
    out,
    table::Table,
};

/// `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The actor, as `actors` lists it
    pub(crate) actor: String,
    /// The message's wire name
    pub(crate) message: String,
    /// The message's fields as a JSON object
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) fields: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `actors`.
#[derive(Debug, Args)]
pub(crate) struct ActorsArgs {
    /// List every registered actor of every node, the protocol's own roles too
    #[arg(long)]
    pub(crate) roles: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Sends one message and prints the reply. What is `read_only` may be asked of several nodes.
pub(crate) async fn call(args: &CallArgs, read_only: bool) -> Result<(), Failure> {
    let fields: Value = serde_json::from_str(&args.fields).map_err(|e| {
        let hint = "write the message's fields like '{\"from\":\"a\"}'";
        Failure::usage("JSON", e, hint)
    })?;
    for (what, name) in [("ACTOR", &args.actor), ("MESSAGE", &args.message)] {
        // These two become a path: a question mark, say, would ask something else.
        let good = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
        if name.is_empty() || !name.chars().all(good) {
            let why = format!("{name:?} is no name");
            return Err(Failure::usage(what, why, "see `actors` for what there is"));
        }
    }
    let cluster = Cluster::open(&args.client)?;
    let path = format!("/actors/{}/{}", args.actor, args.message);
    let answer = match read_only {
        true => cluster.read(Method::POST, &path, fields.to_string()).await?,
        false => cluster.post(&path, fields.to_string()).await?,
    };
    let what = format!("{} {}", args.actor, args.message);
    match answer.outcome() {
        Ok(()) => {
            let mut reply = answer.body.to_vec();
            reply.push(b'\n');
            out::print(reply).map(drop)
        }
        Err(Exit::Unknown) => {
            let hint = "ask what the state is before repeating it";
            Err(answer.refusal(Exit::Unknown, what, hint))
        }
        Err(exit) => {
            let hint = "see `actors` for what can be said to whom";
            Err(Failure::new(exit, what, answer.error_text(), hint).with(answer.fate()))
        }
    }
}

/// Prints what there is.
pub(crate) async fn actors(args: &ActorsArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(&args.client)?;
    let path = if args.roles { "/registry" } else { "/actors" };
    let (_, document) = cluster.get(path).await?;
    if args.client.json {
        out::say(document).map(drop)
    } else if args.roles {
        registry_table(&document).print()
    } else {
        actors_table(&document).print()
    }
}

fn registry_table(document: &Value) -> Table {
    let columns = ["name", "type", "node", "epoch", "restarts", "mailbox"];
    let mut table = Table::new(&columns.map(str::to_ascii_uppercase));
    for entry in document["names"].as_array().into_iter().flatten() {
        table.row(columns.map(|column| text(&entry[column])));
    }
    table
}

fn actors_table(document: &Value) -> Table {
    let mut table = Table::new(&["ACTOR", "MESSAGE", "KIND"]);
    for actor in document["actors"].as_array().into_iter().flatten() {
        for message in actor["messages"].as_array().into_iter().flatten() {
            table.row([text(&actor["name"]), text(&message["name"]), text(&message["kind"])]);
        }
    }
    table
}

/// A JSON value for people: nothing for null, texts without quotes.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// A failure as a JSON document.
pub(crate) fn failure_document(failure: &Failure) -> Value {
    json!({ "error": failure.to_string(), "outcome": failure.outcome() })
}
