//! Variables that look like settings and are none: a slip of the pen would otherwise have no effect
//! and no message.

use std::fmt;

/// Variables with one of these beginnings are looked at.
const BEGINNINGS: [&str; 3] = ["KTRDR_", "WORKER_", "NATS_"];

/// The settings of all programs. One file of variables is often used for backends and workers, so
/// each program knows those of the other.
const SETTINGS: [&str; 64] = [
    "KTRDR_ADMISSION",
    "KTRDR_ALLOWED_HOSTS",
    "KTRDR_API_ADDR",
    "KTRDR_ARCHIVE",
    "KTRDR_ARCHIVE_RETENTION",
    "KTRDR_CANCEL_GRACE",
    "KTRDR_CHECKPOINTS_MAX_BYTES",
    "KTRDR_CHECKPOINT_INTERVAL",
    "KTRDR_CORS_ORIGINS",
    "KTRDR_DATA_DIR",
    "KTRDR_HEARTBEAT_INTERVAL",
    "KTRDR_INSECURE",
    "KTRDR_LEASE",
    "KTRDR_LOGS_MAX_AGE",
    "KTRDR_LOGS_MAX_BYTES",
    "KTRDR_LOG_JSON",
    "KTRDR_MAX_BODY",
    "KTRDR_METRICS_MAX_BYTES",
    "KTRDR_OLD_CHECKPOINT_KEYS",
    "KTRDR_OUTPUT_DIR",
    "KTRDR_QUEUE_IDLE",
    "KTRDR_RESULTS_MAX_BYTES",
    "KTRDR_RETENTION",
    "KTRDR_SHUTDOWN_GRACE",
    "KTRDR_SIGNING_KEY",
    "KTRDR_STREAM_MAX_BYTES",
    "KTRDR_STREAM_REPLICAS",
    "KTRDR_SUBJECT_PREFIX",
    "KTRDR_TLS_CERT",
    "KTRDR_TLS_KEY",
    "KTRDR_TOKENS_FILE",
    "KTRDR_VERIFY_KEYS",
    "KTRDR_WORKER_REMOVE_AFTER",
    "NATS_CA",
    "NATS_CERT",
    "NATS_CREDS",
    "NATS_INBOX_PREFIX",
    "NATS_KEY",
    "NATS_NKEY",
    "NATS_PASSWORD",
    "NATS_PASSWORD_FILE",
    "NATS_TLS_FIRST",
    "NATS_TOKEN",
    "NATS_URL",
    "NATS_USER",
    "WORKER_CAPABILITIES",
    "WORKER_CONCURRENCY",
    "WORKER_ENDPOINT_URL",
    "WORKER_EXEC",
    "WORKER_EXEC_GPUS",
    "WORKER_EXEC_MEMORY",
    "WORKER_EXEC_RECYCLE",
    "WORKER_EXEC_SCHEMA",
    "WORKER_EXEC_SIMPLE",
    "WORKER_HOST",
    "WORKER_HTTP",
    "WORKER_ID",
    "WORKER_LOG_BYTES",
    "WORKER_LOG_LEVEL",
    "WORKER_LOG_LINES",
    "WORKER_PORT",
    "WORKER_SHUTDOWN_GRACE",
    "WORKER_STOP_GRACE",
    "WORKER_TYPE",
];

/// Variables of clients, of the compose file, of scripts and of the `nats` command line: they may be in the same
/// environment and are no mistake.
const OF_OTHERS: [&str; 22] = [
    "KTRDR_API_BIND",
    "KTRDR_ARCHIVE_DIR",
    "KTRDR_CA",
    "KTRDR_DATA",
    "KTRDR_FUZZ_SECONDS",
    "KTRDR_OUTPUTS",
    "KTRDR_SECRETS_DIR",
    "KTRDR_TLS_DIR",
    "KTRDR_TOKEN",
    "KTRDR_TOKENS_DIR",
    "KTRDR_URL",
    "KTRDR_WORKER_BIN",
    "NATS_BIND",
    "NATS_CONTEXT",
    "NATS_IMAGE",
    "NATS_MEMORY",
    "NATS_MONITORING_PORT",
    "NATS_SERVER",
    "NATS_STORE_DIR",
    "NATS_TIMEOUT",
    "WORKER_IMAGE",
    "WORKER_MEMORY",
];

/// Programs have variables of their own with these beginnings. Only a slip of the pen is a mistake.
const SHARED_BEGINNINGS: [&str; 2] = ["WORKER_", "NATS_"];

/// How similar a name must be to that of a setting, from 0 to 1, to be taken for it.
const SIMILAR: f64 = 0.85;

/// A variable that no program of this project reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The setting that was probably meant.
    pub meant: Option<&'static str>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, meant } = self;
        match (name.as_str(), meant) {
            ("KTRDR_API_URL", _) => {
                "KTRDR_API_URL is not used: workers and backends find each other over NATS. Set NATS_URL, the same for both".fmt(f)
            }
            (_, Some(meant)) => write!(f, "{name} is no setting and has no effect; {meant} is one"),
            (_, None) => write!(f, "{name} is no setting and has no effect; --help lists all settings"),
        }
    }
}

