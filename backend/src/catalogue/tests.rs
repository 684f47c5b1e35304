//! Tests of the catalogue, without NATS.

use super::*;
use serde_json::json;

fn put(catalogue: &Catalogue, worker_type: &str, domain: &str, revision: u64) {
    let entry = json!({
        "worker_type": worker_type, "domain": domain, "description": "", "version": "1", "result_schema": {},
        "request_schema": {
            "type": "object", "required": ["source_file"], "additionalProperties": false,
            "properties": {"source_file": {"type": "string"}, "operations": {"type": "array", "items": {"type": "string"}}}
        }
    });
    catalogue.apply_entry(
        worker_type,
        None,
        Some(entry.to_string().as_bytes()),
        revision,
    );
}

fn loaded() -> Catalogue {
    let catalogue = Catalogue::default();
    catalogue.loaded.store(true, Ordering::SeqCst);
    catalogue
}

fn owner(catalogue: &Catalogue, domain: &str) -> String {
    let entry = catalogue.by_domain(domain).unwrap();
    assert_eq!(entry.domain_owner, None);
    entry.published.worker_type.to_string()
}

#[tokio::test]
async fn violations_name_the_place() {
    let catalogue = loaded();
    put(&catalogue, "data_processing", "data-processing", 1);
    let schema = catalogue
        .by_domain("data-processing")
        .unwrap()
        .usable_schema()
        .await
        .unwrap();
    assert_eq!(
        schema.violations("", &json!({"source_file": "a", "operations": ["clean"]})),
        Ok(vec![])
    );
    let found = schema
        .violations("", &json!({"operations": ["clean", 7], "x": 1}))
        .unwrap();
    let mut paths: Vec<&str> = found
        .iter()
        .map(|violation| violation.path.as_str())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, ["", "", "/operations/1"], "{found:?}");
    assert!(
        found
            .iter()
            .any(|violation| violation.message.contains("source_file")),
        "{found:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_a_type_is_skipped() {
    let catalogue = loaded();
    put(&catalogue, "a", "operations", 1);
    put(&catalogue, "b", "not a path", 2);
    catalogue.apply_entry("c", None, Some(b"{"), 3);
    let other = json!({"worker_type": "e"}).to_string();
    catalogue.apply_entry("d", None, Some(other.as_bytes()), 4);
    assert!(catalogue.all().is_empty());

    put(&catalogue, "f", "fine", 5);
    assert_eq!(catalogue.domains(|_| true), ["fine"]);
}

#[tokio::test]
async fn a_domain_stays_with_the_type_that_had_it_first() {
    let catalogue = loaded();
    put(&catalogue, "victim", "shared", 1);
    catalogue.apply_claim("shared", Some(b"victim"), 2);
    put(&catalogue, "aaa", "shared", 3);
    // A new version of the owner: its entry is the newer one now.
    put(&catalogue, "victim", "other", 4);
    assert_eq!(owner(&catalogue, "shared"), "aaa");
    put(&catalogue, "victim", "shared", 5);

    assert_eq!(owner(&catalogue, "shared"), "victim");
    let refused = catalogue.by_type("aaa").unwrap();
    assert_eq!(refused.domain_owner.as_ref().unwrap().as_str(), "victim");
    assert_eq!(catalogue.domains(|_| true), ["shared"]);
    assert!(catalogue.contents.read().unrecorded().is_empty());

    // The owner is gone: the record is replaced.
    catalogue.apply_entry("victim", None, None, 6);
    assert_eq!(owner(&catalogue, "shared"), "aaa");
    let to_record = catalogue.contents.read().unrecorded();
    assert_eq!(to_record.len(), 1);
    assert_eq!(to_record[0].2, Some(2));
}

#[tokio::test]
async fn without_a_record_the_oldest_entry_has_the_domain() {
    let catalogue = loaded();
    put(&catalogue, "aaa", "shared", 7);
    put(&catalogue, "zzz", "shared", 3);

    assert_eq!(owner(&catalogue, "shared"), "zzz");
}

#[tokio::test]
async fn the_number_of_types_and_the_size_of_an_entry_are_bounded() {
    let catalogue = loaded();
    for number in 0..MAX_TYPES + 10 {
        let name = format!("t{number}");
        put(&catalogue, &name, &name, number as u64);
    }
    assert_eq!(catalogue.all().len(), MAX_TYPES);
    // A known one may change.
    put(&catalogue, "t0", "another", 1000);
    assert_eq!(owner(&catalogue, "another"), "t0");

    let large = json!({
        "worker_type": "t1", "domain": "t1", "description": "x".repeat(300_000), "version": "1",
        "request_schema": {"pattern": "x".repeat(200_000)}, "result_schema": {"title": "x".repeat(200_000)},
    });
    let large = large.to_string();
    catalogue.apply_entry("t1", None, Some(large.as_bytes()), 1001);
    let kept = catalogue.by_type("t1").unwrap();
    assert!(serde_json::to_string(&kept.published).unwrap().len() < 10_000);
    assert!(matches!(
        kept.schema_error(),
        Some(UnusableSchema::TooLarge { .. })
    ));
}

const HELD: Duration = Duration::from_secs(30);

fn digest(number: u8) -> SchemaDigest {
    SchemaDigest::from_bytes([number; 8])
}

