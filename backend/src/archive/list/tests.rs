//! A list over stream and archive is the list of a backend that forgets nothing.

use ktrdr_protocol::event::{Event, EventKind, Failure, ResultPayload};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::query::ListOrder;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::RwLock;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::{schema, store};
use super::*;
use crate::projection::filter::{Filter, Search};
use crate::projection::model::Model;
use crate::projection::record::Extent;

impl Look for RwLock<Model> {
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.read())
    }
}

const TYPES: [&str; 3] = ["backtesting", "dummy", "training"];

/// An operation as somebody remembers it who never forgets.
#[derive(Debug)]
struct Known {
    sequence: u64,
    id: String,
    worker_type: usize,
    /// The number of its worker type.
    label: &'static str,
    status: Status,
    ended: Option<i64>,
    in_stream: bool,
}

/// A model, a file, and everything that there ever was.
struct World {
    model: RwLock<Model>,
    file: Connection,
    together: Mutex<()>,
    known: Vec<Known>,
    sequence: u64,
    /// Distance of two sequences.
    step: u64,
    stream: i128,
    /// Keeps the file.
    _scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        model.keep_for_archive();
        model.set_stream(1);
        Self {
            model: RwLock::new(model),
            file: schema::open_to_write(&scratch.path().join("archive.db")).unwrap(),
            together: Mutex::default(),
            known: Vec::new(),
            sequence: 0,
            step: 2500,
            stream: 1,
            _scratch: scratch,
        }
    }

    /// The next sequence. Others have published in between, so operations are in several segments.
    fn next(&mut self) -> u64 {
        self.sequence += self.step;
        self.sequence
    }

    fn start(&mut self, worker_type: usize) {
        let sequence = self.next();
        let id = format!("op-{}-{sequence}", self.stream);
        let label = ["0", "1", "2"][worker_type];
        let mut execution = ExecutionOptions::default();
        execution.labels.add("a.b", label);
        let request = StartRequest {
            operation_id: OperationId::new(&*id).unwrap(),
            operation_type: WorkerType::new(TYPES[worker_type]).unwrap(),
            parameters: RawValue::from_string("{}".into()).unwrap(),
            execution,
            created_at: Timestamp::from_millis(sequence as i64),
            schema_digest: None,
            retry_of: None,
            resume_from: None,
            resume_ancestors: Vec::new(),
            schedule_id: None,
            requested_by: None,
            copy: None,
        };
        let origin = Origin::from_token("any").unwrap();
        self.model.write().start(sequence, origin, request).unwrap();
        self.known.push(Known {
            sequence,
            id,
            worker_type,
            label,
            status: Status::Pending,
            ended: None,
            in_stream: true,
        });
    }

    fn end(&mut self, which: usize, failed: bool) {
        let open = |known: &Known| known.in_stream && !known.status.is_terminal();
        let all: Vec<usize> = (0..self.known.len())
            .filter(|index| open(&self.known[*index]))
            .collect();
        let Some(index) = all.get(which % all.len().max(1)).copied() else {
            return;
        };
        let sequence = self.next();
        let known = &mut self.known[index];
        let (kind, status) = if failed {
            let error = Failure {
                code: "no".into(),
                message: "because".into(),
                permanent: true,
            };
            let progress = None;
            (EventKind::Failed { error, progress }, Status::Failed)
        } else {
            let requested_by = None;
            let cancelled = EventKind::Cancelled {
                forced: false,
                progress: None,
                requested_by,
                reason: None,
            };
            (cancelled, Status::Cancelled)
        };
        let event = Event {
            operation_id: OperationId::new(&*known.id).unwrap(),
            at: Timestamp::from_millis(sequence as i64),
            worker_id: None,
            attempt: 0,
            claim_id: None,
            kind,
        };
        self.model
            .write()
            .event(sequence, TYPES[known.worker_type], event)
            .unwrap();
        known.status = status;
        known.ended = Some(sequence as i64);
    }

    fn archive(&mut self, most: usize) {
        let batch = self.model.read().to_archive(most, usize::MAX);
        let missing = store::missing(&self.file, &batch).unwrap();
        let missing: Vec<_> = missing.into_iter().map(|ended| (ended, None)).collect();
        let note = || self.model.write().archived(&batch);
        store::write(&mut self.file, &missing, &self.together, note).unwrap();
    }

    /// The oldest operations leave the stream. Those that have not ended are gone.
    fn forget(&mut self, count: usize) {
        let in_stream = self.known.iter().filter(|known| known.in_stream);
        let Some(first) = in_stream.map(|known| known.sequence).nth(count) else {
            return;
        };
        self.model.write().forget_before(first);
        for known in &mut self.known {
            known.in_stream &= known.sequence >= first;
        }
        self.known
            .retain(|known| known.in_stream || known.status.is_terminal());
    }

    /// The stream is deleted, and another one takes its place.
    fn replace(&mut self) {
        self.model.write().take();
        self.stream += 1;
        self.model.write().set_stream(self.stream);
        self.sequence = 0;
        for known in &mut self.known {
            known.in_stream = false;
        }
        self.known.retain(|known| known.status.is_terminal());
    }
}

