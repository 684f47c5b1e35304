//! Workers in any language: runs a program as an engine.
//!
//! The problem: an engine is Rust code, and most people who have work for a worker write something
//! else. A second implementation of the protocol on the bus would have to be kept equal for ever, and
//! a worker that shares a process with its jobs dies of their crashes.
//!
//! How it is solved: the worker stays in Rust, and runs the program as a child. [`ExecEngine`] keeps one
//! child per slot and speaks JSON lines with it over pipes; `docs/exec.md` has the language.
//! [`SimpleEngine`] starts a program that knows nothing of all this once per operation. A child that
//! crashes fails its operation, and one that does not stop is killed; the worker goes on.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the settings |
//! | [`engine`] | the children of all slots: start, use, recycle |
//! | [`conversation`] | one operation with one child |
//! | [`message`] | what the two say to each other |
//! | [`child`] | one process with its pipes and its end |
//! | [`spawner`] | starting a process, and ending all of it |
//! | [`printed`] | what a process prints, and of which operation it is |
//! | [`last_lines`] | the lines that are told when it ends |
//! | [`start`] | what happens in the new process before the program begins |
//! | [`guard`] | the end of what programs have started when the worker is killed |
//! | [`lines`] | bounded lines from a pipe |
//! | [`slots`] | which slots are free |
//! | [`simple`] | programs that know nothing of the messages |
//! | [`check`] | whether a program follows `docs/exec.md` |

pub mod check;
mod child;
mod conversation;
mod engine;
#[cfg(test)]
mod fuzz;
mod guard;
mod last_lines;
mod lines;
pub mod message;
mod options;
mod printed;
mod simple;
mod slots;
mod spawner;
mod start;

pub use engine::ExecEngine;
pub use options::ExecOptions;
pub use simple::SimpleEngine;
pub use start::helper_process;
