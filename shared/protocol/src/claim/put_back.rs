//! Putting back under every order of messages: queues that lose requests and deliver them again,
//! workers that crash and come back, backends that are wrong about what a queue holds, read outdated
//! logs, act at the same time, and die between the event and the copy. Moves are among them, and the
//! operation may be delayed and may expire.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::event::{Event, Failure, ReleaseReason, ResultPayload};
use crate::id::{CopyId, Queue};
use crate::start_request::NamedCopy;
use crate::state::tests::{Log, event};
use crate::state::{State, Status};

const MAX_ATTEMPTS: u32 = 5;

/// One stored start request of the operation.
#[derive(Debug, Clone)]
struct Request {
    sequence: u64,
    copy: Option<NamedCopy>,
    deliveries: u64,
    /// Whether the queue still delivers it.
    is_held: bool,
}

/// What a worker believes to run.
#[derive(Debug, Clone)]
struct Held {
    attempt: u32,
    /// Sequence of its `started`.
    sequence: u64,
    /// Which request it runs.
    request: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A request is delivered, to any worker, even to one that is busy. The reading may lag.
    Deliver {
        request: prop::sample::Index,
        worker: usize,
        stale_by: usize,
    },
    /// A worker ends what it believes to run, however long ago it was fenced, and may die before it
    /// acknowledges the request.
    Finish { worker: usize, how: u8, acks: bool },
    /// A worker forgets everything.
    Crash(usize),
    /// The queue loses a request.
    Lose(prop::sample::Index),
    /// A backend takes the operation for lost, rightly or not, by a reading that may lag. It may die
    /// between the event and the copy.
    PutBack { stale_by: usize, publishes: bool },
    /// A backend moves the operation into another queue. It may die between the event and the copy.
    Move { stale_by: usize, publishes: bool },
    /// A backend ends the operation if it has expired.
    Expire { stale_by: usize },
    /// A second passes.
    Tick,
    /// A backend publishes the copy that its reading names, whether it is stored or not.
    PublishAgain { stale_by: usize },
    /// The stream forgets message ids.
    ForgetIds,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        5 => (index(), 0usize..4, 0usize..3)
            .prop_map(|(request, worker, stale_by)| Step::Deliver { request, worker, stale_by }),
        3 => (0usize..4, 0u8..4, any::<bool>())
            .prop_map(|(worker, how, acks)| Step::Finish { worker, how, acks }),
        1 => (0usize..4).prop_map(Step::Crash),
        2 => index().prop_map(Step::Lose),
        3 => (0usize..3, any::<bool>())
            .prop_map(|(stale_by, publishes)| Step::PutBack { stale_by, publishes }),
        2 => (0usize..3, any::<bool>())
            .prop_map(|(stale_by, publishes)| Step::Move { stale_by, publishes }),
        1 => (0usize..3).prop_map(|stale_by| Step::Expire { stale_by }),
        2 => Just(Step::Tick),
        1 => (0usize..3).prop_map(|stale_by| Step::PublishAgain { stale_by }),
        1 => Just(Step::ForgetIds),
    ]
}

/// A stream with the log and the requests of one operation, and its workers.
struct World {
    log: Log,
    requests: Vec<Request>,
    held: [Option<Held>; 4],
    message_ids: HashSet<CopyId>,
    copies: usize,
    now: Timestamp,
    /// When the operation may start, and until when.
    times: (Option<Timestamp>, Option<Timestamp>),
}

const SECOND: Duration = Duration::from_secs(1);

/// Times within the first seconds.
fn times() -> impl Strategy<Value = (Option<Timestamp>, Option<Timestamp>)> {
    let time = || prop::option::of((1u32..8).prop_map(|n| Timestamp::EPOCH.plus(SECOND * n)));
    (time(), time())
}

impl World {
    fn new(times: (Option<Timestamp>, Option<Timestamp>)) -> Self {
        let mut log = Log::default();
        let first = Request {
            sequence: log.next_sequence(),
            copy: None,
            deliveries: 0,
            is_held: true,
        };
        Self {
            log,
            requests: vec![first],
            held: [const { None }; 4],
            message_ids: HashSet::new(),
            copies: 0,
            now: Timestamp::EPOCH,
            times,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver {
                request,
                worker,
                stale_by,
            } => self.deliver(request.index(self.requests.len()), worker, stale_by),
            Step::Finish { worker, how, acks } => self.finish(worker, how, acks),
            Step::Crash(worker) => self.held[worker] = None,
            Step::Lose(request) => {
                let request = request.index(self.requests.len());
                self.requests[request].is_held = false;
            }
            Step::PutBack {
                stale_by,
                publishes,
            } => self.put_back(stale_by, publishes),
            Step::Move {
                stale_by,
                publishes,
            } => self.move_it(stale_by, publishes),
            Step::Expire { stale_by } => self.expire(stale_by),
            Step::Tick => self.now = self.now.plus(SECOND),
            Step::PublishAgain { stale_by } => self.publish_again(stale_by),
            Step::ForgetIds => self.message_ids.clear(),
        }
    }

