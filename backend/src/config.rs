//! The backend's settings, each an environment variable and a flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, Parser, ValueEnum};
use ktrdr_bus::settings::{NatsOptions, ProtocolOptions, masked_urls, parse_duration, parse_size};
use ktrdr_bus::signing::SigningOptions;
use ktrdr_bus::telemetry::LogOptions;
use ktrdr_http::browsers::BrowserOptions;
use ktrdr_http::tls::TlsOptions;
use ktrdr_http::tokens::TokenOptions;

/// REST interface of KTRDR Workers: checks, queues, shows and cancels operations that
/// workers run.
#[derive(Debug, Clone, Parser)]
#[command(name = "ktrdr-backend", version)]
pub struct Config {
    /// Address and port of the REST interface; port 0 takes any free one. An address that other
    /// machines reach needs `KTRDR_TOKENS_FILE`, or `KTRDR_INSECURE=true`.
    #[arg(long, env = "KTRDR_API_ADDR", default_value = "127.0.0.1:8000")]
    pub api_addr: String,
    /// How long a silent worker stays listed as `TEMPORARILY_UNAVAILABLE` before it is removed.
    #[arg(long, env = "KTRDR_WORKER_REMOVE_AFTER", default_value = "5m", value_parser = parse_duration)]
    pub worker_remove_after: Duration,
    /// What to do with a start that no known worker can run: `queue` accepts it with a warning,
    /// `strict` answers 503.
    #[arg(long, env = "KTRDR_ADMISSION", default_value = "queue")]
    pub admission: Admission,
    /// How long a running operation may take to confirm a cancel before it is closed without its
    /// worker. If it is too short, workers that are still stopping cleanly are cut off.
    #[arg(long, env = "KTRDR_CANCEL_GRACE", default_value = "30s", value_parser = parse_duration)]
    pub cancel_grace: Duration,
    /// How long nobody may have used a queue with requirements before it is removed. The next start
    /// that needs it makes it again.
    #[arg(long, env = "KTRDR_QUEUE_IDLE", default_value = "1h", value_parser = parse_duration)]
    pub queue_idle: Duration,
    /// Where operations that have ended are kept when they have left the stream: `sqlite:` and the
    /// path of a file, which is made when it does not exist. Without it they are forgotten.
    #[arg(long, env = "KTRDR_ARCHIVE", value_name = "sqlite:PATH", value_parser = parse_archive)]
    pub archive: Option<PathBuf>,
    /// How long the archive keeps an operation after its end, for example `365d`. Without it, for
    /// ever.
    #[arg(long, env = "KTRDR_ARCHIVE_RETENTION", value_parser = parse_duration)]
    pub archive_retention: Option<Duration>,
    /// Largest request body, for example `512KiB`. NATS' own `max_payload` (1 MiB by default)
    /// bounds it too.
    #[arg(long, env = "KTRDR_MAX_BODY", default_value = "512KiB", value_parser = parse_body_size)]
    pub max_body: usize,
    /// How long requests in flight may take to finish once the process has been asked to stop.
    #[arg(long, env = "KTRDR_SHUTDOWN_GRACE", default_value = "10s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// Who may use the REST interface.
    #[command(flatten)]
    pub tokens: TokenOptions,
    /// Which names and web pages the REST interface answers.
    #[command(flatten)]
    pub browsers: BrowserOptions,
    /// Whether it speaks TLS.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// What is signed, and whose signatures count.
    #[command(flatten)]
    pub signing: SigningOptions,
    /// NATS connection.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// Settings that backend and workers must agree on.
    #[command(flatten)]
    pub protocol: ProtocolOptions,
    /// Logs.
    #[command(flatten)]
    pub log: LogOptions,
    #[arg(skip)]
    effective: Vec<(String, String)>,
}

/// What to do with a start that no known worker can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Admission {
    /// Accept it: it waits for a worker.
    Queue,
    /// Refuse it with 503.
    Strict,
}

impl Config {
    /// The same settings, which remember how they were written.
    #[must_use]
    pub fn shown_as(self, command: &Command, matches: &ArgMatches) -> Self {
        Self {
            effective: effective(command, matches),
            ..self
        }
    }

