//! The build of the images has all that it reads: `.dockerignore` leaves out everything else, so a new
//! crate or an included file must be named there. `scripts/compose-check` runs the build itself.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use ktrdr_tests::settings::repository;

/// The names in the root of the repository that the build gets.
fn sent_to_the_build() -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join(".dockerignore")).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix('!'));
    names.map(str::to_owned).collect()
}

/// The crates of the workspace, as `Cargo.toml` lists them.
fn members() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, rest) = text.split_once("members = [").expect("members");
    let (list, _) = rest.split_once(']').expect("an end");
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The files that Rust code below `directory` includes, relative to the root.
fn included(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            included(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for macro_name in ["include_str!(", "include_bytes!("] {
                let names = text.split(macro_name).skip(1).filter_map(|rest| {
                    let rest = rest.trim_start().strip_prefix('"')?;
                    rest.split('"').next()
                });
                found.extend(names.map(|name| from_root(&path, name)));
            }
        }
    }
}

/// The path of a file that `code` names, without `..`.
fn from_root(code: &Path, name: &str) -> PathBuf {
    let beside = code.parent().unwrap().join(name);
    let mut path = PathBuf::new();
    for part in beside.strip_prefix(repository()).unwrap().components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

#[test]
fn the_build_of_the_images_gets_every_crate_and_every_included_file() {
    let sent = sent_to_the_build();
    let members = members();
    assert!(members.len() > 8, "{members:?}");

    let mut needed: Vec<PathBuf> = members.iter().map(PathBuf::from).collect();
    // The others are not built for the images. Only tests include Markdown files.
    let is_built = |member: &&String| {
        let first = member.split('/').next().unwrap_or_default();
        ["shared", "worker", "backend"].contains(&first)
    };
    for member in members.iter().filter(is_built) {
        included(&repository().join(member).join("src"), &mut needed);
    }
    needed.retain(|path| path.extension().is_none_or(|extension| extension != "md"));
    let missing: BTreeSet<_> = needed
        .iter()
        .filter(|path| {
            let first = path.components().next().unwrap();
            !sent.contains(first.as_os_str().to_str().unwrap())
        })
        .collect();

    assert!(missing.is_empty(), ".dockerignore leaves out {missing:?}");
}
