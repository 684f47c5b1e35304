//! Puts the schemas that workers publish into the OpenAPI document.
//!
//! The problem: a worker's schema is a document of its own. Its references (`#/$defs/…`) point to
//! its own root, and inside the OpenAPI document they would point to something else or to nothing.
//!
//! How it is solved: each schema becomes a component, each of its definitions becomes another
//! component, and every reference is rewritten to the new place. Definitions get the name of the
//! schema as a prefix, so two worker types may use the same name.
//!
//! Rejected: inlining the definitions, because a schema may refer to itself and because generators
//! make a named class only of a component. Also rejected: keeping `$id` and the references as they
//! are. JSON Schema allows it, but most generators do not support it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// Where components are.
const COMPONENTS: &str = "#/components/schemas/";

/// Keys whose value is data, not a schema. A member `$ref` in there is not a reference.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];

/// Keys whose value maps names to schemas. A name in there is not a keyword, even if it looks like
/// one.
const MAPS: [&str; 4] = [
    "properties",
    "patternProperties",
    "dependentSchemas",
    "$defs",
];

/// Adds `schema` to `components` as `name`, and its definitions beside it, at places that are not
/// taken.
pub fn embed(
    components: &mut Map<String, Value>,
    name: &str,
    schema: &Value,
    is_taken: impl Fn(&str) -> bool,
) {
    let mut root = match schema {
        Value::Object(root) => root.clone(),
        Value::Bool(_) => {
            components.insert(name.to_owned(), schema.clone());
            return;
        }
        // Anything else is not a schema, and restricts nothing.
        _ => Map::new(),
    };
    // Generators prefer a title over the component's name, and two schemas can have the same title.
    for name in ["$schema", "$id", "title"] {
        root.shift_remove(name);
    }

    let mut definitions = Vec::new();
    for key in ["$defs", "definitions"] {
        if let Some(Value::Object(found)) = root.shift_remove(key) {
            definitions.extend(
                found
                    .into_iter()
                    .map(|(word, schema)| (format!("#/{key}/{}", escape(&word)), word, schema)),
            );
        }
    }

    let mut places = HashMap::new();
    let mut found = HashSet::new();
    // The next number of a name that is there more than once: a thousand names that are not plain
    // may be the same plain one.
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for (pointer, word, _) in &definitions {
        let plain = format!("{name}_{}", plain(word));
        let mut place = plain.clone();
        while is_taken(&place) || found.contains(&place) {
            let number = numbers.entry(plain.clone()).or_insert(1);
            *number += 1;
            place = format!("{plain}_{number}");
        }
        found.insert(place.clone());
        places.insert(pointer.clone(), place);
    }

    for (pointer, _, mut schema) in definitions {
        rewrite(&mut schema, name, &places);
        if let Some(place) = places.get(&pointer) {
            components.insert(place.clone(), schema);
        }
    }
    let mut root = Value::Object(root);
    rewrite(&mut root, name, &places);
    components.insert(name.to_owned(), root);
}

/// The name with nothing but letters, digits and underscores.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.replace(|c| !is_plain(c), "_")
}

/// Rewrites every reference inside `schema`.
fn rewrite(schema: &mut Value, name: &str, places: &HashMap<String, String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref" | "$dynamicRef", Value::String(target)) => {
                        if let Some(moved) = moved(target, name, places) {
                            *target = moved;
                        }
                    }
                    (key, _) if DATA.contains(&key) => {}
                    (key, Value::Object(members)) if MAPS.contains(&key) => {
                        members
                            .values_mut()
                            .for_each(|member| rewrite(member, name, places));
                    }
                    (_, value) => rewrite(value, name, places),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| rewrite(item, name, places)),
        _ => {}
    }
}

/// The new place of a reference's target. `None` when the reference leaves the schema.
fn moved(target: &str, name: &str, places: &HashMap<String, String>) -> Option<String> {
    let inside = target.strip_prefix('#')?;
    if inside.is_empty() {
        return Some(format!("{COMPONENTS}{name}"));
    }
    // A definition is two members below the root: `#/$defs/Name`.
    let mut slashes = target.match_indices('/').map(|(at, _)| at);
    let end = slashes.nth(2).unwrap_or(target.len());
    let definition = target.get(..end).and_then(|pointer| {
        let (place, rest) = (places.get(pointer)?, target.get(end..)?);
        Some(format!("{COMPONENTS}{place}{rest}"))
    });
    definition.or_else(|| {
        inside
            .starts_with('/')
            .then(|| format!("{COMPONENTS}{name}{inside}"))
    })
}

/// Escapes a name for a JSON pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_point_to_the_new_places_of_their_targets() {
        let mut components = Map::new();
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.org/x",
            "title": "Request", "type": "object",
            "properties": {
                "a": {"$ref": "#/$defs/A/properties/b"}, "ab": {"$ref": "#/$defs/AB"}, "self": {"$ref": "#"},
                "beside": {"$ref": "#/properties/a"}, "default": {"$ref": "#/$defs/odd~1name"},
                "data": {"default": {"$ref": "#/$defs/A"}, "enum": [{"$ref": "#"}]},
            },
            "$defs": {"A": {"items": [{"$ref": "#/$defs/AB"}]}, "AB": true, "odd/name": {}},
        });
        embed(&mut components, "t_request", &schema, |_| false);
        let root = &components["t_request"];
        let at = |pointer: &str| root.pointer(pointer).unwrap().as_str().unwrap();
        assert_eq!(
            at("/properties/a/$ref"),
            "#/components/schemas/t_request_A/properties/b"
        );
        assert_eq!(
            at("/properties/ab/$ref"),
            "#/components/schemas/t_request_AB"
        );
        assert_eq!(
            at("/properties/self/$ref"),
            "#/components/schemas/t_request"
        );
        assert_eq!(
            at("/properties/beside/$ref"),
            "#/components/schemas/t_request/properties/a"
        );
        assert_eq!(
            at("/properties/default/$ref"),
            "#/components/schemas/t_request_odd_name"
        );
        assert_eq!(at("/properties/data/default/$ref"), "#/$defs/A");
        assert_eq!(
            components["t_request_A"]["items"][0]["$ref"],
            "#/components/schemas/t_request_AB"
        );
        assert_eq!(components["t_request_AB"], true);
        for removed in ["$id", "$defs", "title"] {
            assert!(root.get(removed).is_none(), "{removed}");
        }
    }

    #[test]
    fn anything_that_is_not_a_schema_restricts_nothing() {
        let mut components = Map::new();
        for odd in [json!(null), json!("x"), json!([1])] {
            embed(&mut components, "t", &odd, |_| false);
            assert_eq!(components["t"], json!({}));
        }
    }

    #[test]
    fn names_that_are_the_same_without_their_odd_characters_have_places_of_their_own() {
        let odd = |at: u32| char::from_u32(0x4e00 + at).unwrap().to_string();
        let mut definitions: Map<String, Value> =
            (0..8_000).map(|at| (odd(at), json!({}))).collect();
        definitions.insert(
            "free".to_owned(),
            json!({"$ref": format!("#/$defs/{}", odd(0))}),
        );
        let mut components = Map::new();

        embed(
            &mut components,
            "t",
            &json!({"$defs": definitions}),
            |place| place == "t_free",
        );

        assert_eq!(components.len(), 8_002);
        assert_eq!(components["t_free_2"]["$ref"], format!("{COMPONENTS}t__"));
    }
}
