//! Records the wire contract: one message of each shape that the programs in a directory write.
//!
//! `cargo run -p ktrdr-tests --example record_wire -- DIRECTORY > tests/data/wire/messages.jsonl`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool for developers reports by panicking"
)]

use std::path::PathBuf;

use ktrdr_tests::wire::{one_of_each_shape, record};

#[tokio::main]
async fn main() {
    let programs: PathBuf = std::env::args_os()
        .nth(1)
        .expect("the directory of ktrdr-backend and ktrdr-worker")
        .into();
    let programs = programs.canonicalize().expect("a directory that exists");

    for message in one_of_each_shape(record(Some(&programs)).await) {
        println!("{}", serde_json::to_string(&message).expect("JSON"));
    }
}
