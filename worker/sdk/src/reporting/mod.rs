//! What an engine reports while it runs, and how it leaves the process.

pub(crate) mod checkpoint;
pub(crate) mod report;
pub(crate) mod send;
