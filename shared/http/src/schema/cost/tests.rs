use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// `levels` definitions, each of which refers to the next one twice.
fn chain(levels: usize, keyword: &str, end: &Value) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        definitions.insert(format!("d{level}"), json!({keyword: [next, next]}));
    }
    definitions.insert(format!("d{levels}"), end.clone());
    json!({"$defs": definitions, "$ref": "#/$defs/d0"})
}

#[test]
fn an_exponential_schema_is_refused_at_once() {
    for (levels, keyword, end) in [
        (30, "allOf", json!({"type": "object"})),
        (24, "anyOf", json!({"type": "string"})),
        (16, "oneOf", json!({"type": "string"})),
        (600, "allOf", json!({})),
    ] {
        let schema = chain(levels, keyword, &end);
        let began = Instant::now();
        let refused = Cost::of(&schema);

        assert!(
            matches!(
                refused,
                Err(UnusableSchema::TooManyNodes | UnusableSchema::TooDeep)
            ),
            "{refused:?}"
        );
        assert!(began.elapsed() < Duration::from_millis(100));
    }
    // Deeper into the value at each level.
    let mut wide = chain(30, "prefixItems", &json!({}));
    assert_eq!(Cost::of(&wide), Err(UnusableSchema::TooManyNodes));
    wide["$defs"]["d30"] = json!({"$ref": "#/$defs/d0"});
    assert_eq!(Cost::of(&wide), Err(UnusableSchema::TooManyNodes));

    let fine = Cost::of(&chain(8, "allOf", &json!({"type": "object"}))).unwrap();
    assert!(fine.nodes > 512 && !fine.is_recursive, "{fine:?}");
}

#[test]
fn a_schema_that_never_ends_or_leads_elsewhere_is_refused() {
    let refused = |schema: Value| Cost::of(&schema).unwrap_err();

    assert_eq!(refused(json!({"$ref": "#"})), UnusableSchema::Endless);
    assert_eq!(
        refused(json!({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}})),
        UnusableSchema::Endless
    );
    for reference in [
        "https://example.com/s.json",
        "other.json#/a",
        "#name",
        "//x",
    ] {
        assert_eq!(
            refused(json!({"items": {"$ref": reference}})),
            UnusableSchema::Reference(reference.to_owned())
        );
    }
    for reference in ["#/$defs/missing", "#/default", "#/properties"] {
        assert_eq!(
            refused(json!({"default": {"a": 1}, "properties": {}, "items": {"$ref": reference}})),
            UnusableSchema::Dangling(reference.to_owned())
        );
    }
    assert_eq!(
        refused(json!({"items": {"$id": "https://example.com"}})),
        UnusableSchema::Keyword("$id")
    );
    assert_eq!(
        refused(json!({"$dynamicRef": "#meta"})),
        UnusableSchema::Keyword("$dynamicRef")
    );
}

#[test]
fn what_is_no_schema_or_too_much_of_one_is_refused() {
    for (schema, kind) in [
        (json!([]), "a list"),
        (json!("x"), "a string"),
        (json!(7), "a number"),
        (Value::Null, "null"),
    ] {
        assert_eq!(Cost::of(&schema), Err(UnusableSchema::NotAnObject(kind)));
    }
    let long = json!({"properties": {"a": {"pattern": "a".repeat(400_000)}}});
    assert!(matches!(
        Cost::of(&long),
        Err(UnusableSchema::TooLarge { bytes }) if bytes > 400_000
    ));
    let patterns = json!({"allOf": vec![json!({"pattern": "a"}); MAX_PATTERNS + 1]});
    assert_eq!(Cost::of(&patterns), Err(UnusableSchema::TooManyPatterns));
    let nested = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
    assert_eq!(Cost::of(&nested), Err(UnusableSchema::TooDeep));

    assert_eq!(Cost::of(&json!({})).unwrap().nodes, 1);
    assert_eq!(Cost::of(&json!(true)).unwrap().nodes, 1);
}

#[test]
fn a_recursive_schema_is_fine_where_it_goes_into_the_value() {
    let tree = json!({
        "$defs": {"a b/c": {"properties": {"left": {"$ref": "#/$defs/a%20b~1c"}, "right": {"$ref": "#/$defs/a%20b~1c"}}}},
        "items": {"$ref": "#/$defs/a%20b~1c"},
    });

    let cost = Cost::of(&tree).unwrap();

    assert!(cost.is_recursive);
}

/// Data that looks like a reference is data.
#[test]
fn only_schemas_are_looked_at() {
    let schema = json!({
        "default": {"$ref": "https://example.com"},
        "properties": {"$ref": {"type": "string"}, "$id": {"const": {"$id": "x"}}},
    });

    assert_eq!(Cost::of(&schema).unwrap().nodes, 3);
}

