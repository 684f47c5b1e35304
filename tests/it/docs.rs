//! What the documentation says about the tests is true.

use std::collections::BTreeSet;
use std::path::Path;

use ktrdr_tests::settings::repository;

/// Every function in the Rust files below `directory`.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_is_named_in_the_reliability_page_exists() {
    let mut known = BTreeSet::new();
    for directory in ["shared", "worker", "backend/src", "tests/src", "tests/it"] {
        functions(&repository().join(directory), &mut known);
    }
    let page = std::fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let names = quoted.filter(|text| {
        text.contains("::")
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    });
    let cited: Vec<&str> = names.filter_map(|text| text.rsplit("::").next()).collect();
    assert!(cited.len() > 20, "{cited:?}");
    let missing: Vec<_> = cited
        .iter()
        .filter(|name| !known.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
