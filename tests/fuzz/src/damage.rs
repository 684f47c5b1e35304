//! Valid inputs, damaged in many ways: bits, bytes and pieces of the text, and members of JSON.
//!
//! A damage is chosen independently of the input, so that proptest can leave out and simplify
//! damages until it has found the smallest input that fails.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

/// Inputs are cut after so many bytes.
const MAX_LEN: usize = 64 * 1024;

/// Pieces of text on which parsers have failed before.
const NASTY: &[&[u8]] = &[
    b"",
    b" ",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b"\"",
    b"\\",
    b"'",
    b"`",
    b",",
    b":",
    b";",
    b"=",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"-",
    b"+",
    b".",
    b"*",
    b">",
    b"/",
    b"..",
    b"../",
    b"%",
    b"%00",
    b"0",
    b"-0",
    b"00",
    b"1.0",
    b"1e400",
    b"-1e400",
    b"1e-400",
    b"NaN",
    b"inf",
    b"Infinity",
    b"-1",
    b"255",
    b"256",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999999999999999",
    b"0.1e+1",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\x",
    b"\xff",
    b"\xfe\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\xcc\x80",
    "ü".as_bytes(),
    "𝕏".as_bytes(),
    b"2025-11-10T10:30:00Z",
    b"0000-00-00T00:00:00Z",
    b"9999-12-31T23:59:60Z",
    b"+262142-12-31T23:59:59Z",
    b"2024-02-30",
    b"99:99:99",
    b"+99:99",
    b"Bearer ",
    b"bearer\t",
    b"__proto__",
    b"$ref",
    b"#",
    b"#/",
    b"localhost",
    b"[::1]",
    b"127.0.0.1",
    b"a:0",
    b":65536",
];

/// JSON values in place of others.
const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e308",
    "18446744073709551615",
    "-9223372036854775808",
    "4294967296",
    "\"\"",
    "\"a b\"",
    "\"\\u0000\"",
    "\"../../x\"",
    "[]",
    "{}",
    "[[]]",
    "{\"\":{}}",
    "[null]",
    "\"2025-11-10T10:30:00Z\"",
];

/// One damage.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, u16),
    Repeat(Index, u16, u16),
    Insert(Index, usize),
    /// A part of another seed.
    Splice(Index, Index, Index, u16),
    /// The same bracket so many times.
    Nest(Index, bool, u16),
    /// The same digit so many times.
    Digits(Index, u8, u16),
    /// A member of an object stands there once more.
    Twice(Index),
    /// A value of the JSON is another one.
    Replace(Index, usize),
    /// A member of an object is missing.
    Leave(Index),
    /// A string is longer.
    Lengthen(Index, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), 1..64_u16).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), 1..32_u16, 1..200_u16)
            .prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        (at(), 0..NASTY.len()).prop_map(|(at, nasty)| Damage::Insert(at, nasty)),
        (at(), at(), at(), 1..200_u16)
            .prop_map(|(at, seed, from, length)| Damage::Splice(at, seed, from, length)),
        (
            at(),
            any::<bool>(),
            select(vec![2_u16, 100, 127, 128, 129, 1000, 20_000])
        )
            .prop_map(|(at, list, depth)| Damage::Nest(at, list, depth)),
        (at(), b'0'..=b'9', select(vec![5_u16, 20, 40, 310, 5000]))
            .prop_map(|(at, digit, length)| Damage::Digits(at, digit, length)),
        at().prop_map(Damage::Twice),
        (at(), 0..VALUES.len()).prop_map(|(at, value)| Damage::Replace(at, value)),
        at().prop_map(Damage::Leave),
        (
            at(),
            select(vec![10_u16, 127, 128, 129, 256, 1001, 5000, 40_000])
        )
            .prop_map(|(at, length)| Damage::Lengthen(at, length)),
    ]
}

/// Damaged seeds, and a few inputs that resemble nothing.
pub fn inputs(seeds: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds: Arc<[Vec<u8>]> = seeds.into();
    let damaged = (any::<Index>(), vec(damage(), 1..6)).prop_map(move |(seed, damages)| {
        let mut input = match seeds.is_empty() {
            true => Vec::new(),
            false => seed.get(&seeds).clone(),
        };
        for damage in &damages {
            apply(damage, &mut input, &seeds);
            input.truncate(MAX_LEN);
        }
        input
    });
    let nasty = vec(0..NASTY.len(), 0..12).prop_map(|pieces| {
        pieces
            .into_iter()
            .flat_map(|piece| NASTY[piece])
            .copied()
            .collect()
    });
    prop_oneof![
        12 => damaged,
        1 => vec(any::<u8>(), 0..64),
        2 => nasty,
    ]
}

