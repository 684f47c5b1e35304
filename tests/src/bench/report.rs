//! What was measured: rows beside their floors, as a table and as JSON.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::plot::Curve;

/// The target for a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    /// Its ratio to the floor.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// The figure itself.
    AtMost(f64),
}

/// One figure. `beside` is its floor, measured in the same run.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) value: f64,
    unit: &'static str,
    pub(super) beside: Option<f64>,
    /// The name of the floor.
    floor: String,
    ratio: Option<f64>,
    aim: String,
    ok: Option<bool>,
    note: String,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let (name, floor, aim, note) = (name.into(), String::new(), String::new(), String::new());
        Self {
            name,
            value,
            unit,
            beside: None,
            floor,
            ratio: None,
            aim,
            ok: None,
            note,
        }
    }

    /// With its floor.
    #[must_use]
    pub(super) fn beside(mut self, what: impl Into<String>, floor: f64) -> Self {
        self.beside = Some(floor);
        self.ratio = (floor != 0.0).then(|| self.value / floor);
        self.floor = what.into();
        self
    }

    /// With a target; call it after the floor.
    #[must_use]
    pub(super) fn aim(mut self, aim: Aim) -> Self {
        let (text, ok) = match aim {
            Aim::RatioAtLeast(least) => (
                format!("ratio >= {least}"),
                self.ratio.is_some_and(|ratio| ratio >= least),
            ),
            Aim::RatioAtMost(most) => (
                format!("ratio <= {most}"),
                self.ratio.is_some_and(|ratio| ratio <= most),
            ),
            Aim::AtMost(most) => (
                format!("<= {} {}", number(most), self.unit),
                self.value <= most,
            ),
        };

        (self.aim, self.ok) = (text, Some(ok));
        self
    }

    #[must_use]
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn line(&self) -> String {
        let ratio = self
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let floor = self.beside.map_or(String::new(), |floor| {
            format!("{} ({})", number(floor), self.floor)
        });
        let verdict = match self.ok {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!("  [{}]", self.note)
        };
        let value = format!("{} {}", number(self.value), self.unit);

        format!(
            "{:<58} {value:>16}  {ratio:>6}  {:<14} {verdict:<6}  {floor}{note}",
            self.name, self.aim
        )
    }
}

/// Three or four significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e7 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All results of one run. The file is written again after every row, so a run that is interrupted
/// keeps the rows it had.
#[derive(Debug)]
pub(super) struct Report {
    dir: PathBuf,
    rows: Vec<Row>,
    section: String,
}

impl Report {
    pub(super) fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory for the results");
        Self {
            dir,
            rows: Vec::new(),
            section: String::new(),
        }
    }

    /// Begins a section of the table.
    pub(super) fn section(&mut self, name: &str) {
        name.clone_into(&mut self.section);
        println!("\n{name}");
    }

    pub(super) fn add(&mut self, row: Row) {
        println!("  {}", row.line());
        self.rows.push(row);
        let text = serde_json::to_string_pretty(&self.rows).expect("rows are JSON");
        std::fs::write(self.dir.join("results.json"), text + "\n")
            .expect("results.json can be written");
    }

    /// The value of a row that was added.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == name)?;

        Some(row.value)
    }

    /// Writes a curve beside the rows.
    pub(super) fn plot(&self, curve: &Curve) {
        let path = self.dir.join(&curve.file);
        std::fs::write(&path, curve.svg()).expect("the plot can be written");
        println!("  plot: {}", path.display());
    }

    /// The figures that missed their targets.
    pub(super) fn missed(&self) -> Vec<&str> {
        self.rows
            .iter()
            .filter(|row| row.ok == Some(false))
            .map(|row| row.name.as_str())
            .collect()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The value below which `part` (0 to 1) of the sorted values lie.
pub(super) fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

pub(super) fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = sorted(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!(
            (
                percentile(&values, 0.5),
                percentile(&values, 0.99),
                percentile(&values, 0.0)
            ),
            (2.0, 4.0, 1.0)
        );
    }

    #[test]
    fn aims_look_at_the_ratio_or_at_the_value() {
        let row = |aim| Row::new("x", 8.0, "op/s").beside("floor", 10.0).aim(aim).ok;
        assert_eq!(row(Aim::RatioAtLeast(0.75)), Some(true));
        assert_eq!(row(Aim::RatioAtMost(0.75)), Some(false));
        assert_eq!(row(Aim::AtMost(8.0)), Some(true));
    }
}
