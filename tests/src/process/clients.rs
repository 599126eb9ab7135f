//! Clients of both sites that write and read all the while, and what they were told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    crew::{Crew, Shift},
    http::{Answer, Http, NoAnswer},
    wait::{pause, until},
};

/// At each site two that write, each new files of its own, and one that reads. Whoever was not told that
/// its file is there writes the next one at the other site, once.
#[derive(Debug)]
pub struct Clients {
    crew: Crew<Told>,
    book: Arc<Book>,
}

/// What became of a file, as its writer was told.
#[derive(Debug)]
struct Told {
    path: String,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

/// What clients tell one another, for each site.
#[derive(Debug, Default)]
struct Book {
    /// What was acknowledged last, by either.
    last: Mutex<Option<String>>,
    written: [AtomicU64; 2],
    read: [AtomicU64; 2],
}

impl Clients {
    /// Starts them, and waits until they work at both sites.
    pub fn start(sites: [SocketAddr; 2]) -> Self {
        let book = Arc::<Book>::default();
        let all = (0..6).map(|client| {
            let book = Arc::clone(&book);
            move |shift: &Shift| match client {
                0..4 => write_on(client, sites, shift, &book),
                _ => read_on(client - 4, sites, shift, &book),
            }
        });
        let clients = Self { crew: Crew::start(all), book };
        clients.wait_at_both(20);
        clients
    }

    /// Waits until so many more writes were acknowledged by site 0 or 1.
    pub fn wait_written(&self, site: usize, more: u64) {
        let written = &self.book.written[site];
        wait_for_more(&format!("writes at site {site}"), written, more);
    }

    /// The same at both, and some that read.
    pub fn wait_at_both(&self, more: u64) {
        for site in 0..2 {
            self.wait_written(site, more);
            wait_for_more(&format!("reads at site {site}"), &self.book.read[site], 5);
        }
    }

    /// How many writes a site acknowledged.
    pub fn written(&self, site: usize) -> u64 {
        self.book.written[site].load(Relaxed)
    }

    /// Stops them. Of the files that `look` finds then every acknowledged one is whole, no refused one
    /// is there, and none that nobody wrote. Answers how many were acknowledged.
    ///
    /// # Panics
    /// When it is otherwise, or one of them was told a lie.
    pub fn finish(self, look: impl FnOnce() -> BTreeMap<String, Vec<u8>>) -> usize {
        let told = self.crew.finish();
        let mut files = look();
        let mut counts = [0; 3];
        for Told { path, fate } in &told {
            counts[*fate as usize] += 1;
            match (fate, files.remove(path)) {
                (Fate::Acknowledged, None) => panic!("{path} was acknowledged and is not there"),
                (Fate::Refused, Some(_)) => panic!("{path} was not applied and is there"),
                (_, Some(file)) => assert!(file == body(path), "{path} is not what was written"),
                (Fate::Refused | Fate::Unknown, None) => {}
            }
        }
        files.retain(|path, _| !path.ends_with('/'));
        assert!(files.is_empty(), "nobody wrote {:?}", files.keys());
        let [acknowledged, refused, unknown] = counts;
        println!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown");
        acknowledged
    }
}

impl Book {
    fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn acknowledged(&self, site: usize, path: &str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        self.written[site].fetch_add(1, Relaxed);
    }
}

impl Fate {
    /// As the manual says what an answer to a write means.
    fn of(answer: &Result<Answer, NoAnswer>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(_)) => return Self::Refused,
            Err(NoAnswer::Lost(_)) => return Self::Unknown,
        };
        let outcome = answer.json()["outcome"].clone();
        match (answer.status, outcome.as_str()) {
            // The latter when its server had it already, and was sent it again after a crash.
            (201 | 204, _) => Self::Acknowledged,
            (503, Some("not_applied")) if answer.header("retry-after").is_some() => Self::Refused,
            (504, Some("unknown")) => Self::Unknown,
            // The server's own answer: what its site did the other one did too, or did better.
            (500.., None) if answer.header("synod-seq").is_some() => Self::Unknown,
            (status, _) => panic!("a write was answered {status} {}", answer.text()),
        }
    }
}

fn write_on(writer: usize, sites: [SocketAddr; 2], shift: &Shift, book: &Book) -> Vec<Told> {
    let mut clients = sites.map(Http::new);
    let home = writer % 2;
    let (mut site, mut told) = (home, Vec::new());
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let path = format!("/{writer}/{number}");
        let fate = Fate::of(&clients[site].request("PUT", &path, &[], &body(&path)));
        if fate == Fate::Acknowledged {
            book.acknowledged(site, &path);
            shift.achieved();
            site = home;
        } else {
            site = 1 - site;
            // Both may refuse.
            pause();
        }
        told.push(Told { path, fate });
    }
    told
}

/// Reads what was acknowledged last: a site has it, or does not answer.
fn read_on(site: usize, sites: [SocketAddr; 2], shift: &Shift, book: &Book) -> Vec<Told> {
    // A site that sleeps finds the last question when it wakes up.
    let mut client = Http::new(sites[site]).patience(READ_PATIENCE);
    while !shift.is_over() {
        let Some(path) = book.last() else {
            pause();
            continue;
        };
        match client.get(&path) {
            Ok(answer) if answer.status == 200 => {
                assert!(answer.body == body(&path), "{path} at site {site}: {}", answer.text());
                book.read[site].fetch_add(1, Relaxed);
            }
            Ok(answer) => {
                let refused = matches!(answer.status, 502..=504);
                assert!(refused, "{path} was acknowledged; site {site}: {}", answer.status);
                pause();
            }
            Err(_) => pause(),
        }
    }
    Vec::new()
}

fn wait_for_more(what: &str, count: &AtomicU64, more: u64) {
    let before = count.load(Relaxed);
    until(what, || match count.load(Relaxed) - before {
        came if came >= more => Ok(()),
        came => Err(format!("{came} of {more}")),
    });
}

/// What is written at a path.
fn body(path: &str) -> Vec<u8> {
    format!("{path} ").repeat(40).into_bytes()
}

/// Who reads asks again after this long.
const READ_PATIENCE: Duration = Duration::from_secs(2);
