//! Where the stream ends, for requests about ids that this backend does not know.
//!
//! The problem: a client starts an operation at one backend and asks another one for it, which may
//! not have read that far. To say "no such operation" would be wrong.
//!
//! How it is solved: before a backend says so, it asks the stream for its last sequence and waits
//! until its projection has applied it, for at most [`PATIENCE`]. What was accepted before the
//! request arrived is known then. Without an answer, or when the projection does not get there, nobody
//! knows, and the caller must say that. An answer counts only for requests that arrived before it was
//! asked for, so all that arrive meanwhile share the next one. At most one is asked for per
//! [`INTERVAL`]: a client that makes up ids costs NATS no more than that.
//!
//! Rejected: an answer that is kept for a while. It would say nothing about a start of a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_bus::nats::Connection;
use ktrdr_protocol::subject::SubjectNames;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::nats_answers::NatsAnswers;
use crate::projection::Projection;
use crate::stream_position::{last_sequence, next_sequence};

/// How long a request about an unknown id may wait for what was written before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time from one question to the next, at least.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks the stream where it ends.
#[derive(Debug, Default)]
pub struct StreamEnd {
    /// Questions that have begun.
    begun: AtomicU64,
    last: Mutex<Question>,
}

/// The last question that was answered or given up.
#[derive(Debug, Default)]
struct Question {
    /// Counted from 1.
    number: u64,
    asked_at: Option<Instant>,
    /// The last sequence; `None` when nobody answered.
    answer: Option<u64>,
}

impl StreamEnd {
    /// Waits until `projection` has applied everything that the stream held when this was called.
    /// False when that is not known after a second, and at once when the server cannot be asked or its
    /// word does not count yet.
    #[must_use]
    pub async fn reach(
        &self,
        projection: &Projection,
        connection: &Connection,
        answers: &NatsAnswers,
        names: &SubjectNames,
    ) -> bool {
        if !connection.is_up() || !answers.are_settled() {
            return false;
        }

        let reaching = async {
            let last = self.ask(async || last_to_apply(projection, connection, names).await);
            match last.await {
                Some(last) => projection.reached(last, PATIENCE).await,
                None => false,
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reaching).await;
        // The server may have been silent in between.
        let is_reached = reached.unwrap_or(false) && answers.are_settled();
        if !is_reached {
            tracing::debug!("the end of the stream was not reached in time");
        }
        is_reached
    }

    /// The answer to a question that begins after this call: one's own, or that of another request.
    async fn ask(&self, question: impl AsyncFnOnce() -> Option<u64>) -> Option<u64> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        // Whoever holds the lock asks. A request that is dropped meanwhile leaves the lock to the
        // next one.
        let mut last = self.last.lock().await;
        if last.number > begun_before {
            return last.answer;
        }

        if let Some(asked_at) = last.asked_at {
            tokio::time::sleep_until(asked_at + INTERVAL).await;
        }
        last.asked_at = Some(Instant::now());
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = question().await;
        (last.number, last.answer) = (number, answer);
        answer
    }
}

/// The sequence after which `projection` has everything; `None` when nobody answers.
async fn last_to_apply(
    projection: &Projection,
    connection: &Connection,
    names: &SubjectNames,
) -> Option<u64> {
    let last = last_sequence(connection, names.stream()).await?;
    let applied = projection.applied();
    if applied >= last {
        return Some(last);
    }
    // The newest messages may have been removed. Their sequences never come.
    match next_sequence(connection, names.stream(), applied).await {
        Ok(Some(next)) if next <= last => Some(last),
        Ok(_) => Some(applied),
        Err(error) => {
            tracing::debug!(%error, "a stream does not say what follows");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_together_share_a_question_that_began_after_them() {
        let end = StreamEnd::default();
        let (asked, stored) = (Cell::new(0), Cell::new(7));
        let ask = || {
            end.ask(async || {
                asked.set(asked.get() + 1);
                let read = stored.get();
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some(read)
            })
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            stored.set(9);
            futures::future::join_all((0..100).map(|_| ask())).await
        };

        let (first, late) = tokio::join!(ask(), late);

        assert_eq!(first, Some(7));
        // The question that was on its way when they came says nothing about what they wrote.
        assert_eq!(late, vec![Some(9); 100]);
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_leaves_the_question_to_the_next_one() {
        let end = StreamEnd::default();
        let never = end.ask(async || std::future::pending().await);
        let dropped = tokio::time::timeout(Duration::from_millis(10), never).await;

        let answer = end.ask(async || Some(3)).await;

        assert!(dropped.is_err());
        assert_eq!(answer, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_keep_their_distance() {
        let end = StreamEnd::default();
        let begun = Instant::now();

        for _ in 0..10 {
            end.ask(async || Some(1)).await;
        }

        assert_eq!(begun.elapsed(), INTERVAL * 9);
    }
}
