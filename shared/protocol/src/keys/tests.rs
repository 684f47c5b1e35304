//! Keys under every order of steps: processes that read outdated entries, act at the same time, are
//! suspended between two steps, and die at any of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ACTORS: usize = 4;

fn id(number: usize) -> OperationId {
    OperationId::new(format!("o{number}")).unwrap()
}

fn key() -> Key {
    Key::new("k")
}

/// The subject of a key: entries in order, each with its sequence and its time.
#[derive(Debug, Default)]
struct Entries(Vec<(u64, u64, KeyEntry)>);

impl Entries {
    /// The last entry, with its sequence and its time.
    fn last(&self) -> (u64, u64, KeyEntry) {
        let last = self.0.last().cloned();
        last.unwrap_or_else(|| (0, 0, KeyEntry::free(key())))
    }

    /// Stores an entry if it follows the one at `expected`.
    fn append(&mut self, expected: u64, sequence: u64, now: u64, entry: KeyEntry) -> bool {
        let follows = self.last().0 == expected;
        if follows {
            self.0.push((sequence, now, entry));
        }
        follows
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An actor does its next step, or takes up this operation if it does nothing.
    Go { actor: usize, operation: usize },
    /// An actor forgets everything.
    Crash(usize),
    /// An operation ends.
    End(usize),
    /// Seconds pass.
    Pass(u64),
}

fn step(operations: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..ACTORS, 0..operations)
            .prop_map(|(actor, operation)| Step::Go { actor, operation }),
        1 => (0..ACTORS).prop_map(Step::Crash),
        3 => (0..operations).prop_map(Step::End),
        1 => (1u64..12).prop_map(Step::Pass),
    ]
}

/// What the logs of the operations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Waiting,
    Running,
    Ended,
}

/// A worker between two steps of a claim. What it has read may be outdated by now.
#[derive(Debug, Clone)]
enum Worker {
    Idle,
    /// It has read the entry, and which holders have ended.
    Read(usize, u64, KeyEntry, Vec<OperationId>),
    /// It has a permit, and has not appended `started` yet.
    Permitted(usize),
}

struct Workers {
    limits: Vec<u32>,
    logs: Vec<Log>,
    entries: Entries,
    actors: Vec<Worker>,
    sequence: u64,
}

impl Workers {
    fn new(limits: Vec<u32>) -> Self {
        Self {
            logs: vec![Log::Waiting; limits.len()],
            limits,
            entries: Entries::default(),
            actors: vec![Worker::Idle; ACTORS],
            sequence: 0,
        }
    }

    fn ended(&self) -> Vec<OperationId> {
        let all = self.logs.iter().enumerate();
        all.filter(|(_, log)| **log == Log::Ended)
            .map(|(n, _)| id(n))
            .collect()
    }

    fn go(&mut self, actor: usize, operation: usize) {
        let next = match self.actors[actor].clone() {
            Worker::Idle if self.logs[operation] == Log::Ended => Worker::Idle,
            Worker::Idle => {
                let (sequence, _, entry) = self.entries.last();
                Worker::Read(operation, sequence, entry, self.ended())
            }
            Worker::Read(operation, sequence, entry, ended) => {
                let limit = self.limits[operation];
                match permit(&entry, &id(operation), limit, |id| ended.contains(id)) {
                    Permit::Held => Worker::Permitted(operation),
                    Permit::Full => Worker::Idle,
                    Permit::Take(next) => {
                        self.sequence += 1;
                        match self.entries.append(sequence, self.sequence, 0, next) {
                            true => Worker::Permitted(operation),
                            false => Worker::Idle,
                        }
                    }
                }
            }
            Worker::Permitted(operation) => {
                // The log refuses `started` behind an end.
                if self.logs[operation] == Log::Waiting {
                    self.logs[operation] = Log::Running;
                }
                Worker::Idle
            }
        };
        self.actors[actor] = next;
    }

    fn do_step(&mut self, step: Step) {
        match step {
            Step::Go { actor, operation } => self.go(actor, operation),
            Step::Crash(actor) => self.actors[actor] = Worker::Idle,
            Step::End(operation) => self.logs[operation] = Log::Ended,
            Step::Pass(_) => {}
        }
    }

    fn running(&self) -> usize {
        let running = self.logs.iter().filter(|log| **log == Log::Running);
        running.count()
    }

    /// Claims an operation once without anybody in between; returns whether it runs.
    fn claim(&mut self, operation: usize) -> bool {
        self.actors[0] = Worker::Idle;
        for _ in 0..3 {
            self.go(0, operation);
        }
        self.logs[operation] == Log::Running
    }
}

/// A backend between two steps of a start.
#[derive(Debug, Clone)]
enum Backend {
    Idle,
    /// It has read the entry, when, and the state of its holders.
    Read(
        usize,
        (u64, u64, KeyEntry),
        u64,
        BTreeMap<OperationId, Holder>,
    ),
    /// It is about to publish the start request behind this entry.
    Starting(usize, u64),
}

