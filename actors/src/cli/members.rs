//! `members`: who belongs to the cluster, and changing it.

use serde_json::{Value, json};

use super::{
    args::{AddMember, MembersArgs, MembersVerb, SetMember},
    call::text,
    client::Cluster,
    failure::{Exit, Failure},
    out,
    table::Table,
};

/// Does what the verb says; without one, lists.
pub(crate) async fn run(args: &MembersArgs) -> Result<(), Failure> {
    let client = args.client();
    let cluster = Cluster::open(client)?;
    let Some(verb) = &args.verb else {
        let (_, status) = cluster.get("/status").await?;
        return match client.json {
            true => out::say(document(&status)).map(drop),
            false => table(&status).print(),
        };
    };
    let (what, asked) = match verb {
        MembersVerb::Lead(one) => {
            (format!("members lead {}", one.name), json!({"verb": "lead", "name": one.name}))
        }
        MembersVerb::Remove(one) => {
            (format!("members remove {}", one.name), json!({"verb": "remove", "name": one.name}))
        }
        MembersVerb::Add(AddMember { name, role, quic, .. }) => {
            let quic = quic.to_string();
            let asked = json!({"verb": "add", "name": name, "role": role, "quic": quic});
            (format!("members add {name}"), asked)
        }
        MembersVerb::Set(SetMember { name, role, .. }) => {
            let asked = json!({"verb": "set", "name": name, "role": role});
            (format!("members set {name}"), asked)
        }
    };
    let answer = cluster.post("/members", asked.to_string()).await?;
    match answer.outcome() {
        Ok(()) if client.json => out::say(json!({"outcome": "applied"})).map(drop),
        Ok(()) => Ok(()),
        Err(exit @ (Exit::Unknown | Exit::NotApplied)) => {
            Err(answer.refusal(exit, what, "see `status`, then try again"))
        }
        Err(exit) => Err(answer.refusal(exit, what, "see `members` for who is what")),
    }
}

/// The fields of a node that say what it is to the cluster.
const COLUMNS: [&str; 5] = ["name", "role", "state", "incarnation", "lag"];

fn table(status: &Value) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "STATE", "INCARNATION", "LAG", "LEADS"]);
    for node in status["nodes"].as_array().into_iter().flatten() {
        let leads = if node["name"] == status["leader"] { "leads" } else { "" };
        let columns = COLUMNS.map(|column| text(&node[column]));
        table.row(columns.into_iter().chain([leads.to_owned()]));
    }
    table
}

fn document(status: &Value) -> Value {
    json!({
        "cluster": status["cluster"],
        "leader": status["leader"],
        "epoch": status["epoch"],
        "members": status["nodes"],
    })
}