/// Publishes a version of the type `dummy`, and its plain entry if it is the first.
fn publish(catalogue: &Catalogue, number: u8, revision: u64) {
    let entry = json!({
        "worker_type": "dummy", "domain": "dummy", "description": "", "version": "1",
        "request_schema": {"title": number.to_string()}, "schema_digest": digest(number).to_string(),
    });
    let entry = entry.to_string();
    let key = format!("version.dummy.{number}");
    catalogue.apply_entry("dummy", Some(&key), Some(entry.as_bytes()), revision);
    if catalogue.by_type("dummy").is_none() {
        catalogue.apply_entry("dummy", None, Some(entry.as_bytes()), revision + 1);
    }
}

fn shown(catalogue: &Catalogue) -> Option<SchemaDigest> {
    let entry = catalogue.by_type("dummy").unwrap();
    entry.published.schema_digest
}

fn hear(catalogue: &Catalogue, numbers: &[Option<u8>], now: Instant) {
    let dummy = WorkerType::new("dummy").unwrap();
    let listed = numbers
        .iter()
        .map(|number| (dummy.clone(), number.map(digest)));
    catalogue.note_alive(listed, now, HELD);
}

#[tokio::test]
async fn the_newest_version_counts_that_a_worker_has() {
    let (catalogue, begun) = (loaded(), Instant::now());
    publish(&catalogue, 1, 10);
    hear(&catalogue, &[Some(1)], begun);
    assert_eq!(shown(&catalogue), Some(digest(1)));

    publish(&catalogue, 2, 20);
    assert_eq!(shown(&catalogue), Some(digest(2)));
    // An older worker connects again, and writes what it always writes.
    publish(&catalogue, 1, 10);
    assert_eq!(shown(&catalogue), Some(digest(2)));

    // A step back: the newer one counts while it may come back, and then no longer.
    let both = begun + HELD;
    hear(&catalogue, &[Some(1), Some(2)], both);
    hear(&catalogue, &[Some(1)], both + HELD / 2);
    assert_eq!(shown(&catalogue), Some(digest(2)));
    hear(&catalogue, &[Some(1)], both + HELD);
    assert_eq!(shown(&catalogue), Some(digest(1)));

    // And forward again.
    hear(&catalogue, &[Some(1), Some(2)], both + HELD * 2);
    assert_eq!(shown(&catalogue), Some(digest(2)));
    // Without any worker, the newest one.
    hear(&catalogue, &[], both + HELD * 9);
    assert_eq!(shown(&catalogue), Some(digest(2)));
}

#[tokio::test]
async fn a_backend_that_has_just_started_takes_the_newest_version() {
    let (catalogue, begun) = (loaded(), Instant::now());
    publish(&catalogue, 1, 10);
    publish(&catalogue, 2, 20);

    hear(&catalogue, &[Some(1)], begun);
    assert_eq!(shown(&catalogue), Some(digest(2)));
    hear(&catalogue, &[Some(1)], begun + HELD);
    assert_eq!(shown(&catalogue), Some(digest(1)));
}

#[tokio::test]
async fn workers_of_the_release_before_count_only_alone() {
    let (catalogue, begun) = (loaded(), Instant::now());
    publish(&catalogue, 1, 10);
    put(&catalogue, "dummy", "dummy", 12);

    hear(&catalogue, &[None, Some(1)], begun);
    hear(&catalogue, &[None, Some(1)], begun + HELD);
    assert_eq!(shown(&catalogue), Some(digest(1)));
    hear(&catalogue, &[None], begun + HELD * 2);
    assert_eq!(shown(&catalogue), None);
}

#[tokio::test]
async fn a_type_is_gone_with_its_plain_entry_and_its_versions_are_bounded() {
    let catalogue = loaded();
    for number in 1..=200 {
        publish(&catalogue, number, 10 * u64::from(number));
    }
    assert_eq!(shown(&catalogue), Some(digest(200)));
    let known = catalogue.contents.read().versions["dummy"].all().count();
    assert_eq!(known, 17);

    // Those beyond are removed, when it is sure that no worker has them.
    let begun = Instant::now();
    hear(&catalogue, &[Some(1)], begun);
    assert_eq!(catalogue.old_versions(), []);
    hear(&catalogue, &[Some(1)], begun + HELD);
    let old = catalogue.old_versions();
    assert_eq!(old.len(), 183);
    assert!(old.contains(&("version.dummy.2".to_owned(), 20)));
    assert!(!old.contains(&("version.dummy.1".to_owned(), 10)));
    catalogue.apply_entry("dummy", Some("version.dummy.2"), None, 8000);
    assert_eq!(catalogue.old_versions().len(), 182);

    catalogue.apply_entry("dummy", None, None, 9000);
    assert!(catalogue.by_type("dummy").is_none());
}

#[tokio::test]
async fn a_lost_bucket_gets_every_version_back_in_the_order_in_which_they_came() {
    let catalogue = loaded();
    publish(&catalogue, 1, 10);
    publish(&catalogue, 2, 20);
    put(&catalogue, "other", "other", 15);
    catalogue.apply_claim("dummy", Some(b"dummy"), 12);

    let restored = catalogue.in_old_order();

    let keys: Vec<&str> = restored.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "domain.dummy",
            "version.dummy.1",
            "dummy",
            "other",
            "version.dummy.2"
        ]
    );
    let again = loaded();
    for (revision, (key, value)) in (1..).zip(&restored).skip(1) {
        let (worker_type, version) = match worker_type_of_version_key(key) {
            Some(worker_type) => (worker_type, Some(key.as_str())),
            None => (key.as_str(), None),
        };
        again.apply_entry(worker_type, version, Some(value), revision);
    }
    assert_eq!(shown(&again), Some(digest(2)));
}
