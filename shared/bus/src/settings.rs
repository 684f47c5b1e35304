//! Settings that several programs share. Each is a flag and an environment variable; the doc
//! comments of the fields are the `--help` texts.
//!
//! clap reads both, so flag, variable, default and help text stand in one place, and a test
//! compares the variables with `.env.example`. Rejected: a settings file. Containers and service
//! managers set environment variables, and a file would be a third source with an order of its own.

mod masked_urls;
mod unknown;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use ktrdr_protocol::subject::SubjectNames;

pub use self::masked_urls::masked_urls;
pub use self::unknown::{
    UnknownVariable, is_setting, unknown_variables, warn_about_unknown_variables,
};

/// How to reach and use NATS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsOptions {
    /// Server addresses, separated by commas. With a password or token in it, set the variable, not
    /// the flag: other users can see the arguments of a process.
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,
    /// Credentials file (`.creds`). It is read again at each connect, as all files named here.
    #[arg(long, env = "NATS_CREDS")]
    pub nats_creds: Option<PathBuf>,
    /// File with the seed of an nkey.
    #[arg(long, env = "NATS_NKEY")]
    pub nats_nkey: Option<PathBuf>,
    /// User name.
    #[arg(long, env = "NATS_USER")]
    pub nats_user: Option<String>,
    /// Password for the user name. Set the variable, not the flag: other users can see the arguments
    /// of a process.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    pub nats_password: Option<String>,
    /// File with the password for the user name.
    #[arg(long, env = "NATS_PASSWORD_FILE")]
    pub nats_password_file: Option<PathBuf>,
    /// Token. Set the variable, not the flag: other users can see the arguments of a process.
    #[arg(long, env = "NATS_TOKEN", hide_env_values = true)]
    pub nats_token: Option<String>,
    /// Certificate authority (PEM file) for checking the servers' certificates. Turns TLS on.
    #[arg(long, env = "NATS_CA")]
    pub nats_ca: Option<PathBuf>,
    /// Certificate of this client (PEM file), for servers that want one. Turns TLS on.
    #[arg(long, env = "NATS_CERT")]
    pub nats_cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM file).
    #[arg(long, env = "NATS_KEY")]
    pub nats_key: Option<PathBuf>,
    /// Speak TLS from the first byte, for servers with `handshake_first`.
    #[arg(long, env = "NATS_TLS_FIRST", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub nats_tls_first: bool,
    /// First tokens of the subjects on which this program gets answers. With a prefix of its own,
    /// the server can keep others from reading them.
    #[arg(long, env = "NATS_INBOX_PREFIX", default_value = "_INBOX", value_parser = parse_inbox_prefix)]
    pub nats_inbox_prefix: String,
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
    /// What is asked for the streams.
    #[command(flatten)]
    pub streams: AskedSettings,
}

/// The exit code of a program with a setting that cannot be used. Starting it again does not help, so
/// `deploy/systemd` does not.
pub const BAD_SETTING: u8 = 2;

/// What was asked for the streams; `None` for what was not set.
///
/// The settings in force live with the streams ([`crate::stream_settings`]). The first backend
/// writes them; afterwards only `ktrdr-backend configure` changes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
#[command(
    next_help_heading = "Streams (only the backend that makes the streams uses these; later, `ktrdr-backend configure` changes them)"
)]
pub struct AskedSettings {
    /// How long a worker may be silent before its operation is given to another one. Default: 30s.
    ///
    /// It must be longer than a few round trips and the longest pause of a worker process,
    /// otherwise healthy workers lose their operations.
    #[arg(long, env = "KTRDR_LEASE", value_parser = parse_in_stream)]
    pub lease: Option<Duration>,
    /// Number of NATS servers that keep a copy of each stream: 1, 3 or 5. Default: 1.
    #[arg(long, env = "KTRDR_STREAM_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub stream_replicas: Option<u8>,
    /// How long an operation is kept after its end, with its metrics and result. Default: 7d.
    #[arg(long, env = "KTRDR_RETENTION", value_parser = parse_in_stream)]
    pub retention: Option<Duration>,
    /// Largest size of the operations stream, for example `10GiB`; -1 for no limit (the default).
    /// When the stream is full, starts are refused (507) and nothing is lost.
    #[arg(long, env = "KTRDR_STREAM_MAX_BYTES", allow_negative_numbers = true, value_parser = parse_limit)]
    pub stream_max_bytes: Option<i64>,
    /// Largest size of the metrics stream; -1 for no limit (the default). When it is full, the
    /// oldest metric points are dropped.
    #[arg(long, env = "KTRDR_METRICS_MAX_BYTES", allow_negative_numbers = true, value_parser = parse_limit)]
    pub metrics_max_bytes: Option<i64>,
    /// Largest size of the stream of log lines; -1 for no limit. When it is full, the oldest log lines
    /// are dropped. Default: 1GiB.
    #[arg(long, env = "KTRDR_LOGS_MAX_BYTES", allow_negative_numbers = true, value_parser = parse_limit)]
    pub logs_max_bytes: Option<i64>,
    /// How long a log line is kept at most; -1 for as long as its operation (the default).
    #[arg(long, env = "KTRDR_LOGS_MAX_AGE", allow_negative_numbers = true, value_parser = parse_age_limit)]
    pub logs_max_age: Option<Duration>,
    /// Largest size of each worker type's bucket of large results; -1 for no limit (the default).
    /// When it is full, a large result waits for room and its operation stays `running`.
    #[arg(long, env = "KTRDR_RESULTS_MAX_BYTES", allow_negative_numbers = true, value_parser = parse_limit)]
    pub results_max_bytes: Option<i64>,
    /// Largest size of the bucket of checkpoints; -1 for no limit (the default). When it is full,
    /// operations run on without a new checkpoint.
    #[arg(long, env = "KTRDR_CHECKPOINTS_MAX_BYTES", allow_negative_numbers = true, value_parser = parse_limit)]
    pub checkpoints_max_bytes: Option<i64>,
}

