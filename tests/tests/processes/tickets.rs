//! The example `tickets` on real processes: one node has the singleton, whatever is killed or
//! stopped, and no ticket is given twice or out of order; and what the other one keeps is there after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use synod_runtime::world::Instant;
use synod_tests::process::{
    cluster::{Cluster, mains_of},
    machine::{alone, shared},
    wait::{now, pause, until},
};

/// A ticket, and when it was asked for and given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Given {
    ticket: (u64, u64),
    asked: Instant,
    given: Instant,
}

/// Somebody who asks one node for ticket after ticket.
struct Client {
    stop: Arc<AtomicBool>,
    asks: JoinHandle<(Vec<Given>, u64)>,
}

impl Client {
    fn start(synod: &Cluster, node: &str) -> Self {
        let mut http = synod.http(node).patience(Duration::from_secs(12));
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let asks = thread::spawn(move || {
            let (mut tickets, mut refused) = (Vec::new(), 0);
            while !stopped.load(Relaxed) {
                let asked = now();
                match http.request("POST", "/actors/tickets/tickets.next", &[], b"{}") {
                    Ok(answer) if answer.status == 200 => {
                        let ticket = answer.json();
                        let part = |name: &str| ticket[name].as_u64().expect("a ticket");
                        let ticket = (part("epoch"), part("number"));
                        tickets.push(Given { ticket, asked, given: now() });
                    }
                    Ok(answer) => {
                        let outcome = answer.json()["outcome"].clone();
                        assert!(outcome == "unknown" || outcome == "not_applied", "{outcome}");
                        refused += 1;
                    }
                    // The node is down.
                    Err(_) => pause(),
                }
            }
            (tickets, refused)
        });
        Self { stop, asks }
    }

    fn stop(self) -> (Vec<Given>, u64) {
        self.stop.store(true, Relaxed);
        self.asks.join().expect("no answer was wrong")
    }
}

/// Whoever asked after a ticket was given got a higher one.
fn judge(mut given: Vec<Given>) -> usize {
    given.sort();
    for two in given.windows(2) {
        assert!(two[0].ticket < two[1].ticket, "given twice: {two:?}");
    }
    // No later ticket may have been given before an earlier one was asked for.
    let mut first_given = Instant::from_nanos(u64::MAX);
    for one in given.iter().rev() {
        assert!(one.asked < first_given, "{one:?} was asked for after a higher one was given");
        first_given = first_given.min(one.given);
    }
    given.len()
}

fn holder(synod: &Cluster, node: &str) -> Result<(String, u64), String> {
    let role = synod.http(node).json("/roles/tickets/primary")?;
    let holder = role["node"].as_str().zip(role["epoch"].as_u64());
    holder.map(|(node, epoch)| (node.to_owned(), epoch)).ok_or_else(|| role.to_string())
}

fn wait_holder(synod: &Cluster, node: &str, after: u64) -> (String, u64) {
    until("a primary", || {
        holder(synod, node).and_then(|held| match held.1 > after {
            true => Ok(held),
            false => Err(format!("{held:?}")),
        })
    })
}

fn other(of: &str) -> &'static str {
    if of == "a" { "b" } else { "a" }
}

/// Waits for a ticket of a later epoch at `node`; answers how long it took since `began`. Who asks
/// has little patience: what was sent to a node that hangs is answered by nobody.
fn next_epoch(synod: &Cluster, node: &str, epoch: u64, began: Instant) -> Duration {
    let mut http = synod.http(node).patience(Duration::from_millis(100));
    until("a ticket of a later epoch", || {
        let answer = http.request("POST", "/actors/tickets/tickets.next", &[], b"{}");
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        match answer.json()["epoch"].as_u64().filter(|of| *of > epoch) {
            Some(_) => Ok(now().since(began)),
            None => Err(answer.text()),
        }
    })
}

#[test]
fn a_singleton_is_elsewhere_in_time_after_kill_9_and_after_sigstop_and_no_ticket_is_given_twice() {
    let _machine = alone();
    let mut synod = Cluster::serving_by_hand("tickets");
    let (first, mut epoch) = wait_holder(&synod, "a", 0);
    let clients: Vec<_> = ["a", "b", "a", "b"].map(|node| Client::start(&synod, node)).into();
    // A caller may pause and need not know.
    let mut stopped = first;
    for seconds in [4, 8] {
        let there = other(&stopped);
        let began = now();
        synod.signal("STOP", &[&stopped]);
        let took = next_epoch(&synod, there, epoch, began);
        println!("SIGSTOP of its node: a ticket by another after {} ms", took.as_millis());
        assert!(took < LEASE + SLACK, "{took:?}");
        until("a while with a node that is stopped", || {
            let passed = now().since(began);
            if passed > Duration::from_secs(seconds) { Ok(()) } else { Err(format!("{passed:?}")) }
        });
        synod.signal("CONT", &[&stopped]);
        ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
        synod.wait_status(there, "both mains", |status| mains_of(status) == ["a", "b"]);
        (stopped, epoch) = wait_holder(&synod, there, epoch);
    }
    let there = other(&stopped);
    let began = now();
    synod.kill(&[&stopped]);
    let took = next_epoch(&synod, there, epoch, began);
    println!("kill -9 of its node: a ticket by another after {} ms", took.as_millis());
    assert!(took < LEASE + SLACK, "{took:?}");
    synod.start_node(&stopped);
    synod.wait_ready(&stopped);
    // And in order: at once.
    synod.wait_status(there, "both mains", |status| mains_of(status) == ["a", "b"]);
    let (holder, epoch) = wait_holder(&synod, there, epoch);
    let back = other(&holder);
    until("the other stands", || {
        let role = synod.http(back).json("/roles/tickets/primary")?;
        match role["volunteers"].as_array().is_some_and(|all| !all.is_empty()) {
            true => Ok(()),
            false => Err(role.to_string()),
        }
    });
    let began = now();
    synod.stop_node(&holder);
    let took = next_epoch(&synod, back, epoch, began);
    println!("its node stopped in order: a ticket by another after {} ms", took.as_millis());
    let (mut all, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (tickets, others) = client.stop();
        all.extend(tickets);
        refused += others;
    }
    let tickets = judge(all);
    println!("{tickets} tickets, {refused} requests without one");
    assert!(tickets > 500, "{tickets}");
}

