//! The capabilities of this worker: detected, and overridden by the operator.

use ktrdr_protocol::worker::Capabilities;
use serde_json::{Map, Value};

/// The setting `WORKER_CAPABILITIES` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "WORKER_CAPABILITIES cannot be used: {0}; write for example {{\"cores\":8,\"memory_gb\":16}}"
)]
pub struct InvalidCapabilities(String);

/// Detected capabilities, overridden by `stated`. An engine that does not use a GPU never claims
/// one.
///
/// # Errors
/// [`InvalidCapabilities`] when a stated value has the wrong type, or claims a GPU for an engine
/// that does not use one.
pub(crate) fn determine(
    stated: &Map<String, Value>,
    uses_gpu: bool,
) -> Result<Capabilities, InvalidCapabilities> {
    let detected = Capabilities {
        gpu: uses_gpu && std::path::Path::new("/dev/nvidia0").exists(),
        cores: std::thread::available_parallelism()
            .ok()
            .and_then(|n| u32::try_from(n.get()).ok()),
        memory_gb: memory_gib(),
        other: Map::new(),
    };
    let mut merged = match serde_json::to_value(&detected) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    merged.extend(stated.clone());
    let capabilities: Capabilities = serde_json::from_value(Value::Object(merged))
        .map_err(|error| InvalidCapabilities(error.to_string()))?;
    if capabilities.gpu && !uses_gpu {
        return Err(InvalidCapabilities(
            "gpu is true, but this engine does not use a GPU".to_owned(),
        ));
    }
    Ok(capabilities)
}

/// The names of capabilities that select queues.
const KNOWN: [&str; 3] = ["gpu", "cores", "memory_gb"];

/// How similar a name must be to a known one, from 0 to 1, to be taken for a mistake in writing.
/// `gpus` and `memory` are above it, `gpu_model` is below.
const SIMILAR: f64 = 0.85;

/// Names that look like a known one and are none, each with the one that was probably meant. Other
/// names are allowed: they are shown, and select nothing.
pub(crate) fn misspelt(capabilities: &Capabilities) -> Vec<(&str, &'static str)> {
    let similar = |name: &str| {
        let name = name.to_lowercase();
        KNOWN
            .into_iter()
            .find(|known| strsim::jaro_winkler(&name, known) > SIMILAR)
    };
    capabilities
        .other
        .keys()
        .filter_map(|name| Some((name.as_str(), similar(name)?)))
        .collect()
}

/// How much of its memory a machine of this size may keep to itself.
const RESERVED: f64 = 0.06;

/// Memory in GiB as it is sold: the kernel and the firmware reserve a part, and
/// queue classes are powers of two. So a little less than a power of two counts as that; anything
/// else is rounded to the nearest.
fn as_sold(gib: f64) -> u32 {
    let nearest = gib.round() as u32;
    let power = nearest.next_power_of_two();
    if gib >= f64::from(power) * (1.0 - RESERVED) {
        power
    } else {
        nearest
    }
}

/// Memory of the machine in GiB.
fn memory_gib() -> Option<u32> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: f64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    Some(as_sold(kib / 1024.0 / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stated(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn what_is_stated_counts_over_what_is_detected() {
        let capabilities = determine(&stated(json!({"cores": 3, "zone": "a"})), false).unwrap();
        assert_eq!(capabilities.cores, Some(3));
        assert_eq!(capabilities.other["zone"], "a");
        assert!(capabilities.memory_gb.is_some());
    }

    #[test]
    fn a_name_that_was_probably_meant_otherwise_is_found() {
        let names = json!({"gpus": 1, "Cores": 4, "memory": 16, "gpu_model": "T4", "zone": "a"});
        let capabilities = determine(&stated(names), true).unwrap();

        let mut found = misspelt(&capabilities);
        found.sort_unstable();

        assert_eq!(
            found,
            [("Cores", "cores"), ("gpus", "gpu"), ("memory", "memory_gb")]
        );
    }

    #[test]
    fn memory_counts_as_it_is_sold() {
        for (found, told) in [(62.7, 64), (60.0, 60), (31.2, 32), (15.4, 16), (7.7, 8)] {
            assert_eq!(as_sold(found), told, "{found}");
        }
        assert_eq!(as_sold(47.1), 47);
        assert_eq!(as_sold(64.2), 64);
        assert_eq!(as_sold(0.3), 0);
    }

    #[test]
    fn a_gpu_is_not_claimed_without_a_use_for_it() {
        assert!(determine(&stated(json!({"gpu": true})), false).is_err());
        assert!(determine(&stated(json!({"gpu": true})), true).unwrap().gpu);
        assert!(determine(&stated(json!({"cores": "many"})), false).is_err());
    }
}