struct Backends {
    /// Which operations are started, and have ended.
    logs: Vec<Option<Log>>,
    entries: Entries,
    actors: Vec<Backend>,
    sequence: u64,
    now: u64,
}

impl Backends {
    fn new(operations: usize) -> Self {
        Self {
            logs: vec![None; operations],
            entries: Entries::default(),
            actors: vec![Backend::Idle; ACTORS],
            sequence: 0,
            now: 0,
        }
    }

    fn holder(&self, id: &OperationId) -> Holder {
        let number: usize = id.as_str().trim_start_matches('o').parse().unwrap();
        match self.logs[number] {
            None => Holder::Missing,
            Some(Log::Ended) => Holder::Ended,
            Some(_) => Holder::Open,
        }
    }

    fn read(&self, operation: usize) -> Backend {
        let last = self.entries.last();
        let holders = last.2.holders.iter();
        let states = holders.map(|id| (id.clone(), self.holder(id))).collect();
        Backend::Read(operation, last, self.now, states)
    }

    fn go(&mut self, actor: usize, operation: usize) {
        let next = match self.actors[actor].clone() {
            Backend::Idle if self.logs[operation].is_some() => Backend::Idle,
            Backend::Idle => self.read(operation),
            Backend::Read(operation, (sequence, at, entry), now, states) => {
                let age = Duration::from_secs(now - at);
                match claim_unique(&entry, &id(operation), age, |id| states[id]) {
                    UniqueClaim::Start => Backend::Starting(operation, sequence),
                    UniqueClaim::Taken(_) | UniqueClaim::Wait => Backend::Idle,
                    UniqueClaim::Take(next) => {
                        self.sequence += 1;
                        let (sequence, at) = (self.sequence, self.now);
                        self.entries.append(
                            entry_sequence(&self.actors[actor]),
                            sequence,
                            at,
                            next,
                        );
                        // Whatever became of it: decide again by what is stored.
                        self.read(operation)
                    }
                }
            }
            Backend::Starting(operation, behind) => {
                // The stream takes it only behind this entry.
                if self.entries.last().0 == behind && self.logs[operation].is_none() {
                    self.logs[operation] = Some(Log::Waiting);
                }
                Backend::Idle
            }
        };
        self.actors[actor] = next;
    }

    fn do_step(&mut self, step: Step) {
        match step {
            Step::Go { actor, operation } => self.go(actor, operation),
            Step::Crash(actor) => self.actors[actor] = Backend::Idle,
            Step::End(operation) if self.logs[operation].is_some() => {
                self.logs[operation] = Some(Log::Ended);
            }
            Step::End(_) => {}
            Step::Pass(seconds) => self.now += seconds,
        }
    }

    fn open(&self) -> usize {
        let open = self.logs.iter().flatten();
        open.filter(|log| **log != Log::Ended).count()
    }

    /// Starts an operation without anybody in between; returns whether it is open.
    fn start(&mut self, operation: usize) -> bool {
        self.actors[0] = Backend::Idle;
        for _ in 0..6 {
            self.go(0, operation);
        }
        self.logs[operation] == Some(Log::Waiting)
    }
}

fn entry_sequence(actor: &Backend) -> u64 {
    match actor {
        Backend::Read(_, (sequence, ..), ..) => *sequence,
        Backend::Idle | Backend::Starting(..) => 0,
    }
}

proptest! {
    #[test]
    fn no_more_run_than_the_limit_and_nobody_who_has_ended_blocks(
        limit in 1u32..4,
        steps in proptest::collection::vec(step(6), 0..80),
    ) {
        let mut world = Workers::new(vec![limit; 7]);
        for step in steps {
            world.do_step(step);
            prop_assert!(world.running() <= limit as usize, "{:?}", world.entries);
        }

        // Every worker dies. An operation that holds a permit is delivered again, so it ends sometime.
        world.actors = vec![Worker::Idle; ACTORS];
        for operation in 0..6 {
            world.do_step(Step::End(operation));
        }
        prop_assert!(world.claim(6), "{:?}", world.entries);
    }

    #[test]
    fn who_waits_while_a_permit_is_free_gets_it(
        limit in 1u32..4,
        steps in proptest::collection::vec(step(6), 0..80),
    ) {
        let mut world = Workers::new(vec![limit; 6]);
        for step in steps {
            world.do_step(step);
        }

        // All queues deliver everything again and again, and each operation ends once it has run.
        world.actors = vec![Worker::Idle; ACTORS];
        for _ in 0..6 {
            for operation in 0..6 {
                if world.claim(operation) {
                    world.do_step(Step::End(operation));
                }
            }
        }
        prop_assert!(world.logs.iter().all(|log| *log == Log::Ended), "{:?}", world.logs);
    }

    #[test]
    fn one_with_a_unique_key_is_open_and_the_key_is_never_lost(
        steps in proptest::collection::vec(step(6), 0..120),
    ) {
        let mut world = Backends::new(7);
        for step in steps {
            world.do_step(step);
            prop_assert!(world.open() <= 1, "{:?}", world.entries);
        }

        // Every backend dies, and what is open ends.
        world.actors = vec![Backend::Idle; ACTORS];
        for operation in 0..6 {
            world.do_step(Step::End(operation));
        }
        world.now += VOID_AFTER.as_secs();
        prop_assert!(world.start(6), "{:?}", world.entries);
    }
}