/// Whether a variable is a setting of one of the programs.
pub fn is_setting(name: &str) -> bool {
    SETTINGS.contains(&name)
}

/// Warns about the variables of this process that look like settings and are none.
pub fn warn_about_unknown_variables() {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for unknown in unknown_variables(names) {
        tracing::warn!(variable = unknown.name, "{unknown}");
    }
}

/// Which of these variables look like settings and are none.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<UnknownVariable> {
    let mut found: Vec<UnknownVariable> = names
        .into_iter()
        .filter(|name| has_our_beginning(name) && !is_setting(name) && !is_of_others(name))
        .map(|name| UnknownVariable {
            meant: most_similar(&name),
            name,
        })
        .filter(|unknown| unknown.meant.is_some() || !may_be_of_others(&unknown.name))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn may_be_of_others(name: &str) -> bool {
    SHARED_BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
}

fn has_our_beginning(name: &str) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
}

fn is_of_others(name: &str) -> bool {
    // Passwords and public keys for the configuration that `ktrdr-backend nats-config` prints.
    let is_proof =
        name.starts_with("KTRDR_NATS_") && (name.ends_with("_PASSWORD") || name.ends_with("_NKEY"));
    OF_OTHERS.contains(&name)
        || is_proof
        || name.starts_with("KTRDR_TEST_")
        || is_of_kubernetes(name)
}

/// Kubernetes sets variables for each service of a namespace: `NATS_SERVICE_HOST`, `NATS_PORT`,
/// `NATS_PORT_4222_TCP`.
fn is_of_kubernetes(name: &str) -> bool {
    let after_port = name.split_once("_PORT_").map(|(_, rest)| rest);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || after_port.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The setting whose name is most similar. The beginning may be wrong: `KTRDR_NATS_URL`.
fn most_similar(name: &str) -> Option<&'static str> {
    let rest = without_beginning(name);
    let similarity = |setting: &str| {
        let same_beginning = strsim::jaro_winkler(rest, without_beginning(setting));
        same_beginning.max(strsim::jaro_winkler(rest, setting))
    };

    SETTINGS
        .into_iter()
        .map(|setting| (similarity(setting), setting))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, setting)| setting)
}

fn without_beginning(name: &str) -> &str {
    BEGINNINGS
        .iter()
        .find_map(|beginning| name.strip_prefix(beginning))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<(String, Option<&'static str>)> {
        unknown_variables(names.iter().map(|name| (*name).to_owned()))
            .into_iter()
            .map(|unknown| (unknown.name, unknown.meant))
            .collect()
    }

    #[test]
    fn a_slip_of_the_pen_is_found_with_what_was_meant() {
        for (written, meant) in [
            ("KTRDR_RETENTON", "KTRDR_RETENTION"),
            ("KTRDR_STREAM_REPLICA", "KTRDR_STREAM_REPLICAS"),
            ("KTRDR_RETENTION_DAYS", "KTRDR_RETENTION"),
            ("WORKER_LEASE", "KTRDR_LEASE"),
            ("KTRDR_NATS_URL", "NATS_URL"),
            ("KTRDR_WORKER_TYPE", "WORKER_TYPE"),
            ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
            ("NATS_URLS", "NATS_URL"),
        ] {
            assert_eq!(found(&[written]), [(written.to_owned(), Some(meant))]);
        }

        assert_eq!(
            found(&["KTRDR_COLOUR"]),
            [("KTRDR_COLOUR".to_owned(), None)]
        );
    }

    #[test]
    fn settings_and_the_variables_of_others_are_no_mistake() {
        let fine = [
            "PATH",
            "RUST_LOG",
            "KTRDR_LEASE",
            "WORKER_TYPE",
            "KTRDR_TEST_SECURE",
            "KTRDR_URL",
            "KTRDR_TOKEN",
            "KTRDR_CA",
            "KTRDR_NATS_BACKEND_PASSWORD",
            "KTRDR_NATS_BACKEND_NKEY",
            "NATS_SERVICE_HOST",
            "NATS_SERVICE_PORT_CLIENT",
            "NATS_PORT",
            "NATS_PORT_4222_TCP_ADDR",
            "KTRDR_BACKEND_PORT_8000_TCP",
            "WORKER_MODEL_CACHE",
            "NATS_DASHBOARD_COLOUR",
        ];

        assert_eq!(found(&fine), []);
    }

    #[test]
    fn the_address_of_a_backend_is_no_setting_of_a_worker() {
        let unknown = unknown_variables(["KTRDR_API_URL".to_owned()]);

        assert!(unknown[0].to_string().contains("NATS_URL"), "{unknown:?}");
    }
}
