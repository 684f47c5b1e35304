//! What a worker and its program say to each other: one JSON object a line, with a `type`.
//!
//! `docs/exec.md` explains the messages, and `docs/exec.schema.json`, which a test keeps equal to these
//! types, has their JSON Schemas. The program is not trusted: its lines are bounded, so is the depth of
//! their JSON, and what is no known message is an error.

use ktrdr_protocol::log_line::LogLevel;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The version of this language.
pub const VERSION: u32 = 1;

/// Longest line of a program, in bytes: the result of an operation may have that size.
pub(crate) const MAX_LINE: usize = 64 * 1024 * 1024;

/// Longest line that is no result and no checkpoint, in bytes. A checkpoint that is too large is only
/// not saved.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Deepest nesting of arrays and objects. What reads a result later reads a little deeper.
pub(crate) const MAX_DEPTH: usize = 100;

/// Most metric points of one message.
const MAX_POINTS: usize = 10_000;

/// Longest name of a metric, in bytes.
const MAX_NAME: usize = 200;

/// Longest error code, in bytes.
const MAX_CODE: usize = 64;

/// How much of a text is quoted, in characters.
const QUOTED: usize = 200;

/// The beginning of a text, for an error or a report.
pub(crate) fn beginning(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

// ---------------------------------------------------------------- from the worker to the program

/// Start an operation. The next one comes only after the end of this one.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Start<'a> {
    /// Names this run. All messages about it carry the number.
    pub run: u64,
    /// The id of the operation.
    pub operation_id: &'a str,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The parameters, as the client sent them. They match the request schema.
    #[schemars(with = "Map<String, Value>")]
    pub parameters: &'a RawValue,
    /// The newest checkpoint of an earlier attempt; `null` without one.
    #[schemars(with = "Value")]
    pub checkpoint: Option<&'a RawValue>,
    /// The data directory, an absolute path.
    pub data_dir: &'a str,
}

/// Stop the operation soon. It concerns the run that goes on; without one it comes too late.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cancel {
    /// The run.
    pub run: u64,
}

/// The answer to `ensure_owner`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Owner {
    /// The run.
    pub run: u64,
    /// The number of the question.
    pub request: u64,
    /// Whether the attempt still owns its operation. If not, do nothing that others see, and stop.
    pub is_owner: bool,
}

/// One line for the program.
pub(crate) fn line(kind: &str, message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    // The members follow `{`, and there is always one.
    let mut text = format!("{{\"type\":\"{kind}\",").into_bytes();
    text.extend(line.drain(..).skip(1));
    text.push(b'\n');
    text
}

// ---------------------------------------------------------------- from the program to the worker

/// What the program is. Its first line, written without being asked, before anything else.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Describe {
    #[serde(rename = "type", default, skip_serializing)]
    #[schemars(skip)]
    _kind: Kept,
    /// The version of this language that it speaks.
    #[schemars(extend("const" = VERSION))]
    pub protocol: u32,
    /// The worker type: a lower-case name, for example `word_count`.
    pub worker_type: String,
    /// The path segment of the start route. Default: the worker type with `-` in place of `_`.
    pub domain: Option<String>,
    /// A few letters in the ids of direct starts. Default: the initials of the worker type.
    pub short: Option<String>,
    /// One sentence for people.
    pub description: Option<String>,
    /// The version of the program.
    pub version: Option<String>,
    /// JSON Schema (2020-12) of the parameters. Default: any object.
    pub request_schema: Option<Value>,
    /// JSON Schema (2020-12) of the result. Default: anything.
    pub result_schema: Option<Value>,
    /// Whether it uses a GPU where there is one.
    #[serde(default)]
    pub uses_gpu: bool,
    /// How long one attempt may run, in seconds. Default: no limit.
    pub timeout_seconds: Option<f64>,
    /// How long one attempt may go on without a message, in seconds. Default: no limit.
    pub stall_timeout_seconds: Option<f64>,
    /// How many attempts there may be in all. Setting it makes failures retry.
    pub max_attempts: Option<u32>,
    /// How long a failed attempt waits before the next one, in seconds. Setting it makes failures
    /// retry.
    pub retry_delay_seconds: Option<f64>,
}

