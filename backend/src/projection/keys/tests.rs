//! Who waits for a permit, and which keys have old entries.

use std::time::Duration;

use ktrdr_protocol::event::{Event, EventKind, ReleaseReason};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::keys::{Concurrency, Key, KeyDigest, KeyEntry, KeyKind, Unique};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::MANY_OLD;
use crate::projection::model::Model;

/// A model, and the sequence of the next message.
struct World {
    model: Model,
    next: u64,
}

fn dummy() -> WorkerType {
    WorkerType::new("dummy").unwrap()
}

fn id(text: &str) -> OperationId {
    OperationId::new(text).unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            model: Model::default(),
            next: 1,
        }
    }

    fn sequence(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn start_in(&mut self, name: &str, queue: &str, execution: ExecutionOptions) {
        let parameters = RawValue::from_string("{}".to_owned()).unwrap();
        let mut request = StartRequest::new(id(name), dummy(), parameters, execution);
        request.created_at = Timestamp::EPOCH;
        let sequence = self.sequence();
        let origin = Origin::from_token(queue).unwrap();
        self.model.start(sequence, origin, request).unwrap();
    }

    /// Starts an operation with this limit of the key.
    fn start(&mut self, name: &str, limit: u32) {
        self.start_in(name, "any", limited(limit));
    }

    fn event(&mut self, name: &str, attempt: u32, kind: EventKind) {
        let event = Event {
            operation_id: id(name),
            at: Timestamp::EPOCH,
            worker_id: Some(WorkerId::new("w").unwrap()),
            attempt,
            claim_id: None,
            kind,
        };
        let sequence = self.sequence();
        self.model.event(sequence, "dummy", event).unwrap();
    }

    fn run(&mut self, name: &str) {
        let started = EventKind::Started {
            start_sequence: 1,
            delivery: 1,
        };
        self.event(name, 1, started);
    }

    fn end(&mut self, name: &str) {
        let cancelled = EventKind::Cancelled {
            forced: false,
            progress: None,
            requested_by: None,
        };
        self.event(name, 1, cancelled);
    }

    fn entry(&mut self, holders: &[&str]) {
        let key = Key::new("k");
        let digest = KeyDigest::of(&key);
        let holders = holders.iter().map(|name| id(name)).collect();
        let entry = KeyEntry { key, holders };
        let sequence = self.sequence();
        let key = (KeyKind::Concurrency, digest);
        self.model.key_entry(sequence, &dummy(), key, Some(entry));
    }

    /// How many permits are held that an operation waits for; `None` when it does not wait.
    fn held(&self, name: &str) -> Option<u32> {
        let view = self.model.get(name).unwrap();
        view.waits_for_permit.map(|wait| wait.held)
    }

    fn waiting(&self) -> u64 {
        let queues = self.model.queues();
        queues.iter().map(|queue| queue.waiting_for_permit).sum()
    }
}

fn limited(limit: u32) -> ExecutionOptions {
    ExecutionOptions {
        concurrency: Some(Concurrency {
            key: Key::new("k"),
            limit,
        }),
        ..ExecutionOptions::default()
    }
}

#[test]
fn who_finds_as_many_holders_as_its_limit_allows_waits() {
    let mut world = World::new();
    for (name, limit) in [("a", 1), ("b", 1), ("c", 2), ("d", 0)] {
        world.start(name, limit);
    }
    assert_eq!(world.waiting(), 0);

    // The holder itself waits for nothing, whether it runs yet or not.
    world.entry(&["a"]);
    let held = ["a", "b", "c", "d"].map(|name| world.held(name));
    assert_eq!(held, [None, Some(1), None, Some(1)]);
    world.run("a");
    assert_eq!(world.held("b"), Some(1));

    world.entry(&["a", "c"]);
    world.run("c");
    assert_eq!((world.held("b"), world.waiting()), (Some(2), 2));

    // One that comes later finds the same.
    world.start("e", 2);
    assert_eq!(world.held("e"), Some(2));
    world.end("a");
    assert_eq!((world.held("b"), world.held("e")), (Some(1), None));
    world.end("c");
    assert_eq!((world.held("b"), world.waiting()), (None, 0));
}

