//! The examples are whole programs: each knows the verbs of a cluster and its own actors.

use std::process::Command;

fn said(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().expect("the example starts");
    assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
    String::from_utf8(out.stdout).expect("help is text")
}

#[test]
fn every_example_has_the_verbs_of_a_cluster() {
    for program in
        [env!("CARGO_BIN_EXE_bank"), env!("CARGO_BIN_EXE_counter"), env!("CARGO_BIN_EXE_tickets")]
    {
        let help = said(program, &["--help"]);
        for verb in ["dev", "node", "init", "status", "call", "actors", "simulate"] {
            assert!(help.contains(verb), "{program} --help does not name {verb}:\n{help}");
        }
    }
}

#[test]
fn a_simulated_minute_of_an_example_s_program_is_clean() {
    let lines = said(env!("CARGO_BIN_EXE_bank"), &["simulate", "--runs", "1", "--seed", "7"]);
    assert!(lines.contains("1 runs  0 violated"), "{lines}");
}

#[test]
fn a_ping_crosses_nodes_and_a_node_that_left_does_not_run_it() {
    let lines = said(env!("CARGO_BIN_EXE_ping"), &[]);
    assert!(lines.contains("pong 3 from b after"), "{lines}");
    assert!(lines.contains("ping 4: the node cannot be reached: not run, NotRun"), "{lines}");
}

#[test]
fn workers_on_several_nodes_share_the_work() {
    let lines = said(env!("CARGO_BIN_EXE_workers"), &[]);
    for line in ["worker/1 on b: 1229 primes", "worker/3 on c: 1229 primes", "told 3 workers"] {
        assert!(lines.contains(line), "{line}:\n{lines}");
    }
    assert!(lines.contains("and by worker/3 when b has left"), "{lines}");
}

#[test]
fn a_supervised_tree_begins_anew_ends_in_order_and_gives_up() {
    let lines = said(env!("CARGO_BIN_EXE_tree"), &[]);
    let [begins, ends] =
        ["store begins\ncart begins\npage begins", "page ends\ncart ends\nstore ends"];
    assert!(lines.starts_with(begins) && lines.contains(ends), "{lines}");
    assert!(lines.contains(&format!("page ends\ncart ends\n{begins}")), "anew:\n{lines}");
    assert!(lines.contains("all finished by themselves: true"), "{lines}");
    assert!(lines.contains("the tree gave up: more than 2 restarts within 10s"), "{lines}");
}

#[test]
fn a_chat_room_hears_its_guests_and_misses_who_left() {
    let lines = said(env!("CARGO_BIN_EXE_chat"), &[]);
    for line in ["ann", "bob", "cy"].map(|guest| format!("{guest} hears ann: hello, all")) {
        assert!(lines.contains(&line), "{line}:\n{lines}");
    }
    assert_eq!(lines.matches("bob misses ann: it stopped").count(), 1, "{lines}");
    assert_eq!(lines.matches("cy misses ann: it stopped").count(), 1, "{lines}");
    assert!(lines.contains("bob hears cy: bye, ann"), "{lines}");
}

#[test]
fn a_hot_actor_s_neighbour_is_measured_with_a_turn_budget_and_without() {
    let lines = said(env!("CARGO_BIN_EXE_neighbour"), &[]);
    assert!(lines.contains("without a turn budget: p50") && lines.contains("   with a turn"));
}

#[test]
fn roles_composed_by_hand_lose_nothing_when_any_one_of_them_stops() {
    let lines = said(env!("CARGO_BIN_EXE_compose"), &[]);
    assert_eq!(lines.matches(": a promise for 1000.").count(), 2, "{lines}");
    for role in ["acceptor", "learner", "replica", "proposer", "home"] {
        for seat in ["a", "b"] {
            let stopped = format!("the {role} of {seat} stops: ");
            assert_eq!(lines.matches(&stopped).count(), 2, "{stopped}:\n{lines}");
        }
    }
    assert_eq!(lines.matches("the auxiliary of x stops: ").count(), 2, "{lines}");
    assert_eq!(lines.matches("each is in the book exactly once").count(), 2, "{lines}");
}

#[test]
fn a_lost_update_is_found_replayed_from_its_seed_and_mended() {
    let lines = said(env!("CARGO_BIN_EXE_lost"), &[]);
    assert!(lines.starts_with("naive: seed "), "{lines}");
    assert!(lines.contains(" again: the same run, trace "), "{lines}");
    assert!(lines.ends_with("mended: seeds 1 to 40: every coin is there\n"), "{lines}");
    // The manual shows what it prints, with some lines left out.
    let manual = include_str!("../../../actors/docs/testing.md");
    let (_, block) = manual.split_once("```text\n").expect("a block of output");
    let (block, _) = block.split_once("```").expect("its end");
    let mut printed = lines.lines();
    for line in block.lines().filter(|line| *line != "…") {
        assert!(printed.any(|other| other == line), "the manual's {line:?} is not there:\n{lines}");
    }
}

#[test]
fn a_request_is_one_trace_on_both_nodes() {
    let lines = said(env!("CARGO_BIN_EXE_trace"), &[]);
    let trace_of = |line: &str| line.split_once("trace=").map(|(_, rest)| rest[..16].to_owned());
    let traces: Vec<_> = lines.lines().filter_map(trace_of).collect();
    assert_eq!(traces.len(), 4, "two handlers for each of two customers: {lines}");
    assert!(traces[0] == traces[1] && traces[2] == traces[3], "{lines}");
    assert_ne!(traces[0], traces[2], "{lines}");
    for line in ["from=a", "from=b", "checkout{customer=\"bob\"}: orders", "packs 5 pieces"] {
        assert!(lines.contains(line), "{line}:\n{lines}");
    }
}
