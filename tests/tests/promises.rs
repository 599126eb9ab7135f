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
            } else if words.peek().is_none()
                && !word.starts_with('-')
                && word.len() > LONGEST_PACKAGE
            {
                let test = word.rsplit("::").next().unwrap();
                assert!(sources.contains(&format!("fn {test}")), "{command}: no test {word}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

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
