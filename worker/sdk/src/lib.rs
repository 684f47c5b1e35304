//! The worker SDK: write an [`Engine`], and the SDK makes a worker of it.
//!
//! ```no_run
//! use ktrdr_worker::{Context, Engine, OperationError, Progress};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct CountRequest {
//!     up_to: u64,
//! }
//!
//! struct Counter;
//!
//! impl Engine for Counter {
//!     const NAME: &'static str = "counter";
//!     type Request = CountRequest;
//!     type Output = u64;
//!
//!     async fn run(&self, ctx: Context, request: CountRequest) -> Result<u64, OperationError> {
//!         for n in 1..=request.up_to {
//!             ctx.check_cancelled()?;
//!             ctx.progress_with(|| Progress::ratio(n, request.up_to));
//!             tokio::task::yield_now().await;
//!         }
//!         Ok(request.up_to)
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     ktrdr_worker::main(Counter)
//! }
//! ```
//!
//! With this program and a backend running, `POST /api/v1/counter/start` with the body
//! `{"up_to": 5}` starts an operation. The SDK claims operations, keeps their leases, fences lost
//! attempts, and does heartbeats, progress, cancellation, retries, HTTP and shutdown.
//!
//! # Where to go
//!
//! | To | see |
//! |---|---|
//! | write an engine | [`Engine`], [`Context`], [`OperationError`], [`DataDir`], [`Output`] |
//! | test an engine without NATS | [`testing::TestRun`] |
//! | run it as a program | [`main`], [`Config`] |
//! | run several engines, or embed a worker in a program | [`Worker::builder`] |
//! | make an engine of something that is known at run time | [`dynamic`] |
//! | read eight small programs | `worker/sdk/examples` |
//! | write a worker step by step | `docs/new-worker.md` |
//!
//! # Inside
//!
//! The folders of `src`, none of which is public:
//!
//! | folder | holds |
//! |---|---|
//! | `engine` | the interface for worker authors: `Engine`, `Context`, errors, data directory |
//! | `worker` | one worker from start to stop: settings, running and past operations, metrics |
//! | `pulling` | the queues that are served, one pull per free slot, the lease on a request |
//! | `attempt` | one attempt from a start request to its acknowledgement: claim, ownership, run, outcome, result |
//! | `reporting` | progress, metrics, log lines and checkpoints on their way out |
//! | `announce` | heartbeats, and answers to requests of backends |
//! | `http` | the worker's own REST interface |

mod announce;
mod attempt;
pub mod dynamic;
mod engine;
#[cfg(test)]
mod fuzz;
mod http;
mod pulling;
mod reporting;
pub mod testing;
mod worker;

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use engine::Engine;
pub use engine::context::Context;
pub use engine::data_dir::{DataDir, FileError};
pub use engine::declaration::BadDeclaration;
pub use engine::error::OperationError;
pub use engine::events::events_layer;
pub use engine::output::{NamedBy, Output, OutputError};
pub use ktrdr_protocol::id::{OperationId, WorkerId};
pub use ktrdr_protocol::log_line::LogLevel;
pub use ktrdr_protocol::progress::Progress;
pub use worker::builder::{Worker, WorkerBuilder, main};
pub use worker::capabilities::InvalidCapabilities;
pub use worker::config::{Config, KeptLevel, RestRoutes};
pub use worker::error::WorkerError;

#[cfg(test)]
mod tests {
    /// The blocks of one language in `docs/new-worker.md`.
    fn blocks(language: &str) -> Vec<&'static str> {
        let page = include_str!("../../../docs/new-worker.md");
        page.split("\n```")
            .filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n'))
            .collect()
    }

    #[test]
    fn the_rust_code_of_the_guide_is_the_code_of_an_example() {
        let example = include_str!("../examples/word_count.rs");

        let blocks = blocks("rust");

        assert_eq!(blocks.len(), 2, "the program and a test");
        for block in blocks {
            assert!(example.contains(block), "not in word_count.rs:\n{block}");
        }
    }

    #[test]
    fn the_dependencies_of_the_guide_are_those_the_example_is_built_with() {
        let manifest = include_str!("../Cargo.toml");

        let blocks = blocks("toml");

        let (_, dependencies) = blocks[0]
            .split_once("[dependencies]")
            .expect("dependencies");
        let names = dependencies
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, _)| name)
            .filter(|name| *name != "ktrdr-worker");
        for name in names {
            assert!(manifest.contains(&format!("\n{name}")), "no {name}");
        }
    }
}
