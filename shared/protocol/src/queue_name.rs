//! The names of queues: which class and which priority an operation waits in.
//!
//! | name | holds |
//! |---|---|
//! | `any`, `gpu-mem32` | operations of the class with the usual priority, 3 |
//! | `any-p1`, `gpu-mem32-p5` | those with another priority |
//! | `any-later`, `any-p1-later` | delayed ones, until they are due |
//!
//! The problem: a worker takes work by the order of priorities, and must not be given what is not due.
//! Workers of earlier versions know neither.
//!
//! How it is solved: both are part of the queue's name. Workers of earlier versions serve only queues
//! whose names they know, so they take no operation before its time. A queue of delayed operations has no
//! consumer at all: no worker can be given one of them. A backend moves them when they are due.
//!
//! Rejected: to leave delayed operations in the queue of the others, where each delivery hands them
//! back until they are due. Every one of them would take a slot for a moment, before the work that is
//! due.

use crate::id::Queue;
use crate::priority::Priority;
use crate::requirements::Requirements;

/// The suffix of queues whose operations are delayed.
const LATER: &str = "-later";

/// A queue, by what its name says.
///
/// ```
/// use ktrdr_protocol::priority::Priority;
/// use ktrdr_protocol::queue_name::QueueName;
///
/// let name = QueueName::parse("gpu-p1").unwrap();
/// assert!(name.class.gpu);
/// assert_eq!(name.priority, Priority::FIRST);
/// assert_eq!(name.delayed().queue().as_str(), "gpu-p1-later");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueName {
    /// What a worker must have to serve it.
    pub class: Requirements,
    /// The priority of its operations.
    pub priority: Priority,
    /// Whether its operations wait for their time. Such a queue has no consumer.
    pub is_delayed: bool,
}

impl QueueName {
    /// The queue of what is due.
    pub fn new(class: Requirements, priority: Priority) -> Self {
        Self {
            class,
            priority,
            is_delayed: false,
        }
    }

    /// The queue in which operations wait until they are due.
    #[must_use]
    pub fn delayed(self) -> Self {
        Self {
            is_delayed: true,
            ..self
        }
    }

    /// The queue into which they are moved then.
    #[must_use]
    pub fn due(self) -> Self {
        Self {
            is_delayed: false,
            ..self
        }
    }

    /// The queue of another priority.
    #[must_use]
    pub fn with(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Its name.
    pub fn queue(&self) -> Queue {
        let class = self.class.queue();
        if *self == Self::new(self.class, Priority::USUAL) {
            return class;
        }
        let level = match self.priority {
            Priority::USUAL => String::new(),
            other => format!("-p{other}"),
        };
        let later = if self.is_delayed { LATER } else { "" };
        #[expect(
            clippy::expect_used,
            reason = "built from letters, digits and dashes, far below the length limit"
        )]
        Queue::new(format!("{class}{level}{later}"))
            .expect("a canonical queue token is a valid name")
    }

    /// What a name says; `None` when it is not canonical.
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, is_delayed) = match name.strip_suffix(LATER) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (class, priority) = match rest.rsplit_once("-p") {
            Some((class, level)) => (class, Priority::new(level.parse().ok()?)?),
            None => (rest, Priority::USUAL),
        };
        let parsed = Self {
            class: Requirements::from_queue(class)?,
            priority,
            is_delayed,
        };
        (parsed.queue().as_str() == name).then_some(parsed)
    }

    /// The queues of a class that have consumers, by priority.
    pub fn levels(class: Requirements) -> impl Iterator<Item = Self> {
        Priority::all().map(move |priority| Self::new(class, priority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_class;

    #[test]
    fn names_read_back_as_what_they_say() {
        let mut names = Vec::new();
        for class in queue_class::all() {
            for level in QueueName::levels(class) {
                names.extend([level, level.delayed()]);
            }
        }
        assert_eq!(names.len(), queue_class::CLASSES * Priority::COUNT * 2);
        for name in names {
            assert_eq!(QueueName::parse(name.queue().as_str()), Some(name));
        }
    }

    #[test]
    fn the_queue_of_the_usual_priority_keeps_its_name() {
        let any = QueueName::new(Requirements::default(), Priority::USUAL);

        assert_eq!(any.queue().as_str(), "any");
        assert_eq!(any.delayed().queue().as_str(), "any-later");
        assert_eq!(any.delayed().due(), any);
    }

    #[test]
    fn other_names_are_none() {
        for other in [
            "any-p3",
            "any-p0",
            "any-p6",
            "any-p01",
            "any-later-p1",
            "later",
            "-p1",
            "any-p1-p2",
            "any-p1-later-later",
            "direct",
            "",
        ] {
            assert_eq!(QueueName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn workers_of_earlier_versions_know_none_of_the_new_names() {
        for new in ["any-p1", "gpu-p5", "any-later", "cores8-mem16-p2-later"] {
            assert_eq!(Requirements::from_queue(new), None, "{new}");
        }
    }
}
