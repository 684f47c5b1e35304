//! The state machine under every order of messages: a model of the log with workers that crash,
//! come back and repeat themselves, and a reader that meets each message any number of times.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::claim::{ClaimDecision, DeliveryInfo, Terms, decide};
use crate::event::{Failure, ReleaseReason, ResultPayload};
use crate::id::{CopyId, OperationId, Queue, WorkerId};
use crate::time::Timestamp;

pub(crate) fn event(worker: u8, attempt: u32, kind: EventKind) -> Event {
    Event {
        operation_id: OperationId::new("op").unwrap(),
        at: Timestamp::EPOCH,
        worker_id: Some(WorkerId::new(format!("w{worker}")).unwrap()),
        attempt,
        claim_id: Some(format!("w{worker}-{attempt}")),
        kind,
    }
}

fn kind(which: u8) -> EventKind {
    match which % 7 {
        0 => EventKind::Started {
            start_sequence: 1,
            delivery: 1,
        },
        1 => EventKind::Released {
            reason: ReleaseReason::Shutdown,
            error: None,
            retry_at: None,
            copy: None,
        },
        2 => EventKind::Completed {
            result: ResultPayload::Inline(RawValue::NULL.to_owned()),
            progress: None,
        },
        3 => EventKind::Failed {
            error: Failure {
                code: "x".to_owned(),
                message: "x".to_owned(),
                permanent: false,
            },
            progress: None,
        },
        4 => EventKind::Cancelled {
            forced: false,
            progress: None,
            requested_by: None,
            reason: None,
        },
        5 => EventKind::Released {
            reason: ReleaseReason::Retry,
            error: None,
            retry_at: None,
            copy: Some(CopyId::new("c").unwrap()),
        },
        _ => EventKind::Moved {
            queue: Queue::new("any-p1").unwrap(),
            retry_at: None,
            copy: CopyId::new("m").unwrap(),
        },
    }
}

/// The subject as JetStream keeps it: a publish is taken only if it expects the last sequence.
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) event: Event,
}

#[derive(Default)]
pub(crate) struct Log {
    clock: u64,
    pub(crate) entries: Vec<Stored>,
}

impl Log {
    fn last_sequence(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.sequence)
    }

    pub(crate) fn publish(&mut self, expected: u64, event: Event) -> Option<u64> {
        if expected != self.last_sequence() {
            return None;
        }
        let sequence = self.next_sequence();
        self.entries.push(Stored { sequence, event });
        Some(sequence)
    }

    /// Takes the next sequence of the stream. Other subjects share it.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.clock += 3;
        self.clock
    }

    fn read(&self) -> FoldedLog {
        let mut log = FoldedLog::default();
        for entry in &self.entries {
            log.push(entry.sequence, Some(entry.event.clone()));
        }
        log
    }

    /// The log as the last event tells it, without the newest `stale_by` events.
    pub(crate) fn read_last(&self, stale_by: usize) -> FoldedLog {
        let known = self.entries.len().saturating_sub(stale_by);
        let last = known.checked_sub(1).map(|index| &self.entries[index]);
        last.map_or_else(FoldedLog::default, |entry| {
            FoldedLog::ending_with(entry.sequence, entry.event.clone())
        })
    }
}

