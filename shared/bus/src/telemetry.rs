//! Log set-up, and texts for log lines.
//!
//! Logs go to standard error, filtered by `RUST_LOG`, as text or as one JSON object per line.
//! Metrics are not here: each program serves its own for Prometheus (see [`crate::metrics`]). Spans
//! are not exported; an operation's trace id is a field of its log lines instead.

use std::io::IsTerminal;

use clap::Args;
use tracing_subscriber::EnvFilter;

/// Settings of the logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogOptions {
    /// What to log, for example `info,ktrdr_backend=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info,async_nats=warn")]
    pub log: String,
    /// One JSON object per line instead of text.
    #[arg(long, env = "KTRDR_LOG_JSON", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub log_json: bool,
}

/// Starts logging for this process. When the filter is not valid, logs at `info` and warns.
pub fn init(options: &LogOptions) {
    let (filter, bad) = match EnvFilter::try_new(&options.log) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Tests in one process call this several times; the first call counts.
    let _ = if options.log_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    if let Some(error) = bad {
        tracing::warn!(filter = %options.log, %error, "RUST_LOG is not a valid filter; logging at info");
    }
}

/// Longest text that [`short`] returns, in characters.
const SHORT: usize = 300;

/// The beginning of a text, for a log line. Error texts may quote a client's input, which can have
/// any size.
pub fn short(text: &dyn std::fmt::Display) -> String {
    beginning(text.to_string(), SHORT)
}

/// The first `most` characters of a text, with `…` when there are more.
pub fn beginning(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// An error and its causes in one line. The `Display` of an error in this project names only its
/// own layer, not its cause.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
