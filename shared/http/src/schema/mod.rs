//! Checks a value against a JSON Schema. The violations tell a person where to correct the value.
//!
//! The problem: for a choice (`oneOf`, `anyOf`), a validator lists the errors of all alternatives
//! or says only that none matches. A person who mistyped one member learns nothing from either.
//!
//! How it is solved: the violations are those of the alternative that comes closest, or the list of
//! allowed values when the tag itself is wrong.
//!
//! Rejected: reading the body into the engine's own type, because the backend does not have it, and
//! because serde stops at the first mistake.
//!
//! Schemas and values come from outside, so both are bounded: [`cost`] refuses a schema that would
//! cost too much, and every check has a number of steps and a time limit.

pub mod cost;
pub mod integer_limits;
mod lazy;

use std::cell::Cell;
use std::mem::discriminant;
use std::net::IpAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use jsonschema::error::ValidationErrorKind as ErrorKind;
use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use ktrdr_bus::telemetry::beginning;
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::schema_text::SchemaText;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

pub use self::cost::UnusableSchema;
use self::cost::{Cost, mark};
pub use self::lazy::{CompiledSchemas, LazySchema};

/// Most violations in one answer.
const MAX_VIOLATIONS: usize = 50;

/// Longest message of one violation, in characters. A message may quote the value.
const MAX_MESSAGE: usize = 500;

/// Largest compiled form of one regular expression, in bytes.
pub const MAX_PATTERN_BYTES: usize = 512 * 1024;

/// How often a regular expression may go back and try another way.
const MAX_BACKTRACKS: usize = 10_000;

/// How long a value may be checked.
pub const MAX_CHECK: Duration = Duration::from_secs(2);

/// How long a schema may be compiled.
const MAX_COMPILE: Duration = Duration::from_secs(5);

/// How many subschemas may be evaluated to list violations. Each of them may leave an error in
/// memory.
const MAX_LISTING_STEPS: u64 = 200_000;

/// Up to this product of subschemas and bytes of a value, a check takes less than going to another
/// thread is worth avoiding.
const MAX_INLINE: u64 = 2_000_000;

/// A small value, in bytes. A schema that is not cheap for it is costly.
const SMALL: usize = 1024;

/// Deepest schema that is checked on a thread that has other work.
const MAX_INLINE_DEPTH: usize = 64;

/// Stack of the threads that compile and check: recursive schemas go as deep as the value.
const STACK: usize = 64 * 1024 * 1024;

/// How many threads check large values and costly schemas at a time.
static CHECKS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new((cores / 2).max(2))
});

/// How many threads compile schemas at a time.
static COMPILATIONS: Semaphore = Semaphore::const_new(2);

/// The keyword that counts the steps of a check. [`Schema::compile`] adds it to each subschema.
const STEP: &str = "x-ktrdr-step";

/// A compiled JSON Schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    validator: Validator,
    cost: Cost,
    /// One costly check of this schema at a time, so that it does not take the place of all others.
    turn: Arc<Semaphore>,
}

/// A check was given up after [`MAX_CHECK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value takes too long to check")]
pub struct TooCostly;

impl Schema {
    /// Compiles a schema. Takes up to seconds and much stack for a hostile one: see
    /// [`Self::compile_apart`].
    ///
    /// # Errors
    /// [`UnusableSchema`] says what is wrong with the schema itself.
    pub fn compile(schema: &Value) -> Result<Self, UnusableSchema> {
        Self::compile_value(schema.clone())
    }