/// A member that was read already.
#[derive(Debug, Clone, Copy, Default)]
struct Kept;

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// How far the run is. The worker keeps the newest one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// 0 to 100.
    pub percentage: f64,
    /// The current step, a text for people.
    pub step: Option<String>,
    /// Estimate of the seconds left.
    pub remaining_seconds: Option<f64>,
    /// Counters of the program's own.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// Values that the run measured, in order, at most 10,000 in a message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// The points.
    pub points: Vec<Point>,
}

/// One metric point.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// What was measured.
    pub name: String,
    /// The value; `null` for one that is not finite.
    pub value: Option<f64>,
    /// Where it was measured: the number of an epoch, a row, a bar.
    pub step: Option<f64>,
}

/// Something that the run says, for people: a log line of its operation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// How important it is. Default: `info`.
    #[serde(default = "info")]
    pub level: LogLevel,
    /// What is said. Of a long text, the first 8 KiB are kept; line breaks and tabs stay, other control
    /// characters are replaced.
    pub text: String,
    /// Values beside the text, by name: at most 4 KiB, or none of them is kept.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

fn info() -> LogLevel {
    LogLevel::Info
}

/// The state from which a later attempt can continue, at most 512 KiB. The worker drops one that comes
/// sooner after the last one than `KTRDR_CHECKPOINT_INTERVAL`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint<'a> {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// Any JSON.
    #[serde(borrow)]
    #[schemars(with = "Value")]
    pub state: &'a RawValue,
}

/// A sign of life, for a step that takes longer than the stall timeout.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
}

/// Asks whether the attempt still owns its operation. The answer is `owner`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnsureOwner {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// A number that the answer repeats.
    pub request: u64,
}

/// The end: the run has this result.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Completed<'a> {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// Any JSON.
    #[serde(borrow)]
    #[schemars(with = "Value")]
    pub result: &'a RawValue,
}

/// The end: the run failed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
    /// What happened and what to do, for people. Of a long one, the first 8 KiB are kept.
    pub message: String,
    /// A stable word for programs: at most 64 of the characters A-Z a-z 0-9 _ -. Default:
    /// `engine_error`.
    pub code: Option<String>,
    /// Whether every other attempt would fail too. Such a failure is never retried.
    #[serde(default)]
    pub permanent: bool,
    /// Asks for another attempt after so many seconds, at most a day, while attempts are left.
    pub retry_after_seconds: Option<f64>,
}

/// The end: the program noticed the cancel, and stopped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancelled {
    #[serde(rename = "type", default)]
    #[schemars(skip)]
    _kind: Kept,
    /// The run.
    pub run: u64,
}

