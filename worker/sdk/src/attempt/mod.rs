//! One attempt: from a start request in a slot to the acknowledgement.
//!
//! The steps, in this order:
//!
//! 1. [`execute`] registers the attempt and claims the operation ([`claim`]). One with a concurrency key
//!    needs one of its [`permits`] first.
//! 2. [`supervise`] runs the engine, and beside it the guard of [`ownership`], which keeps the
//!    lease and notices when the attempt is lost.
//! 3. [`outcome`] decides what happens to the operation. A large result is stored ([`results`]). A
//!    failed attempt that is retried waits for its [`retry_delay`].
//! 4. The end is appended to the operation's log.
//! 5. Only then is the request acknowledged or handed back. A crash before this step costs a
//!    redelivery, and the worker that receives it reads that the operation has ended.
//!
//! A request is acknowledged only when the end of this attempt was accepted, or when the log says
//! that the operation has ended. An acknowledgement does not name an attempt, so one from a lost
//! attempt would hit the request of its successor.

pub(crate) mod claim;
pub(crate) mod execute;
pub(crate) mod outcome;
pub(crate) mod ownership;
pub(crate) mod permits;
pub(crate) mod results;
pub(crate) mod retry_delay;
pub(crate) mod stop;
pub(crate) mod supervise;
pub(crate) mod trust;
pub(crate) mod version;
