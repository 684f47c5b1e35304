//! Schedules: operations that start by the clock.
//!
//! The problem: a slot of a schedule must become exactly one operation, whatever dies meanwhile: a
//! backend in the middle of it, the broker over the slot, its leader. And several backends look after
//! the same schedules.
//!
//! How it is solved: the definition and what was decided last stand in the bucket of worker types, at
//! the keys [`schedule_key`] and [`run_key`], each written behind its revision. A backend first writes
//! what it decides about a slot, and then starts the operation, whose id is made of schedule and slot
//! ([`slot_id`]): whoever finds a decision that was not carried out does it again, and it is the same
//! operation. The NATS server rings when a slot comes; nothing depends on every ring being heard.
//!
//! Rejected: an operation for each message that the server's scheduler stores. It skips slots while it
//! is away, and repeats some.

use chrono::{DateTime, NaiveDateTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{InvalidName, OperationId, ScheduleId, WorkerType};
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// Longest id of a schedule, in bytes: the ids of its operations are longer.
pub const MAX_SCHEDULE_ID: usize = 64;

/// What happens at a slot while the schedule's last operation has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The slot is left out.
    #[default]
    Skip,
    /// The slot waits until it has ended. Every slot becomes an operation.
    Queue,
    /// It is cancelled, and the new one starts.
    Replace,
}

/// What happens to slots that nobody could start within a minute. It has no effect with overlap `queue`:
/// there every slot is started, however late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    Skip,
    /// The last one of them is started.
    Once,
}

/// A schedule as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// The domain whose start route its operations would take.
    pub domain: String,
    /// The worker type of that domain when the schedule was written.
    pub worker_type: WorkerType,
    /// The start body, without `task_id`.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub body: Box<RawValue>,
    /// The cron line, of 5 or 6 fields.
    pub cron: String,
    /// The IANA name of its time zone.
    pub time_zone: String,
    /// What happens while its last operation has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens to missed slots.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Whether it starts nothing by itself.
    #[serde(default)]
    pub paused: bool,
    /// Only later slots count: when it was made, resumed, or got another cron line.
    pub since: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was written last.
    pub updated_at: Timestamp,
    /// The token that wrote it last; absent when the REST interface needs no tokens.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::if_valid::read"
    )]
    pub created_by: Option<TokenName>,
}

/// What was decided about the slots of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ScheduleRun {
    /// The last slot about which was decided.
    pub slot: Option<Timestamp>,
    /// Whether the operation of that slot is still to be started.
    pub starting: bool,
    /// When that was decided.
    pub decided_at: Option<Timestamp>,
    /// The last operation that was started.
    pub last_run: Option<LastRun>,
    /// Its worker type: the schedule may be one of another type by now. Earlier releases did not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_type: Option<WorkerType>,
    /// The last slot that became no operation, until the schedule is written again.
    pub last_error: Option<LastError>,
    /// Slots that were left out because the last operation had not ended, or because the schedule was
    /// paused or got other times before they were started.
    pub skipped: u64,
    /// Slots that nobody could start in time.
    pub missed: u64,
}

/// The last operation of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastRun {
    /// Its id.
    pub operation_id: OperationId,
    /// The slot that it was started for; `null` when somebody started it by hand.
    pub slot: Option<Timestamp>,
    /// When it was started.
    pub at: Timestamp,
}

/// Why a slot became no operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastError {
    /// The slot.
    pub slot: Timestamp,
    /// The error code that a start would have been refused with; `paused` when the schedule was paused
    /// after it was decided to start it.
    pub code: String,
    /// What was wrong, and what to do about it.
    pub message: String,
    /// When that was.
    pub at: Timestamp,
}

/// The code of a slot that was not started because its schedule was paused meanwhile.
pub const PAUSED: &str = "paused";

/// The id of the operation of a slot: `<schedule>-<slot as yyyymmddThhmmssZ>`.
///
/// ```
/// use ktrdr_protocol::id::ScheduleId;
/// use ktrdr_protocol::schedule::slot_id;
/// use ktrdr_protocol::time::Timestamp;
///
/// let slot = Timestamp::from_millis(1_762_770_600_000);
/// let id = slot_id(&ScheduleId::new("nightly")?, slot)?;
/// assert_eq!(id.as_str(), "nightly-20251110T103000Z");
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
///
/// # Errors
/// [`InvalidName`] when the schedule's id is too long.
pub fn slot_id(schedule: &ScheduleId, slot: Timestamp) -> Result<OperationId, InvalidName> {
    let time = DateTime::from_timestamp_millis(slot.as_millis()).unwrap_or_default();
    OperationId::new(format!("{schedule}-{}", time.format(SLOT)))
}

/// The schedule of a slot with this id, if an operation with this id is one of a slot.
///
/// ```
/// use ktrdr_protocol::id::OperationId;
/// use ktrdr_protocol::schedule::schedule_of_slot;
///
/// let id = |text| OperationId::new(text).unwrap();
/// let schedule = schedule_of_slot(&id("nightly-20251110T103000Z")).unwrap();
/// assert_eq!(schedule.as_str(), "nightly");
/// assert_eq!(schedule_of_slot(&id("nightly-20251110")), None);
/// ```
pub fn schedule_of_slot(id: &OperationId) -> Option<ScheduleId> {
    let (schedule, time) = id.as_str().rsplit_once('-')?;
    let time = NaiveDateTime::parse_from_str(time, SLOT).ok()?;
    let schedule = ScheduleId::new(schedule).ok()?;
    let slot = Timestamp::from_millis(time.and_utc().timestamp_millis());
    // Only in this form: a date can be written in several.
    (slot_id(&schedule, slot).ok()? == *id).then_some(schedule)
}

/// The form of a slot in an id.
const SLOT: &str = "%Y%m%dT%H%M%SZ";

/// The key of a schedule in the bucket `KTRDR_WORKER_TYPES`.
pub fn schedule_key(id: &ScheduleId) -> String {
    format!("{SCHEDULE_KEY}{id}")
}

/// The key of what was decided about its slots.
pub fn run_key(id: &ScheduleId) -> String {
    format!("{RUN_KEY}{id}")
}

/// The schedule that is stored at this key; `None` for another key.
pub fn schedule_of_key(key: &str) -> Option<ScheduleId> {
    ScheduleId::new(key.strip_prefix(SCHEDULE_KEY)?).ok()
}

/// The schedule about whose slots this key says something; `None` for another key.
pub fn schedule_of_run_key(key: &str) -> Option<ScheduleId> {
    ScheduleId::new(key.strip_prefix(RUN_KEY)?).ok()
}

const SCHEDULE_KEY: &str = "schedule.";
const RUN_KEY: &str = "schedule_run.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_keys_are_no_worker_types() {
        let id = ScheduleId::new("nightly").unwrap();

        assert_eq!(schedule_of_key(&schedule_key(&id)), Some(id.clone()));
        assert_eq!(schedule_of_run_key(&run_key(&id)), Some(id.clone()));
        assert_eq!(schedule_of_key(&run_key(&id)), None);
        assert_eq!(schedule_of_run_key(&schedule_key(&id)), None);
        assert!(!crate::id::is_name(&schedule_key(&id)));
    }

    #[test]
    fn the_longest_id_leaves_room_for_the_slot() {
        let longest = ScheduleId::new("a".repeat(MAX_SCHEDULE_ID)).unwrap();

        assert!(slot_id(&longest, Timestamp::now()).is_ok());
    }
}
