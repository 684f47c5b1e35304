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
//! A server that was frozen and goes on believes for a moment what was true before: it may say that a
//! stream is empty of what others have stored meanwhile. So for a moment its word is not enough to deny
//! something ([`NatsAnswers::are_settled`]).
//!
//! Rejected: more frequent pings. Two of them must fail before the connection is closed, and a slow
//! network would lose its connections.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So long after a silence, a server has learned from the others what they did meanwhile. In trials it
/// took a quarter of a second.
const SETTLING: Duration = Duration::from_secs(2);

/// What the last questions have led to.
#[derive(Debug, Default)]
pub struct NatsAnswers(Mutex<State>);

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Every question had its answer.
    #[default]
    Answering,
    /// The last question had no answer.
    Silent,
    /// It answers again, since then.
    Back(Instant),
}

impl NatsAnswers {
    /// Notes an answer. Returns whether the server was silent before.
    pub fn note_answer(&self) -> bool {
        let mut state = self.0.lock();
        let was_silent = matches!(*state, State::Silent);
        if was_silent {
            *state = State::Back(Instant::now());
        }
        was_silent
    }

    /// Notes a question without an answer. Returns whether the server answered before.
    pub fn note_silence(&self) -> bool {
        let before = std::mem::replace(&mut *self.0.lock(), State::Silent);
        !matches!(before, State::Silent)
    }

    /// Whether the last question had no answer.
    pub fn are_missing(&self) -> bool {
        matches!(*self.0.lock(), State::Silent)
    }

    /// Whether the server answers, and has done so long enough to know what the others know.
    pub fn are_settled(&self) -> bool {
        match *self.0.lock() {
            State::Answering => true,
            State::Silent => false,
            State::Back(since) => since.elapsed() >= SETTLING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_count_some_time_after_a_silence() {
        let answers = NatsAnswers::default();
        assert!(answers.are_settled());

        answers.note_silence();
        assert!(!answers.are_settled());

        answers.note_answer();
        assert!(!answers.are_missing());
        assert!(!answers.are_settled());

        tokio::time::advance(SETTLING).await;
        answers.note_answer();
        assert!(answers.are_settled());
    }
}
