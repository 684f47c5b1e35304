//! `ktrdr-backend nats-config`: prints a configuration of nats-server in which each program may do
//! what it needs, and nothing else.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use ktrdr_bus::permissions::config::{ConfigError, accounts};
use ktrdr_bus::permissions::{Installation, Proof};
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::queue_class;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::subject::SubjectNames;

/// The configuration without users, from which everything else is taken.
const BASE: &str = include_str!("../../../nats.conf");

/// What the configuration is for.
#[derive(Debug, Args)]
pub struct NatsConfig {
    /// The worker types, separated by commas. Each gets a user of its own.
    #[arg(long, value_delimiter = ',', required = true)]
    types: Vec<WorkerType>,
    /// The queues that workers may pull from, separated by commas. Default: all queues that
    /// backends make.
    #[arg(long, value_delimiter = ',')]
    queues: Vec<Queue>,
    /// First tokens of every subject.
    #[arg(long, env = "KTRDR_SUBJECT_PREFIX", default_value = "ktrdr", value_parser = parse_names)]
    subject_prefix: SubjectNames,
    /// What the workers' own REST interfaces take: `health` saves the permissions for starts and
    /// cancels.
    #[arg(long, env = "WORKER_HTTP", default_value = "full")]
    worker_http: WorkerHttp,
    /// Users with keys instead of passwords: nats-server then knows no secret. `ktrdr-backend nats-key
    /// new` makes a key; programs use it with `NATS_NKEY`.
    #[arg(long)]
    nkeys: bool,
}

/// What the workers' own REST interfaces take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkerHttp {
    /// Starts and cancels, too.
    Full,
    /// Questions about the worker's health alone.
    Health,
}

/// Why no configuration was printed.
#[derive(Debug, thiserror::Error)]
pub enum NatsConfigError {
    /// There is none for these worker types.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It could not be written to standard output.
    #[error("cannot print the configuration")]
    Print(#[source] io::Error),
}

impl NatsConfig {
    /// Prints the configuration.
    ///
    /// # Errors
    /// [`NatsConfigError`].
    pub fn run(self) -> Result<(), NatsConfigError> {
        let text = self.text()?;
        match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads it has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(NatsConfigError::Print),
        }
    }

    fn text(self) -> Result<String, ConfigError> {
        let types: Vec<&str> = self.types.iter().map(WorkerType::as_str).collect();
        let types = types.join(",");
        let queues = match self.queues.is_empty() {
            true => queue_class::all().iter().map(Requirements::queue).collect(),
            false => self.queues,
        };
        let installation = Installation {
            names: self.subject_prefix,
            worker_types: self.types,
            queues,
            direct_starts: self.worker_http == WorkerHttp::Full,
        };
        let (proof, option, what) = if self.nkeys {
            let what = "the public key of a user (U…) in each of these variables";
            (Proof::Nkey, " --nkeys", what)
        } else {
            let what = "a password in each of these variables (letters and digits, beginning with a letter)";
            (Proof::Password, "", what)
        };
        let variables: String = installation
            .roles()
            .iter()
            .map(|role| format!("#   {}\n", role.variable(proof)))
            .collect();
        let users = accounts(&installation, proof)?;
        // The first lines of the file without users say how to start a server with it.
        let settings = BASE.split_once("\n\n").map_or(BASE, |(_, rest)| rest);

        Ok(format!(
            "\
# Configuration of nats-server for KTRDR Workers, in which each program may do what it needs and nothing else. Printed by
#
#   ktrdr-backend nats-config --types {types}{option}
#
# Set NATS_STORE_DIR, and {what}:
#
{variables}#
# Then: nats-server -c nats.secure.conf. docs/security.md explains the rest.

{settings}
{users}"
        ))
    }
}

fn parse_names(text: &str) -> Result<SubjectNames, String> {
    SubjectNames::new(text).map_err(|error| error.to_string())
}