    /// Every setting with its value, by the name of its variable. Secrets are masked.
    pub fn effective(&self) -> &[(String, String)] {
        &self.effective
    }

    /// Describes settings of this process that are valid one by one but contradict each other. Those
    /// that live with the streams are another thing: the ones in force count.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let beats = self.protocol.heartbeat_interval * 3;
        if self.worker_remove_after < beats {
            found.push(format!(
                "KTRDR_WORKER_REMOVE_AFTER ({:?}) is shorter than 3 heartbeats ({beats:?}): silent workers are removed without being shown as unavailable first",
                self.worker_remove_after
            ));
        }
        if self.archive_retention.is_some() && self.archive.is_none() {
            found.push(
                "KTRDR_ARCHIVE_RETENTION is set without KTRDR_ARCHIVE: there is no archive"
                    .to_owned(),
            );
        }
        if self.signing.verify.verify_keys.is_some() && self.signing.signing_key.is_none() {
            found.push(
                "KTRDR_VERIFY_KEYS is set without KTRDR_SIGNING_KEY: this backend signs nothing, so workers that check signatures refuse what it starts".to_owned(),
            );
        }
        found
    }
}

/// The value of every setting that has a variable, as text.
fn effective(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let setting = |argument: &Arg| {
        let name = argument.get_env()?.to_string_lossy().into_owned();
        let values = matches.get_raw(argument.get_id().as_str());
        let value = match values.and_then(|mut values| values.next()) {
            None => "-".to_owned(),
            Some(value) if name == "NATS_URL" => masked_urls(&value.to_string_lossy()),
            Some(_) if argument.is_hide_env_values_set() => "***".to_owned(),
            Some(value) => value.to_string_lossy().into_owned(),
        };
        Some((name, value))
    };
    command.get_arguments().filter_map(setting).collect()
}

/// The file of an archive: `sqlite:` and its path.
fn parse_archive(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("must be `sqlite:` and the path of a file, for example sqlite:/var/lib/ktrdr/archive.db".to_owned()),
    }
}

/// The size of a request body: it has to fit into memory.
fn parse_body_size(text: &str) -> Result<usize, String> {
    let size = parse_size(text)?;
    usize::try_from(size).map_err(|_| "does not fit into memory".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    fn config(arguments: &[&str]) -> Config {
        let command = Config::command();
        let matches = command.clone().get_matches_from(arguments);
        let config = Config::from_arg_matches(&matches).unwrap();
        config.shown_as(&command, &matches)
    }

    #[test]
    fn secrets_are_never_shown() {
        let config = config(&[
            "ktrdr-backend",
            "--nats-url",
            "nats://bob:hunter2@a:4222, tls://hunter2@b",
            "--nats-user",
            "bob",
            "--nats-password",
            "hunter2",
        ]);

        let shown = format!("{:?}", config.effective());

        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("nats://***@a:4222,tls://***@b"), "{shown}");
        assert!(shown.contains(r#"("NATS_PASSWORD", "***")"#), "{shown}");
    }

    #[test]
    fn every_setting_is_shown_with_its_value() {
        let config = config(&["ktrdr-backend", "--lease", "42s"]);

        let shown = config.effective();

        for (name, value) in [
            ("KTRDR_LEASE", "42s"),
            ("KTRDR_MAX_BODY", "512KiB"),
            ("KTRDR_LOG_JSON", "false"),
            ("NATS_CREDS", "-"),
        ] {
            assert!(
                shown.contains(&(name.to_owned(), value.to_owned())),
                "{shown:?}"
            );
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        let config = Config::try_parse_from([
            "ktrdr-backend",
            "--worker-remove-after",
            "2s",
            "--heartbeat-interval",
            "10s",
        ])
        .unwrap();
        assert!(config.contradictions()[0].contains("KTRDR_WORKER_REMOVE_AFTER"));

        let config = Config::try_parse_from(["ktrdr-backend", "--verify-keys", "keys"]).unwrap();
        assert!(config.contradictions()[0].contains("KTRDR_SIGNING_KEY"));
    }
}
