//! The modules of the backend form layers: none uses one above its own, so there are no circles.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules in the table at the top of `lib.rs`, from the highest layer to the lowest.
fn layers() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(source().join("lib.rs"))?;
    let layers = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next())
        .map(|cell| cell.trim_matches(['[', ']', '`']).to_owned())
        .filter(|cell| cell != "module")
        .collect();
    Ok(layers)
}

/// The Rust files of a module: `name.rs`, or all below `name/`.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            files(&entry?.path(), found)?;
        }
    } else if path.is_file() {
        found.push(path.to_owned());
    }
    Ok(())
}

/// The top-level modules that code in `text` names; comments may name any.
fn used(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default())
        .map(str::to_owned)
        .collect()
}

#[test]
fn modules_use_only_layers_below_their_own() -> io::Result<()> {
    let layers = layers()?;
    let mut wrong = Vec::new();

    for (own, module) in layers.iter().enumerate() {
        let mut paths = Vec::new();
        files(&source().join(module), &mut paths)?;
        files(&source().join(format!("{module}.rs")), &mut paths)?;
        assert!(
            !paths.is_empty(),
            "lib.rs lists {module}, which has no file"
        );
        for path in &paths {
            for name in used(&std::fs::read_to_string(path)?) {
                let other = layers.iter().position(|layer| *layer == name);
                if name != *module && other.is_none_or(|other| other <= own) {
                    wrong.push(format!("{} uses {name}", path.display()));
                }
            }
        }
    }

    assert!(
        wrong.is_empty(),
        "a module uses one that lib.rs does not list below its own: {wrong:#?}"
    );
    Ok(())
}

#[test]
fn every_module_is_listed_once() -> io::Result<()> {
    let text = std::fs::read_to_string(source().join("lib.rs"))?;
    // Modules of tests are no part of the program.
    let text = text.replace("#[cfg(test)]\nmod ", "#[cfg(test)] mod ");
    let mut declared: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|rest| rest.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let mut listed = layers()?;

    declared.sort();
    listed.sort();

    assert_eq!(listed, declared);
    Ok(())
}
