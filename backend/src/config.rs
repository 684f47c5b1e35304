//! The backend's settings, each an environment variable and a flag.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use ktrdr_bus::settings::{NatsOptions, ProtocolOptions, masked_urls, parse_duration};
use ktrdr_bus::telemetry::LogOptions;

/// REST interface of the KTRDR job system: validates, queues, shows and cancels operations that workers run.
#[derive(Debug, Clone, Parser)]
#[command(name = "ktrdr-backend", version)]
pub struct Config {
    /// Address and port of the REST interface; port 0 takes any free one. There is no authentication: on an address that
    /// others reach, everybody may start and cancel operations.
    #[arg(long, env = "KTRDR_API_ADDR", default_value = "127.0.0.1:8000")]
    pub api_addr: String,
    /// How long a silent worker stays listed as `TEMPORARILY_UNAVAILABLE` before it is removed.
    #[arg(long, env = "KTRDR_WORKER_REMOVE_AFTER", default_value = "5m", value_parser = parse_duration)]
    pub worker_remove_after: Duration,
    /// What to do with a start that no known worker can run: `queue` accepts it with a warning, `strict` answers 503.
    #[arg(long, env = "KTRDR_ADMISSION", default_value = "queue")]
    pub admission: Admission,
    /// How long a running operation may take to confirm a cancel before it is closed without its worker. Too short, and
    /// work that was being wound down in order is cut off.
    #[arg(long, env = "KTRDR_CANCEL_GRACE", default_value = "30s", value_parser = parse_duration)]
    pub cancel_grace: Duration,
    /// Largest request body, for example `512KiB`. NATS' own `max_payload` (1 MiB by default) bounds it too.
    #[arg(long, env = "KTRDR_MAX_BODY", default_value = "512KiB", value_parser = parse_size)]
    pub max_body: usize,
    /// How long requests in flight may take to finish once the process has been asked to stop.
    #[arg(long, env = "KTRDR_SHUTDOWN_GRACE", default_value = "10s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// NATS connection.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// What backend and workers agree on.
    #[command(flatten)]
    pub protocol: ProtocolOptions,
    /// Logs.
    #[command(flatten)]
    pub log: LogOptions,
}

/// What to do with a start that no known worker can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Admission {
    /// Accept it; it waits.
    Queue,
    /// Refuse it with 503.
    Strict,
}

impl Config {
    /// Every setting in force by variable name, secrets masked.
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        let duration = |value: Duration| format!("{value:?}");
        let secret =
            |value: &Option<String>| value.as_ref().map_or("-".to_owned(), |_| "***".to_owned());
        let path = |value: &Option<std::path::PathBuf>| {
            value
                .as_ref()
                .map_or("-".into(), |p| p.display().to_string())
        };
        vec![
            ("KTRDR_API_ADDR", self.api_addr.clone()),
            (
                "KTRDR_WORKER_REMOVE_AFTER",
                duration(self.worker_remove_after),
            ),
            (
                "KTRDR_ADMISSION",
                format!("{:?}", self.admission).to_lowercase(),
            ),
            ("KTRDR_CANCEL_GRACE", duration(self.cancel_grace)),
            ("KTRDR_MAX_BODY", self.max_body.to_string()),
            ("KTRDR_SHUTDOWN_GRACE", duration(self.shutdown_grace)),
            ("NATS_URL", masked_urls(&self.nats.nats_url)),
            ("NATS_CREDS", path(&self.nats.nats_creds)),
            (
                "NATS_USER",
                self.nats.nats_user.clone().unwrap_or("-".to_owned()),
            ),
            ("NATS_PASSWORD", secret(&self.nats.nats_password)),
            ("NATS_TOKEN", secret(&self.nats.nats_token)),
            ("NATS_CA", path(&self.nats.nats_ca)),
            (
                "KTRDR_SUBJECT_PREFIX",
                self.nats.subject_prefix.prefix().to_owned(),
            ),
            (
                "KTRDR_HEARTBEAT_INTERVAL",
                duration(self.protocol.heartbeat_interval),
            ),
            ("KTRDR_LEASE", duration(self.protocol.lease)),
            (
                "KTRDR_STREAM_REPLICAS",
                self.protocol.stream_replicas.to_string(),
            ),
            ("KTRDR_RETENTION", duration(self.protocol.retention)),
            (
                "KTRDR_STREAM_MAX_BYTES",
                self.protocol.stream_max_bytes.to_string(),
            ),
            ("RUST_LOG", self.log.log.clone()),
            ("KTRDR_LOG_JSON", self.log.log_json.to_string()),
        ]
    }

    /// Settings that are valid one by one and make no sense together.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let beats = self.protocol.heartbeat_interval * 3;
        if self.protocol.lease < beats {
            found.push(format!(
                "KTRDR_LEASE ({:?}) is shorter than 3 heartbeats ({beats:?}): work is taken over from workers still shown as healthy",
                self.protocol.lease
            ));
        }
        if self.worker_remove_after < beats {
            found.push(format!(
                "KTRDR_WORKER_REMOVE_AFTER ({:?}) is shorter than 3 heartbeats ({beats:?}): silent workers vanish without ever being shown as unavailable",
                self.worker_remove_after
            ));
        }
        if self.protocol.retention < self.protocol.lease {
            found.push(format!(
                "KTRDR_RETENTION ({:?}) is shorter than KTRDR_LEASE ({:?}): operations are forgotten while they run",
                self.protocol.retention, self.protocol.lease
            ));
        }
        found
    }
}

/// Reads `1048576`, `512KiB`, `1MiB`, `500KB`.
fn parse_size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "kb" => 1_000,
        "mb" => 1_000_000,
        _ => {
            return Err(format!(
                "unknown unit {unit:?}; write for example 512KiB or 1MiB"
            ));
        }
    };
    let number: usize = number
        .parse()
        .map_err(|_| "write for example 512KiB or 1MiB".to_owned())?;
    match number.checked_mul(factor) {
        Some(size) if size > 0 => Ok(size),
        _ => Err("must be at least 1 byte and fit into memory".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512KiB"), Ok(512 * 1024));
        assert_eq!(parse_size(" 2 MB "), Ok(2_000_000));
        assert_eq!(parse_size("17"), Ok(17));
        for bad in [
            "",
            "0",
            "KiB",
            "1TiB",
            "-1",
            "99999999999999999999",
            "99999999999999MiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let config = Config::try_parse_from([
            "ktrdr-backend",
            "--nats-url",
            "nats://bob:hunter2@a:4222, tls://hunter2@b",
            "--nats-user",
            "bob",
            "--nats-password",
            "hunter2",
        ])
        .unwrap();
        let shown = format!("{:?}", config.effective());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("nats://***@a:4222,tls://***@b"), "{shown}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        let config = Config::try_parse_from([
            "ktrdr-backend",
            "--lease",
            "2s",
            "--heartbeat-interval",
            "10s",
        ])
        .unwrap();
        assert!(config.contradictions()[0].contains("KTRDR_LEASE"));
    }
}
