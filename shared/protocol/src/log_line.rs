//! Log lines: what an engine says about an operation while it runs it, for people.
//!
//! An engine may say much, and says it for a while only. So lines travel in batches, in a stream of
//! their own that drops the oldest ones when it is full. The operation log, which holds state changes
//! and never drops one, is another thing; so are the logs of the programs themselves.
//!
//! People read lines in a terminal, and whoever writes them is not trusted. So a line holds no control
//! character but a line break and a tab ([`printable`]), and has a bounded size. Whoever writes a
//! line sees to that, and so does whoever reads one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{OperationId, WorkerId};
use crate::json::length;
use crate::time::Timestamp;

/// How important a line is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For those who look for a fault.
    Debug,
    /// What happens.
    Info,
    /// Something that somebody should look at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// All levels, the least important first.
    pub const ALL: [Self; 5] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
    ];

    /// Its name, in small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no level: write trace, debug, info, warn or error")]
pub struct InvalidLevel;

impl FromStr for LogLevel {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        let mut all = Self::ALL.into_iter();
        all.find(|level| level.as_str() == text).ok_or(InvalidLevel)
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When it was said, by the worker's clock.
    pub timestamp: Timestamp,
    /// How important it is.
    pub level: LogLevel,
    /// What was said. It may have line breaks and tabs, and no other control character.
    pub text: String,
    /// Values beside the text, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// The number of the attempt that said it. Absent within a [`LogBatch`], which has it once for all
    /// lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The worker that ran the attempt. Absent within a [`LogBatch`], as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
}

/// What is counted for a line beside its text and its fields, in bytes.
const OVERHEAD: usize = 64;

impl LogLine {
    /// Longest text, in bytes. The rest of a longer one is cut off.
    pub const MAX_TEXT: usize = 8 * 1024;

    /// Largest fields, in bytes of JSON. Larger ones are left out.
    pub const MAX_FIELDS: usize = 4 * 1024;

    /// A line that is said now.
    ///
    /// ```
    /// use ktrdr_protocol::log_line::{LogLevel, LogLine};
    /// use serde_json::Map;
    ///
    /// let line = LogLine::now(LogLevel::Info, "\u{1b}[32mloaded\u{1b}[0m 7 rows", Map::new());
    /// assert_eq!(line.text, "loaded 7 rows");
    /// ```
    pub fn now(level: LogLevel, text: &str, fields: Map<String, Value>) -> Self {
        Self {
            timestamp: Timestamp::now(),
            level,
            text: text.to_owned(),
            fields,
            attempt: None,
            worker_id: None,
        }
        .bounded()
    }

    /// The line as it may be kept and shown, whoever wrote it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.text = printable(&self.text, Self::MAX_TEXT);
        if !self.fields.is_empty() {
            let fields = printable_members(std::mem::take(&mut self.fields));
            if length(&fields) <= Self::MAX_FIELDS {
                self.fields = fields;
            }
        }
        self
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let fields = match self.fields.is_empty() {
            true => 0,
            false => length(&self.fields),
        };
        OVERHEAD + self.text.len() + fields
    }
}

/// A batch of lines on `logs.<worker_type>.<operation_id>`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogBatch {
    /// Which operation.
    pub operation_id: OperationId,
    /// The worker that runs it.
    pub worker_id: WorkerId,
    /// The number of the attempt.
    pub attempt: u32,
    /// The lines, in the order in which they were said.
    pub lines: Vec<LogLine>,
    /// Lines of the operation up to the last one here, in all attempts. The next attempt goes on counting.
    /// Absent (0) from a worker that does not count them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total_lines: u64,
    /// The same in bytes, about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl LogBatch {
    /// The lines as they may be shown, each with the attempt and the worker of the batch.
    pub fn into_lines(self) -> impl Iterator<Item = LogLine> {
        let Self {
            worker_id, attempt, ..
        } = self;
        self.lines.into_iter().map(move |line| LogLine {
            attempt: Some(attempt),
            worker_id: Some(worker_id.clone()),
            ..line.bounded()
        })
    }
}

