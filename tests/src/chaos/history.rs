//! The messages of each operation in the stream, and the rules that they must keep. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ktrdr_protocol::event::{Event, EventKind};
use ktrdr_protocol::subject::{SubjectNames, Topic};
use serde_json::Value;

use crate::bus::Stored;

/// All messages about one operation.
#[derive(Debug, Default)]
pub struct OperationHistory {
    /// Its start requests: sequence and payload.
    pub starts: Vec<(u64, Value)>,
    /// Its events in order, with their sequences.
    pub events: Vec<(u64, Event)>,
    /// Messages on its subject that are not events.
    pub unreadable: usize,
}

/// Totals over all operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// `started` events.
    pub attempts: usize,
    /// Attempts that began because the one before was lost.
    pub takeovers: usize,
    /// Attempts that began after a release.
    pub releases: usize,
    /// Operations without a terminal event.
    pub open: usize,
    /// Operations with more than one terminal event, more than one start request, or any event
    /// after the end.
    pub doubled: usize,
    /// Operations that failed because every worker was lost.
    pub given_up: usize,
}

/// Sorts the messages of the operations stream by operation.
pub fn histories(names: &SubjectNames, messages: &[Stored]) -> BTreeMap<String, OperationHistory> {
    let mut histories: BTreeMap<String, OperationHistory> = BTreeMap::new();
    for message in messages {
        match names.parse(&message.subject) {
            Some(Topic::Start { .. }) => {
                let request: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
                let id = request["operation_id"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                histories
                    .entry(id)
                    .or_default()
                    .starts
                    .push((message.sequence, request));
            }
            Some(Topic::Operation { operation_id, .. }) => {
                let history = histories.entry(operation_id.to_owned()).or_default();
                match Event::decode(&message.payload) {
                    Ok(event) => history.events.push((message.sequence, event)),
                    Err(_) => history.unreadable += 1,
                }
            }
            _ => {}
        }
    }

    histories
}

impl OperationHistory {
    /// The first terminal event.
    pub fn end(&self) -> Option<&Event> {
        self.events
            .iter()
            .map(|(_, event)| event)
            .find(|event| event.kind.is_terminal())
    }

    /// `started` events.
    pub fn attempts(&self) -> usize {
        self.events
            .iter()
            .filter(|(_, event)| matches!(event.kind, EventKind::Started { .. }))
            .count()
    }

    /// A member of the start request, wherever its version has written it.
    fn option(&self, name: &str) -> &Value {
        let Some((_, request)) = self.starts.first() else {
            return &Value::Null;
        };
        match &request["execution"][name] {
            Value::Null => &request[name],
            found => found,
        }
    }

    /// Worker type and key of a key that it uses, the largest number of holders, and between which
    /// sequences it certainly held the key.
    pub fn holds(&self, kind: &str) -> Option<(String, u64, Range<u64>)> {
        let option = self.option(kind);
        let key = option["key"].as_str()?;
        let (first, request) = self.starts.first()?;
        let (begin, limit) = match kind {
            "unique" => (*first, 1),
            _ => (self.begun()?, option["limit"].as_u64()?),
        };
        let ended = self
            .events
            .iter()
            .find(|(_, event)| event.kind.is_terminal());
        let end = ended.map_or(u64::MAX, |(sequence, _)| *sequence);
        let name = format!("{} {key}", request["operation_type"]);
        Some((name, limit, begin..end))
    }

    /// Sequence of the first `started`.
    fn begun(&self) -> Option<u64> {
        let mut started = self.events.iter();
        let started = started.find(|(_, event)| matches!(event.kind, EventKind::Started { .. }));
        started.map(|(sequence, _)| *sequence)
    }

    /// Whether an event names this copy of the start request.
    fn names(&self, wanted: &str) -> bool {
        self.events.iter().any(|(_, event)| match &event.kind {
            EventKind::Released {
                copy: Some(copy), ..
            }
            | EventKind::Moved { copy, .. } => copy.as_str() == wanted,
            _ => false,
        })
    }

    /// Returns every broken rule, and adds the operation to the totals.
    pub fn judge(&self, totals: &mut Totals) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut doubled = false;
        if self.unreadable > 0 {
            wrong.push(format!(
                "{} messages on its subject are no events",
                self.unreadable
            ));
        }

        let copies = self.starts.iter().filter_map(|(_, start)| {
            let copy = start.get("copy")?;
            Some(copy["id"].as_str().unwrap_or_default())
        });
        let copies: BTreeSet<&str> = copies.collect();
        wrong.extend(
            copies
                .iter()
                .filter(|copy| !self.names(copy))
                .map(|copy| format!("no event names the copy {copy}")),
        );
        let firsts = self
            .starts
            .iter()
            .filter(|(_, start)| start["copy"].is_null());
        match firsts.count() {
            0 => wrong.push("events without a start request".to_owned()),
            1 => {}
            n => {
                doubled = true;
                wrong.push(format!("{n} start requests are stored"));
            }
        }

        let mut attempt = 0;
        let mut last: Option<&Event> = None;
        for (_, event) in &self.events {
            let name = event.kind.name();
            if last.is_some_and(|last| last.kind.is_terminal()) {
                doubled = true;
                wrong.push(format!("{name} after the end"));
            }
            if let EventKind::Started { start_sequence, .. } = &event.kind {
                totals.attempts += 1;
                match last.map(|last| &last.kind) {
                    Some(EventKind::Started { .. }) => totals.takeovers += 1,
                    Some(EventKind::Released { .. }) => totals.releases += 1,
                    _ => {}
                }
                if event.attempt != attempt + 1 {
                    wrong.push(format!(
                        "attempt {} follows attempt {attempt}",
                        event.attempt
                    ));
                }
                if self
                    .starts
                    .iter()
                    .all(|(sequence, _)| sequence != start_sequence)
                {
                    wrong.push(format!(
                        "attempt {} acts on no start request",
                        event.attempt
                    ));
                }
                attempt = event.attempt;
            } else {
                if event.attempt != attempt {
                    wrong.push(format!(
                        "{name} of attempt {} during attempt {attempt}",
                        event.attempt
                    ));
                }
                // Only the attempt itself completes or releases. Ends by others (cancel, worker
                // lost) have other claims.
                let own = match &event.kind {
                    EventKind::Completed { .. } => true,
                    // A backend puts back what no queue holds.
                    EventKind::Released { copy, .. } => event.worker_id.is_some() || copy.is_none(),
                    _ => false,
                };
                if own && last.is_none_or(|last| last.claim_id != event.claim_id) {
                    wrong.push(format!(
                        "{name} by somebody who does not hold attempt {attempt}"
                    ));
                }
            }
            last = Some(event);
        }

        match last.map(|last| &last.kind) {
            Some(EventKind::Failed { error, .. }) if error.code == "worker_lost" => {
                totals.given_up += 1;
            }
            Some(kind) if kind.is_terminal() => {}
            Some(kind) => {
                totals.open += 1;
                wrong.push(format!("its last event is {}: it never ended", kind.name()));
            }
            None => {
                totals.open += 1;
                wrong.push("nobody ever began it".to_owned());
            }
        }

        totals.doubled += usize::from(doubled);
        wrong
    }
}

