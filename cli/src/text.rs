//! Tables, durations, and texts that are safe to print.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use ktrdr_client::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

/// A text that cannot move the cursor or change the terminal: operations carry texts of anybody.
/// Line breaks and other control characters become spaces.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_safe = |c: char| !c.is_control() && !is_direction(c);
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let safe = text.chars().map(|c| if is_safe(c) { c } else { ' ' });
    Cow::Owned(safe.collect())
}

/// Characters that make a terminal show the rest of a line in another order.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text, or its beginning with `…` when it has more characters.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }

    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{minutes} min {} s", whole % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The word of the REST interface for a value that is one word there.
pub fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// How long ago that was, by this machine's clock.
pub fn ago(time: Timestamp) -> String {
    let seconds = Timestamp::now().seconds_since(time).max(0.0);
    format!("{} ago", duration(seconds))
}

/// How long it is until then, by this machine's clock.
pub fn until(time: Timestamp) -> String {
    format!("in {}", duration(time.seconds_since(Timestamp::now())))
}

/// Rows under headings. Columns whose heading begins with `>` are aligned to the right.
pub fn print_table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(
        headings
            .iter()
            .map(|heading| heading.trim_start_matches('>')),
    );
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell).into_owned()));
    }
    for (heading, column) in headings.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print(&table.trim_fmt())
}

/// A heading, and below it a line for each name and value, the values under each other. What follows a line
/// break in a value stands under its beginning.
pub fn with_fields(heading: String, fields: &[(String, String)]) -> String {
    let width = |(name, _): &(String, String)| printable(name).chars().count();
    let widest = fields.iter().map(width).max().unwrap_or_default();

    let lines = fields.iter().map(|(name, value)| {
        let name = printable(name);
        let value: Vec<_> = value.lines().map(printable).collect();
        let value = value.join(&format!("\n{:1$}", "", widest + 3));
        format!("  {name:<widest$} {value}")
    });
    std::iter::once(heading)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Prints a document as JSON, for people to read, too. Where there may be several documents, it is
/// [`print_json_line`].
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(io::Error::other)?;
    print(&text)
}

/// Prints a document as one line of JSON.
pub fn print_json_line(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(io::Error::other)?;
    print(&text)
}

/// Prints a line.
///
/// # Errors
/// [`Failure::NobodyReads`] when the reader has gone, as in `ktrdr list | head -1`.
pub fn print(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
        written => Ok(written?),
    }
}

/// Prints a line on standard error. Nobody may read that either: `ktrdr dev 2>&1 | head` still ends its
/// programs in order, and `eprintln!` would panic.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a remark on standard error: as it is, or with `json` as a document of one line, so that a program
/// can read everything that stands there.
pub fn remark(json: bool, text: &str) {
    match json {
        true => complain(&json!({"message": text}).to_string()),
        false => complain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_change_the_terminal() {
        assert_eq!(printable("plain ü ✓"), "plain ü ✓");
        assert_eq!(printable("a\x1b[31mred\nb\u{202e}c"), "a [31mred b c");
    }

    #[test]
    fn the_values_of_fields_stand_under_each_other() {
        let fields = [("about", "a\nb"), ("rows_processed", "1313")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));

        let text = with_fields("head".to_owned(), &fields);

        assert_eq!(
            text,
            "head\n  about          a\n                 b\n  rows_processed 1313"
        );
        assert_eq!(with_fields("head".to_owned(), &[]), "head");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let shown: Vec<_> = [0.44, 12.9, 200.0, 7500.0, 273_600.0, f64::NAN, -1.0]
            .into_iter()
            .map(duration)
            .collect();

        assert_eq!(
            shown,
            [
                "0.4 s",
                "12 s",
                "3 min 20 s",
                "2 h 5 min",
                "3 d 4 h",
                "-",
                "-"
            ]
        );
    }

    #[test]
    fn a_long_text_ends_with_an_ellipsis() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
