//! What is written about the settings names every one of them, and no other.

use std::collections::BTreeSet;

use clap::CommandFactory;
use ktrdr_tests::settings::repository;

/// The variables of both programs. `WORKER_TYPE` chooses the engine before the worker's own settings are read.
fn variables() -> BTreeSet<String> {
    let commands = [
        ktrdr_backend::Config::command(),
        ktrdr_worker::Config::command(),
    ];
    let read = commands
        .iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(clap::Arg::get_env);
    read.map(|name| name.to_string_lossy().into_owned())
        .chain(["WORKER_TYPE".to_owned()])
        .collect()
}

#[test]
fn the_example_environment_lists_exactly_the_variables_there_are() {
    let example = std::fs::read_to_string(repository().join(".env.example")).unwrap();
    let assigned = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='));
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let listed: BTreeSet<String> = assigned
        .map(|(name, _)| name.to_owned())
        .filter(|name| is_name(name))
        .collect();
    assert_eq!(listed, variables());
}

#[test]
fn the_readme_names_every_variable() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let missing: Vec<String> = variables()
        .into_iter()
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}
