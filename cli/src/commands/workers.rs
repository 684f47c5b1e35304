//! Workers of a file: this process becomes them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::programs;

/// Becomes the workers of a Python file, or `ktrdr-worker` with a program of another language.
///
/// # Errors
/// [`Failure::Usage`] when there is no such file, [`Failure::Dev`] when a program is missing or cannot be started.
pub fn run(file: &str, settings: &[OsString]) -> Result<(), Failure> {
    let path = path_of(file);
    if !path.is_file() {
        return Err(Failure::Usage(format!(
            "there is no file {}",
            path.display()
        )));
    }
    let worker = programs::find("ktrdr-worker")?;

    let is_python = path.extension() == Some(OsStr::new("py"));
    let (program, mut command) = if is_python {
        let python = programs::python()?;
        let mut command = Command::new(&python);
        command.args(["-m", "ktrdr", "run", file]);
        if std::env::var_os("KTRDR_WORKER_BIN").is_none() {
            command.env("KTRDR_WORKER_BIN", worker);
        }
        (python, command)
    } else {
        let mut command = Command::new(&worker);
        let absolute = path.canonicalize()?;
        command.arg("--exec").arg(quoted(&absolute)?);
        (worker, command)
    };

    // It returns only when it fails.
    let error = command.args(settings).exec();
    Err(Failure::Dev(format!(
        "{} cannot be started: {error}",
        program.display()
    )))
}

/// The file, without the function behind it.
fn path_of(file: &str) -> &Path {
    match file.rsplit_once(".py:") {
        Some((path, _)) => Path::new(&file[..path.len() + ".py".len()]),
        None => Path::new(file),
    }
}

/// The path as one word: the worker splits the command as a shell does.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path
        .to_str()
        .ok_or_else(|| Failure::Usage(format!("{} is no text", path.display())))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_no_part_of_the_path() {
        assert_eq!(path_of("a/job.py"), Path::new("a/job.py"));
        assert_eq!(path_of("a/job.py:count"), Path::new("a/job.py"));
        assert_eq!(path_of("a:b/job.sh"), Path::new("a:b/job.sh"));
    }

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")).unwrap(), r"'/a b/it'\''s'");
    }
}
