//! The registry under an injected clock.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::*;

fn beat(id: &str) -> Heartbeat {
    serde_json::from_value(json!({
        "worker_id": id, "worker_type": "dummy", "instance": "i1", "endpoint_url": "http://127.0.0.1:5003",
        "status": "AVAILABLE", "capabilities": {"cores": 8}, "version": "0.1.0",
        "registered_at": "2025-11-10T10:30:00Z", "at": "2025-11-10T10:30:00Z", "interval_seconds": 10.0,
        "slots": 1, "running": []
    }))
    .unwrap()
}

fn registry() -> (Registry, Instant) {
    let registry = Registry::new(Duration::from_secs(300), Changes::default());
    let now = Instant::now();
    registry.begin_listening(now);
    (registry, now)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn shown(registry: &Registry, now: Instant) -> (Value, Value) {
    let worker = serde_json::to_value(registry.get("w", now).unwrap()).unwrap();
    (
        worker["status"].clone(),
        worker["health_check_failures"].clone(),
    )
}

#[test]
fn three_missed_heartbeats_make_a_worker_unavailable_and_a_new_one_brings_it_back() {
    let (registry, start) = registry();
    registry.hear(beat("w"), start).unwrap();
    assert_eq!(
        shown(&registry, start + seconds(10)),
        (json!("AVAILABLE"), json!(0))
    );
    assert_eq!(
        shown(&registry, start + seconds(15)),
        (json!("AVAILABLE"), json!(1))
    );
    assert_eq!(
        shown(&registry, start + seconds(29)),
        (json!("AVAILABLE"), json!(2))
    );
    assert_eq!(
        shown(&registry, start + seconds(30)),
        (json!("TEMPORARILY_UNAVAILABLE"), json!(3))
    );
    assert_eq!(
        shown(&registry, start + seconds(65)),
        (json!("TEMPORARILY_UNAVAILABLE"), json!(6))
    );
    registry.hear(beat("w"), start + seconds(70)).unwrap();
    assert_eq!(
        shown(&registry, start + seconds(70)),
        (json!("AVAILABLE"), json!(0))
    );
}

#[test]
fn a_silent_worker_is_removed_in_the_end_and_announced() {
    let (registry, start) = registry();
    let mut changes = registry.changes.subscribe();
    registry.hear(beat("w"), start).unwrap();
    assert_eq!(announced(&mut changes), 1);
    assert_eq!(shown(&registry, start).0, json!("AVAILABLE"));

    registry.sweep(start + seconds(31));
    assert_eq!(announced(&mut changes), 1);
    assert_eq!(
        shown(&registry, start + seconds(31)).0,
        json!("TEMPORARILY_UNAVAILABLE")
    );

    registry.sweep(start + seconds(32));
    assert_eq!(announced(&mut changes), 0);

    registry.sweep(start + seconds(300));
    assert_eq!(announced(&mut changes), 1);
    assert!(registry.get("w", start).is_none());
}

/// How many changes of worker `w` were announced since the last call.
fn announced(changes: &mut broadcast::Receiver<Arc<Change>>) -> usize {
    let mut count = 0;
    while let Ok(change) = changes.try_recv() {
        assert!(
            matches!(&*change, Change::Worker { worker_id, .. } if worker_id.as_str() == "w"),
            "{change:?}"
        );
        count += 1;
    }
    count
}

#[test]
fn a_farewell_removes_at_once_but_not_the_successor() {
    let (registry, now) = registry();
    let farewell = Heartbeat {
        leaving: true,
        ..beat("w")
    };
    registry.hear(beat("w"), now).unwrap();
    registry.hear(farewell.clone(), now).unwrap();
    assert!(registry.get("w", now).is_none());
    registry
        .hear(
            Heartbeat {
                instance: "i2".into(),
                ..beat("w")
            },
            now,
        )
        .unwrap();
    registry.hear(farewell, now).unwrap();
    assert!(registry.get("w", now).is_some());
}

#[test]
fn an_id_belongs_to_one_type_until_its_worker_leaves_or_falls_silent() {
    let (registry, now) = registry();
    let of_another_type: Heartbeat = Heartbeat {
        worker_type: WorkerType::new("training").unwrap(),
        ..beat("w")
    };
    let farewell = Heartbeat {
        leaving: true,
        ..of_another_type.clone()
    };
    registry.hear(beat("w"), now).unwrap();
    let (worker, operation) = (WorkerId::new("w").unwrap(), OperationId::new("op").unwrap());
    let presence = |worker_type: &str, at| {
        let worker_type = WorkerType::new(worker_type).unwrap();
        registry.presence(&worker_type, &worker, &operation, 1, at)
    };

    assert!(registry.hear(of_another_type.clone(), now).is_err());
    assert!(registry.hear(farewell.clone(), now).is_err());
    assert_eq!(presence("dummy", now), Presence::Alive { runs_it: false });

    let later = now + seconds(31);
    assert!(registry.hear(farewell, later).is_err());
    registry.hear(of_another_type, later).unwrap();
    assert_eq!(presence("dummy", later), Presence::Gone);
    assert_eq!(
        presence("training", later),
        Presence::Alive { runs_it: false }
    );
}

#[test]
fn nobody_falls_silent_while_nats_is_away() {
    let (registry, start) = registry();
    registry.hear(beat("w"), start).unwrap();
    registry.stop_listening(start + seconds(5));
    registry.sweep(start + seconds(1000));
    assert_eq!(
        shown(&registry, start + seconds(1000)).0,
        json!("AVAILABLE")
    );
    assert_eq!(
        registry.listening_for(start + seconds(1000)),
        Duration::ZERO
    );
    registry.begin_listening(start + seconds(1000));
    assert_eq!(
        shown(&registry, start + seconds(1029)).0,
        json!("AVAILABLE")
    );
    assert_eq!(
        shown(&registry, start + seconds(1030)).0,
        json!("TEMPORARILY_UNAVAILABLE")
    );
}

#[test]
fn a_break_brings_no_silent_worker_back() {
    let (registry, start) = registry();
    registry.hear(beat("w"), start).unwrap();
    registry.stop_listening(start + seconds(100));
    registry.begin_listening(start + seconds(150));
    assert_eq!(
        shown(&registry, start + seconds(150)),
        (json!("TEMPORARILY_UNAVAILABLE"), json!(10))
    );
    // The break itself does not count.
    assert_eq!(shown(&registry, start + seconds(160)).1, json!(11));
    registry.sweep(start + seconds(349));
    assert!(registry.get("w", start).is_some());
    registry.sweep(start + seconds(350));
    assert!(registry.get("w", start).is_none());
    registry.hear(beat("w"), start + seconds(351)).unwrap();
    assert_eq!(
        shown(&registry, start + seconds(351)),
        (json!("AVAILABLE"), json!(0))
    );
}

#[test]
fn ability_counts_only_those_that_are_alive() {
    let (registry, now) = registry();
    registry.hear(beat("w"), now).unwrap();
    registry.hear(beat("v"), now + seconds(20)).unwrap();
    let eight = Requirements {
        cores: Some(8),
        ..Requirements::default()
    };
    let sixteen = Requirements {
        cores: Some(16),
        ..Requirements::default()
    };
    assert_eq!(
        registry.candidates("dummy", &eight, now + seconds(20)),
        counted(2, 2)
    );
    assert_eq!(
        registry.candidates("dummy", &sixteen, now + seconds(20)),
        counted(2, 0)
    );
    assert_eq!(
        registry.candidates("dummy", &eight, now + seconds(40)),
        counted(1, 1)
    );
    assert_eq!(registry.candidates("training", &eight, now), counted(0, 0));
}

#[test]
fn nonsense_intervals_are_bounded() {
    let (registry, now) = registry();
    for interval in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300] {
        registry
            .hear(
                Heartbeat {
                    interval_seconds: interval,
                    ..beat("w")
                },
                now,
            )
            .unwrap();
        assert_eq!(shown(&registry, now).0, json!("AVAILABLE"));
        assert_eq!(
            shown(&registry, now + seconds(4 * 3600)).0,
            json!("TEMPORARILY_UNAVAILABLE")
        );
    }
}

