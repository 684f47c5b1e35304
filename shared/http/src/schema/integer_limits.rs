//! The limits of integer types in schemas, for example that a `u64` is at most 18446744073709551615.
//!
//! The problem: `"format": "uint64"` forbids no value, so workers publish the limits too, or a number
//! that no worker can read would be accepted. But nobody who reads a schema has to know them: they
//! are no choice of its author, and tools cannot write numbers of this size.
//!
//! How it is solved: a backend takes the limits of large types out of what it shows, and
//! [`Schema::compile`](super::Schema::compile) puts all of them back.

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

/// Limits above this many bits say nothing to people.
const MAX_TOLD_BITS: u32 = 16;

/// The limits of an integer type by the format of its schema, and its size.
fn limits(format: &str) -> Option<(Value, Value, u32)> {
    Some(match format {
        "uint8" => (Value::from(0), Value::from(u8::MAX), 8),
        "uint16" => (Value::from(0), Value::from(u16::MAX), 16),
        "uint32" => (Value::from(0), Value::from(u32::MAX), 32),
        "uint64" | "uint" => (Value::from(0), Value::from(u64::MAX), 64),
        "int8" => (Value::from(i8::MIN), Value::from(i8::MAX), 8),
        "int16" => (Value::from(i16::MIN), Value::from(i16::MAX), 16),
        "int32" => (Value::from(i32::MIN), Value::from(i32::MAX), 32),
        "int64" | "int" => (Value::from(i64::MIN), Value::from(i64::MAX), 64),
        _ => return None,
    })
}

fn limits_of(schema: &Schema) -> Option<(Value, Value, u32)> {
    limits(schema.get("format").and_then(Value::as_str)?)
}

/// Adds the limits of its type to the schema of an integer, not to those inside of it. Limits that its
/// author has set stay.
pub fn add(schema: &mut Schema) {
    let Some((least, most, _)) = limits_of(schema) else {
        return;
    };
    let limits = schema.ensure_object();
    if !limits.contains_key("exclusiveMinimum") {
        limits.entry("minimum").or_insert(least);
    }
    if !limits.contains_key("exclusiveMaximum") {
        limits.entry("maximum").or_insert(most);
    }
}

/// Takes the limits of a large type out of the schema of an integer. That it is not negative stays.
fn remove(schema: &mut Schema) {
    let Some((least, most, bits)) = limits_of(schema) else {
        return;
    };
    if bits <= MAX_TOLD_BITS {
        return;
    }
    let limits = schema.ensure_object();
    if least != 0 && limits.get("minimum") == Some(&least) {
        limits.shift_remove("minimum");
    }
    if limits.get("maximum") == Some(&most) {
        limits.shift_remove("maximum");
    }
}

/// Takes the limits of large types out of a schema and of all schemas inside of it.
pub fn remove_all(schema: &mut Value) {
    transform(schema, remove);
}

/// Puts them back, with those of small types.
pub(super) fn add_all(schema: &mut Value) {
    transform(schema, add);
}

fn transform(schema: &mut Value, change: fn(&mut Schema)) {
    if let Ok(schema) = <&mut Schema>::try_from(schema) {
        RecursiveTransform(change).transform(schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn without(mut schema: Value) -> Value {
        remove_all(&mut schema);
        schema
    }

    #[test]
    fn limits_of_large_types_go_and_come_back() {
        let published = json!({"type": "object", "properties": {
            "seed": {"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX},
            "steps": {"type": ["integer", "null"], "format": "uint32", "minimum": 1, "maximum": u32::MAX},
            "many": {"items": {"format": "int64", "minimum": i64::MIN, "maximum": i64::MAX}},
            "small": {"format": "uint8", "minimum": 0, "maximum": 255},
        }});

        let shown = without(published.clone());

        assert_eq!(
            shown,
            json!({"type": "object", "properties": {
                "seed": {"type": "integer", "format": "uint64", "minimum": 0},
                "steps": {"type": ["integer", "null"], "format": "uint32", "minimum": 1},
                "many": {"items": {"format": "int64"}},
                "small": {"format": "uint8", "minimum": 0, "maximum": 255},
            }})
        );
        let mut checked = shown;
        add_all(&mut checked);
        assert_eq!(checked, published);
    }

    #[test]
    fn limits_that_an_author_has_set_stay_and_data_is_no_schema() {
        for schema in [
            json!({"format": "uint64", "minimum": 0, "maximum": 600}),
            json!({"format": "uint32", "exclusiveMinimum": 0, "exclusiveMaximum": 10}),
            json!({"const": {"format": "uint64", "maximum": u64::MAX}}),
            json!({"enum": [{"format": "int64", "minimum": i64::MIN}]}),
            json!({"properties": {"format": {"default": {"format": "uint64", "maximum": u64::MAX}}}}),
            json!({"format": "float", "maximum": u64::MAX}),
            json!(true),
            json!([1]),
        ] {
            assert_eq!(without(schema.clone()), schema);
            let mut checked = schema.clone();
            add_all(&mut checked);
            assert_eq!(checked, schema);
        }
    }
}
