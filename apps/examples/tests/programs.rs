//! The examples are whole programs: each knows the verbs of a cluster and its own actors.

use std::process::Command;

fn said(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().expect("the example starts");
    assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
    String::from_utf8(out.stdout).expect("help is text")
}

#[test]
fn every_example_has_the_verbs_of_a_cluster() {
    for program in [env!("CARGO_BIN_EXE_bank"), env!("CARGO_BIN_EXE_counter")] {
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
