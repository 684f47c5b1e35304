//! Requirements of an operation ↔ the queue it waits in, and which workers may serve that queue.
//!
//! The name of a queue is canonical (`gpu-cores8-mem16`), so an operator can read from it what a
//! worker must have. A worker serves every queue whose requirements it meets. An operation waits in
//! the queue of a class, which may ask for more than the operation does
//! ([`crate::queue_class`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Queue;
use crate::worker::Capabilities;

/// What a worker must have to run an operation.
///
/// ```
/// use ktrdr_protocol::requirements::Requirements;
///
/// let needs = Requirements { gpu: true, memory_gb: Some(24), ..Requirements::default() };
/// assert_eq!(needs.queue().as_str(), "gpu-mem24");
/// assert_eq!(Requirements::from_queue("gpu-mem24"), Some(needs));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Requirements {
    /// A GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gpu: bool,
    /// At least this many processor cores. The worker that runs it may need to have more: the next
    /// power of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub cores: Option<u32>,
    /// At least this much memory, in GiB. The worker that runs it may need to have more: the next
    /// power of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2048))]
    pub memory_gb: Option<u32>,
}

impl Requirements {
    /// Whether every worker meets them.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// The queue with the name of these requirements: `any`, or the required parts in the order gpu,
    /// cores, mem. Operations wait in it when the requirements are a class.
    pub fn queue(&self) -> Queue {
        let mut parts = Vec::new();
        if self.gpu {
            parts.push("gpu".to_owned());
        }
        if let Some(cores) = self.cores {
            parts.push(format!("cores{cores}"));
        }
        if let Some(memory) = self.memory_gb {
            parts.push(format!("mem{memory}"));
        }
        let token = if parts.is_empty() {
            "any".to_owned()
        } else {
            parts.join("-")
        };
        #[expect(
            clippy::expect_used,
            reason = "built from letters, digits and dashes, far below the length limit"
        )]
        Queue::new(token).expect("a canonical queue token is a valid name")
    }

    /// The requirements behind a queue's name; `None` when the name is not canonical.
    pub fn from_queue(queue: &str) -> Option<Self> {
        let mut requirements = Self::default();
        if queue != "any" {
            for part in queue.split('-') {
                if part == "gpu" {
                    requirements.gpu = true;
                } else if let Some(cores) = part.strip_prefix("cores") {
                    requirements.cores = Some(cores.parse().ok()?);
                } else {
                    requirements.memory_gb = Some(part.strip_prefix("mem")?.parse().ok()?);
                }
            }
        }
        (requirements.queue().as_str() == queue).then_some(requirements)
    }

    /// Whether a worker with these capabilities meets them. An unknown capability meets nothing.
    pub fn met_by(&self, capabilities: &Capabilities) -> bool {
        (!self.gpu || capabilities.gpu)
            && self
                .cores
                .is_none_or(|need| capabilities.cores.is_some_and(|have| have >= need))
            && self
                .memory_gb
                .is_none_or(|need| capabilities.memory_gb.is_some_and(|have| have >= need))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_canonical() {
        let token = |gpu, cores, memory_gb| {
            Requirements {
                gpu,
                cores,
                memory_gb,
            }
            .queue()
            .to_string()
        };
        assert_eq!(token(false, None, None), "any");
        assert_eq!(token(true, None, Some(24)), "gpu-mem24");
        assert_eq!(token(true, Some(8), Some(24)), "gpu-cores8-mem24");
        for other in [
            "",
            "mem24-gpu",
            "gpu-gpu",
            "cores08",
            "cores+8",
            "direct",
            "gpu-",
            "any-gpu",
        ] {
            assert_eq!(Requirements::from_queue(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back_as_its_requirements(gpu: bool, cores: Option<u32>, memory_gb: Option<u32>) {
            let requirements = Requirements { gpu, cores, memory_gb };
            prop_assert_eq!(Requirements::from_queue(requirements.queue().as_str()), Some(requirements));
        }

        #[test]
        fn more_capabilities_never_serve_less(
            gpu: bool, cores: Option<u32>, memory_gb: Option<u32>, have_cores in 0u32..64, have_memory in 0u32..64,
        ) {
            let requirements = Requirements { gpu, cores, memory_gb };
            let small = Capabilities { gpu: false, cores: Some(have_cores), memory_gb: Some(have_memory), ..Default::default() };
            let large = Capabilities { gpu: true, cores: Some(have_cores + 1), memory_gb: Some(have_memory + 1), ..Default::default() };
            prop_assert!(!requirements.met_by(&small) || requirements.met_by(&large));
        }
    }
}
