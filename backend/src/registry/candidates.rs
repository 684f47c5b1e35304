//! How many workers of a type could run an operation, and why none of them can.

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::worker::Heartbeat;

/// How many workers could run an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Workers of the type that are not silent.
    pub alive: usize,
    /// Those among them that meet the requirements, have not lost all their slots and take work.
    pub able: usize,
    /// Those that are alive and drain.
    pub draining: usize,
    /// Those that meet the requirements and have lost all their slots, and do not drain.
    pub without_slot: usize,
}

impl Candidates {
    /// Counts a worker that is not silent.
    pub(super) fn count(&mut self, heartbeat: &Heartbeat, requirements: &Requirements) {
        self.alive += 1;
        if heartbeat.draining {
            self.draining += 1;
        } else if requirements.met_by(&heartbeat.capabilities) {
            match heartbeat.lost_slots < heartbeat.slots {
                true => self.able += 1,
                false => self.without_slot += 1,
            }
        }
    }

    /// Why no worker can take an operation of this class, as the beginning of a sentence. `None` when one
    /// can.
    pub fn why_none(&self, worker_type: &WorkerType, class: &Requirements) -> Option<String> {
        if self.able > 0 {
            return None;
        }
        if self.alive == 0 {
            return Some(format!("no {worker_type} worker is registered"));
        }
        let taking = self.alive - self.draining;
        let is_one = taking == 1;
        if taking == 0 {
            return Some(match self.draining {
                1 => format!("the only {worker_type} worker is draining"),
                all => format!("all {all} {worker_type} workers are draining"),
            });
        }

        let which = match self.draining {
            0 => "",
            _ if is_one => " that is not draining",
            _ => " that are not draining",
        };
        let who = match is_one {
            true => format!("the only {worker_type} worker{which}"),
            false => format!("none of the {taking} {worker_type} workers{which}"),
        };
        let what = match (self.without_slot, is_one) {
            (0, true) => format!("does not have {}", in_words(class)),
            (0, false) => format!("has {}", in_words(class)),
            (_, true) => "has no slot left: its engine does not return".to_owned(),
            (lost, false) if lost == taking => "has a slot left: engines do not return".to_owned(),
            (_, false) => format!("has {} and a slot left", in_words(class)),
        };
        Some(format!("{who} {what}"))
    }
}

/// Requirements in words.
fn in_words(class: &Requirements) -> String {
    let gpu = class.gpu.then(|| "a GPU".to_owned());
    let cores = class.cores.map(|cores| format!("{cores} cores"));
    let memory = class
        .memory_gb
        .map(|memory| format!("{memory} GiB of memory"));
    let parts: Vec<String> = [gpu, cores, memory].into_iter().flatten().collect();
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => parts.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_cause_is_named() {
        let of = |alive, draining, without_slot| Candidates {
            alive,
            able: 0,
            draining,
            without_slot,
        };
        let worker_type = WorkerType::new("dummy").unwrap();
        let class = Requirements {
            gpu: true,
            ..Requirements::default()
        };

        let cases = [
            (of(0, 0, 0), "no dummy worker is registered"),
            (of(1, 1, 0), "the only dummy worker is draining"),
            (of(3, 3, 0), "all 3 dummy workers are draining"),
            (of(1, 0, 0), "the only dummy worker does not have a GPU"),
            (of(3, 0, 0), "none of the 3 dummy workers has a GPU"),
            (
                of(3, 1, 0),
                "none of the 2 dummy workers that are not draining has a GPU",
            ),
            (
                of(3, 2, 1),
                "the only dummy worker that is not draining has no slot left: its engine does not return",
            ),
            (
                of(2, 0, 2),
                "none of the 2 dummy workers has a slot left: engines do not return",
            ),
            (
                of(2, 0, 1),
                "none of the 2 dummy workers has a GPU and a slot left",
            ),
        ];
        for (candidates, why) in cases {
            let found = candidates.why_none(&worker_type, &class);
            assert_eq!(found.as_deref(), Some(why), "{candidates:?}");
        }
        let one = Candidates {
            able: 1,
            ..of(2, 1, 0)
        };
        assert_eq!(one.why_none(&worker_type, &class), None);
    }
}
