//! The lines of a program that are told when it ends.
//!
//! The last ones usually say why. Python's report of a crash is the exception: it prints the innermost
//! call first, and maybe a hundred behind it. Its first lines are kept, too.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};

/// How many of the last lines are kept, and how many of their bytes.
const MAX_LINES: usize = 20;
const MAX_BYTES: usize = 4 * 1024;

/// How many lines are kept of a report of a crash, how many of their bytes, and how many of the innermost
/// calls are among them.
const CRASH_LINES: usize = 12;
const CRASH_BYTES: usize = 2 * 1024;
const CALLS: usize = 9;

/// The lines that a program printed last, and the beginning of a report of a crash.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    /// The report, as far as its lines are not among the last ones any more.
    crash: Vec<String>,
    crash_bytes: usize,
    last: VecDeque<Line>,
    last_bytes: usize,
    /// How many of the lines that follow may be calls of the thread that crashed.
    calls: usize,
}

#[derive(Debug)]
struct Line {
    text: String,
    is_of_crash: bool,
}

impl LastLines {
    pub(crate) fn push(&mut self, text: &str) {
        let is_of_crash = self.is_of_crash(text);
        self.last_bytes += text.len();
        self.last.push_back(Line {
            text: text.to_owned(),
            is_of_crash,
        });

        while self.last.len() > MAX_LINES || (self.last_bytes > MAX_BYTES && self.last.len() > 1) {
            let Some(line) = self.last.pop_front() else {
                break;
            };
            self.last_bytes -= line.text.len();
            let bytes = self.crash_bytes + line.text.len();
            if line.is_of_crash && self.crash.len() < CRASH_LINES && bytes <= CRASH_BYTES {
                self.crash_bytes = bytes;
                self.crash.push(line.text);
            }
        }
    }

    fn is_of_crash(&mut self, text: &str) -> bool {
        if text.starts_with("Fatal Python error") {
            return true;
        }
        if text.starts_with("Current thread") {
            self.calls = CALLS;
            return true;
        }
        let is_call = self.calls > 0 && text.starts_with("  ");
        self.calls = if is_call { self.calls - 1 } else { 0 };
        is_call
    }
}

impl Display for LastLines {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let crash = self.crash.iter().map(String::as_str);
        let gap = (!self.crash.is_empty()).then_some("…");
        let last = self.last.iter().map(|line| line.text.as_str());

        for (number, line) in crash.chain(gap).chain(last).enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: impl IntoIterator<Item = String>) -> String {
        let mut last = LastLines::default();
        for line in lines {
            last.push(&line);
        }
        last.to_string()
    }

    #[test]
    fn the_last_lines_are_told() {
        let told = told((0..30).map(|number| format!("line {number}")));

        assert!(told.starts_with("line 10\n"), "{told}");
        assert!(told.ends_with("\nline 29"), "{told}");
    }

    #[test]
    fn few_bytes_are_told_of_long_lines() {
        let told = told((0..3).map(|number| number.to_string().repeat(3000)));

        assert_eq!(told, "2".repeat(3000));
    }

    #[test]
    fn a_crash_is_told_with_its_innermost_calls() {
        let head = ["said before", "Fatal Python error: Segmentation fault", ""];
        let other = [
            "Thread 0x02 (most recent call first):",
            "  File \"wait.py\"",
        ];
        let current = ["", "Current thread 0x01 (most recent call first):"];
        let calls = (0..100).map(|number| format!("  File \"job.py\", line {number} in deep"));
        let lines = head.into_iter().chain(other).chain(current);

        let told = told(lines.map(str::to_owned).chain(calls));

        let begin = "Fatal Python error: Segmentation fault\nCurrent thread 0x01 (most recent call first):\n  File \"job.py\", line 0 in deep\n";
        assert!(told.starts_with(begin), "{told}");
        assert!(
            told.contains("line 8 in deep\n…\n  File \"job.py\", line 80 in deep"),
            "{told}"
        );
        assert!(told.ends_with("line 99 in deep"), "{told}");
    }

    #[test]
    fn a_short_report_of_a_crash_is_told_once() {
        let lines = [
            "Fatal Python error: Aborted",
            "Current thread 0x01:",
            "  File \"a.py\"",
        ];

        let told = told(lines.map(str::to_owned));

        assert_eq!(told, lines.join("\n"));
    }
}
