//! `top`: nodes, links, actors and rates, live.
//!
//! Every node is asked for its `/view` every moment; rates are differences between two answers of
//! the same node. On a terminal the screen is redrawn in place until Ctrl-C; elsewhere one page is
//! printed after another; with `--json`, what the nodes said, one document a line.

mod page;
mod rates;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
};

use actix_rt::time::sleep;
use console::Term;
use serde_json::{Value, json};
use synod_runtime::identity::NodeName;

use self::rates::Rates;
use super::{
    args::TopArgs,
    client::Cluster,
    failure::{Failure, Fate},
    node::Signals,
    out::{self, Reader},
};

/// What the nodes said in one moment; `None` where nothing was answered.
pub(crate) type Views = BTreeMap<NodeName, Option<Value>>;

/// Shows until it is told to stop, or as often as it was asked to.
pub(crate) async fn run(args: &TopArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(&args.client)?;
    // As for every verb: when nobody answers in time, that is the answer.
    cluster.get("/view").await?;
    let listening = Signals::listen();
    let mut signals =
        listening.map_err(|e| Failure::failed("top", e, "report this").with(Fate::NotApplied))?;
    let live = io::stdout().is_terminal() && !args.client.json && args.count.is_none();
    let screen = live.then(Screen::open);
    let mut before = Views::new();
    let mut shown = 0;
    loop {
        let views = cluster.views().await;
        let first = before.is_empty();
        // The first look has nothing to compare with.
        if !first || args.client.json {
            let rates = Rates::between(&before, &views);
            if show(args, screen.as_ref(), &views, &rates)? == Reader::Gone {
                return Ok(());
            }
            shown += 1;
        }
        if args.count.is_some_and(|count| shown >= count.get()) {
            return Ok(());
        }
        before = views;
        let pause = if first { args.every.min(FIRST_PAUSE) } else { args.every };
        tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

fn show(
    args: &TopArgs,
    screen: Option<&Screen>,
    views: &Views,
    rates: &Rates,
) -> Result<Reader, Failure> {
    if args.client.json {
        return out::say(json!({ "nodes": views }));
    }
    let page = page::render(views, rates);
    match screen {
        Some(screen) => {
            screen.draw(&page);
            Ok(Reader::There)
        }
        None => out::say(page),
    }
}

/// The terminal's other screen, until dropped.
struct Screen(Term);

impl Screen {
    fn open() -> Self {
        let term = Term::stdout();
        // A terminal that cannot do it shows pages below one another.
        drop(term.write_str("\x1b[?1049h"));
        drop(term.hide_cursor());
        Self(term)
    }

    fn draw(&self, page: &str) {
        let (rows, columns) = self.0.size();
        let mut text = String::from("\x1b[H");
        for line in page.lines().take(usize::from(rows).saturating_sub(1)) {
            text.extend(line.chars().take(usize::from(columns)));
            text += "\x1b[K\n";
        }
        text += "\x1b[J";
        drop(self.0.write_str(&text));
        drop(io::stdout().flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.0.show_cursor());
        drop(self.0.write_str("\x1b[?1049l"));
    }
}

/// The second look comes soon, so that the screen is not empty for long.
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_millis(300);
