//! Which operations a list shows, and one page of them.

use std::fmt;
use std::str::FromStr;

use ktrdr_protocol::labels::Label;
use ktrdr_protocol::rest::metrics::InvalidCursor;
use ktrdr_protocol::rest::query::{ListOrder, OperationFilter};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use memchr::memchr2_iter;

use super::record::{Extent, Record, View};

/// Which operations are meant: those that match everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these worker types; `None` for all.
    pub types: Option<Vec<String>>,
    /// In these statuses; empty for all.
    pub statuses: Vec<Status>,
    /// That this worker runs, or ran last.
    pub worker: Option<String>,
    /// That this schedule started.
    pub schedule: Option<String>,
    /// That failed with one of these codes; empty for all.
    pub error_codes: Vec<String>,
    /// With all of these labels.
    pub labels: Vec<Label>,
    /// Started at this time or later.
    pub created_after: Option<Timestamp>,
    /// Started before this time.
    pub created_before: Option<Timestamp>,
    /// Ended at this time or later.
    pub ended_after: Option<Timestamp>,
    /// With this text.
    pub search: Option<Search>,
}

impl Filter {
    /// What a client asks for, with the worker types that it may see among those.
    pub fn new(asked: OperationFilter, types: Option<Vec<String>>) -> Self {
        let OperationFilter {
            operation_type: _,
            status,
            worker_id,
            schedule_id,
            error_code,
            label,
            created_after,
            created_before,
            ended_after,
            search,
        } = asked;
        Self {
            types,
            statuses: status,
            worker: worker_id,
            schedule: schedule_id,
            error_codes: error_code,
            labels: label,
            created_after,
            created_before,
            ended_after,
            search: search.map(|text| Search::new(&text)),
        }
    }
}

/// One page that a client asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which operations.
    pub filter: Filter,
    /// Which come first.
    pub order: ListOrder,
    /// Operations to skip.
    pub offset: u64,
    /// The last operation of the page before, instead.
    pub after: Option<Position>,
    /// Length of the page.
    pub limit: usize,
    /// The page ends after the operation that fills so many bytes.
    pub bytes: usize,
    /// How much of an operation is shown.
    pub extent: Extent,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// How many operations match.
    pub total: u64,
    /// The page, in the order that was asked for.
    pub views: Vec<View>,
    /// The last operation of the page, when more follow.
    pub next: Option<Position>,
    /// Its size in bytes, about.
    pub bytes: usize,
    /// Archived operations that belong here and cannot be read.
    pub damaged: Vec<DamagedRow>,
}

/// An archived operation that cannot be read.
#[derive(Debug)]
pub struct DamagedRow {
    /// Its id.
    pub operation_id: String,
    /// Why.
    pub cause: String,
}

/// The place of an operation among all that there ever were: its stream, by the time of its creation in
/// nanoseconds since 1970, and the sequence of its start request there. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The stream.
    pub stream: i64,
    /// The sequence.
    pub sequence: u64,
}

impl Position {
    /// Whether it comes after `other` in this order.
    pub fn follows(self, other: Self, order: ListOrder) -> bool {
        match order {
            ListOrder::Newest => self < other,
            ListOrder::Oldest => self > other,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.sequence)
    }
}

impl FromStr for Position {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (stream, sequence) = text.split_once('-').ok_or(InvalidCursor)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(stream) || !digits(sequence) {
            return Err(InvalidCursor);
        }
        Ok(Self {
            stream: stream.parse().map_err(|_| InvalidCursor)?,
            sequence: sequence.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

/// A text that is looked for in ids, summaries and errors. ASCII letters match in any case.
#[derive(Debug, Clone)]
pub struct Search {
    /// In lower case.
    text: String,
    /// Its longest run of ASCII letters and digits.
    word: String,
}

impl Search {
    /// Looks for `text`.
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let word = words.max_by_key(|word| word.len());
        Self {
            word: word.unwrap_or_default().to_owned(),
            text,
        }
    }

    /// The text, in lower case.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the operation has the text.
    pub fn finds(&self, record: &Record) -> bool {
        let has = |text: &str| contains(text, &self.text);
        let in_failure = || {
            let failure = record.failure();
            failure.is_some_and(|failure| has(&failure.code) || has(&failure.message))
        };
        let in_summary = || {
            self.may_be_in_summary(record) && record.summary().is_some_and(|summary| has(&summary))
        };
        has(record.id.as_str()) || in_failure() || in_summary()
    }

    /// Whether it is worth the time to make a summary. It is made of names and values among the
    /// parameters, so each word of it is there, too, unless it is written with escapes.
    fn may_be_in_summary(&self, record: &Record) -> bool {
        let parameters = record.parameters.get();
        contains(parameters, &self.word) || parameters.contains('\\')
    }
}

/// Whether `text` has `part`, which is in lower case.
fn contains(text: &str, part: &str) -> bool {
    let Some(&first) = part.as_bytes().first() else {
        return true;
    };
    let bytes = text.as_bytes();
    let mut starts = memchr2_iter(first, first.to_ascii_uppercase(), bytes);
    starts.any(|start| {
        bytes
            .get(start..start + part.len())
            .is_some_and(|piece| piece.eq_ignore_ascii_case(part.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_letters_match_in_any_case() {
        for (text, part) in [
            ("GOOG · 1d", "goog"),
            ("xxGOOG", "goog"),
            ("ggoog", "goog"),
            ("Straße", "ße"),
            ("a", ""),
        ] {
            assert!(contains(text, part), "{text} {part}");
        }
        for (text, part) in [("goo", "goog"), ("", "a"), ("STRASSE", "ß")] {
            assert!(!contains(text, part), "{text} {part}");
        }
    }

    #[test]
    fn positions_read_back_and_others_are_refused() {
        let position = Position {
            stream: 1_762_770_600_000_000_000,
            sequence: 17,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "a-1",
            "1--1",
            "+1-1",
            "1-99999999999999999999",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_word_of_a_text_is_looked_for_first() {
        assert_eq!(Search::new("Steps=500 · x").word, "steps");
        assert_eq!(Search::new("· é").word, "");
    }
}