    fn compile_value(mut schema: Value) -> Result<Self, UnusableSchema> {
        let cost = Cost::of(&schema)?;
        integer_limits::add_all(&mut schema);
        mark(&mut schema, STEP);
        let patterns = PatternOptions::fancy_regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .backtrack_limit(MAX_BACKTRACKS);
        let validator = jsonschema::options()
            // By the standard a format is only a remark. Here, who declares one means it.
            .should_validate_formats(true)
            .with_format("ip", |text: &str| text.parse::<IpAddr>().is_ok())
            .with_keyword(STEP, |_, _, _| Ok(Box::new(CountStep)))
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|error| UnusableSchema::Compile(beginning(error.to_string(), MAX_MESSAGE)))?;
        Ok(Self(Arc::new(Compiled {
            validator,
            cost,
            turn: Arc::new(Semaphore::new(1)),
        })))
    }

    /// [`Self::compile`] on a thread of its own, with a time limit.
    ///
    /// # Errors
    /// [`UnusableSchema`].
    pub async fn compile_apart(schema: SchemaText) -> Result<Self, UnusableSchema> {
        // Waiting for the turn does not count: the schemas before it have bounds.
        let Ok(permit) = COMPILATIONS.acquire().await else {
            return Err(UnusableSchema::Slow);
        };
        let compiled = apart(permit, move || {
            let schema = schema.value();
            let schema = schema.map_err(|error| UnusableSchema::Compile(error.to_string()))?;
            Self::compile_value(schema)
        });
        match tokio::time::timeout(MAX_COMPILE, compiled).await {
            Ok(Some(compiled)) => compiled,
            Ok(None) | Err(_) => Err(UnusableSchema::Slow),
        }
    }

    /// Bytes of memory that it takes, about: see [`Cost::memory`].
    pub fn memory(&self) -> u64 {
        self.0.cost.memory
    }

    /// Whether a check of a value of `bytes` is so cheap that it may run anywhere.
    pub fn is_cheap_for(&self, bytes: usize) -> bool {
        let cost = &self.0.cost;
        !cost.is_recursive
            && cost.depth <= MAX_INLINE_DEPTH
            && cost.nodes.saturating_mul(bytes as u64) <= MAX_INLINE
    }

    /// Every place where `value`, found at `prefix` of the body, does not match.
    ///
    /// # Errors
    /// [`TooCostly`] after [`MAX_CHECK`].
    pub fn violations(&self, prefix: &str, value: &Value) -> Result<Vec<Violation>, TooCostly> {
        let deadline = Instant::now() + MAX_CHECK;
        let validator = &self.0.validator;

        // Nearly every value matches, and that check is much cheaper than collecting errors.
        if bounded(u64::MAX, deadline, || validator.is_valid(value))? {
            return Ok(Vec::new());
        }
        let listed = bounded(MAX_LISTING_STEPS, deadline, || {
            let mut found = Vec::new();
            for error in validator.iter_errors(value).take(MAX_VIOLATIONS) {
                add_error(prefix, &error, &mut found);
            }
            found.truncate(MAX_VIOLATIONS);
            found
        });
        Ok(listed.unwrap_or_else(|TooCostly| {
            vec![Violation {
                path: prefix.to_owned(),
                message: "does not match the schema; the value is too large to list where"
                    .to_owned(),
            }]
        }))
    }
}

/// Runs a costly check on a thread of its own. `schema` waits for its turn: only one of its checks
/// runs at a time, and only a few of all schemas.
///
/// # Errors
/// [`TooCostly`] after [`MAX_CHECK`], the time to wait included.
pub async fn check_apart<T: Send + 'static>(
    schema: Option<Schema>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TooCostly> {
    let checked = async {
        let turn = match schema.filter(|schema| !schema.is_cheap_for(SMALL)) {
            Some(schema) => Some(Arc::clone(&schema.0.turn).acquire_owned().await.ok()?),
            None => None,
        };
        let permit = CHECKS.acquire().await.ok()?;
        apart((turn, permit), work).await
    };
    // The thread has the same limit, but may have to wait for a core.
    match tokio::time::timeout(MAX_CHECK + MAX_CHECK, checked).await {
        Ok(Some(done)) => Ok(done),
        Ok(None) | Err(_) => Err(TooCostly),
    }
}

/// Runs `work` on a thread with much stack. `permits` are given back when it has ended, which may be
/// later than the caller waits. `None` when there is no thread.
async fn apart<T: Send + 'static>(
    permits: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, done) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("schema".to_owned())
        .stack_size(STACK);
    let spawned = thread.spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        drop(permits);
        // Nobody waits any more when the time limit has passed.
        let _ = sender.send(result);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "there is no thread to check a schema or a value on");
        return None;
    }
    match done.await.ok()? {
        Ok(done) => Some(done),
        // As if it had happened here.
        Err(panic) => resume_unwind(panic),
    }
}

thread_local! {
    /// Steps that the check on this thread may still take.
    static STEPS_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    /// When it has to end.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How many steps are taken between two looks at the clock.
const STEPS_PER_LOOK: u64 = 64;

/// What unwinds out of a check that took too many steps. The validator has no other way to stop.
struct OutOfSteps;

/// The keyword that is in every subschema. It accepts everything, and counts.
struct CountStep;

impl CountStep {
    fn step() {
        let left = STEPS_LEFT.get().wrapping_sub(1);
        STEPS_LEFT.set(left);
        let is_late = || DEADLINE.get().is_some_and(|end| Instant::now() > end);
        if left == 0 || (left.is_multiple_of(STEPS_PER_LOOK) && is_late()) {
            // Without a panic message: this is no fault.
            resume_unwind(Box::new(OutOfSteps));
        }
    }
}

impl<'i> Keyword<'i> for CountStep {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        Self::step();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        Self::step();
        true
    }
}

