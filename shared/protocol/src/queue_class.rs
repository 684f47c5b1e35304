//! The queue classes: the closed set of queues that a worker type can have.
//!
//! The problem: each queue costs the NATS server a consumer, and the server has a limit of them. If
//! every combination of requirements had a queue of its own, a client could use the limit up.
//!
//! How it is solved: an operation waits in the queue of the smallest class that covers its
//! requirements. A class is a set of requirements itself, so its queue has a canonical name, and a
//! worker serves it when it meets the class. Cores and memory are powers of two. When a request
//! asks for both, its class has 1 to [`MOST_GB_PER_CORE`] GiB for each core, as machines do: what
//! is outside of that is raised. So there are [`CLASSES`] classes, and each request has exactly one
//! smallest.
//!
//! | cores | memory (GiB) | classes, each with and without GPU |
//! |---|---|---|
//! | any | any | 1: `any` (`gpu`) |
//! | 1, 2, 4 … 256 | any | 9: `cores8` |
//! | any | 1, 2, 4 … 2048 | 12: `mem32` |
//! | 1, 2, 4 … 256 | 1, 2, 4 or 8 times the cores | 36: `cores8-mem16` |
//!
//! Rejected: a configured list of classes. Backends with different lists would put the same request
//! into different queues. Also rejected: a worker that takes only some of the requests of a queue
//! that it does not meet, because the others would stand before the ones that it can run.

use crate::requirements::Requirements;

/// Cores of the largest class. A start request cannot ask for more.
pub const MAX_CORES: u32 = 256;

/// Memory of the largest class, in GiB. A start request cannot ask for more.
pub const MAX_MEMORY_GB: u32 = 2048;

/// Most GiB for each core in a class that has both. The least is one.
pub const MOST_GB_PER_CORE: u32 = 8;

/// How many classes there are.
pub const CLASSES: usize = 116;

/// Requirements that are beyond the largest class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} is more than {most}, the most that a queue of workers exists for")]
pub struct BeyondLargest {
    /// The field of the requirements.
    pub field: &'static str,
    /// What it asks for.
    pub asked: u32,
    /// What it may ask for.
    pub most: u32,
}

/// The smallest class that covers `asked`: every worker that meets it meets `asked`, too.
///
/// # Errors
/// [`BeyondLargest`] when none does.
///
/// ```
/// use ktrdr_protocol::queue_class::covering;
/// use ktrdr_protocol::requirements::Requirements;
///
/// let asked = Requirements { cores: Some(6), memory_gb: Some(10), ..Requirements::default() };
/// assert_eq!(covering(&asked)?.queue().as_str(), "cores8-mem16");
///
/// let asked = Requirements { cores: Some(1), memory_gb: Some(64), ..Requirements::default() };
/// assert_eq!(covering(&asked)?.queue().as_str(), "cores8-mem64");
/// # Ok::<(), ktrdr_protocol::queue_class::BeyondLargest>(())
/// ```
pub fn covering(asked: &Requirements) -> Result<Requirements, BeyondLargest> {
    let cores = step("cores", asked.cores, MAX_CORES)?;
    let memory_gb = step("memory_gb", asked.memory_gb, MAX_MEMORY_GB)?;

    let (cores, memory_gb) = match (cores, memory_gb) {
        (Some(cores), Some(memory)) => (
            Some(cores.max(memory / MOST_GB_PER_CORE)),
            Some(memory.max(cores)),
        ),
        alone => alone,
    };
    Ok(Requirements {
        gpu: asked.gpu,
        cores,
        memory_gb,
    })
}

/// The power of two at or above a value.
fn step(field: &'static str, asked: Option<u32>, most: u32) -> Result<Option<u32>, BeyondLargest> {
    match asked {
        Some(asked) if asked > most => Err(BeyondLargest { field, asked, most }),
        asked => Ok(asked.map(u32::next_power_of_two)),
    }
}

/// Whether the requirements are a class.
pub fn is_class(requirements: &Requirements) -> bool {
    covering(requirements).as_ref() == Ok(requirements)
}

