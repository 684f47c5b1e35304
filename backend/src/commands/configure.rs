//! `ktrdr-backend configure`: shows the settings in force, what would change, and what would be lost.
//! With `--apply`, changes them.
//!
//! It reads the operations stream as a backend does, into a projection of its own, so it counts what
//! backends show. It changes the stream alone; running backends notice it within seconds and bring
//! everything else in line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use clap::Args;
use ktrdr_bus::nats::{self, ConnectError, Connection};
use ktrdr_bus::settings::{AskedSettings, NatsOptions, parse_duration};
use ktrdr_bus::stream_settings::{Difference, StreamSettings, UNLIMITED, duration_text};
use ktrdr_bus::telemetry::{self, LogOptions};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;

use crate::changes::Changes;
use crate::projection::{Projection, follow};
use crate::settings_in_force::SettingsInForce;

/// How long NATS may take to accept the connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings to put in force. Without any, it only shows what is in force.
#[derive(Debug, Args)]
pub struct Configure {
    /// Change the settings. Without it, nothing is changed.
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    asked: AskedSettings,
    /// How often workers report; the lease is compared with it.
    #[arg(long, env = "KTRDR_HEARTBEAT_INTERVAL", default_value = "10s", value_parser = parse_duration)]
    heartbeat_interval: Duration,
    #[command(flatten)]
    nats: NatsOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// No thread or timer could be made.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// The NATS settings cannot work.
    #[error("the NATS settings cannot be used")]
    Connect(#[source] ConnectError),
    /// NATS did not answer.
    #[error("NATS does not answer; check NATS_URL and the credentials")]
    NoAnswer,
    /// There is nothing to configure.
    #[error(
        "there is no stream {stream}: the first backend makes it, with the settings that it is given"
    )]
    NoStream {
        /// The operations stream.
        stream: String,
    },
    /// A stream could not be read or changed.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The answer could not be written.
    #[error("cannot write")]
    Write(#[source] std::io::Error),
}

impl Configure {
    /// Runs it, and prints to standard output.
    ///
    /// # Errors
    /// [`ConfigureError`].
    pub fn run(self) -> Result<(), ConfigureError> {
        telemetry::init(&self.log);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ConfigureError::Start)?;
        runtime.block_on(self.configure())
    }

    async fn configure(self) -> Result<(), ConfigureError> {
        let names = &self.nats.subject_prefix;
        let connection = nats::connect(&self.nats, "ktrdr-configure")
            .await
            .map_err(ConfigureError::Connect)?;
        tokio::time::timeout(PATIENCE, connection.up())
            .await
            .map_err(|_| ConfigureError::NoAnswer)?;

        let found = topology::in_force(&connection.jetstream, names).await?;
        let Some((info, in_force)) = found else {
            return Err(ConfigureError::NoStream {
                stream: names.stream(),
            });
        };
        let wanted = self.asked.over(&in_force);
        let differences = in_force.differences(&wanted);
        let operations = if wanted.retention < in_force.retention {
            Some(self.count(&connection, &in_force, &wanted).await?)
        } else {
            None
        };
        say(&described(&in_force, &wanted))?;
        say(&losses(&info, &in_force, &wanted, operations.as_ref()))?;
        for contradiction in wanted.contradictions(self.heartbeat_interval) {
            say(&format!("\nWarning: {contradiction}.\n"))?;
        }

        if differences.is_empty() {
            return Ok(());
        }
        if !self.apply {
            return say("\nNothing was changed. To change it, add --apply.\n");
        }
        topology::change(&connection.jetstream, names, &wanted).await?;
        topology::ensure(&connection.jetstream, names, &wanted).await?;
        say("\nChanged. Backends follow within seconds, and workers follow them.\n")
    }

    /// Reads the stream into a projection, and counts.
    async fn count(
        &self,
        connection: &Connection,
        in_force: &StreamSettings,
        wanted: &StreamSettings,
    ) -> Result<Counted, ConfigureError> {
        let projection = Projection::new(Changes::default());
        // No heartbeat is compared with what is only looked at.
        let settings = SettingsInForce::new(AskedSettings::default(), Duration::ZERO);
        settings.note(*in_force);
        let reading = follow::run(
            &projection,
            connection,
            &self.nats.subject_prefix,
            &settings,
        );
        tokio::select! {
            () = reading => {}
            () = projection.caught_up() => {}
        }

        let now = Timestamp::now();
        let count = |status| projection.count(status);
        Ok(Counted {
            all: projection.len() as u64,
            open: count(Status::Pending) + count(Status::Running),
            over: projection.ended_before(now.minus(wanted.retention)),
        })
    }
}