/// The belief of one worker: the attempt it holds and the sequence of its own `started`.
#[derive(Clone, Copy)]
struct Held {
    attempt: u32,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The request is delivered (again) to a worker, even to one that is busy. The worker reads the
    /// last event alone, from a copy of the log that may lag.
    Deliver { worker: u8, stale_by: usize },
    /// A worker finishes what it believes it holds, however long ago it was fenced.
    Finish(u8, u8),
    /// A worker forgets everything.
    Crash(u8),
    /// A backend cancels from a possibly stale reading.
    Cancel { stale_by: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0usize..3).prop_map(|(worker, stale_by)| Step::Deliver { worker, stale_by }),
        3 => (0u8..4, 1u8..5).prop_map(|(worker, kind)| Step::Finish(worker, kind)),
        1 => (0u8..4).prop_map(Step::Crash),
        1 => (0usize..3).prop_map(|stale_by| Step::Cancel { stale_by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// In any order of deliveries, deaths and late returns, the log holds at most
    /// one terminal event, it is the last one, every event in it is legal, and attempts count up by
    /// one.
    #[test]
    fn no_schedule_yields_two_terminal_states(steps in prop::collection::vec(step(), 1..60)) {
        let mut log = Log::default();
        let mut held: [Option<Held>; 4] = [None; 4];
        let mut deliveries = 0;
        for step in steps {
            match step {
                Step::Deliver { worker, stale_by } => { deliveries += 1; let delivery = DeliveryInfo { start_sequence: 1, count: deliveries }; match decide(&log.read_last(stale_by), delivery, Terms::new(None, 5), Timestamp::EPOCH) {
                    ClaimDecision::Start { attempt, expected, .. } => {
                        if let Some(sequence) = log.publish(expected, event(worker, attempt, EventKind::Started { start_sequence: 1, delivery: deliveries })) {
                            held[worker as usize] = Some(Held { attempt, sequence });
                        }
                    }
                    ClaimDecision::GiveUp { attempts, expected } => {
                        log.publish(expected, event(worker, attempts, kind(3)));
                    }
                    ClaimDecision::Drop(_) => prop_assert!(log.read().state.status.is_terminal(), "a stale reading dropped a request"),
                    ClaimDecision::Expire { .. } | ClaimDecision::NotBefore(_) | ClaimDecision::Outdated => {}
                } }
                Step::Finish(worker, which) => {
                    if let Some(Held { attempt, sequence }) = held[worker as usize].take() {
                        log.publish(sequence, event(worker, attempt, kind(which)));
                    }
                }
                Step::Crash(worker) => held[worker as usize] = None,
                Step::Cancel { stale_by } => {
                    let known = log.entries.len().saturating_sub(stale_by);
                    let (sequence, attempt, ended) = known.checked_sub(1).map_or((0, 0, false), |i| {
                        let entry = &log.entries[i];
                        (entry.sequence, entry.event.attempt, entry.event.kind.is_terminal())
                    });
                    if !ended {
                        log.publish(sequence, event(9, attempt, kind(4)));
                    }
                }
            }
        }
        let terminal = log.entries.iter().filter(|entry| entry.event.kind.is_terminal()).count();
        prop_assert!(terminal <= 1);
        let mut state = State::default();
        for entry in &log.entries {
            prop_assert!(!state.status.is_terminal(), "something follows the end");
            let before = state;
            prop_assert_eq!(state.apply(entry.sequence, &entry.event), Ok(()));
            prop_assert!(state.attempt == before.attempt || state.attempt == before.attempt + 1);
        }
        let (all, last) = (log.read(), log.read_last(0));
        prop_assert_eq!((all.tail, all.state), (last.tail, last.state));
    }

    /// A reader that meets messages repeatedly (a replay that starts over) ends where a reader that
    /// met each once does.
    #[test]
    fn duplicates_and_replays_change_nothing(
        events in prop::collection::vec((0u8..7, 0u32..4), 1..30),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut log = Log::default();
        for (which, attempt) in events {
            let expected = log.last_sequence();
            log.publish(expected, event(1, attempt, kind(which)));
        }
        let once = log.read().state;
        let mut repeated = State::default();
        for (i, entry) in log.entries.iter().enumerate() {
            let _ = repeated.apply(entry.sequence, &entry.event);
            for index in &again {
                let earlier = &log.entries[index.index(i + 1)];
                let _ = repeated.apply(earlier.sequence, &earlier.event);
            }
        }
        prop_assert_eq!(repeated, once);
    }

    /// Messages that no program of ours publishes, in any order: never a step backwards, and an end
    /// is an end.
    #[test]
    fn garbage_never_steps_backwards(events in prop::collection::vec((0u8..7, 0u32..6, 1u64..40), 1..60)) {
        let mut state = State::default();
        for (which, attempt, sequence) in events {
            let before = state;
            if state.apply(sequence, &event(1, attempt, kind(which))).is_err() {
                prop_assert_eq!(state, before);
            } else {
                prop_assert!(!before.status.is_terminal());
                prop_assert!(state.attempt >= before.attempt);
                prop_assert!(state.last_sequence > before.last_sequence);
            }
        }
    }
}

#[test]
fn every_arrow_of_the_drawing_and_no_other() {
    use Status::*;
    let allowed = [
        (Pending, 0, Running),
        (Running, 0, Running),
        (Running, 1, Pending),
        (Running, 2, Completed),
        (Pending, 3, Failed),
        (Running, 3, Failed),
        (Pending, 4, Cancelled),
        (Running, 4, Cancelled),
        (Pending, 5, Pending),
        (Running, 5, Pending),
        (Pending, 6, Pending),
    ];
    for from in Status::ALL {
        for which in 0..7u8 {
            let attempt = if which == 0 { 3 } else { 2 };
            let mut state = State {
                status: from,
                attempt: 2,
                last_sequence: 7,
            };
            let result = state.apply(8, &event(1, attempt, kind(which)));
            match allowed.iter().find(|(f, w, _)| *f == from && *w == which) {
                Some((_, _, to)) => assert_eq!((result, state.status), (Ok(()), *to)),
                None => assert!(result.is_err(), "{from} must not take event {which}"),
            }
        }
    }
}
