//! Attacks on names of files, and on what a worker reads from buckets and from marks of files.

use std::fs;

use ktrdr_fuzz::Attack;
use ktrdr_protocol::checkpoint::Checkpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::engine::data_dir::DataDir;
use crate::engine::output::Mark;
use crate::worker::capabilities::determine;

/// Reads a value; one that is accepted means the same when it is written and read again.
fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&read).expect("it can be written");
        let again: T = serde_json::from_slice(&written).expect("it can be read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    }
}

#[test]
fn names_of_files() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("data");
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("folder/in.csv"), "inside").unwrap();
    fs::write(outside.path().join("secret.csv"), "outside").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
    let dir = DataDir::new(&root);
    let seeds = [
        "folder/in.csv",
        "./folder//in.csv",
        "../secret.csv",
        "link/secret.csv",
        "folder/../../secret.csv",
        "/etc/passwd",
        "new/out.csv",
        ".unfinished/x",
    ];

    Attack::on("names of files").with(seeds).run(|bytes| {
        let Ok(name) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(mut file) = dir.open(name) {
            let text = std::io::read_to_string(&mut file).unwrap();
            assert_eq!(text, "inside", "{name:?} leads out");
        }
        if let Ok(place) = dir.place_output(name) {
            let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
            assert!(place.split('/').all(plain), "{name:?} becomes {place:?}");
            assert!(
                !place.chars().any(char::is_control),
                "{name:?} becomes {place:?}"
            );
        }
    });
}

#[test]
fn checkpoints() {
    let seeds =
        [r#"{"attempt":2,"at":"2025-11-10T10:30:00Z","state":{"format":2,"rows":[1,2.5e3]}}"#];
    Attack::on("checkpoints")
        .with(seeds)
        .run(read::<Checkpoint>);
}

#[test]
fn marks_of_outputs() {
    let seeds = [
        r#"{"operation_id":"op","worker_type":"dummy","parameters":"ab","derived":true,"name":"a.csv","len":7,"modified":1700000000}"#,
    ];
    Attack::on("marks of outputs").with(seeds).run(read::<Mark>);
}

#[test]
fn stated_capabilities() {
    let seeds = [r#"{"gpu":false,"cores":3,"memory_gb":16,"zone":"a"}"#];
    Attack::on("stated capabilities").with(seeds).run(|bytes| {
        if let Ok(stated) = serde_json::from_slice::<Map<String, Value>>(bytes)
            && let Ok(capabilities) = determine(&stated, false)
        {
            assert!(!capabilities.gpu);
        }
    });
}
