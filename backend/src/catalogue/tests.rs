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
    catalogue.put(worker_type, entry.to_string().as_bytes(), revision);
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
    catalogue.put("c", b"{", 3);
    let other = json!({"worker_type": "e"}).to_string();
    catalogue.put("d", other.as_bytes(), 4);
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
    catalogue.contents.write().entries.remove("victim");
    catalogue.contents.write().settle();
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
    catalogue.put("t1", large.to_string().as_bytes(), 1001);
    let kept = catalogue.by_type("t1").unwrap();
    assert!(serde_json::to_string(&kept.published).unwrap().len() < 10_000);
    assert!(matches!(
        kept.schema_error(),
        Some(UnusableSchema::TooLarge { .. })
    ));
}