/// Every class, `any` first.
pub fn all() -> Vec<Requirements> {
    let powers = |most: u32| {
        let values = (0..32).map(|bit| 1 << bit).filter(move |n| *n <= most);
        std::iter::once(None).chain(values.map(Some))
    };
    let mut found = Vec::new();
    for gpu in [false, true] {
        for cores in powers(MAX_CORES) {
            for memory_gb in powers(MAX_MEMORY_GB) {
                found.push(Requirements {
                    gpu,
                    cores,
                    memory_gb,
                });
            }
        }
    }
    found.retain(is_class);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Capabilities;
    use proptest::prelude::*;

    fn exact(requirements: &Requirements) -> Capabilities {
        Capabilities {
            gpu: requirements.gpu,
            cores: requirements.cores,
            memory_gb: requirements.memory_gb,
            ..Capabilities::default()
        }
    }

    fn asked() -> impl Strategy<Value = Requirements> {
        let cores = prop::option::of(1..=MAX_CORES);
        let memory = prop::option::of(1..=MAX_MEMORY_GB);
        (any::<bool>(), cores, memory).prop_map(|(gpu, cores, memory_gb)| Requirements {
            gpu,
            cores,
            memory_gb,
        })
    }

    #[test]
    fn there_are_as_many_classes_as_said_and_their_names_read_back() {
        let all = all();

        assert_eq!(all.len(), CLASSES);
        for class in all {
            assert_eq!(
                Requirements::from_queue(class.queue().as_str()),
                Some(class)
            );
        }
    }

    #[test]
    fn the_names_of_the_simple_queues_stay() {
        let gpu = Requirements {
            gpu: true,
            ..Requirements::default()
        };

        assert_eq!(
            covering(&Requirements::default()).unwrap().queue().as_str(),
            "any"
        );
        assert_eq!(covering(&gpu).unwrap().queue().as_str(), "gpu");
    }

    #[test]
    fn what_is_beyond_the_largest_class_is_refused_with_the_limit() {
        let wide = Requirements {
            cores: Some(MAX_CORES + 1),
            ..Requirements::default()
        };
        let high = Requirements {
            cores: Some(1),
            memory_gb: Some(u32::MAX),
            ..Requirements::default()
        };

        assert_eq!(
            covering(&wide).unwrap_err(),
            BeyondLargest {
                field: "cores",
                asked: 257,
                most: 256
            }
        );
        assert_eq!(covering(&high).unwrap_err().field, "memory_gb");
    }

    #[test]
    fn the_schema_of_requirements_has_the_bounds_of_the_largest_class() {
        let schema = schemars::schema_for!(Requirements).to_value();

        assert_eq!(schema["properties"]["cores"]["maximum"], MAX_CORES);
        assert_eq!(schema["properties"]["memory_gb"]["maximum"], MAX_MEMORY_GB);
    }

    proptest! {
        #[test]
        fn a_worker_that_meets_the_class_meets_the_request(asked in asked()) {
            let class = covering(&asked).unwrap();

            prop_assert!(asked.met_by(&exact(&class)));
        }

        #[test]
        fn the_class_is_one_of_the_set_and_its_own(asked in asked()) {
            let class = covering(&asked).unwrap();

            prop_assert!(all().contains(&class));
            prop_assert_eq!(covering(&class), Ok(class));
        }

        #[test]
        fn no_other_class_that_covers_the_request_is_smaller(asked in asked()) {
            let class = covering(&asked).unwrap();

            for other in all() {
                if asked.met_by(&exact(&other)) {
                    prop_assert!(class.met_by(&exact(&other)), "{class:?} {other:?}");
                }
            }
        }

        #[test]
        fn who_asks_for_more_gets_no_smaller_class(asked in asked(), more in asked()) {
            if asked.met_by(&exact(&more)) {
                let (class, larger) = (covering(&asked).unwrap(), covering(&more).unwrap());
                prop_assert!(class.met_by(&exact(&larger)));
            }
        }
    }
}
