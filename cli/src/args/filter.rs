//! Which operations are meant, by what they have in common.

use std::time::Duration;

use ktrdr_client::{Label, OperationFilter, Status, Timestamp};

/// Which operations are meant: those that match all that is given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which operations")]
pub struct FilterArgs {
    /// Only in this status: pending, running, completed, failed or cancelled (repeatable)
    #[arg(long, value_parser = status)]
    pub status: Vec<Status>,
    /// Only of this worker type, by its name or its domain (repeatable)
    #[arg(long = "type", value_name = "TYPE")]
    pub worker_type: Vec<String>,
    /// Only with this label, as name:value (repeatable: all of them)
    #[arg(long = "label", value_name = "NAME:VALUE")]
    pub labels: Vec<Label>,
    /// Only with this error code (repeatable)
    #[arg(long, value_name = "CODE")]
    pub error_code: Vec<String>,
    /// Only of this worker
    #[arg(long, value_name = "ID")]
    pub worker: Option<String>,
    /// Only of this schedule
    #[arg(long, value_name = "ID")]
    pub schedule: Option<String>,
    /// Only started since then: a time (RFC 3339), or how long ago (2h, 7days)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Timestamp>,
    /// Only started before then: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub before: Option<Timestamp>,
    /// Only with this text in the id, the summary, the error code or the error message
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
}

impl FilterArgs {
    /// As the backend takes it.
    pub fn filter(self) -> OperationFilter {
        OperationFilter {
            status: self.status,
            operation_type: self.worker_type,
            label: self.labels,
            error_code: self.error_code,
            worker_id: self.worker,
            schedule_id: self.schedule,
            created_after: self.since,
            created_before: self.before,
            search: self.search,
            ..OperationFilter::default()
        }
    }
}

fn status(text: &str) -> Result<Status, String> {
    Status::ALL
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| {
            let all: Vec<_> = Status::ALL.map(Status::as_str).to_vec();
            format!("use one of {}", all.join(", "))
        })
}

/// A time, or how long ago that was.
fn moment(text: &str) -> Result<Timestamp, String> {
    time_or_distance(text, Timestamp::minus)
}

/// A time, or how long until then.
pub(super) fn later(text: &str) -> Result<Timestamp, String> {
    time_or_distance(text, Timestamp::plus)
}

fn time_or_distance(
    text: &str,
    apply: impl Fn(Timestamp, Duration) -> Timestamp,
) -> Result<Timestamp, String> {
    if let Ok(distance) = humantime::parse_duration(text) {
        return Ok(apply(Timestamp::now(), distance));
    }
    serde_json::from_value(text.into()).map_err(|_| {
        "use a time like 2025-11-10T10:30:00Z, or a length like 2h or 7days".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_time_or_a_distance() {
        let time = moment("2025-11-10T11:30:00+01:00").unwrap();
        assert_eq!(time.to_string(), "2025-11-10T10:30:00.000Z");

        let now = Timestamp::now();
        assert!((3590.0..3610.0).contains(&now.seconds_since(moment("1h").unwrap())));
        assert!((3590.0..3610.0).contains(&later("1h").unwrap().seconds_since(now)));

        for bad in ["", "yesterday", "10:30", "-1h"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