/// Shortest duration of a setting: shorter ones are zero where they are written in milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);

/// Longest duration of a setting. Clocks and NATS can calculate with it.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Shortest lease and retention. NATS refuses shorter ones, and a worker extends a lease after each
/// third of it.
pub const SHORTEST_IN_STREAM: Duration = Duration::from_millis(100);

/// Reads a duration such as `10s`, `500ms` or `7d`, from one millisecond to 100 years. A number needs
/// a unit: somebody who writes `KTRDR_RETENTION=7` means days, and would lose all operations that are
/// older than seven seconds.
///
/// # Errors
/// The text says what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write for example 500ms, 10s, 5m, 7d";

    let text = text.trim();
    if text.parse::<f64>().is_ok() {
        return Err(format!("a number needs a unit; {EXAMPLES}"));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration < SHORTEST => Err("must be at least 1ms".to_owned()),
        Ok(duration) if duration > LONGEST => Err("must be at most 100 years".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; {EXAMPLES}")),
    }
}

/// Reads a lease or a retention: a duration of at least 100 ms.
///
/// # Errors
/// The text says what is accepted.
pub fn parse_in_stream(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration < SHORTEST_IN_STREAM => Err("must be at least 100ms".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads the longest age of what a stream keeps; `-1`, which becomes [`LONGEST`], stands for no limit.
///
/// # Errors
/// The text says what is accepted.
pub fn parse_age_limit(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "-1" => Ok(LONGEST),
        other => parse_in_stream(other).map_err(|error| format!("{error}, or -1 for no limit")),
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

/// Reads a number of bytes such as `512KiB`, `10GB` or `1048576`.
///
/// # Errors
/// The text says what is accepted. Zero is an error, too.
pub fn parse_size(text: &str) -> Result<i64, String> {
    const EXAMPLES: &str = "write for example 512KiB, 100MB or 10GiB";

    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: i64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("unknown unit {unit:?}; {EXAMPLES}")),
    };

    let number: i64 = number.parse().map_err(|_| EXAMPLES.to_owned())?;
    match number.checked_mul(factor) {
        Some(size) if size > 0 => Ok(size),
        _ => Err(format!(
            "must be at least 1 byte, and below 2^63; {EXAMPLES}"
        )),
    }
}

/// Like [`parse_size`], but `-1` stands for no limit.
pub(crate) fn parse_limit(text: &str) -> Result<i64, String> {
    match text.trim() {
        "-1" => Ok(-1),
        other => parse_size(other).map_err(|error| format!("{error}, or -1 for no limit")),
    }
}

/// Reads an inbox prefix: tokens of a subject, without wildcards.
fn parse_inbox_prefix(text: &str) -> Result<String, String> {
    let is_token = |token: &str| {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '$');
        !token.is_empty() && token.chars().all(is_plain)
    };
    if text.split('.').all(is_token) {
        Ok(text.to_owned())
    } else {
        Err(
            "must be tokens of a subject, separated by dots; write for example _INBOX_backend"
                .to_owned(),
        )
    }
}

fn parse_names(text: &str) -> Result<SubjectNames, String> {
    SubjectNames::new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_prefix_is_tokens_without_wildcards() {
        for good in ["_INBOX", "_INBOX_worker-dummy", "a.b"] {
            assert_eq!(parse_inbox_prefix(good), Ok(good.to_owned()));
        }
        for bad in ["", ".", "a..b", "a.", "_INBOX.>", "*", "$JS", "a b", "ä"] {
            assert!(parse_inbox_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_with_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration(" 1m 30s "), Ok(Duration::from_secs(90)));
        for bad in [
            "", "0", "0s", "7", "1.5", "-1", "-1s", "ten", "inf", "1e300", "1ns", "101years",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_in_stream("99ms").is_err());
        assert_eq!(parse_in_stream("100ms"), Ok(SHORTEST_IN_STREAM));
        assert_eq!(parse_duration_or_zero("0"), Ok(Duration::ZERO));
        assert!(parse_duration_or_zero("5").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512KiB"), Ok(512 * 1024));
        assert_eq!(parse_size(" 2 MB "), Ok(2_000_000));
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("17"), Ok(17));
        for bad in [
            "",
            "0",
            "KiB",
            "1.5GiB",
            "1XiB",
            "-1",
            "99999999999999999999",
            "99999999999999TiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_a_size_or_none() {
        assert_eq!(parse_limit("-1"), Ok(-1));
        assert_eq!(parse_limit("10GB"), Ok(10_000_000_000));
        assert!(parse_limit("0").is_err());
        assert!(parse_limit("-2").is_err());

        assert_eq!(parse_age_limit("-1"), Ok(LONGEST));
        assert_eq!(parse_age_limit("3d"), Ok(Duration::from_secs(3 * 86_400)));
        assert!(parse_age_limit("0s").is_err());
    }
}