/// Asks one node for number after number until told to stop; those it was told, and how often it asked.
fn count(
    synod: &Cluster,
    node: &str,
    stop: &Arc<AtomicBool>,
    told: &Arc<AtomicU64>,
) -> JoinHandle<(Vec<u64>, u64)> {
    let mut http = synod.http(node).patience(Duration::from_secs(12));
    let (stop, told) = (Arc::clone(stop), Arc::clone(told));
    thread::spawn(move || {
        let (mut numbers, mut asked) = (Vec::new(), 0);
        while !stop.load(Relaxed) {
            asked += 1;
            let last = numbers.last().copied().unwrap_or_default();
            match http.request("POST", NEXT_NUMBER, &[], b"{}") {
                Ok(answer) if answer.status == 200 => {
                    let answer = answer.json();
                    // Or why it is not known to be kept.
                    assert!(answer["Ok"].is_u64() || answer["Err"].is_object(), "{answer}");
                    let number = answer["Ok"].as_u64();
                    assert!(number.is_none_or(|number| number > last), "{answer} after {last}");
                    numbers.extend(number);
                    told.fetch_add(number.is_some().into(), Relaxed);
                }
                Ok(_) => {}
                Err(_) => pause(),
            }
        }
        (numbers, asked)
    })
}

/// Goal: a singleton that keeps its count goes on from it, on the other node after `kill -9` of its own,
/// and after that of all at once: no number is answered twice, and each is above all that were answered
/// before it was asked for.
#[test]
fn what_was_kept_survives_kill_9_of_its_node_and_of_all() {
    let _machine = shared();
    let mut synod = Cluster::serving_by_hand("tickets");
    let stop = Arc::<AtomicBool>::default();
    let told = Arc::<AtomicU64>::default();
    let clients: Vec<_> = ["a", "b", "a"].map(|node| count(&synod, node, &stop, &told)).into();
    // So that there is something to lose.
    let counts = || {
        let before = told.load(Relaxed);
        until("numbers answered", || match told.load(Relaxed) - before {
            enough if enough >= 40 => Ok(()),
            answered => Err(answered.to_string()),
        });
    };
    let next = |synod: &Cluster, node: &str, after: u64| {
        let mut http = synod.http(node).patience(Duration::from_millis(300));
        until("a later number", || {
            let answer = http.request("POST", NEXT_NUMBER, &[], b"{}");
            let answer = answer.map_err(|error| format!("{error:?}"))?;
            let number = answer.json()["Ok"].as_u64().ok_or_else(|| answer.text())?;
            assert!(number > after, "{number}, when {after} was answered");
            Ok(number)
        })
    };
    let mut asked_here = Vec::new();
    let mut highest = next(&synod, "a", 0);
    for _ in 0..2 {
        asked_here.push(highest);
        let role = synod.http("a").json("/roles/numbers/primary").expect("it is there");
        let holder = role["node"].as_str().expect("somebody has it").to_owned();
        counts();
        let began = now();
        synod.kill(&[&holder]);
        highest = next(&synod, other(&holder), highest);
        println!("kill -9 of its node: {highest} by another after {:?}", now().since(began));
        synod.start_node(&holder);
        ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
        let both = |status: &serde_json::Value| mains_of(status) == ["a", "b"];
        synod.wait_status(other(&holder), "both mains", both);
    }
    asked_here.push(highest);
    counts();
    synod.kill(&["a", "b", "x"]);
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    highest = next(&synod, "b", highest);
    println!("kill -9 of all: {highest} afterwards");
    asked_here.push(highest);
    stop.store(true, Relaxed);
    let (mut all, mut asked) = (asked_here, 0);
    for client in clients {
        let (numbers, times) = client.join().expect("no answer was wrong");
        all.extend(numbers);
        asked += times;
    }
    let told = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), told, "a number was answered twice");
    println!("{told} numbers up to {:?}, asked {asked} times", all.last());
    assert!(told > 100, "{told}");
}

/// Asks for a number.
const NEXT_NUMBER: &str = "/actors/numbers/numbers.next";

/// The default.
const LEASE: Duration = Duration::from_secs(2);

/// 300 ms are promised; the rest is for a machine that builds and tests beside it.
const SLACK: Duration = Duration::from_millis(1_300);