#[test]
fn different_limits_of_one_key_compare_with_the_same_holders() {
    let entry = KeyEntry {
        key: key(),
        holders: vec![id(1), id(2)],
    };

    assert_eq!(permit(&entry, &id(3), 2, |_| false), Permit::Full);
    let Permit::Take(next) = permit(&entry, &id(3), 3, |_| false) else {
        panic!("there is room");
    };
    assert_eq!(next.holders, [id(1), id(2), id(3)]);
    assert_eq!(permit(&next, &id(3), 1, |_| false), Permit::Held);
    // Nobody else has ended, and a limit of 0 counts as 1.
    assert_eq!(permit(&next, &id(4), 0, |_| false), Permit::Full);
    assert!(matches!(
        permit(&KeyEntry::free(key()), &id(4), 0, |_| false),
        Permit::Take(_)
    ));
}

#[test]
fn a_replaced_operation_stays_named_until_it_has_ended() {
    let entry = KeyEntry {
        key: key(),
        holders: vec![id(1)],
    };

    let replaced = claim_unique(&entry, &id(2), Duration::ZERO, |_| Holder::Replaced);

    let UniqueClaim::Take(next) = replaced else {
        panic!("{replaced:?}");
    };
    assert_eq!(next.holders, [id(1), id(2)]);
    // For a third one, both are open.
    let third = claim_unique(&next, &id(3), Duration::ZERO, |_| Holder::Open);
    assert_eq!(third, UniqueClaim::Taken(vec![id(1), id(2)]));
}

#[test]
fn an_entry_whose_operation_does_not_appear_is_void_after_a_while() {
    let entry = KeyEntry {
        key: key(),
        holders: vec![id(1)],
    };
    let missing = |entry, age| claim_unique(entry, &id(2), age, |_| Holder::Missing);

    let early = VOID_AFTER.saturating_sub(Duration::from_millis(1));
    assert_eq!(missing(&entry, early), UniqueClaim::Wait);
    let UniqueClaim::Take(both) = missing(&entry, VOID_AFTER) else {
        panic!("it is void");
    };

    // The first one may have been stored before the entry that names both: then it has the key.
    assert_eq!(both.holders, [id(1), id(2)]);
    assert_eq!(missing(&both, Duration::ZERO), UniqueClaim::Start);
    let appeared = claim_unique(&both, &id(2), Duration::ZERO, |_| Holder::Open);
    assert_eq!(appeared, UniqueClaim::Taken(vec![id(1)]));
}

#[test]
fn an_old_entry_that_names_an_operation_is_written_anew_before_it_starts() {
    let entry = KeyEntry {
        key: key(),
        holders: vec![id(1)],
    };
    let of_age = |age| claim_unique(&entry, &id(1), age, |_| Holder::Missing);

    let early = VOID_AFTER.saturating_sub(Duration::from_millis(1));
    assert_eq!(of_age(early), UniqueClaim::Start);
    assert_eq!(of_age(VOID_AFTER), UniqueClaim::Take(entry.clone()));
}

#[test]
fn only_the_usual_way_to_write_a_digest_is_one() {
    let usual = tokens(KeyKind::Concurrency, &key());
    let found = parse_tokens(&usual);
    assert_eq!(found, Some((KeyKind::Concurrency, KeyDigest::of(&key()))));

    let digest = usual.strip_prefix("concurrency.").unwrap();
    for other in [
        digest.to_owned(),
        format!("other.{digest}"),
        format!("unique.0{digest}"),
        format!("unique.+{}", &digest[1..]),
        format!("unique.{}", digest.to_uppercase()),
        "unique.".to_owned(),
    ] {
        assert_eq!(parse_tokens(&other), None, "{other}");
    }
}

#[test]
fn an_entry_belongs_to_the_subject_of_its_key() {
    let entry = KeyEntry::free(Key::new("Nächte"));
    let its_own = tokens(KeyKind::Concurrency, &entry.key);

    assert_eq!(entry.agrees("dummy", &its_own), Ok(()));
    assert!(entry.agrees("dummy", "concurrency.0").is_err());
    assert!(its_own.split('.').all(crate::id::is_name), "{its_own}");
}
