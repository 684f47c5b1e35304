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

use std::collections::HashMap;

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

/// Adds `schema` to `components` as `name`, and its definitions beside it.
pub fn embed(components: &mut Map<String, Value>, name: &str, schema: &Value) {
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
        root.remove(name);
    }

    let mut definitions = Vec::new();
    for key in ["$defs", "definitions"] {
        if let Some(Value::Object(found)) = root.remove(key) {
            definitions.extend(
                found
                    .into_iter()
                    .map(|(word, schema)| (format!("#/{key}/{}", escape(&word)), word, schema)),
            );
        }
    }

    let mut places = HashMap::new();
    for (pointer, word, _) in &definitions {
        let plain: String = word
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let mut place = format!("{name}_{plain}");
        while places.values().any(|taken| *taken == place) {
            place.push('_');
        }
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
    let definition = places.iter().find_map(|(pointer, place)| {
        let rest = target.strip_prefix(pointer.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{COMPONENTS}{place}{rest}"))
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
        embed(&mut components, "t_request", &schema);
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
            embed(&mut components, "t", &odd);
            assert_eq!(components["t"], json!({}));
        }
    }
}
