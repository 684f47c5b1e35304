//! What can be typed.
//!
//! | module | holds |
//! |---|---|
//! | [`control`] | schedules, queues and workers |
//! | [`filter`] | which operations are meant |

mod control;
mod filter;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use ktrdr_client::{Label, LogLevel, OperationId, Priority};

pub use self::control::{PutArgs, QueuesCommand, SchedulesCommand, WorkersCommand};
pub use self::filter::FilterArgs;

/// Starts, watches and lists long operations, and runs a whole system for development.
#[derive(Debug, Parser)]
#[command(
    name = "ktrdr",
    version,
    after_help = "Exit codes: 0 done; 1 an operation failed or was cancelled; 2 the request was wrong; 3 the backend cannot be reached; 4 this machine failed: no room for the output, or a program that does not run."
)]
pub struct Args {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands that ask no backend.
const LOCAL: [&str; 3] = ["completions", "dev", "run"];

/// The fields of [`ConnectionArgs`].
const OF_BACKENDS: [&str; 4] = ["ca", "json", "token", "url"];

impl Args {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// What is wrong with them, or the help that they ask for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = complete_command();
        let matches = command.try_get_matches_from_mut(words)?;
        let local = matches
            .subcommand_name()
            .filter(|name| LOCAL.contains(name));
        if let Some(name) = local {
            let is_given =
                |option: &&str| matches.value_source(option) == Some(ValueSource::CommandLine);
            if let Some(option) = OF_BACKENDS.into_iter().find(is_given) {
                let text = format!("`ktrdr {name}` asks no backend and does not take --{option}");
                return Err(command.error(ErrorKind::UnknownArgument, text));
            }
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// All commands. Those that ask no backend do not show its options.
pub fn complete_command() -> clap::Command {
    let mut command = Args::command();
    // This gives each command the options of all.
    command.build();
    for name in LOCAL {
        command = command.mut_subcommand(name, |local| {
            local.mut_args(|option| {
                let is_of_backends = OF_BACKENDS.contains(&option.get_id().as_str());
                option.hide(is_of_backends)
            })
        });
    }
    command
}

/// Where the backend is, and how to print.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Backend")]
pub struct ConnectionArgs {
    /// Address of the backend
    #[arg(
        long,
        global = true,
        env = "KTRDR_URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub url: String,
    /// Token for the backend; the variable keeps it out of the list of processes
    #[arg(long, global = true, env = "KTRDR_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Certificate of the authority behind an https address (PEM); without it, those of this machine count
    #[arg(long, global = true, env = "KTRDR_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON, for scripts: one document a line where there may be several; errors, too, on standard error
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start an operation
    #[command(
        after_help = "Examples:\n  ktrdr start dummy steps=3 --wait\n  ktrdr start dummy '{\"steps\":3}'\n  ktrdr start training -f body.json epochs=20\n  ktrdr start dummy --many bodies.jsonl step_ms=0"
    )]
    Start(StartArgs),
    /// Follow operations until they end
    Watch {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<OperationId>,
    },
    /// List operations, newest first
    List(ListArgs),
    /// Show one operation
    Show {
        /// Its id
        id: OperationId,
    },
    /// Print the result of an operation as JSON, however large it is
    Result {
        /// Its id
        id: OperationId,
    },
    /// Print what was said while an operation ran
    Logs(LogsArgs),
    /// Cancel operations, by id or all that match
    #[command(
        after_help = "Examples:\n  ktrdr cancel ID ID\n  ktrdr cancel --status pending --label symbol:GOOG         # what would happen\n  ktrdr cancel --status pending --label symbol:GOOG --yes"
    )]
    Cancel {
        /// Why; operations that are named by their id keep it
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Give an operation that waits another priority
    Priority {
        /// Its id
        id: OperationId,
        /// How soon it is started, compared with others: 1 is the first, 5 the last
        #[arg(value_name = "1-5", value_parser = priority)]
        priority: Priority,
    },
    /// Run failed or cancelled operations again, as new operations
    Retry {
        /// Go on from the newest checkpoint
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        which: WhichArgs,
    },
    /// List the workers, drain them, or let them go on
    Workers {
        #[command(subcommand)]
        command: Option<WorkersCommand>,
    },
    /// List the queues, pause them, or let them go on
    Queues {
        #[command(subcommand)]
        command: Option<QueuesCommand>,
    },
    /// List, write and run schedules
    Schedules {
        #[command(subcommand)]
        command: Option<SchedulesCommand>,
    },
    /// List what can be started, or show the parameters of one domain
    Types {
        /// The domain, or the worker type
        domain: Option<String>,
    },
    /// Run nats-server, a backend and the built-in workers in the foreground, until Ctrl-C
    Dev(DevArgs),
    /// Run workers of your own: those of a Python file, or a program that speaks docs/exec.md
    #[command(
        after_help = "Examples:\n  ktrdr run job.py --data-dir data --concurrency 4\n  ktrdr run job.py:word_count\n  ktrdr run ./countdown.sh\nktrdr-worker --help lists the settings."
    )]
    Run {
        /// The file; behind a colon, one function of a Python file
        file: String,
        /// Settings of ktrdr-worker
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        settings: Vec<OsString>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to start.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// The domain, as `ktrdr types` lists it
    pub domain: String,
    /// Parameters: a JSON object, or key=value, where the value is JSON or a text
    pub parameters: Vec<String>,
    /// Read parameters from this file (`-`: standard input); parameters on the command line replace them
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Start one operation for each line of this file (`-`: standard input): a JSON object that is added to
    /// the other parameters
    #[arg(long, value_name = "FILE")]
    pub many: Option<PathBuf>,
    /// The id of the operation; a start that is repeated with it starts nothing. With --many, its number
    /// follows: ID-1, ID-2
    #[arg(long)]
    pub id: Option<OperationId>,
    /// A label by which the operation is found, as name:value (repeatable)
    #[arg(long = "label", value_name = "NAME:VALUE")]
    pub labels: Vec<Label>,
    /// How soon it is started, compared with others: 1 is the first, 5 the last
    #[arg(long, value_name = "1-5", value_parser = priority)]
    pub priority: Option<Priority>,
    /// Follow the operation until it ends
    #[arg(long)]
    pub wait: bool,
}

