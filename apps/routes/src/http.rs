//! `/routes` at every node: `PUT` and `DELETE /routes/PREFIX`, `POST /routes` for many changes,
//! `GET /routes/to/ADDRESS`, `GET /routes`. Every answer is JSON and says the number that it is of;
//! `?after=NUMBER` waits for what a change did.

use std::net::IpAddr;

use actix_web::{Error, HttpResponse, error::InternalError, http::StatusCode, web};
use serde::Deserialize;
use serde_json::{Value, json};
use synod::{
    multicast::{
        message::Seq,
        table::{Change, Summary},
    },
    server::multicast::Multicast,
};

use crate::{BadPrefix, GROUP, Prefix, Question};

type Said = Result<web::Json<Value>, Error>;

pub(crate) fn configure(routes: &mut web::ServiceConfig, multicast: Multicast) {
    routes
        .app_data(web::Data::new(multicast))
        .route("/routes", web::get().to(summary))
        .route("/routes", web::post().to(many))
        .route("/routes/to/{address}", web::get().to(to))
        .route("/routes/{prefix:.*}", web::put().to(put))
        .route("/routes/{prefix:.*}", web::delete().to(delete));
}

async fn put(at: web::Data<Multicast>, prefix: web::Path<String>, via: String) -> Said {
    publish(&at, vec![change(&format!("{prefix} {via}"))?]).await
}

async fn delete(at: web::Data<Multicast>, prefix: web::Path<String>) -> Said {
    publish(&at, vec![change(&format!("{prefix} -"))?]).await
}

async fn many(at: web::Data<Multicast>, lines: String) -> Said {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    publish(&at, lines.map(change).collect::<Result<_, _>>()?).await
}

/// A line of a body: `PREFIX ADDRESS`, or `PREFIX -` to withdraw it.
fn change(line: &str) -> Result<Change<Prefix, IpAddr>, Error> {
    let form = || bad(&format!("{line:?} is not PREFIX ADDRESS, nor PREFIX -"));
    let (prefix, via) = line.trim().split_once(' ').ok_or_else(form)?;
    let prefix: Prefix = prefix.parse().map_err(|why: BadPrefix| bad(&why))?;
    Ok(match via {
        "-" => Change::Remove(prefix),
        via => Change::Put(prefix, via.parse().map_err(|_none| form())?),
    })
}

/// Answers the number that has the last of them.
async fn publish(at: &Multicast, changes: Vec<Change<Prefix, IpAddr>>) -> Said {
    let parts = changes.chunks(CHANGES_MAX);
    let messages = parts.map(|part| rmp_serde::to_vec(part).expect("plain data encodes").into());
    let numbers = at.group(GROUP).await?.publisher().publish_all(messages.collect()).await?;
    Ok(web::Json(json!({ "changes": changes.len(), "at": numbers.last() })))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    after: u64,
}

async fn to(at: web::Data<Multicast>, to: web::Path<String>, asked: web::Query<Asked>) -> Said {
    let to: IpAddr = to.parse().map_err(|_none| bad(&format!("{to:?} is no address")))?;
    let group = at.group(GROUP).await?;
    group.caught_up().await;
    let (at, way) = group.query(&Question::To(to), Seq(asked.after)).await?;
    let way: Option<(Prefix, IpAddr)> = way;
    let none = || refused(StatusCode::NOT_FOUND, json!({ "error": "nowhere", "at": at }));
    let (prefix, via) = way.ok_or_else(none)?;
    Ok(web::Json(json!({ "prefix": prefix.to_string(), "via": via, "at": at })))
}

async fn summary(at: web::Data<Multicast>, asked: web::Query<Asked>) -> Said {
    let group = at.group(GROUP).await?;
    group.caught_up().await;
    let (at, table) = group.query(&Question::Summary, Seq(asked.after)).await?;
    let Summary { rows, digest } = table;
    Ok(web::Json(json!({ "prefixes": rows, "digest": format!("{digest:016x}"), "at": at })))
}

fn bad(why: &dyn std::fmt::Display) -> Error {
    let why = json!({ "error": why.to_string(), "outcome": "not_applied" });
    refused(StatusCode::BAD_REQUEST, why)
}

fn refused(status: StatusCode, why: Value) -> Error {
    InternalError::from_response("refused", HttpResponse::build(status).json(why)).into()
}

/// Changes in one message: some tens of kilobytes.
const CHANGES_MAX: usize = 1_000;
