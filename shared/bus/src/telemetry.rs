//! Log set-up, and texts for log lines.
//!
//! Logs go to standard error, filtered by `RUST_LOG`, as text or as one JSON object per line.
//! Metrics are not here: each program serves its own for Prometheus (see [`crate::metrics`]). Spans
//! are not exported; an operation's trace id is a field of its log lines instead.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

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

/// The client library says nothing that [`crate::nats`] does not: it writes a line about each failed
/// try to connect, without the cause. A filter that names the part decides itself.
const LIBRARY: [(&str, &str); 2] = [("async_nats", "warn"), ("async_nats::connector", "off")];

/// The library would print that a line could not be written to standard error, and panic because it cannot.
const REPORT_FAULTS: bool = false;

/// Starts logging for this process. When the filter is not valid, logs at `info` and warns.
pub fn init(options: &LogOptions) {
    let (filter, bad) = filter(options);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .log_internal_errors(REPORT_FAULTS);
    // Tests in one process call this several times; the first call counts.
    let _ = if options.log_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    warn_of_bad_filter(options, bad);
}

/// [`init`], with another layer that sees events, too, whatever `RUST_LOG` says: it has a filter of its
/// own. Spans of the target `hidden` are for that layer alone.
pub fn init_beside<L>(options: &LogOptions, layer: L, hidden: &str)
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    let (filter, bad) = filter(options);
    let filter = with_directive(filter, &format!("{hidden}=off"));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .log_internal_errors(REPORT_FAULTS);
    let others = tracing_subscriber::registry().with(layer);
    let _ = if options.log_json {
        let lines = lines.json().flatten_event(true);
        others.with(lines.with_filter(filter)).try_init()
    } else {
        let lines = lines.with_target(false);
        others.with(lines.with_filter(filter)).try_init()
    };
    warn_of_bad_filter(options, bad);
}

/// The filter of these options, and what is wrong with them.
fn filter(options: &LogOptions) -> (EnvFilter, Option<ParseError>) {
    let (filter, bad) = match EnvFilter::try_new(&options.log) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let unnamed = LIBRARY
        .iter()
        .filter(|(part, _)| !options.log.contains(part));
    let filter = unnamed.fold(filter, |filter, (part, level)| {
        with_directive(filter, &format!("{part}={level}"))
    });
    (filter, bad)
}

fn with_directive(filter: EnvFilter, directive: &str) -> EnvFilter {
    match directive.parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

fn warn_of_bad_filter(options: &LogOptions, bad: Option<ParseError>) {
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

/// For so long the lines about the same thing are counted together.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// One kind of log line that others can cause as often as they like: the first ones are written,
/// and the others counted, with their number in one line a minute. A flood of lines would fill the
/// disk and hide every other line.
#[derive(Debug)]
pub struct Repeated {
    per_minute: u32,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    /// When the first line of this minute was written.
    since: Option<Instant>,
    /// Lines of this minute.
    written: u32,
    untold: u64,
}

impl Repeated {
    /// One line a minute.
    pub const fn new() -> Self {
        Self::per_minute(1)
    }

    /// So many lines a minute.
    pub const fn per_minute(lines: u32) -> Self {
        Self {
            per_minute: lines,
            lines: Mutex::new(Lines {
                since: None,
                written: 0,
                untold: 0,
            }),
        }
    }

    /// Counts one occurrence. With `Some`, the caller writes the line, which stands for so many.
    pub fn note(&self) -> Option<u64> {
        self.note_at(Instant::now())
    }

    /// How many occurrences were not told, once a minute has passed since the last line. For a
    /// caller that asks at intervals, so that the end of a flood is told, too.
    pub fn summary(&self) -> Option<u64> {
        self.summary_at(Instant::now())
    }

    fn note_at(&self, now: Instant) -> Option<u64> {
        let mut lines = self.lock();
        lines.untold += 1;
        lines.tell(now, self.per_minute)
    }

    fn summary_at(&self, now: Instant) -> Option<u64> {
        self.lock().tell(now, self.per_minute)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Repeated {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// How many occurrences the line of this moment stands for; `None` when none is due.
    fn tell(&mut self, now: Instant, per_minute: u32) -> Option<u64> {
        if self.untold == 0 {
            return None;
        }
        let is_over = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= LINE_INTERVAL);
        if is_over {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written >= per_minute {
            return None;
        }

        self.written += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_and_then_one_a_minute_with_their_number() {
        let lines = Repeated::new();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);

        assert_eq!(lines.note_at(begin), Some(1));
        assert_eq!(lines.note_at(begin), None);
        assert_eq!(lines.note_at(after(59)), None);
        assert_eq!(lines.summary_at(after(59)), None);

        assert_eq!(lines.note_at(after(60)), Some(3));
        assert_eq!(lines.note_at(after(61)), None);
        assert_eq!(lines.summary_at(after(120)), Some(1));
        assert_eq!(lines.summary_at(after(300)), None);
        assert_eq!(lines.note_at(after(300)), Some(1));
    }

    #[test]
    fn several_lines_a_minute_are_written_one_by_one() {
        let lines = Repeated::per_minute(2);
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);

        assert_eq!(lines.note_at(begin), Some(1));
        assert_eq!(lines.note_at(after(1)), Some(1));
        assert_eq!(lines.note_at(after(2)), None);
        assert_eq!(lines.note_at(after(60)), Some(2));
        assert_eq!(lines.note_at(after(61)), Some(1));
        assert_eq!(lines.note_at(after(62)), None);
        assert_eq!(lines.summary_at(after(120)), Some(1));
    }
}
