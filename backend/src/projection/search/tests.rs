//! What a filter and a search find is what somebody finds who looks at every operation.

use ktrdr_protocol::event::{Event, EventKind, Failure, ReleaseReason};
use ktrdr_protocol::id::{OperationId, WorkerId};
use ktrdr_protocol::labels::Label;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::query::ListOrder;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::RwLock;
use proptest::prelude::*;
use serde_json::json;

use super::super::filter::Filter;
use super::super::record::{Extent, Record, View};
use super::*;

struct Held(RwLock<Model>);

impl Look for Held {
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.0.read())
    }
}

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
const SCHEDULES: [&str; 2] = ["nightly", "hourly"];
const CODES: [&str; 3] = ["engine_error", "timeout", "worker_lost"];
const LABELS: [&str; 4] = ["symbol:GOOG", "symbol:IBM", "night:one", "night:two"];
const SYMBOLS: [&str; 3] = ["GOOG", "IBM", "MSFT \u{b7} x"];

#[derive(Debug, Clone)]
enum Action {
    Start {
        symbol: usize,
        retry: Option<usize>,
        schedule: Option<usize>,
    },
    Claim {
        which: usize,
        worker: usize,
    },
    Release {
        which: usize,
    },
    Fail {
        which: usize,
        code: usize,
    },
    Complete {
        which: usize,
    },
    ForgetOldest,
    ForgetEnded,
}

fn action() -> impl Strategy<Value = Action> {
    let which = any::<usize>;
    prop_oneof![
        5 => (0usize..3, proptest::option::of(which()), proptest::option::of(0usize..2)).prop_map(|(symbol, retry, schedule)| Action::Start { symbol, retry, schedule }),
        5 => (which(), 0usize..3).prop_map(|(which, worker)| Action::Claim { which, worker }),
        2 => which().prop_map(|which| Action::Release { which }),
        3 => (which(), 0usize..3).prop_map(|(which, code)| Action::Fail { which, code }),
        2 => which().prop_map(|which| Action::Complete { which }),
        1 => Just(Action::ForgetOldest),
        1 => Just(Action::ForgetEnded),
    ]
}

/// A model, and the ids of all operations that were ever started, oldest first.
struct World {
    model: Model,
    ids: Vec<String>,
    sequence: u64,
}

impl World {
    fn act(&mut self, action: Action) {
        self.sequence += 1;
        let sequence = self.sequence;
        let (which, kind, worker) = match action {
            Action::Start {
                symbol,
                retry,
                schedule,
            } => return self.start(symbol, retry, schedule),
            Action::ForgetOldest => {
                let first = self.ids.iter().find_map(|id| self.model.get(id));
                if let Some(first) = first {
                    self.model.forget_before(first.record.start_sequence + 1);
                }
                return;
            }
            Action::ForgetEnded => {
                self.model
                    .forget_ended(Timestamp::from_millis(sequence as i64 / 2), 3);
                return;
            }
            Action::Claim { which, worker } => {
                let started = EventKind::Started {
                    start_sequence: 1,
                    delivery: 1,
                };
                (which, started, Some(WORKERS[worker]))
            }
            Action::Release { which } => {
                let reason = ReleaseReason::Shutdown;
                (
                    which,
                    EventKind::Released {
                        reason,
                        error: None,
                        retry_at: None,
                        copy: None,
                    },
                    None,
                )
            }
            Action::Fail { which, code } => {
                let error = Failure {
                    code: CODES[code].to_owned(),
                    message: "it had to be".to_owned(),
                    permanent: false,
                };
                (
                    which,
                    EventKind::Failed {
                        error,
                        progress: None,
                    },
                    None,
                )
            }
            Action::Complete { which } => {
                let result = serde_json::value::RawValue::NULL.to_owned();
                let result = ktrdr_protocol::event::ResultPayload::Inline(result);
                (
                    which,
                    EventKind::Completed {
                        result,
                        progress: None,
                    },
                    None,
                )
            }
        };
        let Some(view) = self.pick(which) else { return };
        let record = &view.record;
        let is_start = matches!(kind, EventKind::Started { .. });
        let last = record
            .attempts
            .last()
            .map(|attempt| attempt.worker_id.clone());
        let event = Event {
            operation_id: record.id.clone(),
            at: Timestamp::from_millis(sequence as i64),
            worker_id: worker.map(|name| WorkerId::new(name).unwrap()).or(last),
            attempt: record.state.attempt + u32::from(is_start),
            claim_id: Some("c".to_owned()),
            kind,
        };
        // Whether it may follow is not the question here.
        let _ = self.model.event(sequence, "dummy", event);
    }

    fn start(&mut self, symbol: usize, retry: Option<usize>, schedule: Option<usize>) {
        let id = format!("op-{}", self.sequence);
        let retried = retry.and_then(|which| self.pick(which));
        let execution = match symbol {
            2 => json!({}),
            _ => json!({"labels": {"symbol": SYMBOLS[symbol], "night": "one"}}),
        };
        let request = json!({
            "operation_id": id, "operation_type": "dummy", "parameters": {"symbol": SYMBOLS[symbol]},
            "created_at": Timestamp::from_millis(self.sequence as i64),
            "execution": execution,
            "retry_of": retried.map(|view| view.record.id.clone()),
            "schedule_id": schedule.map(|which| SCHEDULES[which]),
        });
        let request = serde_json::from_value(request).unwrap();
        let origin = Origin::from_token("any").unwrap();
        self.model.start(self.sequence, origin, request).unwrap();
        self.ids.push(id);
    }

