//! A schedule with a slot every second: each slot must become one operation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ktrdr_protocol::time::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::history::OperationHistory;
use crate::client::Client;

/// The id of the schedule.
const SCHEDULE: &str = "tick";

/// How long a backend may take to answer when nothing is broken any more.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a slot that was decided about before the pause may take to be started.
const LAST_SLOT: Duration = Duration::from_secs(3);

/// Makes the schedule.
///
/// # Panics
/// When it is refused.
pub async fn begin(api: &Client) {
    let schedule = json!({
        "domain": "dummy", "body": {"steps": 0}, "cron": "* * * * * *", "overlap": "replace",
    });
    let path = format!("/api/v1/schedules/{SCHEDULE}");
    let request = api.request(Method::PUT, &path).json(&schedule);
    api.send(request).await.expect(201);
}

/// Pauses the schedule, and waits until its last operation has been started.
///
/// # Errors
/// Says what a backend answered.
pub async fn end(api: &Client) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    let path = format!("/api/v1/schedules/{SCHEDULE}/pause");
    loop {
        let request = api.request(Method::POST, &path).json(&json!({}));
        let seen = match request.send().await {
            Ok(response) if response.status() == 200 => break,
            Ok(response) => response.status().to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(format!("the schedule cannot be paused: {seen}"));
        }
        sleep(Duration::from_millis(200)).await;
    }

    sleep(LAST_SLOT).await;
    Ok(())
}

/// Whether a schedule started this operation.
pub fn is_of_schedule(history: &OperationHistory) -> bool {
    let first = history.starts.first();
    first.is_some_and(|(_, request)| request["schedule_id"] == SCHEDULE)
}

/// The operations of the schedule, and what is wrong with them. That one is stored twice is seen
/// elsewhere.
pub fn judge(histories: &BTreeMap<String, OperationHistory>) -> (usize, Vec<String>) {
    let of_schedule = histories
        .iter()
        .filter(|(_, history)| is_of_schedule(history));
    let ids: Vec<&str> = of_schedule.map(|(id, _)| id.as_str()).collect();
    if ids.is_empty() {
        return (0, vec!["the schedule has started nothing".to_owned()]);
    }
    let wrong = every_second_once(SCHEDULE, &ids).err();
    (ids.len(), wrong.into_iter().collect())
}

/// Checks that these are the operations of all seconds from the first one to the last one.
///
/// # Errors
/// Says which are missing, are there twice, or are no slots.
pub fn every_second_once(schedule: &str, operations: &[impl AsRef<str>]) -> Result<(), String> {
    let mut seconds = BTreeSet::new();
    for operation in operations {
        let operation = operation.as_ref();
        let second = slot(schedule, operation)
            .ok_or_else(|| format!("{operation} is no slot of {schedule}"))?;
        if !seconds.insert(second) {
            return Err(format!("{operation} is there twice"));
        }
    }
    let (Some(first), Some(last)) = (seconds.first(), seconds.last()) else {
        return Ok(());
    };
    let missing = (*first..=*last).filter(|second| !seconds.contains(second));
    let missing: Vec<i64> = missing.map(|second| second - first).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "no operation of {schedule} for the seconds {missing:?} after the first"
    ))
}

/// The second of a slot, from the id of its operation.
fn slot(schedule: &str, operation: &str) -> Option<i64> {
    let slot = operation.strip_prefix(schedule)?.strip_prefix('-')?;
    let (day, time) = slot.strip_suffix('Z')?.split_once('T')?;
    let part = |text: &str, from: usize, to: usize| text.get(from..to).map(str::to_owned);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(day, 0, 4)?,
        part(day, 4, 6)?,
        part(day, 6, 8)?,
        part(time, 0, 2)?,
        part(time, 2, 4)?,
        part(time, 4, 6)?
    );
    let slot: Timestamp = serde_json::from_value(text.into()).ok()?;
    Some(slot.as_millis() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_that_is_missing_or_there_twice_is_seen() {
        let ids = |seconds: &[u32]| -> Vec<String> {
            let id = |second| format!("tick-20261127T1000{second:02}Z");
            seconds.iter().map(id).collect()
        };

        assert_eq!(every_second_once("tick", &ids(&[7, 8, 9])), Ok(()));
        for (wrong, words) in [
            (ids(&[7, 9, 10]), "[1]"),
            (ids(&[7, 8, 8]), "twice"),
            (vec!["tick-soon".to_owned()], "no slot"),
        ] {
            let told = every_second_once("tick", &wrong).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
