use serde_json::json;

use super::*;

#[test]
fn of_a_choice_that_nothing_fits_the_closest_alternative_is_told() {
    let schema = Schema::compile(&json!({"items": {"anyOf": [
        {"enum": ["clean", "transform"]},
        {"type": "object", "properties": {"op": {"const": "clean"}, "trim": {"type": "boolean"}},
         "required": ["op"], "additionalProperties": false},
        {"type": "object", "properties": {"op": {"const": "transform"}}, "required": ["op"], "additionalProperties": false},
    ]}}))
    .unwrap();
    let told = |value: Value| {
        let found = schema.violations("", &json!([value])).unwrap();
        found
            .into_iter()
            .map(|v| format!("{} {}", v.path, v.message))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert!(told(json!({"op": "clean", "trimm": true})).contains("'trimm'"));
    assert!(told(json!({"op": "clean", "trim": 7})).starts_with("/0/trim 7 is not of type"));
    assert_eq!(
        told(json!("wash")),
        r#"/0 "wash" is not one of "clean" or "transform""#
    );
    assert_eq!(
        told(json!({"op": "wash"})),
        r#"/0/op "wash" is not one of "clean" or "transform""#
    );
    assert_eq!(told(json!("clean")), "");
}

/// As schemas are made of enums whose variants have descriptions of their own.
#[test]
fn all_that_could_be_chosen_is_told() {
    let unit = |name: &str| json!({"type": "string", "const": name});
    let kind = |name: &str| json!({"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]});
    let schema = Schema::compile(&json!({"properties": {
        "timeframe": {"oneOf": [unit("1m"), unit("1h"), unit("1d")]},
        "strategy": {"oneOf": [kind("sma"), kind("rsi")]},
        "steps": {"items": {"anyOf": [{"oneOf": [unit("a"), unit("b")]}, kind("a")]}},
    }}))
    .unwrap();
    let told = |value: Value| {
        let found = schema.violations("", &value).unwrap();
        found
            .into_iter()
            .map(|v| format!("{} {}", v.path, v.message))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(
        told(json!({"timeframe": "2d"})),
        r#"/timeframe "2d" is not one of "1m", "1h" or "1d""#
    );
    assert_eq!(
        told(json!({"strategy": {"type": "x"}})),
        r#"/strategy/type "x" is not one of "sma" or "rsi""#
    );
    assert_eq!(
        told(json!({"steps": ["a", "x"]})),
        r#"/steps/1 "x" is not one of "a" or "b""#
    );
    assert_eq!(
        told(json!({"steps": [{"type": "x"}]})),
        r#"/steps/0/type "x" is not one of "a""#
    );
    assert!(told(json!({"strategy": {}})).contains("required"));
}

/// 2^14 references to one definition, for each item.
fn costly() -> Schema {
    let mut definitions = serde_json::Map::new();
    for level in 0..14 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        definitions.insert(format!("d{level}"), json!({"allOf": [next, next]}));
    }
    definitions.insert("d14".to_owned(), json!({"type": "integer"}));
    Schema::compile(&json!({"$defs": definitions, "items": {"$ref": "#/$defs/d0"}})).unwrap()
}

#[test]
fn a_check_has_a_time_limit() {
    let schema = costly();
    let began = Instant::now();

    let checked = schema.violations("", &json!(vec![7; 100_000]));

    assert_eq!(checked, Err(TooCostly));
    assert!(began.elapsed() < MAX_CHECK * 2);
    assert!(!schema.is_cheap_for(SMALL));
    assert_eq!(schema.violations("", &json!([7])), Ok(vec![]));
}

/// The errors of a recursive schema can be exponential in the depth of the value.
#[test]
fn a_recursive_schema_has_the_same_limits() {
    let schema = Schema::compile(&json!({
        "$defs": {"n": {"properties": {"b": {"type": "string"}}, "anyOf": [
            {"properties": {"a": {"$ref": "#/$defs/n"}}},
            {"properties": {"a": {"$ref": "#/$defs/n"}}},
        ]}},
        "$ref": "#/$defs/n",
    }))
    .unwrap();
    let deep = (0..100).fold(json!({"b": 1}), |inner, _| json!({"a": inner}));
    let began = Instant::now();

    let checked = schema.violations("", &deep);

    assert!(checked.is_err() || checked.is_ok_and(|found| found.len() == 1));
    assert!(began.elapsed() < MAX_CHECK * 2);
    assert!(!schema.is_cheap_for(1));
}

/// Listing what is wrong costs memory for every error, also of those that are not shown.
#[test]
fn listing_violations_has_a_bound() {
    let wrong_often = json!({"items": {"allOf": vec![json!({"type": "string"}); 100]}});
    let schema =
        Schema::compile(&json!({"anyOf": [wrong_often, {"minItems": 1_000_000}]})).unwrap();
    let items = json!(vec![7; 50_000]);

    let found = schema.violations("/a", &items).unwrap();

    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "/a");
    assert!(found[0].message.contains("too large to list"), "{found:?}");
}

#[test]
fn the_step_keyword_changes_nothing_that_a_client_sees() {
    let schema = Schema::compile(&json!({
        "type": "object", "additionalProperties": false, "properties": {"a": {"const": {"b": 1}}},
    }))
    .unwrap();

    assert_eq!(schema.violations("", &json!({"a": {"b": 1}})), Ok(vec![]));
    for wrong in [json!({STEP: true}), json!({"a": {"b": 1, STEP: true}})] {
        assert_eq!(schema.violations("", &wrong).unwrap().len(), 1);
    }
}

#[test]
fn formats_are_checked_and_unknown_ones_allow_everything() {
    for (format, good, bad) in [
        ("date", "2025-11-10", "10.11.2025"),
        ("date-time", "2025-11-10T10:30:00Z", "2025-11-10 10:30"),
        ("uuid", "67e55044-10b1-426f-9247-bb680e5fe0c8", "67e55044"),
        ("uri", "https://example.com/a?b=c", "hello"),
        ("email", "a@example.com", "a.example.com"),
        ("ipv4", "127.0.0.1", "::1"),
        ("ip", "::1", "localhost"),
        ("duration", "PT1H", "1h"),
    ] {
        let schema = Schema::compile(&json!({"format": format})).unwrap();

        assert_eq!(schema.violations("", &json!(good)), Ok(vec![]), "{format}");
        let found = schema.violations("/at", &json!(bad)).unwrap();
        assert_eq!(found.len(), 1, "{format}");
        assert_eq!(found[0].path, "/at");
        assert!(found[0].message.contains(format), "{found:?}");
    }
    let unknown = Schema::compile(&json!({"format": "uint32"})).unwrap();
    assert_eq!(unknown.violations("", &json!("x")), Ok(vec![]));
}

#[test]
fn what_the_validator_refuses_or_is_too_large_is_unusable() {
    for schema in [
        json!({"type": "nonsense"}),
        json!({"pattern": "("}),
        json!({"pattern": "(a{1000}){1000}"}),
        json!({"$schema": "https://example.com/none"}),
    ] {
        let refused = Schema::compile(&schema);
        assert!(
            matches!(refused, Err(UnusableSchema::Compile(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_panic_of_a_check_arrives_where_it_was_asked_for() {
    let checked = tokio::spawn(check_apart(None, || panic!("a fault of the test"))).await;

    assert!(checked.unwrap_err().is_panic());
    assert_eq!(check_apart(None, || 7).await, Ok(7));
}