/// A validator keeps the path of each keyword: 30 KB around 4,000 subschemas would be hundreds of megabytes.
#[test]
fn much_below_long_names_is_refused() {
    let many: Map<String, Value> = (0..3_000).map(|at| (at.to_string(), json!({}))).collect();
    let many = json!({"properties": many});
    let below = |name: &str| json!({"properties": {name: many}});

    assert_eq!(
        Cost::of(&below(&"x".repeat(30_000))),
        Err(UnusableSchema::PathsTooLong)
    );
    assert!(Cost::of(&below(&"x".repeat(500))).is_ok());
    // Where references lead there, the path begins anew.
    let long = json!({"$defs": {"many": many}, "properties": {"x".repeat(20_000): {"$ref": "#/$defs/many"}}});
    assert!(Cost::of(&long).is_ok());
}

#[test]
fn what_a_compiled_schema_keeps_counts_as_memory() {
    let memory = |schema: Value| Cost::of(&schema).unwrap().memory;

    let small = memory(json!({"properties": {"a": {"type": "integer", "default": 7}}}));
    assert!(small < 10_000, "{small}");
    let objects = vec![json!({"a": 0}); 6_000];
    assert!(memory(json!({"examples": objects})) < 10_000);
    assert!(memory(json!({"enum": objects})) > 1_000_000);
    let patterns = vec![json!({"pattern": "a"}); MAX_PATTERNS];
    assert!(memory(json!({"allOf": patterns})) > 10_000_000);
}

/// Each of its parts is allowed: patterns, subschemas, and long names around them.
#[test]
fn what_would_take_too_much_memory_is_refused() {
    let schema = |subschemas: usize, name: usize| {
        let patterns = vec![json!({"pattern": "a"}); MAX_PATTERNS];
        let many = json!({"allOf": vec![json!({}); subschemas]});
        json!({"allOf": patterns, "properties": {"x".repeat(name): many}})
    };
    let memory = |subschemas| match Cost::of(&schema(subschemas, 300)) {
        Ok(cost) => Ok(cost.memory),
        Err(UnusableSchema::TooMuchMemory { bytes }) => Err(bytes),
        Err(other) => panic!("{other}"),
    };

    assert!(matches!(
        Cost::of(&schema(20_000, 390)),
        Err(UnusableSchema::TooMuchMemory { bytes }) if bytes > 64 * 1024 * 1024
    ));
    let counts: Vec<usize> = (0..20_000).collect();
    let most = counts.partition_point(|count| memory(*count).is_ok()) - 1;
    let (allowed, refused) = (memory(most).unwrap(), memory(most + 1).unwrap_err());
    assert!(allowed <= MAX_MEMORY && refused > MAX_MEMORY);
    assert!(refused - allowed < 10_000, "{allowed} {refused}");
}

/// Subschemas, counted by replacing every reference.
fn expanded(root: &Value, schema: &Value, budget: &mut u64) -> u64 {
    if *budget == 0 {
        return 1;
    }
    *budget -= 1;
    let Value::Object(members) = schema else {
        return 1;
    };
    let mut nodes = 1;
    if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
        nodes += expanded(root, root.pointer(&reference[1..]).unwrap(), budget);
    }
    for (keyword, inner) in members {
        let inner: Vec<&Value> = match (keyword.as_str(), inner) {
            ("properties", Value::Object(members)) => members.values().collect(),
            ("allOf" | "prefixItems", Value::Array(items)) => items.iter().collect(),
            ("not" | "items", schema) => vec![schema],
            _ => Vec::new(),
        };
        nodes += inner
            .into_iter()
            .map(|inner| expanded(root, inner, budget))
            .sum::<u64>();
    }
    nodes
}

/// A schema whose references lead to definitions above `level` only, so that it ends.
fn any_schema(level: usize, levels: usize) -> impl Strategy<Value = Value> {
    let leaf = if level + 1 < levels {
        prop_oneof![
            Just(json!({"type": "string"})),
            Just(json!(true)),
            (level + 1..levels).prop_map(|to| json!({"$ref": format!("#/$defs/d{to}")})),
        ]
        .boxed()
    } else {
        prop_oneof![Just(json!({"minimum": 1})), Just(json!(false))].boxed()
    };
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            list.clone().prop_map(|list| json!({"allOf": list})),
            list.prop_map(|list| json!({"prefixItems": list})),
            inner.clone().prop_map(|inner| json!({"not": inner})),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"properties": {"a": a}, "items": b})),
        ]
    })
}

proptest! {
    #[test]
    fn the_count_is_that_of_the_expanded_schema(
        definitions in (0_usize..6).prop_map(|level| any_schema(level, 6)).prop_flat_map(|_| {
            (0..6).map(|level| any_schema(level, 6).boxed()).collect::<Vec<_>>()
        })
    ) {
        let definitions: Map<String, Value> = definitions
            .into_iter()
            .enumerate()
            .map(|(level, schema)| (format!("d{level}"), schema))
            .collect();
        let schema = json!({"$defs": definitions, "$ref": "#/$defs/d0"});

        let mut budget = MAX_NODES + 1;
        let naive = expanded(&schema, &schema, &mut budget);
        match Cost::of(&schema) {
            Ok(cost) => prop_assert_eq!(cost.nodes, naive),
            Err(UnusableSchema::TooManyNodes) => prop_assert_eq!(budget, 0),
            Err(UnusableSchema::TooDeep) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