/// A message of a program.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Describe(Box<Describe>),
    Progress(Progress),
    Metrics(Metrics),
    Log(Log),
    Checkpoint(Checkpoint<'a>),
    Alive(Alive),
    EnsureOwner(EnsureOwner),
    Completed(Completed<'a>),
    Failed(Failed),
    Cancelled(Cancelled),
}

impl Message<'_> {
    /// The run that the message is about.
    pub(crate) fn run(&self) -> Option<u64> {
        match self {
            Self::Describe(_) => None,
            Self::Progress(message) => Some(message.run),
            Self::Metrics(message) => Some(message.run),
            Self::Log(message) => Some(message.run),
            Self::Checkpoint(message) => Some(message.run),
            Self::Alive(message) => Some(message.run),
            Self::EnsureOwner(message) => Some(message.run),
            Self::Completed(message) => Some(message.run),
            Self::Failed(message) => Some(message.run),
            Self::Cancelled(message) => Some(message.run),
        }
    }
}

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoMessage {
    #[error("it is no JSON object of a message: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is no UTF-8 text")]
    Text(#[from] std::str::Utf8Error),
    #[error("the type {0:?} is unknown; docs/exec.md has all types")]
    Type(String),
    #[error("it has {0} bytes, and only a result or a checkpoint may have more than {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it has {0} metric points, and {MAX_POINTS} are allowed")]
    Points(usize),
    #[error("the name of a metric has 1 to {MAX_NAME} bytes")]
    Name,
    #[error("an error code has 1 to {MAX_CODE} of the characters A-Z a-z 0-9 _ -")]
    Code,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// Reads a line of a program.
///
/// # Errors
/// [`NoMessage`].
pub(crate) fn read(line: &[u8]) -> Result<Message<'_>, NoMessage> {
    if is_too_deep(line) {
        return Err(NoMessage::TooDeep);
    }
    let text = std::str::from_utf8(line)?;
    let Kind { kind } = serde_json::from_str(text)?;
    if line.len() > MAX_MESSAGE && !["completed", "checkpoint"].contains(&&*kind) {
        return Err(NoMessage::TooLong(line.len()));
    }

    let message = match &*kind {
        "describe" => Message::Describe(serde_json::from_str(text)?),
        "progress" => Message::Progress(serde_json::from_str(text)?),
        "metrics" => Message::Metrics(serde_json::from_str(text)?),
        "log" => Message::Log(serde_json::from_str(text)?),
        "checkpoint" => Message::Checkpoint(serde_json::from_str(text)?),
        "alive" => Message::Alive(serde_json::from_str(text)?),
        "ensure_owner" => Message::EnsureOwner(serde_json::from_str(text)?),
        "completed" => Message::Completed(serde_json::from_str(text)?),
        "failed" => Message::Failed(serde_json::from_str(text)?),
        "cancelled" => Message::Cancelled(serde_json::from_str(text)?),
        other => return Err(NoMessage::Type(other.chars().take(64).collect())),
    };
    check(&message)?;
    Ok(message)
}

fn check(message: &Message<'_>) -> Result<(), NoMessage> {
    match message {
        Message::Metrics(metrics) if metrics.points.len() > MAX_POINTS => {
            Err(NoMessage::Points(metrics.points.len()))
        }
        Message::Metrics(metrics)
            if metrics
                .points
                .iter()
                .any(|point| point.name.is_empty() || point.name.len() > MAX_NAME) =>
        {
            Err(NoMessage::Name)
        }
        Message::Failed(Failed {
            code: Some(code), ..
        }) if code.len() > MAX_CODE || !ktrdr_protocol::id::is_name(code) => Err(NoMessage::Code),
        _ => Ok(()),
    }
}

/// Whether a JSON text is nested too deeply.
pub(crate) fn is_too_deep(text: &[u8]) -> bool {
    depth(text) > MAX_DEPTH
}

/// How deep arrays and objects are nested in a JSON text.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for &byte in text {
        match (in_text, byte) {
            _ if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The JSON Schemas of all messages: `from_worker` and `from_program`, by type.
pub fn schemas() -> Value {
    fn of<T: JsonSchema>(kind: &str) -> (String, Value) {
        let mut schema = Value::from(schemars::schema_for!(T));
        if let Some(members) = schema.as_object_mut() {
            members.remove("$schema");
            members.remove("title");
        }
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.insert("type".to_owned(), json!({"const": kind}));
        }
        match schema["required"].as_array_mut() {
            Some(required) => required.insert(0, json!("type")),
            None => schema["required"] = json!(["type"]),
        }
        (kind.to_owned(), schema)
    }

    let from_worker = Map::from_iter([
        of::<Start<'_>>("start"),
        of::<Cancel>("cancel"),
        of::<Owner>("owner"),
    ]);
    let from_program = Map::from_iter([
        of::<Describe>("describe"),
        of::<Progress>("progress"),
        of::<Metrics>("metrics"),
        of::<Log>("log"),
        of::<Checkpoint<'_>>("checkpoint"),
        of::<Alive>("alive"),
        of::<EnsureOwner>("ensure_owner"),
        of::<Completed<'_>>("completed"),
        of::<Failed>("failed"),
        of::<Cancelled>("cancelled"),
    ]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages between a worker and its program (docs/exec.md)",
        "version": VERSION,
        "from_worker": from_worker,
        "from_program": from_program,
    })
}

#[cfg(test)]
mod tests;