    /// The log as a worker reads it for this request: it may lag, but it reaches the event that
    /// names the copy.
    fn read_for(&self, copy: Option<&NamedCopy>, stale_by: usize) -> FoldedLog {
        let read = self.log.read_last(stale_by);
        match copy {
            Some(copy) if read.tail < copy.named_at => self.log.read_last(0),
            _ => read,
        }
    }

    fn deliver(&mut self, index: usize, worker: usize, stale_by: usize) {
        if !self.requests[index].is_held {
            return;
        }
        self.requests[index].deliveries += 1;
        let Request {
            sequence,
            copy,
            deliveries,
            ..
        } = self.requests[index].clone();
        let delivery = DeliveryInfo {
            start_sequence: sequence,
            count: deliveries,
        };
        let read = self.read_for(copy.as_ref(), stale_by);
        let copy = copy.map(|copy| copy.id);

        let (due, deadline) = self.times;
        let terms = Terms {
            due,
            deadline,
            ..Terms::new(copy.as_ref(), MAX_ATTEMPTS)
        };
        match decide(&read, delivery, terms, self.now) {
            ClaimDecision::Start {
                attempt, expected, ..
            } => {
                let kind = EventKind::Started {
                    start_sequence: sequence,
                    delivery: deliveries,
                };
                let started = event(worker as u8, attempt, kind);
                if let Some(sequence) = self.log.publish(expected, started) {
                    if attempt == 1 {
                        assert!(due.is_none_or(|due| due <= self.now), "started too early");
                        assert!(
                            deadline.is_none_or(|deadline| deadline > self.now),
                            "started too late"
                        );
                    }
                    self.held[worker] = Some(Held {
                        attempt,
                        sequence,
                        request: index,
                    });
                }
            }
            ClaimDecision::GiveUp { attempts, expected } => {
                let given_up = event(worker as u8, attempts, failed());
                self.log.publish(expected, given_up);
            }
            ClaimDecision::Expire { expected } => {
                self.log.publish(expected, event(worker as u8, 0, failed()));
            }
            ClaimDecision::Drop(why) => {
                // Of a copy that was stored twice, one may be dropped: while an outdated reading shows
                // that the other one is being run.
                assert!(
                    !self.counts(index) || self.is_stored_twice(index),
                    "dropped the request that counts: {why}"
                );
                self.requests[index].is_held = false;
            }
            ClaimDecision::NotBefore(_) | ClaimDecision::Outdated => {}
        }
    }

    /// Whether this request is the one that may still be run.
    fn counts(&self, index: usize) -> bool {
        let request = &self.requests[index];
        let log = self.log.read_last(0);
        let Some(last) = log.last else {
            return request.copy.is_none();
        };
        match last.kind {
            EventKind::Started { start_sequence, .. } => start_sequence == request.sequence,
            EventKind::Released { copy, .. } => {
                copy.as_ref() == request.copy.as_ref().map(|copy| &copy.id)
            }
            EventKind::Moved { copy, .. } => {
                Some(&copy) == request.copy.as_ref().map(|copy| &copy.id)
            }
            _ => false,
        }
    }

    /// Whether another request has the name of this copy.
    fn is_stored_twice(&self, index: usize) -> bool {
        let name = |request: &Request| request.copy.clone().map(|copy| copy.id);
        let own = name(&self.requests[index]);
        let same = self.requests.iter().filter(|other| name(other) == own);
        own.is_some() && same.count() > 1
    }

    fn finish(&mut self, worker: usize, how: u8, acks: bool) {
        let Some(Held {
            attempt,
            sequence,
            request,
        }) = self.held[worker].take()
        else {
            return;
        };
        let kind = match how {
            0 => completed(),
            1 => failed(),
            _ => EventKind::Released {
                reason: ReleaseReason::Shutdown,
                error: None,
                retry_at: None,
                copy: self.requests[request].copy.clone().map(|copy| copy.id),
            },
        };
        let is_end = kind.is_terminal();
        let is_stored = self
            .log
            .publish(sequence, event(worker as u8, attempt, kind))
            .is_some();
        if is_stored && is_end && acks {
            self.requests[request].is_held = false;
        }
    }

