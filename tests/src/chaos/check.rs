//! The verdict: compares the stream, the backends, the queues and the files with the client's
//! ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ktrdr_protocol::event::EventKind;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::history::{OperationHistory, Totals, histories, judge_keys};
use super::ledger::Ledger;
use super::{slots, stamp};
use crate::bus::Bus;
use crate::client::Client;

/// How long the backends may take to agree once everything has ended.
const AGREEMENT: Duration = Duration::from_secs(15);

/// The result of the comparison.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Figures of the stream.
    pub totals: Totals,
    /// Operations in the stream.
    pub operations: usize,
    /// Ends by kind.
    pub ends: BTreeMap<&'static str, usize>,
    /// Acknowledged operations that the stream does not hold.
    pub lost: usize,
    /// Longest time without any event in the stream.
    pub standstill: Duration,
    /// Longest time from start request to end, and the operation that took it.
    pub slowest: (Duration, String),
    /// Output files compared with the attempt that completed.
    pub files: usize,
    /// Uses of unique and concurrency keys.
    pub keys: usize,
    /// Slots of the schedule.
    pub slots: usize,
    /// The messages of all operations.
    pub histories: BTreeMap<String, OperationHistory>,
    /// Everything that is wrong.
    pub violations: Vec<String>,
}

/// Waits until nothing is pending or running and no queue holds anything.
///
/// # Errors
/// Says what is left after `limit`.
pub async fn drained(bus: &Bus, api: &Client, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    loop {
        let mut open = Vec::new();
        for status in ["pending", "running"] {
            match api
                .try_get(&format!("/api/v1/operations?status={status}&limit=5"))
                .await
            {
                Ok(answer) if answer.at("/data/total").as_u64() == Some(0) => {}
                Ok(answer) => open.push(format!(
                    "{status}: {}",
                    answer.text.chars().take(1500).collect::<String>()
                )),
                Err(error) => open.push(error),
            }
        }

        match bus.try_backlog().await {
            Ok(queues) if queues.is_empty() => {}
            Ok(queues) => open.push(format!("unacknowledged: {queues:?}")),
            Err(error) => open.push(error),
        }

        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(open.join("; "));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Compares the stream, the backends, the queues and the files with the ledger.
pub async fn check(bus: &Bus, apis: &[Client], ledger: &Ledger, data_dir: &Path) -> Verdict {
    let mut verdict = Verdict {
        violations: ledger.problems.clone(),
        ..Verdict::default()
    };
    let messages = match bus.dump(&bus.names.stream_subjects()).await {
        Ok(messages) => messages,
        Err(error) => {
            verdict
                .violations
                .push(format!("the stream cannot be read: {error}"));
            return verdict;
        }
    };

    let histories = histories(&bus.names, &messages);

    judge_histories(&mut verdict, &histories);
    let (keys, wrong) = judge_keys(&histories);
    verdict.keys = keys;
    verdict.violations.extend(wrong);
    judge_ledger(&mut verdict, &histories, ledger);
    judge_files(&mut verdict, &histories, data_dir);
    judge_backends(&mut verdict, &histories, apis).await;

    verdict.histories = histories;
    verdict
}

fn judge_histories(verdict: &mut Verdict, histories: &BTreeMap<String, OperationHistory>) {
    verdict.operations = histories.len();

    let mut moments = Vec::new();
    for (id, history) in histories {
        let mut totals = std::mem::take(&mut verdict.totals);
        let wrong = history.judge(&mut totals);
        verdict.totals = totals;
        verdict
            .violations
            .extend(wrong.into_iter().map(|text| format!("{id}: {text}")));
        moments.extend(history.events.iter().map(|(_, event)| event.at.as_millis()));

        let Some(end) = history.end() else { continue };
        *verdict.ends.entry(end.kind.name()).or_default() += 1;
        let created = history
            .starts
            .first()
            .map(|(_, request)| &request["created_at"]);
        let created: Option<ktrdr_protocol::time::Timestamp> =
            created.and_then(|text| serde_json::from_value(text.clone()).ok());
        if let Some(created) = created {
            let took = between(created.as_millis(), end.at.as_millis());
            if took > verdict.slowest.0 {
                verdict.slowest = (took, id.clone());
            }
        }
    }

    moments.sort_unstable();
    verdict.standstill = moments
        .windows(2)
        .map(|pair| between(pair[0], pair[1]))
        .max()
        .unwrap_or_default();
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to - from).unwrap_or_default())
}

fn judge_ledger(
    verdict: &mut Verdict,
    histories: &BTreeMap<String, OperationHistory>,
    ledger: &Ledger,
) {
    let mut unknown = 0;
    for (id, start) in &ledger.acknowledged {
        let Some(history) = histories
            .get(id)
            .filter(|history| !history.starts.is_empty())
        else {
            verdict.lost += 1;
            verdict
                .violations
                .push(format!("{id} was acknowledged ({start:?}) and is nowhere"));
            continue;
        };

        let end = history
            .end()
            .map(|event| event.kind.name())
            .unwrap_or_default();
        if start.cancel.as_deref() == Some("cancelled") && end != "cancelled" {
            verdict
                .violations
                .push(format!("{id} was answered to be cancelled, and is {end}"));
        }

        let wanted = match start.kind {
            "failing" | "panicking" | "retried" | "timed out" => "failed",
            "cancelled" | "deaf to cancels" => continue,
            _ => "completed",
        };

        let given_up = history
            .events
            .iter()
            .any(|(_, event)| matches!(&event.kind, EventKind::Failed { error, .. } if error.code == "worker_lost"));
        if end != wanted && !given_up {
            verdict
                .violations
                .push(format!("{id} ({}) is {end} and not {wanted}", start.kind));
        }
    }

    for (id, history) in histories {
        if ledger.refused.contains(id) {
            verdict.violations.push(format!(
                "{id} was refused as not stored, and is: {:?}",
                history.starts
            ));
        } else if !ledger.acknowledged.contains_key(id)
            && !ledger.open.contains(id)
            && !slots::is_of_schedule(history)
        {
            unknown += 1;
        }
    }

    if unknown > ledger.unseen {
        let unseen = ledger.unseen;
        verdict.violations.push(format!(
            "{unknown} operations that nobody asked for; {unseen} starts had no answer"
        ));
    }
}