/// Runs `check`, which evaluates schemas, for at most `steps` subschemas and until `deadline`.
fn bounded<T>(steps: u64, deadline: Instant, check: impl FnOnce() -> T) -> Result<T, TooCostly> {
    STEPS_LEFT.set(steps);
    DEADLINE.set(Some(deadline));
    let result = catch_unwind(AssertUnwindSafe(check));
    DEADLINE.set(None);
    STEPS_LEFT.set(u64::MAX);

    result.map_err(|panic| {
        if panic.is::<OutOfSteps>() {
            TooCostly
        } else {
            resume_unwind(panic)
        }
    })
}

/// Adds an error to `found`. For a choice without a matching alternative it adds the allowed
/// values, or the errors of the alternative that comes closest.
fn add_error(prefix: &str, error: &ValidationError<'_>, found: &mut Vec<Violation>) {
    if found.len() >= MAX_VIOLATIONS {
        return;
    }
    let alternatives = alternatives(error);
    if let Some((path, message)) = choices(error.instance_path().as_str(), &alternatives) {
        return found.push(Violation {
            path: format!("{prefix}{path}"),
            message: beginning(message, MAX_MESSAGE),
        });
    }
    let distance =
        |errors: &Vec<&ValidationError<'_>>| distance(error.instance_path().as_str(), errors);
    match alternatives.iter().min_by_key(|errors| distance(errors)) {
        Some(closest) => closest
            .iter()
            .for_each(|error| add_error(prefix, error, found)),
        None => found.push(Violation {
            path: format!("{prefix}{}", error.instance_path()),
            message: beginning(error.to_string(), MAX_MESSAGE),
        }),
    }
}

/// The errors of each alternative of a choice, choices among its alternatives included. Empty when
/// the error is not about a choice.
fn alternatives<'e, 'v>(error: &'e ValidationError<'v>) -> Vec<Vec<&'e ValidationError<'v>>> {
    let (ErrorKind::AnyOf { context } | ErrorKind::OneOfNotValid { context }) = error.kind() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for errors in context.iter().filter(|errors| !errors.is_empty()) {
        let nested = match errors.as_slice() {
            [only] if only.instance_path() == error.instance_path() => alternatives(only),
            _ => Vec::new(),
        };
        if nested.is_empty() {
            all.push(errors.iter().collect());
        } else {
            all.extend(nested);
        }
    }
    all
}

/// For a choice among fixed values, or a tagged choice whose tag matches no alternative: the path
/// of the value or tag, and a message with the allowed values. Alternatives of another JSON type
/// are ignored.
fn choices(path: &str, alternatives: &[Vec<&ValidationError<'_>>]) -> Option<(String, String)> {
    let of_another_type = |error: &ValidationError<'_>| match error.kind() {
        ErrorKind::Type { .. } => true,
        ErrorKind::Constant { .. } | ErrorKind::Enum { .. } => {
            let same_type = |value: &Value| discriminant(value) == discriminant(error.instance());
            !accepted(error).is_some_and(|values| values.iter().any(same_type))
        }
        _ => false,
    };
    let meant = |errors: &&Vec<&ValidationError<'_>>| {
        !errors
            .iter()
            .any(|error| error.instance_path().as_str() == path && of_another_type(error))
    };
    let (mut known, mut place) = (Vec::new(), None::<&ValidationError<'_>>);
    for errors in alternatives.iter().filter(meant) {
        let (error, values) = errors
            .iter()
            .find_map(|error| Some((*error, accepted(error)?)))?;
        if place.is_some_and(|place| place.instance_path() != error.instance_path()) {
            return None;
        }
        place = Some(error);
        known.extend(values.iter().map(Value::to_string));
    }
    let place = place?;
    let last = known.pop()?;
    let known = if known.is_empty() {
        last
    } else {
        format!("{} or {last}", known.join(", "))
    };
    Some((
        place.instance_path().to_string(),
        format!("{} is not one of {known}", place.instance()),
    ))
}

/// The values that would have been accepted, where only some are.
fn accepted<'e>(error: &'e ValidationError<'_>) -> Option<&'e [Value]> {
    match error.kind() {
        ErrorKind::Constant { expected_value } => Some(std::slice::from_ref(&**expected_value)),
        ErrorKind::Enum { options } => options.as_array().map(Vec::as_slice),
        _ => None,
    }
}

/// How far the value at `path` is from an alternative: one of another type is not meant at all, one
/// with another tag (`"op"`, `"type"`) hardly; between the rest the number of errors decides.
fn distance(path: &str, errors: &[&ValidationError<'_>]) -> usize {
    let weight = |error: &&ValidationError<'_>| match error.kind() {
        ErrorKind::Type { .. } if error.instance_path().as_str() == path => 10_000,
        ErrorKind::Constant { .. } => 100,
        ErrorKind::Enum { .. } => 10,
        _ => 1,
    };
    errors.iter().map(weight).sum()
}

#[cfg(test)]
mod tests;
