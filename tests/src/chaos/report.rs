//! The table at the end of a run.

use std::fmt;
use std::time::Duration;

use super::Options;
use super::agent::Observations;
use super::check::Verdict;
use super::ledger::Ledger;

/// Most violations that are printed.
const SHOWN: usize = 40;

/// The options and the results of a run.
#[derive(Debug)]
pub struct Report {
    /// The options.
    pub options: Options,
    /// The faults that the programs met.
    pub observations: Observations,
    /// The client's ledger.
    pub ledger: Ledger,
    /// The result of the comparison.
    pub verdict: Verdict,
    /// Time from the last fault until everything had ended.
    pub drained: Duration,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.verdict.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            options,
            observations,
            ledger,
            verdict,
            drained,
        } = self;

        let mut row = |name: &str, value: String| writeln!(f, "{name:<34} {value}");

        row("seed", options.seed.to_string())?;
        row(
            "length",
            format!("{:?}, {} nats-server", options.length, options.servers),
        )?;
        for ((role, action), count) in &observations.faults {
            row(&format!("{role} {action}"), count.to_string())?;
        }
        row(
            "operations acknowledged",
            ledger.acknowledged.len().to_string(),
        )?;
        row("operations in the stream", verdict.operations.to_string())?;
        for (end, count) in &verdict.ends {
            row(&format!("  {end}"), count.to_string())?;
        }
        row(
            "  of these: every worker was lost",
            verdict.totals.given_up.to_string(),
        )?;
        row("attempts", verdict.totals.attempts.to_string())?;
        row("takeovers", verdict.totals.takeovers.to_string())?;
        row(
            "attempts after a hand-back",
            verdict.totals.releases.to_string(),
        )?;
        row("fenced finishes", observations.fenced.to_string())?;
        row("starts sent again", ledger.retried.to_string())?;
        row(
            "starts through two backends",
            ledger.through_two.to_string(),
        )?;
        for (code, count) in &ledger.refusals {
            row(&format!("  {code}"), count.to_string())?;
        }
        row("reads right after an answer", ledger.reads.to_string())?;
        row("uses of keys", verdict.keys.to_string())?;
        if options.schedules {
            row("slots of a schedule", verdict.slots.to_string())?;
        }
        row("files of the winning attempt", verdict.files.to_string())?;
        row(
            "longest standstill",
            format!("{:.1} s", verdict.standstill.as_secs_f64()),
        )?;
        row(
            "slowest operation",
            format!(
                "{:.1} s, {}",
                verdict.slowest.0.as_secs_f64(),
                verdict.slowest.1
            ),
        )?;

        row(
            "all done after the last fault",
            format!("{:.1} s", drained.as_secs_f64()),
        )?;
        row("never ended", verdict.totals.open.to_string())?;
        row("lost", verdict.lost.to_string())?;
        row("doubled", verdict.totals.doubled.to_string())?;
        row("violations", verdict.violations.len().to_string())?;

        for violation in verdict.violations.iter().take(SHOWN) {
            let mut text: String = violation.chars().take(2000).collect();
            if text.len() < violation.len() {
                text.push('…');
            }
            writeln!(f, "  - {text}")?;
        }

        Ok(())
    }
}
