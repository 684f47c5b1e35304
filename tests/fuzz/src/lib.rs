//! Attacks on parsers of bytes from outside.
//!
//! Each crate attacks its own parsers in a module `fuzz`, because most of them are not public. An
//! attack takes valid inputs, damages them in many ways, and gives the result to the parser. The
//! parser may refuse an input, but must not panic, run long or take much memory, and what it
//! accepts must be within its documented bounds: the closure of the attack asserts that.
//!
//! ```
//! use ktrdr_fuzz::Attack;
//!
//! Attack::on("numbers").with(["7", "-12"]).run(|bytes| {
//!     let Ok(text) = std::str::from_utf8(bytes) else { return };
//!     if let Ok(number) = text.parse::<i8>() {
//!         assert_eq!(number.to_string().parse(), Ok(number));
//!     }
//! });
//! ```
//!
//! A test run tries a few hundred inputs of each. `KTRDR_FUZZ_SECONDS=120` goes on for so many
//! seconds; `scripts/fuzz` runs all attacks. A failure prints the smallest input that still fails,
//! which then becomes a test of its own beside the parser.
//!
//! Rejected: `cargo fuzz`, which needs a nightly compiler. Its guidance by coverage finds deeper
//! faults in a parser; most of ours are `serde_json` and short functions on top of it.

mod damage;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// Setting: how long each attack goes on, in seconds.
pub const SECONDS: &str = "KTRDR_FUZZ_SECONDS";

/// Inputs that are tried without the setting.
const CASES: u32 = 400;

/// Inputs that are tried before the clock is looked at.
const BATCH: u32 = 2000;

/// CPU time that one input may take, unless an attack allows more. Tests are built without
/// optimisation.
const MAX_TIME: Duration = Duration::from_secs(1);

/// Bytes that one input may take at a time, whatever its size, unless an attack allows more.
const MAX_MEMORY: usize = 1024 * 1024;

/// Bytes that one input may take for each of its own. `[[[…` as a JSON value takes about so much.
const MEMORY_PER_BYTE: usize = 200;

/// One parser under attack.
pub struct Attack {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    time: Duration,
    memory: usize,
}

impl Attack {
    /// On the parser of these inputs.
    pub fn on(name: &'static str) -> Self {
        Self {
            name,
            seeds: Vec::new(),
            time: MAX_TIME,
            memory: MAX_MEMORY,
        }
    }

    /// With these valid inputs to damage.
    pub fn with<S: AsRef<[u8]>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        let seeds = seeds.into_iter().map(|seed| seed.as_ref().to_vec());
        self.seeds.extend(seeds);
        self
    }

    /// Allows so much CPU time for one input.
    pub fn time(mut self, most: Duration) -> Self {
        self.time = most;
        self
    }

    /// Allows so many bytes for one input, and those for each of its own.
    pub fn memory(mut self, most: usize) -> Self {
        self.memory = most;
        self
    }

    /// Gives damaged inputs to `parse`, which panics when it finds something wrong.
    ///
    /// # Panics
    /// When `parse` does, or takes too long or too much, with the smallest such input.
    pub fn run(self, parse: impl Fn(&[u8])) {
        for seed in &self.seeds {
            self.check(seed, &parse);
        }

        let until = env::var(SECONDS).ok().map(|seconds| {
            let seconds: u64 = seconds.parse().unwrap_or_else(|_| {
                panic!("{SECONDS} must be a whole number, not {seconds:?}");
            });
            Instant::now() + Duration::from_secs(seconds)
        });
        let mut tried = 0;
        loop {
            let cases = if until.is_some() { BATCH } else { CASES };
            self.run_batch(cases, &parse);
            tried += cases;
            if until.is_none_or(|until| Instant::now() >= until) {
                break;
            }
        }
        println!("{}: {tried} inputs", self.name);
    }

    fn run_batch(&self, cases: u32, parse: &impl Fn(&[u8])) {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let found = TestRunner::new(config).run(&damage::inputs(&self.seeds), |input| {
            catch_unwind(AssertUnwindSafe(|| self.check(&input, parse))).map_err(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                TestCaseError::fail(text.unwrap_or("a panic").to_owned())
            })
        });

        match found {
            Ok(()) => {}
            Err(TestError::Fail(why, input)) => panic!(
                "{}: {why}\nthe smallest input: b\"{}\"",
                self.name,
                input.escape_ascii()
            ),
            Err(TestError::Abort(why)) => panic!("{}: {why}", self.name),
        }
    }

    /// Parses one input within the bounds.
    fn check(&self, input: &[u8], parse: &impl Fn(&[u8])) {
        let begin = ThreadTime::now();
        let mut outcome = Ok(());
        let allocated = allocation_counter::measure(|| {
            outcome = catch_unwind(AssertUnwindSafe(|| parse(input)));
        });
        let time = begin.elapsed();
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }

        let memory = self.memory + MEMORY_PER_BYTE * input.len();
        assert!(
            allocated.bytes_max <= memory as u64,
            "{} bytes of memory for an input of {}",
            allocated.bytes_max,
            input.len()
        );
        assert!(
            time <= self.time,
            "{time:?} of CPU time for an input of {} bytes",
            input.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(attack: Attack, parse: impl Fn(&[u8])) -> String {
        let panic = catch_unwind(AssertUnwindSafe(|| attack.run(parse))).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    }

    #[test]
    fn a_panic_is_found_with_its_smallest_input() {
        let attack = Attack::on("quotes").with([r#"{"a":"b"}"#]);

        let text = failure(attack, |bytes| {
            assert!(!bytes.ends_with(b"\""), "it ends with a quote");
        });

        assert!(text.contains("it ends with a quote"), "{text}");
        assert!(text.contains("quotes: "), "{text}");
    }

    #[test]
    fn memory_that_an_input_asks_for_is_found() {
        let attack = Attack::on("lengths").with(["20"]);

        let text = failure(attack, |bytes| {
            let length = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok());
            let filler = vec![1_u8; length.unwrap_or(0_usize).min(1 << 24)];
            assert!(filler.len() < usize::MAX);
        });

        assert!(text.contains("bytes of memory"), "{text}");
    }

    #[test]
    fn members_are_written_twice() {
        let attack = Attack::on("members").with([r#"{"first":1,"second":{"third":[2]}}"#]);

        let text = failure(attack, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            assert!(
                serde_json::from_slice::<serde_json::Value>(bytes).is_err()
                    || text.matches("\"second\":").count() < 2,
                "twice"
            );
        });

        assert!(text.contains("twice"), "{text}");
    }
}