#[derive(Debug, Clone)]
enum Action {
    Start(usize),
    End(usize, bool),
    Archive(usize),
    Forget { count: usize, late: bool },
    Replace,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0usize..3).prop_map(Action::Start),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(which, failed)| Action::End(which, failed)),
        3 => (0usize..5).prop_map(Action::Archive),
        2 => (0usize..8, any::<bool>()).prop_map(|(count, late)| Action::Forget { count, late }),
        1 => Just(Action::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pages_are_those_of_a_list_that_forgets_nothing(
        actions in proptest::collection::vec(action(), 0..120),
        types in proptest::option::of(proptest::sample::subsequence(TYPES.to_vec(), 0..=3)),
        statuses in proptest::collection::btree_set(0usize..5, 0..4),
        code in proptest::option::of(any::<bool>()),
        label in proptest::option::of(proptest::sample::select(vec!["0", "1", "none"])),
        since in proptest::option::of(0i64..200_000),
        ended_since in proptest::option::of(0i64..200_000),
        search in proptest::option::of(any::<bool>()),
        offset in 0u64..30,
        limit in 1usize..20,
        oldest in any::<bool>(),
    ) {
        let mut world = World::new();
        for action in actions {
            match action {
                Action::Start(worker_type) => world.start(worker_type),
                Action::End(which, failed) => world.end(which, failed),
                Action::Archive(most) => world.archive(most),
                Action::Forget { count, late } => {
                    if !late {
                        world.archive(usize::MAX);
                    }
                    world.forget(count);
                    world.archive(usize::MAX);
                }
                Action::Replace => {
                    world.replace();
                    world.archive(usize::MAX);
                }
            }
        }
        let statuses: Vec<Status> = statuses.into_iter().map(|status| Status::ALL[status]).collect();

        let filter = Filter {
            types: types.as_ref().map(|types| types.iter().map(ToString::to_string).collect()),
            statuses: statuses.clone(),
            error_codes: code.map(|known| if known { "no" } else { "other" }.to_owned()).into_iter().collect(),
            labels: label.map(|value| format!("a.b:{value}").parse().unwrap()).into_iter().collect(),
            created_after: since.map(Timestamp::from_millis),
            ended_after: ended_since.map(Timestamp::from_millis),
            search: search.map(|_| Search::new("OP-1")),
            ..Filter::default()
        };
        let order = if oldest { ListOrder::Oldest } else { ListOrder::Newest };
        let mut wanted = Wanted {
            filter, order, offset, after: None, limit, bytes: usize::MAX, extent: Extent::InList,
        };

        let mut matching: Vec<(String, bool)> = world
            .known
            .iter()
            .rev()
            .filter(|known| types.as_ref().is_none_or(|types| types.contains(&TYPES[known.worker_type])))
            .filter(|known| statuses.is_empty() || statuses.contains(&known.status))
            .filter(|known| code.is_none_or(|is_known| is_known && known.status == Status::Failed))
            .filter(|known| label.is_none_or(|label| known.label == label))
            .filter(|known| since.is_none_or(|since| known.sequence as i64 >= since))
            .filter(|known| ended_since.is_none_or(|since| known.ended.is_some_and(|end| end >= since)))
            .filter(|known| search.is_none() || known.id.starts_with("op-1"))
            .map(|known| (known.id.clone(), !known.in_stream))
            .collect();
        if oldest {
            matching.reverse();
        }

        // All pages from this offset on, by their cursors.
        let mut shown: Vec<(String, bool)> = Vec::new();
        loop {
            let page = page(&world.file, &world.together, &world.model, &wanted).unwrap();
            prop_assert_eq!(page.total, matching.len() as u64);
            prop_assert!(page.views.len() <= limit);
            let views = page.views.iter();
            shown.extend(views.map(|view| (view.record.id.to_string(), view.archived)));
            if page.next.is_none() {
                break;
            }
            wanted.after = page.next;
        }
        let expected: Vec<(String, bool)> = matching.into_iter().skip(offset as usize).collect();
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn an_operation_that_is_written_again_is_there_once() {
    let mut world = World::new();
    world.start(0);
    world.end(0, false);
    let batch = world.model.read().to_archive(10, usize::MAX);
    let batch = vec![(batch[0].clone(), Some("7".to_owned()))];

    for written in [1, 0, 0] {
        let again = store::write(&mut world.file, &batch, &world.together, || {}).unwrap();
        assert_eq!(again, written);
        assert_eq!(
            store::missing(&world.file, &[batch[0].0.clone()])
                .unwrap()
                .len(),
            0
        );
    }
    let kept = store::result(&world.file, "op-1-2500", 2500).unwrap();
    assert_eq!(kept.as_deref(), Some("7"));
    // The stream lost its tail, and the operation ended in another way.
    world.known[0].status = Status::Pending;
    world.replace();
    world.stream = 1;
    world.model.write().set_stream(1);
    world.known.clear();
    world.start(0);
    world.next();
    world.end(0, true);
    world.archive(10);

    let failed = Condition::new(&Filter {
        statuses: vec![Status::Failed],
        ..Filter::default()
    });
    let segments = store::segments(&world.file, &failed).unwrap();
    assert_eq!(segments.len(), 1);
    let all = store::segments(&world.file, &Condition::default()).unwrap();
    assert_eq!(all[0].operations, 1, "{all:?}");
    let view = store::find(&world.file, "op-1-2500").unwrap().unwrap();
    assert_eq!(view.status(), Status::Failed);
}

#[test]
fn old_operations_are_removed_unless_the_stream_has_them() {
    let mut world = World::new();
    for _ in 0..4 {
        world.start(1);
        world.end(0, false);
    }
    world.archive(10);
    world.forget(2);
    let limit = Timestamp::from_millis(i64::MAX);

    let needed = |stream, id: &str, start| world.model.read().holds(stream, id, start);
    let (removed, has_more) = store::remove_old(&mut world.file, limit, needed).unwrap();

    assert_eq!((removed, has_more), (2, false));
    let wanted = Wanted {
        filter: Filter::default(),
        order: ListOrder::Newest,
        offset: 0,
        after: None,
        limit: 10,
        bytes: usize::MAX,
        extent: Extent::InList,
    };
    let page = page(&world.file, &world.together, &world.model, &wanted).unwrap();
    assert_eq!((page.total, page.views.len()), (2, 2));
}

#[test]
fn an_operation_of_the_archive_is_shown_as_before() {
    let result = RawValue::from_string(r#"{"rows":29.0,"big":12345678901234567890123}"#.into());
    let mut model = Model::default();
    model.keep_for_archive();
    let id = OperationId::new("a").unwrap();
    let request = serde_json::json!({
        "operation_id": "a", "operation_type": "dummy", "parameters": {"worker_id": "mine", "x": 1.0},
        "execution": {"max_attempts": 2, "requirements": {"gpu": true}, "later": 1}, "created_at": "2025-11-10T10:30:00Z",
        "retry_of": "b", "requested_by": "alice", "schema_digest": "0123456789abcdef",
    });
    let origin = Origin::from_token("gpu").unwrap();
    let request = serde_json::from_value(request).unwrap();
    model.start(1, origin, request).unwrap();
    let event = |attempt, at, kind| Event {
        operation_id: id.clone(),
        at: Timestamp::from_millis(at),
        worker_id: Some(ktrdr_protocol::id::WorkerId::new("w").unwrap()),
        attempt,
        claim_id: None,
        kind,
    };
    let started = |start_sequence| EventKind::Started {
        start_sequence,
        delivery: 1,
    };
    model
        .event(2, "dummy", event(1, 1_800_000_000_000, started(1)))
        .unwrap();
    model
        .event(3, "dummy", event(2, 1_800_000_001_000, started(1)))
        .unwrap();
    let completed = EventKind::Completed {
        result: ResultPayload::Inline(result.unwrap()),
        progress: Some(ktrdr_protocol::progress::Progress::new(90.0).step("half")),
    };
    model
        .event(4, "dummy", event(2, 1_800_000_002_500, completed))
        .unwrap();
    let mut before = model.get("a").unwrap();

    let text = super::super::document::write(&before.record).unwrap();
    let after = super::super::document::read(&text, 1, 4).unwrap();

    assert_eq!(
        after.record.parameters.get(),
        r#"{"worker_id":"mine","x":1.0}"#
    );
    before.archived = true;
    assert_eq!(
        serde_json::to_string(&after.document(Extent::Whole)).unwrap(),
        serde_json::to_string(&before.document(Extent::Whole)).unwrap()
    );
    assert_eq!(after.record.start_sequence, 1);
    assert_eq!(after.record.state, before.record.state);
    // Not shown, but needed to repeat it.
    assert!(after.record.schema_digest.is_some());
    assert_eq!(after.record.schema_digest, before.record.schema_digest);
    let rare = after.record.rare.as_ref().unwrap();
    assert_eq!(rare.execution.as_ref().unwrap().unknown, ["later"]);
}