#[test]
fn an_id_that_changed_hands_shows_no_worker_of_the_other_type() {
    let (registry, start) = registry();
    registry.hear(beat("w"), start).unwrap();
    let (before, after) = (
        WorkerType::new("dummy").unwrap(),
        WorkerType::new("training").unwrap(),
    );
    assert!(registry.get_of(&before, "w", start).is_some());

    let successor = Heartbeat {
        worker_type: after.clone(),
        ..beat("w")
    };
    let now = start + seconds(60);
    registry.hear(successor, now).unwrap();

    assert!(registry.get_of(&before, "w", now).is_none());
    assert!(registry.get_of(&after, "w", now).is_some());
}

#[test]
fn a_full_registry_takes_no_new_worker_and_calls_none_that_it_misses_gone() {
    let (registry, now) = registry();
    for number in 0..bounds::MAX_WORKERS {
        registry.hear(beat(&format!("w{number}")), now).unwrap();
    }
    let presence = |worker: &str| {
        let worker_type = WorkerType::new("dummy").unwrap();
        let (worker, id) = (
            WorkerId::new(worker).unwrap(),
            OperationId::new("op").unwrap(),
        );
        registry.presence(&worker_type, &worker, &id, 1, now)
    };

    let refused = registry.hear(beat("late"), now).unwrap_err();
    assert_eq!(refused, Unheard::BeyondBound(BeyondBound::Workers));
    registry.hear(beat("w7"), now).unwrap();
    assert_eq!(presence("late"), Presence::Unknown);

    let farewell = Heartbeat {
        leaving: true,
        ..beat("w7")
    };
    registry.hear(farewell, now).unwrap();
    assert_eq!(presence("late"), Presence::Gone);
    registry.hear(beat("late"), now).unwrap();
}

#[test]
fn a_worker_whose_id_another_type_has_taken_does_not_count_as_gone() {
    let (registry, start) = registry();
    let dummy = WorkerType::new("dummy").unwrap();
    let (worker, operation) = (WorkerId::new("w").unwrap(), OperationId::new("op").unwrap());
    let presence =
        |after| registry.presence(&dummy, &worker, &operation, 1, start + seconds(after));
    let mut squatter = beat("w");
    squatter.worker_type = WorkerType::new("training").unwrap();
    registry.hear(squatter.clone(), start).unwrap();
    assert_eq!(presence(1), Presence::Gone);

    assert!(registry.hear(beat("w"), start + seconds(2)).is_err());

    assert_eq!(presence(31), Presence::Unknown);
    // It is silent, or has said farewell.
    assert_eq!(presence(33), Presence::Gone);
    assert!(registry.hear(beat("w"), start + seconds(20)).is_err());
    let mut farewell = beat("w");
    farewell.leaving = true;
    assert!(registry.hear(farewell, start + seconds(21)).is_err());
    assert_eq!(presence(22), Presence::Gone);
}

fn counted(alive: usize, able: usize) -> Candidates {
    Candidates {
        alive,
        able,
        ..Candidates::default()
    }
}