/// A text that does nothing to a terminal: without colours and other escape sequences, and with `�` in
/// place of every other control character, and of those that change the direction of writing. Line
/// breaks and tabs stay. It has at most `most` bytes, and ends with `…` when something was cut off.
pub fn printable(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        let next = match next {
            '\u{1b}' if rest.as_str().starts_with('[') => {
                skip_sequence(&mut rest);
                continue;
            }
            '\n' | '\t' => next,
            '\r' if rest.as_str().starts_with('\n') => continue,
            _ if next.is_control() || turns_text(next) => char::REPLACEMENT_CHARACTER,
            _ => next,
        };
        if shown.len() + next.len_utf8() > most {
            let mut end = most.saturating_sub('…'.len_utf8()).min(shown.len());
            while !shown.is_char_boundary(end) {
                end -= 1;
            }
            shown.truncate(end);
            shown.push('…');
            break;
        }
        shown.push(next);
    }
    // A colour may have stood behind white space.
    shown.truncate(shown.trim_end().len());
    shown
}

/// Skips what follows the escape character of a sequence such as a colour: `[`, parameters, and one last
/// character.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    rest.next();
    loop {
        let mut ahead = rest.clone();
        match ahead.next() {
            Some('\u{20}'..='\u{3f}') => *rest = ahead,
            Some('\u{40}'..='\u{7e}') => return *rest = ahead,
            // It is cut off, and what follows is no part of it.
            _ => return,
        }
    }
}

/// Whether a character changes the direction in which those behind it are shown: a text can then look
/// like another one.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn printable_members(fields: Map<String, Value>) -> Map<String, Value> {
    let members = fields.into_iter();
    let shown = members.map(|(name, value)| {
        let name = printable(&name, LogLine::MAX_FIELDS);
        (name, printable_value(value))
    });
    shown.collect()
}

fn printable_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(&text, LogLine::MAX_FIELDS)),
        Value::Array(values) => values.into_iter().map(printable_value).collect(),
        Value::Object(members) => Value::Object(printable_members(members)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_ordered_and_have_names() {
        assert!(LogLevel::Trace < LogLevel::Debug && LogLevel::Warn < LogLevel::Error);
        for level in LogLevel::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(json!(level), json!(level.as_str()));
        }
        assert_eq!("INFO".parse::<LogLevel>(), Err(InvalidLevel));
    }

    #[test]
    fn a_text_does_nothing_to_a_terminal() {
        let shown = |text: &str| printable(text, 1000);

        assert_eq!(shown("a\tb\n  c\r\nd\n"), "a\tb\n  c\nd");
        assert_eq!(
            shown("\u{1b}[1;31mred\u{1b}[0m, \u{1b}[2Jclear"),
            "red, clear"
        );
        assert_eq!(
            shown("\u{1b}]0;title\u{7}x\u{8}\u{9b}y"),
            "\u{fffd}]0;title\u{fffd}x\u{fffd}\u{fffd}y"
        );
        assert_eq!(shown("50 %\r99 %"), "50 %\u{fffd}99 %");
        assert_eq!(shown("a\u{202e}b"), "a\u{fffd}b");
        // Sequences that end too early.
        for cut in [
            "\u{1b}",
            "\u{1b}[",
            "\u{1b}[31",
            "\u{1b}[31\u{1b}[0mx",
            "\u{1b}[3é",
        ] {
            let shown = shown(cut);
            assert!(!shown.contains('\u{1b}'), "{cut:?}: {shown:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        for most in 3..9 {
            let cut = printable("äöüßéè", most);
            assert!(cut.len() <= most && cut.ends_with('…'), "{most}: {cut:?}");
        }
        assert_eq!(printable("äöü", 6), "äöü");
    }

    #[test]
    fn what_others_wrote_is_bounded_and_has_the_names_of_its_batch() {
        let batch: LogBatch = serde_json::from_value(json!({
            "operation_id": "a", "worker_id": "w", "attempt": 3,
            "lines": [
                {"timestamp": "2025-11-10T10:30:00Z", "level": "warn", "text": "x".repeat(100_000),
                 "fields": {"a\u{1b}": ["\u{1b}[31mred", {"b": "c\u{0}"}]}, "attempt": 9, "worker_id": "other"},
                {"timestamp": "2025-11-10T10:30:00Z", "level": "info", "text": "",
                 "fields": {"long": "x".repeat(10_000)}},
            ]
        }))
        .unwrap();

        let lines: Vec<_> = batch.into_lines().collect();

        assert_eq!(lines[0].text.len(), LogLine::MAX_TEXT);
        assert_eq!(
            Value::from(lines[0].fields.clone()),
            json!({"a\u{fffd}": ["red", {"b": "c\u{fffd}"}]})
        );
        assert_eq!(
            (
                lines[0].attempt,
                lines[0].worker_id.as_ref().map(WorkerId::as_str)
            ),
            (Some(3), Some("w"))
        );
        assert!(lines[1].fields.is_empty());
    }
}
