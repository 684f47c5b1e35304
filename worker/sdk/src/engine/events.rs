//! Takes `tracing` events inside an engine as log lines of its operation.
//!
//! The problem: libraries, and engines themselves, say what they do with `tracing`. The process has one
//! collector of events, and runs many operations at a time, on many threads.
//!
//! How it is solved: the SDK runs every engine in a span of its own, and knows which attempt it belongs to
//! ([`Spoken`]). A layer looks for such a span around each event. So code that carries the span to other
//! tasks and threads (`in_current_span`, [`crate::Context::blocking`], [`crate::Context::span`]) is
//! heard, too, and what the SDK itself says about the operation is not.
//!
//! Rejected: a value that is local to the task. It would not reach what an engine spawns.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock, Weak};

use ktrdr_protocol::log_line::LogLevel;
use parking_lot::RwLock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::Id;
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::reporting::report::Report;

/// The target of the spans in which engines run. Nobody else needs to see them.
pub(crate) const TARGET: &str = "ktrdr_worker::engine_span";

/// The attempts whose engines run, by their span.
static RUNNING: LazyLock<RwLock<HashMap<Id, Weak<Report>>>> = LazyLock::new(RwLock::default);

/// As long as it lives, events in its span are log lines of the attempt.
pub(crate) struct Spoken {
    pub(crate) span: Span,
}

impl Spoken {
    /// A span for the engine of the attempt with this report.
    pub(crate) fn of(report: &Arc<Report>) -> Self {
        let span = tracing::error_span!(target: TARGET, "engine");
        if let Some(id) = span.id() {
            RUNNING.write().insert(id, Arc::downgrade(report));
        }
        Self { span }
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        if let Some(id) = self.span.id() {
            RUNNING.write().remove(&id);
        }
    }
}

/// A layer for the `tracing` subscriber of a program that embeds workers: events inside an engine, from
/// `level` on, become log lines of its operation. [`crate::main`] and [`crate::WorkerBuilder::run`]
/// have one already. `None` takes no events.
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// let lines = tracing_subscriber::fmt::layer();
/// let operations = ktrdr_worker::events_layer(Some(ktrdr_worker::LogLevel::Info));
/// let _ = tracing_subscriber::registry().with(lines).with(operations).try_init();
/// ```
pub fn events_layer<S>(level: Option<LogLevel>) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    EventsLayer.with_filter(match level {
        None => LevelFilter::OFF,
        Some(LogLevel::Trace) => LevelFilter::TRACE,
        Some(LogLevel::Debug) => LevelFilter::DEBUG,
        Some(LogLevel::Info) => LevelFilter::INFO,
        Some(LogLevel::Warn) => LevelFilter::WARN,
        Some(LogLevel::Error) => LevelFilter::ERROR,
    })
}

struct EventsLayer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for EventsLayer {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(mut scope) = context.event_scope(event) else {
            return;
        };
        let running = RUNNING.read();
        let report = scope.find_map(|span| running.get(&span.id())?.upgrade());
        drop(running);
        let Some(report) = report else {
            return;
        };

        let level = level_of(*event.metadata().level());
        if !report.logs.takes(level) {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        report.log(level, &line.text, line.fields);
    }
}

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::TRACE => LogLevel::Trace,
        Level::DEBUG => LogLevel::Debug,
        Level::INFO => LogLevel::Info,
        Level::WARN => LogLevel::Warn,
        Level::ERROR => LogLevel::Error,
    }
}

/// An event as text and fields.
#[derive(Default)]
struct Line {
    text: String,
    fields: Map<String, Value>,
}

impl Line {
    fn field(&mut self, field: &Field, value: impl Into<Value>) {
        // Events of the crate `log` bring where they come from as fields.
        if !field.name().starts_with("log.") {
            self.fields.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing into a text cannot fail.
            let _ = write!(self.text, "{value:?}");
        } else {
            self.field(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.text.push_str(value);
        } else {
            self.field(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, ktrdr_bus::telemetry::chain(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value);
    }
}

#[cfg(test)]
mod tests {
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn events_are_lines_of_the_attempt_whose_span_they_are_in() {
        let collector = tracing_subscriber::registry().with(events_layer(Some(LogLevel::Debug)));
        let (one, other) = (Arc::new(Report::new()), Arc::new(Report::new()));
        let texts = |report: &Report| -> Vec<String> {
            report
                .logs
                .take()
                .into_iter()
                .map(|line| line.text)
                .collect()
        };

        tracing::subscriber::with_default(collector, || {
            let spoken = Spoken::of(&one);
            let others = Spoken::of(&other);
            tracing::info!("outside");
            spoken.span.in_scope(|| {
                let inner = tracing::info_span!("inner");
                inner.in_scope(|| tracing::info!(rows = 7, name = "x", "loaded"));
                tracing::debug!("below the level of the attempt");
            });
            let work = async { tracing::warn!("in a task") };
            futures::executor::block_on(work.instrument(others.span.clone()));

            let span = spoken.span.clone();
            drop(spoken);
            span.in_scope(|| tracing::info!("after the attempt"));
        });

        let lines = one.logs.take();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].text, "loaded");
        assert_eq!(
            Value::from(lines[0].fields.clone()),
            serde_json::json!({"rows": 7, "name": "x"})
        );
        assert_eq!(texts(&other), ["in a task"]);
    }
}