/// A late write by an attempt that was taken over must not replace the winner's file.
fn judge_files(
    verdict: &mut Verdict,
    histories: &BTreeMap<String, OperationHistory>,
    data_dir: &Path,
) {
    let mut tables: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (id, history) in histories {
        let Some(end) = history
            .end()
            .filter(|end| matches!(end.kind, EventKind::Completed { .. }))
        else {
            continue;
        };
        let request = history
            .starts
            .first()
            .map_or(&Value::Null, |(_, request)| request);
        match request["operation_type"].as_str() {
            Some("stamp") => {
                verdict.files += 1;
                let text = std::fs::read(stamp::path(data_dir, id)).unwrap_or_default();
                let found: Option<stamp::Stamp> = serde_json::from_slice(&text).ok();
                if found.as_ref().map(|stamp| stamp.attempt) != Some(end.attempt) {
                    verdict.violations.push(format!(
                        "the file of {id} is of {found:?}, but attempt {} won",
                        end.attempt
                    ));
                }
            }
            Some("data_processing") => {
                verdict.files += 1;
                let name = request["parameters"]["output_file"]
                    .as_str()
                    .unwrap_or_default();
                match std::fs::read(data_dir.join(name)) {
                    Ok(bytes) => *tables.entry(bytes).or_default() += 1,
                    Err(error) => verdict
                        .violations
                        .push(format!("{id} completed, but {name}: {error}")),
                }
            }
            _ => {}
        }
    }

    if tables.len() > 1 {
        let sizes: Vec<_> = tables
            .iter()
            .map(|(bytes, count)| (bytes.len(), count))
            .collect();
        verdict.violations.push(format!(
            "the same table was written in several ways: (bytes, times) {sizes:?}"
        ));
    }
}

/// Every operation as one backend shows it.
async fn everything(api: &Client) -> Result<BTreeMap<String, Value>, String> {
    let mut all = BTreeMap::new();
    loop {
        let answer = api
            .try_get(&format!(
                "/api/v1/operations?limit=1000&offset={}",
                all.len()
            ))
            .await?;
        let page = answer
            .at("/data/operations")
            .as_array()
            .ok_or_else(|| answer.text.clone())?;
        for operation in page {
            all.insert(
                operation["operation_id"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                operation.clone(),
            );
        }
        if page.len() < 1000 {
            return Ok(all);
        }
    }
}

async fn judge_backends(
    verdict: &mut Verdict,
    histories: &BTreeMap<String, OperationHistory>,
    apis: &[Client],
) {
    let deadline = Instant::now() + AGREEMENT;
    let mut wrong = Vec::new();
    while wrong.is_empty() || Instant::now() < deadline {
        wrong = compare(histories, apis).await;
        if wrong.is_empty() {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
    verdict.violations.extend(wrong);
}

async fn compare(histories: &BTreeMap<String, OperationHistory>, apis: &[Client]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut first: Option<BTreeMap<String, Value>> = None;
    for api in apis {
        let mut shown = match everything(api).await {
            Ok(shown) => shown,
            Err(error) => {
                wrong.push(format!("{} does not answer: {error}", api.base()));
                continue;
            }
        };
        for (id, history) in histories
            .iter()
            .filter(|(_, history)| !history.starts.is_empty())
        {
            let end = history.end().map_or("open", |event| event.kind.name());
            match shown.get(id) {
                None => wrong.push(format!("{} does not know {id}", api.base())),
                Some(operation) if operation["status"] != end => {
                    wrong.push(format!(
                        "{} shows {id} as {}, but it is {end}",
                        api.base(),
                        operation["status"]
                    ));
                }
                Some(operation)
                    if operation["attempts"].as_array().map_or(0, Vec::len)
                        != history.attempts() =>
                {
                    wrong.push(format!(
                        "{} shows other attempts of {id}: {}",
                        api.base(),
                        operation["attempts"]
                    ));
                }
                Some(_) => {}
            }
        }
        // Each backend may have heard another last progress of an operation that failed or was
        // cancelled.
        for operation in shown
            .values_mut()
            .filter(|operation| operation["status"] != "completed")
        {
            if let Some(operation) = operation.as_object_mut() {
                operation.remove("progress");
            }
        }
        match &first {
            None => first = Some(shown),
            Some(first) if *first == shown => {}
            Some(first) => {
                let other = shown
                    .iter()
                    .find(|(id, operation)| first.get(*id) != Some(*operation));
                let there = other.and_then(|(id, _)| first.get(id));
                wrong.push(format!("{} differs: {other:?} and {there:?}", api.base()));
            }
        }
    }

    wrong
}
