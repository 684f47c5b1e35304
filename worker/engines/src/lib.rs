//! The built-in engines of KTRDR Workers.
//!
//! | module | what it holds |
//! |---|---|
//! | [`data_processing`] | Engine: cleans, transforms and validates CSV files. |
//! | [`backtesting`] | Engine: trades a strategy over past price bars. |
//! | [`training`] | Engine: trains a small neural network on past price bars. |
//! | [`dummy`] | Engine: waits in steps; for trials and load tests. |
//! | [`bars`] | Price bars and indicators, for backtesting and training. |
//! | `bounded` | Reads files from outside within bounds. |
//! | `warnings` | The warnings of a completed operation. |
//! | `require` | Turns a condition on a request into an error with a text. |
//! | `defaults` | Leaves out of a written request what has its default. |
//! | `datetime` | The dates and times of all engines. |
//!
//! Dependencies go one way: `data_processing`, `bars` → `datetime`, `bounded`; `training` → `bars`;
//! `backtesting` → `training` (to trade a trained model), `bars`. The crate uses only the public
//! interface of `ktrdr-worker`, like the engine of any other author. `docs/engines` states the exact
//! rules of each engine.

pub mod backtesting;
pub mod bars;
mod bounded;
pub mod data_processing;
mod datetime;
mod defaults;
pub mod dummy;
#[cfg(test)]
mod fuzz;
mod require;
pub mod training;
#[cfg(test)]
mod verdicts;
mod warnings;
