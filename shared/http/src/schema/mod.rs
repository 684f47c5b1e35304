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
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

pub use self::cost::UnusableSchema;
use self::cost::{Cost, mark};
pub use self::lazy::LazySchema;

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
        let cost = Cost::of(schema)?;
        let mut schema = schema.clone();
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
    pub async fn compile_apart(schema: Value) -> Result<Self, UnusableSchema> {
        // Waiting for the turn does not count: the schemas before it have bounds.
        let Ok(permit) = COMPILATIONS.acquire().await else {
            return Err(UnusableSchema::Slow);
        };
        let compiled = apart(permit, move || Self::compile(&schema));
        match tokio::time::timeout(MAX_COMPILE, compiled).await {
            Ok(Some(compiled)) => compiled,
            Ok(None) | Err(_) => Err(UnusableSchema::Slow),
        }
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_choice_that_nothing_fits_the_closest_alternative_is_told() {
        let schema = Schema::compile(&json!({"items": {"anyOf": [
            {"enum": ["clean", "transform"]},
            {"type": "object", "properties": {"op": {"const": "clean"}, "trim": {"type": "boolean"}},
             "required": ["op"], "additionalProperties": false},
            {"type": "object", "properties": {"op": {"const": "transform"}}, "required": ["op"], "additionalProperties": false},
        ]}}))
        .unwrap();
        let told = |value: Value| {
            let found = schema.violations("", &json!([value])).unwrap();
            found
                .into_iter()
                .map(|v| format!("{} {}", v.path, v.message))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert!(told(json!({"op": "clean", "trimm": true})).contains("'trimm'"));
        assert!(told(json!({"op": "clean", "trim": 7})).starts_with("/0/trim 7 is not of type"));
        assert_eq!(
            told(json!("wash")),
            r#"/0 "wash" is not one of "clean" or "transform""#
        );
        assert_eq!(
            told(json!({"op": "wash"})),
            r#"/0/op "wash" is not one of "clean" or "transform""#
        );
        assert_eq!(told(json!("clean")), "");
    }

    /// As schemas are made of enums whose variants have descriptions of their own.
    #[test]
    fn all_that_could_be_chosen_is_told() {
        let unit = |name: &str| json!({"type": "string", "const": name});
        let kind = |name: &str| json!({"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]});
        let schema = Schema::compile(&json!({"properties": {
            "timeframe": {"oneOf": [unit("1m"), unit("1h"), unit("1d")]},
            "strategy": {"oneOf": [kind("sma"), kind("rsi")]},
            "steps": {"items": {"anyOf": [{"oneOf": [unit("a"), unit("b")]}, kind("a")]}},
        }}))
        .unwrap();
        let told = |value: Value| {
            let found = schema.violations("", &value).unwrap();
            found
                .into_iter()
                .map(|v| format!("{} {}", v.path, v.message))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            told(json!({"timeframe": "2d"})),
            r#"/timeframe "2d" is not one of "1m", "1h" or "1d""#
        );
        assert_eq!(
            told(json!({"strategy": {"type": "x"}})),
            r#"/strategy/type "x" is not one of "sma" or "rsi""#
        );
        assert_eq!(
            told(json!({"steps": ["a", "x"]})),
            r#"/steps/1 "x" is not one of "a" or "b""#
        );
        assert_eq!(
            told(json!({"steps": [{"type": "x"}]})),
            r#"/steps/0/type "x" is not one of "a""#
        );
        assert!(told(json!({"strategy": {}})).contains("required"));
    }

    /// 2^14 references to one definition, for each item.
    fn costly() -> Schema {
        let mut definitions = serde_json::Map::new();
        for level in 0..14 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            definitions.insert(format!("d{level}"), json!({"allOf": [next, next]}));
        }
        definitions.insert("d14".to_owned(), json!({"type": "integer"}));
        Schema::compile(&json!({"$defs": definitions, "items": {"$ref": "#/$defs/d0"}})).unwrap()
    }

    #[test]
    fn a_check_has_a_time_limit() {
        let schema = costly();
        let began = Instant::now();

        let checked = schema.violations("", &json!(vec![7; 100_000]));

        assert_eq!(checked, Err(TooCostly));
        assert!(began.elapsed() < MAX_CHECK * 2);
        assert!(!schema.is_cheap_for(SMALL));
        assert_eq!(schema.violations("", &json!([7])), Ok(vec![]));
    }

    /// The errors of a recursive schema can be exponential in the depth of the value.
    #[test]
    fn a_recursive_schema_has_the_same_limits() {
        let schema = Schema::compile(&json!({
            "$defs": {"n": {"properties": {"b": {"type": "string"}}, "anyOf": [
                {"properties": {"a": {"$ref": "#/$defs/n"}}},
                {"properties": {"a": {"$ref": "#/$defs/n"}}},
            ]}},
            "$ref": "#/$defs/n",
        }))
        .unwrap();
        let deep = (0..100).fold(json!({"b": 1}), |inner, _| json!({"a": inner}));
        let began = Instant::now();

        let checked = schema.violations("", &deep);

        assert!(checked.is_err() || checked.is_ok_and(|found| found.len() == 1));
        assert!(began.elapsed() < MAX_CHECK * 2);
        assert!(!schema.is_cheap_for(1));
    }

    /// Listing what is wrong costs memory for every error, also of those that are not shown.
    #[test]
    fn listing_violations_has_a_bound() {
        let wrong_often = json!({"items": {"allOf": vec![json!({"type": "string"}); 100]}});
        let schema =
            Schema::compile(&json!({"anyOf": [wrong_often, {"minItems": 1_000_000}]})).unwrap();
        let items = json!(vec![7; 50_000]);

        let found = schema.violations("/a", &items).unwrap();

        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "/a");
        assert!(found[0].message.contains("too large to list"), "{found:?}");
    }

    #[test]
    fn the_step_keyword_changes_nothing_that_a_client_sees() {
        let schema = Schema::compile(&json!({
            "type": "object", "additionalProperties": false, "properties": {"a": {"const": {"b": 1}}},
        }))
        .unwrap();

        assert_eq!(schema.violations("", &json!({"a": {"b": 1}})), Ok(vec![]));
        for wrong in [json!({STEP: true}), json!({"a": {"b": 1, STEP: true}})] {
            assert_eq!(schema.violations("", &wrong).unwrap().len(), 1);
        }
    }

    #[test]
    fn formats_are_checked_and_unknown_ones_allow_everything() {
        for (format, good, bad) in [
            ("date", "2025-11-10", "10.11.2025"),
            ("date-time", "2025-11-10T10:30:00Z", "2025-11-10 10:30"),
            ("uuid", "67e55044-10b1-426f-9247-bb680e5fe0c8", "67e55044"),
            ("uri", "https://example.com/a?b=c", "hello"),
            ("email", "a@example.com", "a.example.com"),
            ("ipv4", "127.0.0.1", "::1"),
            ("ip", "::1", "localhost"),
            ("duration", "PT1H", "1h"),
        ] {
            let schema = Schema::compile(&json!({"format": format})).unwrap();

            assert_eq!(schema.violations("", &json!(good)), Ok(vec![]), "{format}");
            let found = schema.violations("/at", &json!(bad)).unwrap();
            assert_eq!(found.len(), 1, "{format}");
            assert_eq!(found[0].path, "/at");
            assert!(found[0].message.contains(format), "{found:?}");
        }
        let unknown = Schema::compile(&json!({"format": "uint32"})).unwrap();
        assert_eq!(unknown.violations("", &json!("x")), Ok(vec![]));
    }

    #[test]
    fn what_the_validator_refuses_or_is_too_large_is_unusable() {
        for schema in [
            json!({"type": "nonsense"}),
            json!({"pattern": "("}),
            json!({"pattern": "(a{1000}){1000}"}),
            json!({"$schema": "https://example.com/none"}),
        ] {
            let refused = Schema::compile(&schema);
            assert!(
                matches!(refused, Err(UnusableSchema::Compile(_))),
                "{refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_check_arrives_where_it_was_asked_for() {
        let checked = tokio::spawn(check_apart(None, || panic!("a fault of the test"))).await;

        assert!(checked.unwrap_err().is_panic());
        assert_eq!(check_apart(None, || 7).await, Ok(7));
    }
}
