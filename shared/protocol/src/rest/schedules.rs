//! Schedules.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{ScheduleId, WorkerType};
use crate::schedule::{CatchUp, LastError, LastRun, Overlap};
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// The body of `PUT /api/v1/schedules/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSchedule {
    /// The domain whose start route its operations would take.
    #[schemars(length(min = 1))]
    pub domain: String,
    /// The start body, without `task_id`, and without the times `start_at` and `expires_at`: they would
    /// be the same for each slot.
    #[schemars(schema_with = "object")]
    pub body: Box<RawValue>,
    /// A cron line: minute, hour, day of the month, month, day of the week; with six fields, the
    /// second comes first. Fields have numbers, names (`JAN`, `MON`), `*`, lists, ranges and steps.
    #[schemars(length(max = 256))]
    pub cron: String,
    /// The IANA name of the time zone in which the cron line is read.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// What happens at a slot while the schedule's last operation has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens to slots that nobody could start within a minute. It has no effect with overlap
    /// `queue`: there every slot is started, however late.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Whether it starts nothing by itself.
    #[serde(default)]
    pub paused: bool,
}

impl PutSchedule {
    /// A schedule with this domain, cron line and start body. The time zone is UTC; missed slots, and
    /// slots during which the last operation still runs, are left out.
    ///
    /// # Errors
    /// When the body cannot be written as JSON.
    pub fn new(
        domain: impl Into<String>,
        cron: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            domain: domain.into(),
            body: serde_json::value::to_raw_value(body)?,
            cron: cron.into(),
            time_zone: utc(),
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            paused: false,
        })
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": true})
}

/// One schedule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Schedule")]
pub struct ScheduleDocument {
    /// Its id.
    pub schedule_id: ScheduleId,
    /// The domain whose start route its operations would take.
    pub domain: String,
    /// The worker type of its operations.
    pub operation_type: WorkerType,
    /// The start body.
    #[schemars(schema_with = "object")]
    pub body: Box<RawValue>,
    /// The cron line.
    pub cron: String,
    /// The time zone in which it is read.
    pub time_zone: String,
    /// What happens at a slot while its last operation has not ended.
    pub overlap: Overlap,
    /// What happens to slots that nobody could start within a minute. It has no effect with overlap
    /// `queue`: there every slot is started, however late.
    pub catch_up: CatchUp,
    /// Whether it starts nothing by itself.
    pub paused: bool,
    /// The next five slots; empty while it is paused.
    pub next_runs: Vec<Timestamp>,
    /// Its last operation.
    pub last_run: Option<LastRun>,
    /// The last slot that became no operation, and why. It stays until the next one, or until the
    /// schedule is written again; later slots may have been started.
    pub last_error: Option<LastError>,
    /// Slots that were left out because the last operation had not ended, or because the schedule was
    /// paused or got other times before they were started.
    pub skipped: u64,
    /// Slots that nobody could start in time. They are counted when the next slot is decided.
    #[serde(default)]
    pub missed: u64,
    /// Slots that have come and wait for the last operation to end; at most 100 are counted. Absent
    /// unless `overlap` is `queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_slots: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was written last.
    pub updated_at: Timestamp,
    /// The token that wrote it last.
    pub created_by: Option<TokenName>,
}

impl ScheduleDocument {
    /// Why its newest slot became no operation; `None` when it did.
    pub fn newest_error(&self) -> Option<&LastError> {
        let started = self.last_run.as_ref().and_then(|run| run.slot);
        let error = self.last_error.as_ref();
        error.filter(|error| started.is_none_or(|started| started < error.slot))
    }
}

/// One schedule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleResponse {
    /// Always true.
    pub success: bool,
    /// The schedule.
    pub data: ScheduleDocument,
}

/// All schedules.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SchedulesResponse {
    /// Always true.
    pub success: bool,
    /// The schedules.
    pub data: SchedulesPage,
}

/// All schedules.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SchedulesPage {
    /// By id.
    pub schedules: Vec<ScheduleDocument>,
}

/// A schedule that was deleted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeletedScheduleResponse {
    /// Always true.
    pub success: bool,
    /// Its id.
    pub schedule_id: ScheduleId,
}
