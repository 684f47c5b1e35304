//! Schemas that workers publish, made part of the document: each becomes a component, its definitions become components of
//! their own, and every reference inside is rewritten to where its target went.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Where components are.
const COMPONENTS: &str = "#/components/schemas/";

/// Keys whose value is data, not a schema: whatever looks like a reference there is none.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];

/// Keys whose value maps names to schemas: a member called like a keyword is no keyword.
const MAPS: [&str; 4] = [
    "properties",
    "patternProperties",
    "dependentSchemas",
    "$defs",
];

/// Puts `schema` into `components` under `name`, with everything it defines.
pub fn embed(components: &mut Map<String, Value>, name: &str, schema: &Value) {
    let mut root = match schema {
        Value::Object(root) => root.clone(),
        Value::Bool(_) => {
            components.insert(name.to_owned(), schema.clone());
            return;
        }
        // What is no schema says nothing.
        _ => Map::new(),
    };
    // Its place in the document names it. Generators would take the title for a name, and two schemas can have the same title.
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

/// Where the target of a reference within the schema went; `None` for one that leads elsewhere.
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

/// A name as part of a JSON pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_lead_to_where_their_targets_went() {
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
    fn what_is_no_schema_says_nothing() {
        let mut components = Map::new();
        for odd in [json!(null), json!("x"), json!([1])] {
            embed(&mut components, "t", &odd);
            assert_eq!(components["t"], json!({}));
        }
    }
}
