//! The operations that the client starts.

use std::time::Duration;

use serde_json::{Value, json};

/// Concurrency keys of a load with keys. The first [`HOT_KEYS`] of them get half of its operations.
const LIMITED_KEYS: u32 = 400;

/// Keys that many operations want at a time.
const HOT_KEYS: u32 = 8;

/// Unique keys of a load with keys.
const UNIQUE_KEYS: u32 = 400;

/// Which operations a load starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Of many sorts; some with a key.
    Mixed,
    /// All with keys.
    Keyed,
}

/// An operation to be started.
pub struct PlannedOperation {
    /// The sort, which says how it should end.
    pub kind: &'static str,
    /// Where it is started.
    pub domain: &'static str,
    /// The start body, without the id.
    pub body: Value,
    /// When it is cancelled.
    pub cancel_after: Option<Duration>,
}

/// Draws an operation.
pub fn plan(kinds: Kinds, rng: &mut fastrand::Rng) -> PlannedOperation {
    match kinds {
        Kinds::Mixed => mixed(rng),
        Kinds::Keyed => keyed(rng),
    }
}

/// Draws an operation with a concurrency key of a limit of 1 to 3, a unique key, or both. A few run
/// longer than the lease, are retried or are cancelled: they keep their keys meanwhile.
fn keyed(rng: &mut fastrand::Rng) -> PlannedOperation {
    let has_limit = rng.u32(0..10) < 8;
    let mut execution = json!({});
    if has_limit {
        let number = match rng.bool() {
            true => rng.u32(..HOT_KEYS),
            false => rng.u32(HOT_KEYS..LIMITED_KEYS),
        };
        let key = format!("limited-{number}");
        execution["concurrency"] = json!({"key": key, "limit": number % 3 + 1});
    }
    if !has_limit || rng.u32(0..8) == 0 {
        let key = format!("unique-{}", rng.u32(..UNIQUE_KEYS));
        execution["unique"] = json!({"key": key});
    }

    let mut cancel_after = None;
    let mut body =
        json!({"steps": rng.u32(0..3), "step_ms": rng.u32(5..40), "metrics_per_step": 0});
    let kind = match rng.u32(0..100) {
        0..2 => {
            (body["steps"], body["step_ms"]) = (json!(12), json!(100));
            "longer than the lease"
        }
        2..5 => {
            (body["steps"], body["fail_at_step"]) = (json!(2), json!(2));
            (execution["max_attempts"], execution["retry_delay"]) = (json!(2), json!(0.2));
            "retried"
        }
        5..8 => {
            (body["steps"], body["step_ms"]) = (json!(200), json!(50));
            cancel_after = Some(Duration::from_millis(rng.u64(0..800)));
            "cancelled"
        }
        _ => "keyed",
    };
    body["execution"] = execution;

    PlannedOperation {
        kind,
        domain: "dummy",
        body,
        cancel_after,
    }
}

/// Draws an operation: mostly short; some run longer than the lease, fail, are retried, time out,
/// are cancelled, or write files.
fn mixed(rng: &mut fastrand::Rng) -> PlannedOperation {
    let dummy = |kind, body: Value| PlannedOperation {
        kind,
        domain: "dummy",
        body,
        cancel_after: None,
    };
    let steps = |steps: u32, step_ms: u64| json!({"steps": steps, "step_ms": step_ms, "metrics_per_step": 0});
    let with = |mut body: Value, more: Value| {
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    };
    match rng.u32(0..100) {
        0..15 => dummy("instant", steps(0, 0)),
        15..24 => dummy("short", steps(rng.u32(1..4), rng.u64(5..60))),
        24..35 => {
            let key = format!("limited-{}", rng.u32(0..3));
            let limit = json!({"execution": {"concurrency": {"key": key, "limit": 2}}});
            dummy("limited", with(steps(rng.u32(1..4), rng.u64(5..60)), limit))
        }
        35..38 => {
            let key = format!("unique-{}", rng.u32(0..3));
            let unique = json!({"execution": {"unique": {"key": key}}});
            dummy("unique", with(steps(3, 60), unique))
        }
        38..40 => dummy(
            "delayed",
            with(steps(1, 20), json!({"execution": {"delay_seconds": 0.5}})),
        ),
        40..42 => dummy(
            "urgent",
            with(steps(1, 20), json!({"execution": {"priority": 1}})),
        ),
        42..44 => dummy(
            "other queue",
            with(
                steps(2, 30),
                json!({"execution": {"requirements": {"cores": 1}}}),
            ),
        ),
        44..54 => dummy(
            "medium",
            with(steps(5, rng.u64(60..150)), json!({"metrics_per_step": 2})),
        ),
        54..60 => dummy("longer than the lease", steps(rng.u32(12..22), 100)),
        60..64 => dummy("failing", with(steps(3, 20), json!({"fail_at_step": 2}))),
        64..67 => dummy(
            "retried",
            with(
                steps(2, 20),
                json!({"fail_at_step": 2, "execution": {"max_attempts": 3, "retry_delay": 0.2}}),
            ),
        ),
        67..69 => dummy("panicking", with(steps(2, 20), json!({"panic_at_step": 1}))),
        69..71 => dummy(
            "timed out",
            with(
                steps(60, 50),
                json!({"execution": {"timeout_seconds": 0.4}}),
            ),
        ),
        71..77 => PlannedOperation {
            cancel_after: Some(Duration::from_millis(rng.u64(0..1500))),
            ..dummy("cancelled", steps(200, 50))
        },
        77..78 => PlannedOperation {
            cancel_after: Some(Duration::from_millis(rng.u64(300..1000))),
            ..dummy(
                "deaf to cancels",
                with(steps(70, 50), json!({"ignore_cancel": true})),
            )
        },
        78..79 => dummy(
            "large result",
            with(steps(1, 50), json!({"result_bytes": 400_000})),
        ),
        79..97 => PlannedOperation {
            kind: "with a file",
            domain: "stamp",
            body: json!({"steps": rng.u32(1..3), "step_ms": rng.u64(20..900)}),
            cancel_after: None,
        },
        _ => PlannedOperation {
            kind: "table",
            domain: "data-processing",
            body: json!({
                "source_file": "source.csv",
                "output_file": format!("tables/{:016x}.csv", rng.u64(..)),
                "operations": [{"op": "clean"}],
            }),
            cancel_after: None,
        },
    }
}