/// Which operations to list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How many
    #[arg(long, default_value_t = 20)]
    pub limit: u64,
}

/// Whose log lines to print.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The id of the operation
    pub id: OperationId,
    /// Go on until the operation has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines of this level and of more important ones: trace, debug, info, warn or error
    #[arg(long, value_parser = crate::commands::logs::level)]
    pub level: Option<LogLevel>,
}

/// Operations by their ids, or all that match.
#[derive(Debug, clap::Args)]
pub struct WhichArgs {
    /// Their ids
    pub ids: Vec<OperationId>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Do it for all that match; without this, it is only said what would happen
    #[arg(long, conflicts_with = "ids")]
    pub yes: bool,
    /// For how many that match at most
    #[arg(long, value_name = "NUMBER", conflicts_with = "ids", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// What `ktrdr dev` runs.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Directory that the workers read and write
    #[arg(long, env = "KTRDR_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Directory that keeps the operations; without it they are forgotten at the end
    #[arg(long, value_name = "DIRECTORY")]
    pub store: Option<PathBuf>,
    /// Slots of each worker
    #[arg(long, default_value_t = 2)]
    pub slots: u32,
}

fn priority(text: &str) -> Result<Priority, String> {
    let number = text.parse().ok();
    number
        .and_then(Priority::new)
        .ok_or_else(|| "use a number from 1 to 5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Args, clap::Error> {
        Args::read(words.iter().map(OsString::from))
    }

    #[test]
    fn the_declaration_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_asks_no_backend_takes_and_shows_none_of_its_options() {
        for words in [
            &["ktrdr", "dev", "--url", "http://h:1"][..],
            &["ktrdr", "--json", "completions", "bash"],
            &["ktrdr", "--token", "x", "run", "job.py"],
        ] {
            let refused = read(words).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::UnknownArgument, "{words:?}");
        }

        let help = |name| read(&["ktrdr", name, "--help"]).unwrap_err().to_string();
        assert!(help("list").contains("--url"), "{}", help("list"));
        for name in LOCAL {
            let help = help(name);
            assert!(
                !help.contains("--url") && !help.contains("--json"),
                "{help}"
            );
            assert!(help.contains("Usage: ktrdr "), "{help}");
        }
    }

    #[test]
    fn options_of_the_connection_may_stand_anywhere() {
        let before = read(&["ktrdr", "--url", "http://h:1", "list"]).unwrap();
        let after = read(&["ktrdr", "list", "--url", "http://h:1"]).unwrap();

        assert_eq!(before.connection.url, after.connection.url);
    }

    #[test]
    fn an_unknown_status_is_refused_with_the_known_ones() {
        let error = read(&["ktrdr", "list", "--status", "done"]).unwrap_err();

        assert!(error.to_string().contains("completed"), "{error}");
    }
}
