//! Who waits for a permit, and which keys have old entries.

use std::time::Duration;

use ktrdr_protocol::event::{Event, EventKind, ReleaseReason};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::keys::{Concurrency, Key, KeyDigest, KeyEntry, KeyKind, MAX_LIMIT, Unique};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{MANY_OLD, MAX_HOLDERS, MAX_HOLDERS_OF_TYPE, MAX_KEYS_OF_TYPE};
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
            reason: None,
        };
        self.event(name, 1, cancelled);
    }

    fn entry(&mut self, holders: &[&str]) {
        let holders = holders.iter().map(|name| id(name)).collect();
        self.entry_of(&dummy(), "k", holders);
    }

    fn entry_of(&mut self, worker_type: &WorkerType, key: &str, holders: Vec<OperationId>) {
        let key = Key::new(key);
        let digest = KeyDigest::of(&key);
        let entry = KeyEntry { key, holders };
        let sequence = self.sequence();
        let key = (KeyKind::Concurrency, digest);
        self.model
            .key_entry(sequence, worker_type, key, Some(entry));
    }

    /// All holders that are remembered.
    fn remembered(&self) -> usize {
        let limited = self.model.keys.limited.values();
        limited.map(|key| key.holders.len()).sum()
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
    world.entry(&["a", "unknown"]);
    assert_eq!(world.held("b"), Some(1));
    let unknown = world.model.unknown_holders();
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert_eq!(unknown[0].id, id("unknown"));
}

#[test]
fn an_operation_that_is_delayed_or_was_cancelled_does_not_wait_for_a_permit() {
    let mut world = World::new();
    world.entry(&["unknown"]);
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
            reason: None,
        },
    );

    assert_eq!(world.waiting(), 0);
    assert_eq!(
        world.model.unknown_holders().len(),
        0,
        "nobody is kept waiting"
    );
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
        assert!(world.model.keys_with_many_old(10).is_empty());
        world.entry(&["a"]);
    }

    let many = world.model.keys_with_many_old(10);
    assert_eq!(many.len(), 1);
    assert_eq!((many[0].last, many[0].old), (world.next - 1, MANY_OLD));
    assert!(world.model.keys_with_many_old(0).is_empty());

    // An entry that comes meanwhile counts for the next time.
    world.entry(&["a"]);
    world.model.note_purged(&many[0]);
    for _ in 0..MANY_OLD - 1 {
        assert!(world.model.keys_with_many_old(10).is_empty());
        world.entry(&["a"]);
    }
    assert_eq!(world.model.keys_with_many_old(10).len(), 1);
}

#[test]
fn made_up_keys_and_holders_are_not_all_remembered_and_push_out_nobody_else() {
    let mut world = World::new();
    let made_up = |type_number: usize| WorkerType::new(format!("hostile-{type_number}")).unwrap();
    let holders: Vec<_> = (0..2000).map(|number| id(&format!("h{number}"))).collect();
    let keys = 2 * MAX_HOLDERS_OF_TYPE / holders.len();
    let flood = |world: &mut World, type_number: usize| {
        for key in 0..keys {
            world.entry_of(&made_up(type_number), &format!("k{key}"), holders.clone());
        }
    };

    flood(&mut world, 0);

    assert_eq!(world.remembered(), MAX_HOLDERS_OF_TYPE);
    world.start("b", 1);
    world.entry(&["a"]);
    assert_eq!(world.held("b"), Some(1), "another type has room");

    // Not even many types together have room for more; what is remembered stays.
    for type_number in 1..=MAX_HOLDERS / MAX_HOLDERS_OF_TYPE {
        flood(&mut world, type_number);
    }
    assert!(world.remembered() <= MAX_HOLDERS);
    assert_eq!(world.held("b"), Some(1));

    // Holders that are gone make room.
    for key in 0..keys {
        world.entry_of(&made_up(0), &format!("k{key}"), Vec::new());
    }
    let before = world.remembered();
    world.entry_of(&made_up(0), "another", holders.clone());
    assert_eq!(world.remembered(), before + holders.len());
}

#[test]
fn of_many_keys_those_used_last_are_counted() {
    let mut world = World::new();
    for key in 0..=MAX_KEYS_OF_TYPE {
        world.entry_of(&dummy(), &format!("k{key}"), Vec::new());
    }

    let keys = &world.model.keys;
    assert!(keys.entries.len() <= MAX_KEYS_OF_TYPE / 2 + 1);
    let last = keys.entries.values().map(|entries| entries.last).max();
    assert_eq!(last, Some(world.next - 1));
    assert_eq!(keys.types[0].keys, keys.entries.len());
}

#[test]
fn an_unknown_holder_that_is_gone_holds_nothing() {
    let mut world = World::new();
    world.entry(&["unknown"]);
    world.start("b", 1);
    let unknown = world.model.unknown_holders();
    assert_eq!(world.held("b"), Some(1));

    world.model.release_unknown(&unknown[0]);

    assert_eq!(world.held("b"), None);
    assert_eq!(world.model.unknown_holders().len(), 0);

    // One that was started meanwhile keeps its permit.
    world.entry(&["unknown"]);
    world.start("unknown", 1);
    world.model.release_unknown(&unknown[0]);
    assert_eq!(world.held("b"), Some(1));
}

#[test]
fn a_limit_of_0_is_shown_as_1() {
    let mut world = World::new();
    world.start("b", 0);
    world.entry(&["a"]);

    let wait = world.model.get("b").unwrap().waits_for_permit.unwrap();

    assert_eq!((wait.limit, wait.held), (1, 1));
}

#[test]
fn a_limit_beyond_the_largest_is_shown_as_the_largest() {
    let mut world = World::new();
    let holders: Vec<String> = (0..MAX_LIMIT).map(|number| format!("h{number}")).collect();
    let holders: Vec<&str> = holders.iter().map(String::as_str).collect();
    world.start("b", 5 * MAX_LIMIT);
    world.entry(&holders);

    let wait = world.model.get("b").unwrap().waits_for_permit.unwrap();

    assert_eq!((wait.limit, wait.held), (MAX_LIMIT, MAX_LIMIT));
}