/// When operations begin to hold a key (+1) and cease to (-1), by sequence.
type Changes<'a> = Vec<(u64, i64, &'a str)>;

/// Every moment at which more operations hold a key than may. A permit belongs to an operation from its
/// first attempt to its end, and a unique key from the start request on.
pub fn judge_keys(histories: &BTreeMap<String, OperationHistory>) -> (usize, Vec<String>) {
    let mut used = 0;
    let mut wrong = Vec::new();
    for kind in ["unique", "concurrency"] {
        let mut keys: BTreeMap<String, (u64, Changes<'_>)> = BTreeMap::new();
        for (id, history) in histories {
            let Some((key, limit, held)) = history.holds(kind) else {
                continue;
            };
            used += 1;
            // One that ended before its first attempt never held a permit.
            if held.is_empty() {
                continue;
            }
            let (_, changes) = keys.entry(key).or_insert((limit, Vec::new()));
            changes.extend([(held.start, 1, id.as_str()), (held.end, -1, id.as_str())]);
        }

        for (key, (limit, mut changes)) in keys {
            changes.sort_unstable();
            let mut holders = 0;
            for (sequence, change, id) in changes {
                holders += change;
                if holders > i64::try_from(limit).unwrap_or(i64::MAX) {
                    wrong.push(format!(
                        "{holders} operations hold the {kind} key {key} at sequence {sequence}, with {id}; {limit} may"
                    ));
                }
            }
        }
    }
    (used, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    fn message(sequence: u64, subject: &str, payload: &Value) -> Stored {
        Stored {
            sequence,
            subject: subject.to_owned(),
            payload: Bytes::from(payload.to_string()),
        }
    }

    /// Judges one start request followed by events `(event, attempt, claim)`.
    fn judge(events: &[(&str, u32, &str)]) -> (Vec<String>, Totals) {
        let mut messages = vec![message(
            1,
            "ktrdr.start.dummy.any",
            &json!({"operation_id": "o"}),
        )];
        for (n, (event, attempt, claim)) in events.iter().enumerate() {
            let mut body = json!({
                "event": event, "operation_id": "o", "at": "2026-01-01T00:00:00Z", "worker_id": "w",
                "attempt": attempt, "claim": claim, "start_sequence": 1, "reason": "shutdown",
                "error": {"code": "x", "message": "x"}, "result": null,
            });
            if *event == "released" {
                body["error"] = Value::Null;
            }
            messages.push(message(2 + n as u64, "ktrdr.op.dummy.o", &body));
        }

        let histories = histories(&SubjectNames::new("ktrdr").unwrap(), &messages);
        let mut totals = Totals::default();

        (histories["o"].judge(&mut totals), totals)
    }

    #[test]
    fn lives_as_they_should_be() {
        for life in [
            &[("started", 1, "a"), ("completed", 1, "a")][..],
            &[
                ("started", 1, "a"),
                ("started", 2, "b"),
                ("completed", 2, "b"),
            ],
            &[
                ("started", 1, "a"),
                ("released", 1, "a"),
                ("started", 2, "b"),
                ("failed", 2, "b"),
            ],
            &[("cancelled", 0, "x")],
            &[("started", 1, "a"), ("failed", 1, "by another one")],
        ] {
            assert_eq!(judge(life).0, Vec::<String>::new(), "{life:?}");
        }

        let (_, totals) = judge(&[
            ("started", 1, "a"),
            ("started", 2, "b"),
            ("completed", 2, "b"),
        ]);
        assert_eq!((totals.attempts, totals.takeovers), (2, 1));
    }

    #[test]
    fn the_check_sees_what_it_is_there_for() {
        for (life, words) in [
            (&[][..], "nobody ever began it"),
            (&[("started", 1, "a")], "it never ended"),
            (
                &[
                    ("started", 1, "a"),
                    ("completed", 1, "a"),
                    ("completed", 1, "a"),
                ],
                "completed after the end",
            ),
            (
                &[
                    ("started", 1, "a"),
                    ("started", 2, "b"),
                    ("completed", 1, "a"),
                ],
                "completed of attempt 1",
            ),
            (
                &[
                    ("started", 1, "a"),
                    ("started", 2, "b"),
                    ("completed", 2, "a"),
                ],
                "does not hold",
            ),
            (
                &[("started", 2, "a"), ("completed", 2, "a")],
                "attempt 2 follows attempt 0",
            ),
        ] {
            let (wrong, _) = judge(life);
            assert!(
                wrong.iter().any(|text| text.contains(words)),
                "{life:?}: {wrong:?}"
            );
        }

        assert_eq!(judge(&[("started", 1, "a")]).1.open, 1);
        assert_eq!(
            judge(&[("cancelled", 0, "x"), ("started", 1, "a")])
                .1
                .doubled,
            1
        );
    }

    #[test]
    fn the_check_sees_too_many_holders_of_a_key() {
        let start = |id: &str, option: Value| {
            let mut body = json!({"operation_id": id, "operation_type": "dummy"});
            body.as_object_mut()
                .unwrap()
                .extend(option.as_object().unwrap().clone());
            ("ktrdr.start.dummy.any".to_owned(), body)
        };
        let event = |id: &str, event: &str| {
            let body = json!({
                "event": event, "operation_id": id, "at": "2026-01-01T00:00:00Z", "worker_id": "w",
                "attempt": 1, "claim": id, "start_sequence": 1, "result": null, "delivery": 1,
            });
            (format!("ktrdr.op.dummy.{id}"), body)
        };
        let judged = |messages: &[(String, Value)]| {
            let messages: Vec<_> = (1..)
                .zip(messages)
                .map(|(sequence, (subject, body))| message(sequence, subject, body))
                .collect();
            judge_keys(&histories(&SubjectNames::new("ktrdr").unwrap(), &messages))
        };

        let limited = json!({"execution": {"concurrency": {"key": "k", "limit": 1}}});
        let both = [start("a", limited.clone()), start("b", limited)];
        let [started, next] = [event("a", "started"), event("b", "started")];
        let ended = event("a", "completed");
        let [first, second] = both;
        let fine = [
            first.clone(),
            second.clone(),
            started.clone(),
            ended.clone(),
            next.clone(),
        ];
        assert_eq!(judged(&fine), (2, Vec::new()));
        let (_, wrong) = judged(&[first, second, started, next, ended]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");

        let unique = json!({"unique": {"key": "k"}});
        let (_, wrong) = judged(&[start("a", unique.clone()), start("b", unique)]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }
}