    fn put_back(&mut self, stale_by: usize, publishes: bool) {
        let read = self.log.read_last(stale_by);
        if read.state.status.is_terminal() {
            return;
        }
        self.copies += 1;
        let copy = CopyId::new(format!("c{}", self.copies)).unwrap();
        let kind = EventKind::Released {
            reason: ReleaseReason::Retry,
            error: None,
            retry_at: None,
            copy: Some(copy.clone()),
        };
        let named = Event {
            worker_id: None,
            ..event(9, read.state.attempt, kind)
        };
        if let Some(named_at) = self.log.publish(read.tail, named)
            && publishes
        {
            self.publish_copy(NamedCopy { id: copy, named_at });
        }
    }

    fn move_it(&mut self, stale_by: usize, publishes: bool) {
        let read = self.log.read_last(stale_by);
        if read.state.status != Status::Pending {
            return;
        }
        self.copies += 1;
        let copy = CopyId::new(format!("c{}", self.copies)).unwrap();
        let kind = EventKind::Moved {
            queue: Queue::new("any-p1").unwrap(),
            retry_at: None,
            copy: copy.clone(),
        };
        let moved = Event {
            worker_id: None,
            ..event(9, read.state.attempt, kind)
        };
        if let Some(named_at) = self.log.publish(read.tail, moved)
            && publishes
        {
            self.publish_copy(NamedCopy { id: copy, named_at });
        }
    }

    fn expire(&mut self, stale_by: usize) {
        let read = self.log.read_last(stale_by);
        let has_expired = self.times.1.is_some_and(|deadline| deadline <= self.now);
        if has_expired && read.state.status == Status::Pending && read.state.attempt == 0 {
            let expired = Event {
                worker_id: None,
                ..event(9, 0, failed())
            };
            self.log.publish(read.tail, expired);
        }
    }

    fn publish_again(&mut self, stale_by: usize) {
        let read = self.log.read_last(stale_by);
        if let Some(Event {
            kind:
                EventKind::Released {
                    copy: Some(copy), ..
                }
                | EventKind::Moved { copy, .. },
            ..
        }) = read.last
        {
            self.publish_copy(NamedCopy {
                id: copy,
                named_at: read.tail,
            });
        }
    }

    /// The message id is made from the copy, so the stream keeps one while it remembers the id.
    fn publish_copy(&mut self, copy: NamedCopy) {
        if self.message_ids.insert(copy.id.clone()) {
            let sequence = self.log.next_sequence();
            self.requests.push(Request {
                sequence,
                copy: Some(copy),
                deliveries: 0,
                is_held: true,
            });
        }
    }

    /// From here on everything works: what the queue holds is delivered, and what no queue holds is
    /// put back. Whether the operation ends.
    fn settles(&mut self) -> bool {
        self.held = [const { None }; 4];
        self.now = self.now.plus(SECOND * 10);
        for _ in 0..6 {
            for index in 0..self.requests.len() {
                // The second delivery comes after the lease of the first.
                self.deliver(index, 0, 0);
                self.deliver(index, 0, 0);
                self.finish(0, 0, true);
            }
            if self.log.read_last(0).state.status.is_terminal() {
                return true;
            }
            let is_held = |index: usize| self.requests[index].is_held && self.counts(index);
            if !(0..self.requests.len()).any(is_held) {
                self.message_ids.clear();
                self.put_back(0, true);
            }
        }
        false
    }
}

fn completed() -> EventKind {
    EventKind::Completed {
        result: ResultPayload::Inline(RawValue::NULL.to_owned()),
        progress: None,
    }
}

fn failed() -> EventKind {
    EventKind::Failed {
        error: Failure {
            code: "x".to_owned(),
            message: "x".to_owned(),
            permanent: false,
        },
        progress: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost, put back and moved, rightly or not: the first attempt begins within its times, every event in the log is legal, there is one
    /// end at most, the request that counts is never dropped, and putting back uses up no attempt.
    /// And once nothing goes wrong any more, the operation ends.
    #[test]
    fn an_operation_that_is_put_back_at_any_time_ends_once(
        steps in prop::collection::vec(step(), 1..60),
        times in times(),
    ) {
        let mut world = World::new(times);

        for step in steps {
            world.step(step);
        }

        prop_assert!(world.settles(), "the operation does not end");
        let mut state = State::default();
        for entry in &world.log.entries {
            prop_assert!(!state.status.is_terminal(), "something follows the end");
            let before = state;
            prop_assert_eq!(state.apply(entry.sequence, &entry.event), Ok(()));
            let is_new_attempt = matches!(entry.event.kind, EventKind::Started { .. });
            prop_assert_eq!(state.attempt, before.attempt + u32::from(is_new_attempt));
        }
        prop_assert!(state.status.is_terminal());
    }
}
