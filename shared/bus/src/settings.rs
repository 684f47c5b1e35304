//! Settings that several programs share. Each is a flag and an environment variable; the doc
//! comments of the fields are the `--help` texts.
//!
//! clap reads both, so flag, variable, default and help text stand in one place, and a test
//! compares the variables with `.env.example`. Rejected: a settings file. Containers and service
//! managers set environment variables, and a file would be a third source with an order of its own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use ktrdr_protocol::subject::SubjectNames;

/// How to reach and use NATS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsOptions {
    /// Server addresses, separated by commas.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// Credentials file (`.creds`).
    #[arg(long, env = "NATS_CREDS")]
    pub nats_creds: Option<PathBuf>,
    /// User name.
    #[arg(long, env = "NATS_USER", requires = "nats_password")]
    pub nats_user: Option<String>,
    /// Password for the user name.
    #[arg(
        long,
        env = "NATS_PASSWORD",
        requires = "nats_user",
        hide_env_values = true
    )]
    pub nats_password: Option<String>,
    /// Token.
    #[arg(long, env = "NATS_TOKEN", hide_env_values = true, conflicts_with_all = ["nats_user", "nats_creds"])]
    pub nats_token: Option<String>,
    /// Certificate authority (PEM file) for checking the servers' certificates. Turns TLS on.
    #[arg(long, env = "NATS_CA")]
    pub nats_ca: Option<PathBuf>,
    /// First tokens of every subject. Each prefix is a separate tenant with its own streams.
    #[arg(long, env = "KTRDR_SUBJECT_PREFIX", default_value = "ktrdr", value_parser = parse_names)]
    pub subject_prefix: SubjectNames,
}

/// Settings that should be the same for backends and workers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Protocol")]
pub struct ProtocolOptions {
    /// Time between two heartbeats of a worker. After three missed ones the worker is
    /// `TEMPORARILY_UNAVAILABLE`.
    #[arg(long, env = "KTRDR_HEARTBEAT_INTERVAL", default_value = "10s", value_parser = parse_duration)]
    pub heartbeat_interval: Duration,
    /// How long a worker may be silent before its operation is given to another one.
    ///
    /// The lease is stored in the queue's consumer. The backend writes it there when it starts; a
    /// worker uses its own setting only for a queue that does not exist yet. It must be longer than
    /// a few round trips and the longest pause of a worker process, otherwise healthy workers lose
    /// their operations.
    #[arg(long, env = "KTRDR_LEASE", default_value = "30s", value_parser = parse_duration)]
    pub lease: Duration,
    /// Number of NATS servers that keep a copy of each stream: 1, 3 or 5.
    #[arg(long, env = "KTRDR_STREAM_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub stream_replicas: u8,
    /// How long operations, metrics and results are kept. An operation must also wait and run
    /// within this time.
    #[arg(long, env = "KTRDR_RETENTION", default_value = "7d", value_parser = parse_duration)]
    pub retention: Duration,
    /// Largest size of the operations stream in bytes; -1 for no limit. When the stream is full,
    /// starts are refused (507) and nothing is lost.
    #[arg(long, env = "KTRDR_STREAM_MAX_BYTES", default_value_t = -1, allow_negative_numbers = true)]
    pub stream_max_bytes: i64,
}

/// Reads a duration such as `10s`, `500ms` or `7d`. A number without a unit means seconds.
///
/// # Errors
/// The text says what is accepted. Zero is an error, too.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text.trim()).map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(duration) if duration.is_zero() => Err("must be longer than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write for example 500ms, 10s, 5m, 7d")),
    }
}

/// Like [`parse_duration`], but also accepts zero.
///
/// # Errors
/// The text says what is accepted.
pub fn parse_duration_or_zero(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "0" | "0s" | "0ms" => Ok(Duration::ZERO),
        other => parse_duration(other),
    }
}

/// Server addresses for logs: without the user names, passwords and tokens that they may contain.
pub fn masked_urls(urls: &str) -> String {
    let mask = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://***{}", &url[..scheme], &url[at..])
        }
        (None, Some(at)) => format!("***{}", &url[at..]),
        _ => url.to_owned(),
    };
    urls.split(',')
        .map(|url| mask(url.trim()))
        .collect::<Vec<_>>()
        .join(",")
}

fn parse_names(text: &str) -> Result<SubjectNames, String> {
    SubjectNames::new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_a_unit_or_in_seconds() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "0", "0s", "-1", "ten", "inf", "1e300"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration_or_zero("0s"), Ok(Duration::ZERO));
    }
}
