//! The page of promises names tests that are there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

#[test]
fn every_test_that_the_page_of_promises_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("actors/docs/promises.md")).unwrap();
    let mut sources = String::new();
    for room in ["tests", "runtime/src", "actors/src", "apps"] {
        read_all(&root.join(room), &mut sources);
    }
    let mut named = 0;
    for command in page
        .split('`')
        .filter(|code| ["T --test ", "cargo test "].iter().any(|start| code.starts_with(start)))
    {
        let mut words = command.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if word == "--test" {
                let file = words.next().unwrap();
                let places = [
                    format!("tests/tests/{file}.rs"),
                    format!("tests/tests/{file}/main.rs"),
                    format!("apps/kv/tests/{file}/main.rs"),
                ];
                assert!(
                    places.iter().any(|place| root.join(place).exists()),
                    "{command}: no {file}"
                );
            } else if word == "--" {
                break;
            } else if command.contains("--test processes ")
                && let Some((file, test)) = word.split_once("::")
            {
                let source = fs::read_to_string(root.join(format!("{PROCESSES}/{file}.rs")));
                let source = source.unwrap_or_else(|error| panic!("{command}: {file}: {error}"));
                // Without a test all of the file is meant.
                let there = test.is_empty() || source.contains(&format!("fn {test}"));
                assert!(there, "{command}: no test {test} in {file}");
                named += usize::from(!test.is_empty());
            } else if words.peek().is_none()
                && !word.starts_with('-')
                && word.len() > LONGEST_PACKAGE
            {
                assert!(sources.contains(&format!("fn {word}")), "{command}: no test {word}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

/// The one program whose tests are named with their files.
const PROCESSES: &str = "tests/tests/processes";

/// What is longer names a test.
const LONGEST_PACKAGE: usize = "synod-runtime".len();

fn read_all(path: &Path, into: &mut String) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_all(&entry.unwrap().path(), into);
        }
    } else if path.extension().is_some_and(|end| end == "rs") {
        into.push_str(&fs::read_to_string(path).unwrap());
    }
}