/// Operations of the stream.
struct Counted {
    all: u64,
    open: u64,
    /// Those that ended longer ago than the new retention.
    over: u64,
}

/// Every setting, and its change.
fn described(in_force: &StreamSettings, wanted: &StreamSettings) -> String {
    let differences = in_force.differences(wanted);
    let mut text = String::from("In force:\n");
    for (variable, _, value) in in_force.described() {
        let change = differences
            .iter()
            .find(|difference| difference.variable == variable);
        // Writing into a string cannot fail.
        let _ = match change {
            None => writeln!(text, "  {variable:28} {}", shown(&value)),
            Some(Difference { stored, asked, .. }) => writeln!(
                text,
                "  {variable:28} {} -> {}",
                shown(stored),
                shown(asked)
            ),
        };
    }
    text
}

fn shown(value: &str) -> &str {
    if value == "-1" { "no limit" } else { value }
}

/// What the change would take away, and what it does not.
fn losses(
    info: &Info,
    in_force: &StreamSettings,
    wanted: &StreamSettings,
    operations: Option<&Counted>,
) -> String {
    let mut lines = Vec::new();
    if wanted.replicas < in_force.replicas {
        lines.push(format!(
            "{} of {} copies of every stream are removed: everything is lost when the servers with the other {} are",
            in_force.replicas - wanted.replicas,
            in_force.replicas,
            wanted.replicas
        ));
    }
    if let Some(Counted { all, open, over }) = operations {
        let bytes = info.state.bytes.checked_div(*all).unwrap_or_default() * over;
        lines.push(format!(
            "{over} of {all} operations ended longer ago than the new retention: they are deleted, about {bytes} of {} bytes, with their results and metrics. {open} operations are open",
            info.state.bytes
        ));
    }
    let limit = wanted.stream_max_bytes;
    if limit != UNLIMITED && u64::try_from(limit).is_ok_and(|limit| limit < info.state.bytes) {
        lines.push(format!(
            "the operations stream holds {} bytes, more than the new limit: nothing is deleted, starts are refused (507) and ends wait until there is room",
            info.state.bytes
        ));
    }
    if is_lower(in_force.metrics_max_bytes, wanted.metrics_max_bytes) {
        lines.push("the oldest metric points beyond the new limit are deleted".to_owned());
    }
    if is_lower(in_force.logs_max_bytes, wanted.logs_max_bytes)
        || wanted.logs_max_age < in_force.logs_max_age
    {
        lines.push("the oldest log lines beyond the new limits are deleted".to_owned());
    }
    if wanted.lease < in_force.lease {
        lines.push(format!(
            "no work is lost: workers use the shorter lease at once, and the queues follow after the longer one ({}) has passed. Workers of version 0.1.0 keep the lease with which they took an operation: stop them first",
            duration_text(in_force.lease)
        ));
    }

    let mut text = String::new();
    for line in lines {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n- {line}.");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn is_lower(before: i64, after: i64) -> bool {
    after != UNLIMITED && (before == UNLIMITED || after < before)
}

fn say(text: &str) -> Result<(), ConfigureError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .map_err(ConfigureError::Write)
}
