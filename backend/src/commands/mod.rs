//! The command line: `ktrdr-backend` alone serves, its sub-commands prepare files for operators.
//!
//! | module | holds |
//! |---|---|
//! | [`configure`] | `configure`: shows and changes the settings in force |
//! | [`nats_config`] | `nats-config`: prints a configuration of nats-server with few permissions |
//! | [`nats_key`] | `nats-key new`: makes a key of a NATS user |
//! | [`signing_key`] | `signing-key new`: makes a key for signed starts |
//! | [`token`] | `token new`: makes a token and adds its entry to the file of tokens |

pub mod configure;
pub mod nats_config;
pub mod nats_key;
pub mod signing_key;
pub mod token;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ktrdr_bus::telemetry::chain;

use crate::config::Config;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "ktrdr-backend",
    version,
    about = "REST interface of KTRDR Workers: checks, queues, shows and cancels operations that workers run",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Program {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make tokens for the REST interfaces of backends and workers.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make keys that backends sign start requests with.
    #[command(subcommand)]
    SigningKey(signing_key::SigningKeyCommand),
    /// Show the settings in force, which live with the streams, and what would change; with --apply,
    /// change them.
    Configure(Box<configure::Configure>),
    /// Print a configuration of nats-server in which each program may do what it needs, and nothing
    /// else.
    NatsConfig(nats_config::NatsConfig),
    /// Make keys with which programs show NATS who they are.
    #[command(subcommand)]
    NatsKey(nats_key::NatsKeyCommand),
}

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Serve with these settings.
    Serve(Box<Config>),
    /// Run a sub-command.
    Run(Command),
}

impl Task {
    /// Reads flags and environment variables. Ends the program with a message when they cannot be
    /// used, or when help or the version was asked for.
    pub fn from_args() -> Self {
        Self::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let mut command = Program::command();
        let names_a_command = |word: &OsString| {
            let mut known = command.get_subcommands();
            known.any(|known| word == known.get_name())
        };
        if arguments.get(1).is_some_and(names_a_command) {
            // A sub-command reads none of the settings for serving, so none of them can be wrong.
            command = command.mut_args(|argument| argument.env(None::<&str>));
        }

        let matches = command.try_get_matches_from_mut(arguments)?;
        let program =
            Program::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok(match program.command {
            Some(command) => Self::Run(command),
            None => Self::Serve(Box::new(program.config.shown_as(&command, &matches))),
        })
    }
}

impl Command {
    /// Runs it. Its result goes to standard output, everything else to standard error.
    pub fn run(self) -> ExitCode {
        let done: Result<(), Box<dyn std::error::Error>> = match self {
            Self::Token(command) => command.run().map_err(Into::into),
            Self::SigningKey(command) => command.run().map_err(Into::into),
            Self::Configure(command) => command.run().map_err(Into::into),
            Self::NatsConfig(command) => command.run().map_err(Into::into),
            Self::NatsKey(command) => command.run().map_err(Into::into),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", chain(error.as_ref()));
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Program::command().debug_assert();
    }

    #[test]
    fn flags_serve_and_words_do_something_else() {
        let read = |line: &str| Task::read(line.split(' '));

        let Task::Serve(config) = read("ktrdr-backend --lease 42s").unwrap() else {
            panic!("it does not serve");
        };
        let lease = ("KTRDR_LEASE".to_owned(), "42s".to_owned());
        assert!(config.effective().contains(&lease));
        let task = read("ktrdr-backend token new ci --scopes read --file f").unwrap();
        assert!(matches!(task, Task::Run(Command::Token(_))));
        assert!(read("ktrdr-backend --lease 42s token new ci --scopes read --file f").is_err());
        assert!(read("ktrdr-backend serve").is_err());
    }
}