    fn pick(&self, which: usize) -> Option<View> {
        let there: Vec<View> = self.all().collect();
        let place = which.checked_rem(there.len())?;
        there.into_iter().nth(place)
    }

    /// All operations that are still there, oldest first.
    fn all(&self) -> impl Iterator<Item = View> + '_ {
        self.ids.iter().filter_map(|id| self.model.get(id))
    }
}

fn matches(filter: &Filter, record: &Record) -> bool {
    let status = record.state.status;
    let code = record.failure().map(|failure| failure.code.clone());
    let worker = record.worker_id().map(ToString::to_string);
    let text = || {
        let failure = record
            .failure()
            .map(|failure| format!("{} {}", failure.code, failure.message));
        let texts = [Some(record.id.to_string()), record.summary(), failure];
        let texts: Vec<String> = texts
            .into_iter()
            .flatten()
            .map(|text| text.to_lowercase())
            .collect();
        texts.join("\n")
    };
    let labels = record.labels();
    let has =
        |label: &Label| labels.is_some_and(|labels| labels.get(&label.name) == Some(&label.value));
    filter.labels.iter().all(has)
        && (filter.statuses.is_empty() || filter.statuses.contains(&status))
        && (filter.worker.is_none() || filter.worker == worker)
        && filter
            .schedule
            .as_deref()
            .is_none_or(|id| record.schedule_id().is_some_and(|of| of.as_str() == id))
        && (filter.error_codes.is_empty()
            || code.is_some_and(|code| filter.error_codes.contains(&code)))
        && filter
            .created_after
            .is_none_or(|time| record.created_at >= time)
        && filter
            .created_before
            .is_none_or(|time| record.created_at < time)
        && filter
            .ended_after
            .is_none_or(|time| record.completed_at.is_some_and(|end| end >= time))
        && filter
            .search
            .as_ref()
            .is_none_or(|search| text().contains(search.text()))
}

fn filter() -> impl Strategy<Value = Filter> {
    let time = || proptest::option::of((0i64..120).prop_map(Timestamp::from_millis));
    let texts = [
        "goog",
        "ymbol=IBM",
        "\u{b7} X",
        "op-1",
        "TIMEOUT",
        "had to",
        "nothing",
    ];
    (
        proptest::collection::vec(proptest::sample::select(Status::ALL.to_vec()), 0..3),
        proptest::option::of(proptest::sample::select(WORKERS.to_vec())),
        proptest::option::of(proptest::sample::select(SCHEDULES.to_vec())),
        proptest::collection::vec(proptest::sample::select(CODES.to_vec()), 0..3),
        time(),
        time(),
        time(),
        proptest::option::of(proptest::sample::select(texts.to_vec())),
        proptest::collection::vec(proptest::sample::select(LABELS.to_vec()), 0..3),
    )
        .prop_map(
            |(
                statuses,
                worker,
                schedule,
                codes,
                created_after,
                created_before,
                ended_after,
                search,
                labels,
            )| {
                Filter {
                    types: None,
                    statuses,
                    worker: worker.map(str::to_owned),
                    schedule: schedule.map(str::to_owned),
                    error_codes: codes.into_iter().map(str::to_owned).collect(),
                    labels: labels
                        .into_iter()
                        .map(|label| label.parse().unwrap())
                        .collect(),
                    created_after,
                    created_before,
                    ended_after,
                    search: search.map(Search::new),
                }
            },
        )
}

proptest! {
    #[test]
    fn every_filter_finds_what_matches_it(
        actions in proptest::collection::vec(action(), 0..120),
        filter in filter(),
        offset in 0u64..5,
        limit in 1usize..10,
        oldest in any::<bool>(),
    ) {
        let mut world = World { model: Model::default(), ids: Vec::new(), sequence: 0 };
        for action in actions {
            world.act(action);
        }
        let matching: Vec<View> = world.all().filter(|view| matches(&filter, &view.record)).collect();
        let mut matching: Vec<OperationId> =
            matching.iter().map(|view| view.record.id.clone()).collect();
        let order = if oldest { ListOrder::Oldest } else { ListOrder::Newest };
        if !oldest {
            matching.reverse();
        }
        let mut wanted = Wanted {
            filter, order, offset, after: None, limit, bytes: usize::MAX, extent: Extent::InList,
        };
        let all: Vec<View> = world.all().collect();
        let held = Held(RwLock::new(world.model));

        let read = |wanted: &Wanted| match &wanted.filter.search {
            None => held.look(|model| model.list(wanted)),
            Some(search) => {
                let mut listed = held.look(|model| model.listed(&wanted.filter));
                narrow(&held, &mut listed, search);
                held.look(|model| model.page_listed(&listed, wanted)).unwrap()
            }
        };

        // All pages from this offset on, by their cursors.
        let mut shown: Vec<OperationId> = Vec::new();
        loop {
            let page = read(&wanted);
            prop_assert_eq!(page.total, matching.len() as u64);
            prop_assert!(page.views.len() <= limit);
            shown.extend(page.views.iter().map(|view| view.record.id.clone()));
            if page.next.is_none() {
                break;
            }
            wanted.after = page.next;
        }
        let expected: Vec<OperationId> = matching.into_iter().skip(offset as usize).collect();
        prop_assert_eq!(shown, expected);
        for view in &all {
            let is_repeatable = matches!(view.status(), Status::Failed | Status::Cancelled);
            let retry = all.iter().rev().find(|other| other.record.retry_of() == Some(&view.record.id));
            let retry = retry.filter(|_| is_repeatable).map(|retry| retry.record.id.clone());
            prop_assert_eq!(&view.retried_as, &retry);
        }
    }
}
