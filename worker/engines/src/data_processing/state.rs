//! The state of operations as MessagePack: compact, and exact to the last bit of a number.

use std::io::{Error, Read, Result, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Writes `state`.
pub(super) fn write(state: &impl Serialize, mut output: &mut dyn Write) -> Result<()> {
    rmp_serde::encode::write(&mut output, state).map_err(Error::other)
}

/// Reads one state that [`write()`] wrote, and no byte behind it.
pub(super) fn read<T: DeserializeOwned>(input: &mut dyn Read) -> Result<T> {
    rmp_serde::from_read(input).map_err(Error::other)
}

/// The largest count of a state that is believed. Counting on from there does not overflow.
const MAX_COUNT: u64 = 1 << 62;

/// Fails when a whole number in `counts` is larger than any run counts to.
pub(super) fn check_counts(counts: &impl Serialize) -> Result<()> {
    fn all_are_sound(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().all(all_are_sound),
            Value::Object(members) => members.values().all(all_are_sound),
            Value::Number(number) => number.as_u64().is_none_or(|count| count <= MAX_COUNT),
            _ => true,
        }
    }

    let counts = serde_json::to_value(counts).map_err(Error::other)?;
    if all_are_sound(&counts) {
        Ok(())
    } else {
        Err(Error::other("the state has impossible counts"))
    }
}

/// Fails when a state does not have as many parts as the plan.
pub(super) fn check_len(found: usize, planned: usize) -> Result<()> {
    if found == planned {
        Ok(())
    } else {
        Err(Error::other("the state belongs to another plan"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_each_other_in_one_file() {
        let mut bytes = Vec::new();
        let numbers = [f64::MIN_POSITIVE, -0.0, f64::INFINITY, 0.1];

        write(&numbers, &mut bytes).unwrap();
        write(&(String::from("x"), Some(u64::MAX)), &mut bytes).unwrap();
        write(&7_u8, &mut bytes).unwrap();

        let mut input = &bytes[..];

        assert_eq!(
            read::<[f64; 4]>(&mut input).unwrap().map(f64::to_bits),
            numbers.map(f64::to_bits)
        );
        assert_eq!(
            read::<(String, Option<u64>)>(&mut input).unwrap(),
            ("x".into(), Some(u64::MAX))
        );
        assert_eq!(read::<u8>(&mut input).unwrap(), 7);
        assert!(read::<u8>(&mut input).is_err());
    }
}
