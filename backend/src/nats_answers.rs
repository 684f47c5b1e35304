//! Whether NATS answers.
//!
//! The problem: a server that is frozen, or behind a network that lost the connection's state, says
//! nothing and does not close the connection. The client library closes it after two pings without
//! an answer, which takes up to 30 seconds. Until then every start waits for its time limit, and a
//! load balancer goes on sending starts here.
//!
//! How it is solved: [`crate::duties`] asks the server something every second, and one question
//! without an answer is enough. Requests and probes only look at what is known.
//!
//! Rejected: more frequent pings. Two of them must fail before the connection is closed, and a slow
//! network would lose its connections.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the last questions have led to.
#[derive(Debug, Default)]
pub struct NatsAnswers {
    is_silent: AtomicBool,
}

impl NatsAnswers {
    /// Notes an answer. Returns whether the server was silent before.
    pub fn note_answer(&self) -> bool {
        self.is_silent.swap(false, Ordering::Relaxed)
    }

    /// Notes a question without an answer. Returns whether the server answered before.
    pub fn note_silence(&self) -> bool {
        !self.is_silent.swap(true, Ordering::Relaxed)
    }

    /// Whether the last question had no answer.
    pub fn are_missing(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }
}