fn apply(damage: &Damage, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let length = input.len();
    // From 0 to the length; a range that begins there may be empty.
    let place = |at: &Index| at.index(length + 1);
    let range = |at: &Index, wanted: u16| {
        let begin = at.index(length + 1);
        begin..length.min(begin + usize::from(wanted))
    };

    match damage {
        Damage::Flip(at, bit) if length > 0 => input[at.index(length)] ^= 1 << bit,
        Damage::Set(at, byte) if length > 0 => input[at.index(length)] = *byte,
        Damage::Flip(..) | Damage::Set(..) => {}
        Damage::Cut(at) => input.truncate(place(at)),
        Damage::Remove(at, wanted) => drop(input.drain(range(at, *wanted))),
        Damage::Repeat(at, wanted, times) => {
            let range = range(at, *wanted);
            let piece = input[range.clone()].repeat(usize::from(*times));
            insert(input, range.end, &piece);
        }
        Damage::Insert(at, nasty) => insert(input, place(at), NASTY[*nasty]),
        Damage::Splice(at, seed, from, wanted) if !seeds.is_empty() => {
            let other = seed.get(seeds);
            let begin = from.index(other.len() + 1);
            let end = other.len().min(begin + usize::from(*wanted));
            insert(input, place(at), &other[begin..end]);
        }
        Damage::Splice(..) => {}
        Damage::Nest(at, list, depth) => {
            let bracket: &[u8] = if *list { b"[" } else { b"{\"a\":" };
            insert(input, place(at), &bracket.repeat(usize::from(*depth)));
        }
        Damage::Digits(at, digit, count) => {
            insert(input, place(at), &vec![*digit; usize::from(*count)]);
        }
        Damage::Twice(at) => twice(at, input),
        Damage::Replace(at, value) => {
            if let Ok(new) = serde_json::from_str(VALUES[*value]) {
                change(input, at, any_value, |value| *value = new);
            }
        }
        Damage::Leave(at) => change(input, at, is_object, |value| {
            if let Value::Object(members) = value
                && let Some(name) = members.keys().next().cloned()
            {
                members.remove(&name);
            }
        }),
        Damage::Lengthen(at, count) => change(input, at, Value::is_string, |value| {
            *value = Value::String("x".repeat(usize::from(*count)));
        }),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// Writes a member of the outermost object once more, at its end.
fn twice(at: &Index, input: &mut Vec<u8>) {
    let Ok(Value::Object(members)) = serde_json::from_slice(input) else {
        return;
    };
    let members: Vec<_> = members.iter().collect();
    let Some(end) = input.iter().rposition(|byte| *byte == b'}') else {
        return;
    };
    if members.is_empty() {
        return;
    }
    let (name, value) = at.get(&members);
    let name = Value::String((*name).clone());
    insert(input, end, format!(",{name}:{value}").as_bytes());
}

fn any_value(_: &Value) -> bool {
    true
}

fn is_object(value: &Value) -> bool {
    value.is_object()
}

/// Changes one of the values that are wanted, if the input is JSON.
fn change(
    input: &mut Vec<u8>,
    at: &Index,
    is_wanted: fn(&Value) -> bool,
    change: impl FnOnce(&mut Value),
) {
    let Ok(mut whole) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let count = count(&whole, is_wanted);
    if count == 0 {
        return;
    }
    let mut left = at.index(count);
    if let Some(value) = nth(&mut whole, is_wanted, &mut left) {
        change(value);
        *input = whole.to_string().into_bytes();
    }
}

fn count(value: &Value, is_wanted: fn(&Value) -> bool) -> usize {
    let below: usize = match value {
        Value::Array(items) => items.iter().map(|item| count(item, is_wanted)).sum(),
        Value::Object(members) => members.values().map(|item| count(item, is_wanted)).sum(),
        _ => 0,
    };
    below + usize::from(is_wanted(value))
}

/// The value before which there are `left` others that are wanted.
fn nth<'a>(
    value: &'a mut Value,
    is_wanted: fn(&Value) -> bool,
    left: &mut usize,
) -> Option<&'a mut Value> {
    if is_wanted(value) {
        if *left == 0 {
            return Some(value);
        }
        *left -= 1;
    }
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, is_wanted, left)),
        Value::Object(members) => members
            .values_mut()
            .find_map(|item| nth(item, is_wanted, left)),
        _ => None,
    }
}