#[test]
fn ended_holders_of_an_entry_hold_nothing_and_unknown_ones_do() {
    let mut world = World::new();
    world.start("a", 1);
    world.run("a");
    world.end("a");
    world.start("b", 1);

    world.entry(&["a"]);
    assert_eq!(world.held("b"), None);
    world.entry(&["a", "stranger"]);
    assert_eq!(world.held("b"), Some(1));
    let strangers = world.model.strangers();
    assert_eq!(strangers.len(), 1, "{strangers:?}");
    assert_eq!(strangers[0].id, id("stranger"));
}

#[test]
fn an_operation_that_is_delayed_or_was_cancelled_does_not_wait_for_a_permit() {
    let mut world = World::new();
    world.entry(&["stranger"]);
    world.start_in("later", "any-later", limited(1));
    world.start("gone", 1);
    assert_eq!((world.held("later"), world.held("gone")), (None, Some(1)));

    world.event(
        "gone",
        0,
        EventKind::Cancelled {
            forced: false,
            progress: None,
            requested_by: None,
        },
    );

    assert_eq!(world.waiting(), 0);
    assert_eq!(world.model.strangers().len(), 0, "nobody is kept waiting");
}

#[test]
fn a_retry_keeps_its_permit_and_does_not_wait_for_one() {
    let mut world = World::new();
    world.start("a", 1);
    world.start("b", 1);
    world.entry(&["a"]);
    world.run("a");

    let released = EventKind::Released {
        reason: ReleaseReason::Retry,
        error: None,
        retry_at: None,
        copy: None,
    };
    world.event("a", 1, released);

    assert_eq!((world.held("a"), world.held("b")), (None, Some(1)));
}

#[test]
fn a_forgotten_operation_holds_and_waits_for_nothing() {
    let mut world = World::new();
    world.start("a", 1);
    world.entry(&["a"]);
    world.run("a");
    world.start("b", 1);
    assert_eq!(world.held("b"), Some(1));

    // The start request of the holder leaves the stream.
    world.model.forget_before(2);

    assert_eq!(world.held("b"), None);
    world.model.forget_before(world.next);
    assert_eq!(
        world.model.key_figures(Timestamp::EPOCH, Instant::now())[0].held,
        0
    );
}

#[tokio::test]
async fn figures_say_for_how_long_nobody_has_moved() {
    let mut world = World::new();
    let unique = ExecutionOptions {
        unique: Some(Unique {
            key: Key::new("u"),
            on_conflict: ktrdr_protocol::keys::OnConflict::Reject,
        }),
        ..ExecutionOptions::default()
    };
    world.start_in("u", "any", unique);
    world.start("a", 1);
    world.entry(&["a"]);
    world.run("a");
    let at = |seconds| Timestamp::EPOCH.plus(Duration::from_secs(seconds));
    let stuck = |world: &World| world.model.key_figures(at(7200), Instant::now())[0].stuck;
    assert_eq!(stuck(&world), Duration::ZERO, "nobody waits");

    world.start("b", 1);

    assert_eq!(stuck(&world), Duration::from_secs(7200));
    let figures = &world.model.key_figures(at(10), Instant::now())[0];
    assert_eq!((figures.unique, figures.held, figures.waiting), (1, 1, 1));
    world.run("u");
    world.end("u");
    world.end("a");
    let figures = &world.model.key_figures(at(10), Instant::now())[0];
    assert_eq!((figures.unique, figures.held, figures.waiting), (0, 0, 0));
}

#[test]
fn keys_with_many_old_entries_are_named_until_these_are_removed() {
    let mut world = World::new();
    for _ in 0..=MANY_OLD {
        assert!(world.model.crowded_keys(10).is_empty());
        world.entry(&["a"]);
    }

    let crowded = world.model.crowded_keys(10);
    assert_eq!(crowded.len(), 1);
    assert_eq!(
        (crowded[0].last, crowded[0].old),
        (world.next - 1, MANY_OLD)
    );
    assert!(world.model.crowded_keys(0).is_empty());

    // An entry that comes meanwhile counts for the next time.
    world.entry(&["a"]);
    world.model.note_purged(&crowded[0]);
    for _ in 0..MANY_OLD - 1 {
        assert!(world.model.crowded_keys(10).is_empty());
        world.entry(&["a"]);
    }
    assert_eq!(world.model.crowded_keys(10).len(), 1);
}
