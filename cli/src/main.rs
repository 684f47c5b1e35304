//! `ktrdr`, the program for people: starts, watches and lists operations over REST, and runs a whole
//! system on one machine for development.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | what can be typed |
//! | [`commands`] | one module for each group of commands |
//! | [`dev`] | `ktrdr dev`: a server, a backend and workers in the foreground |
//! | [`failure`] | why a command did not succeed, and the exit code for it |
//! | [`programs`] | finding the other programs of this release |
//! | [`parameters`] | the parameters of a start, from words or a file |
//! | [`text`] | tables, durations, and texts that are safe to print |

// A closed standard error is no reason to panic: `text::complain` writes there.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod args;
mod commands;
mod dev;
mod failure;
mod parameters;
mod programs;
mod text;

use std::process::ExitCode;

use crate::args::Args;
use crate::failure::Failure;

fn main() -> ExitCode {
    if let Some(failed) = dev::become_program() {
        return failed;
    }
    // clap ends the program with 2 when the words are wrong, as `Failure::Usage` does.
    let args = Args::read(std::env::args_os()).unwrap_or_else(|wrong| wrong.exit());
    let json = args.connection.json;

    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    // One thread is enough: a command waits for one server.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::System)?
        .block_on(commands::run(args))
}
