//! Sending a request until the backend answers it.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{LINK, RETRY_AFTER};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::{Error, Refusal};

/// Pause before a request is repeated for the first time; it doubles with each repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a backend answered.
pub(crate) struct Answered<T> {
    pub(crate) document: T,
    /// Whether the answer is a page that another one follows.
    pub(crate) has_next: bool,
}

/// What is known of the tries of one request.
#[derive(Default)]
pub(crate) struct Tries {
    pub(crate) are_several: bool,
    /// Whether one of them may have done what was asked although it was an error.
    pub(crate) are_unclear: bool,
}

impl Tries {
    /// Sends a request until it is answered, or until `patience` has passed. The outcome is that of the
    /// last try.
    pub(crate) async fn answer<T: DeserializeOwned>(
        &mut self,
        request: RequestBuilder,
        patience: Duration,
    ) -> Result<Answered<T>, Error> {
        // `None`: never.
        let give_up_at = Instant::now().checked_add(patience);
        let mut pause = FIRST_PAUSE;
        loop {
            // Every body is in memory, so the request can be cloned.
            let Some(attempt) = request.try_clone() else {
                return send_once(request).await;
            };
            let outcome = send_once(attempt).await;
            self.are_unclear |= matches!(&outcome, Err(error) if error.leaves_open());
            match outcome {
                Err(error)
                    if error.is_passing()
                        && is_before(pause.max(error.retry_after()), give_up_at) =>
                {
                    tokio::time::sleep(pause.max(error.retry_after())).await;
                    self.are_several = true;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether a pause from now on ends before a time; `None` never comes.
fn is_before(pause: Duration, end: Option<Instant>) -> bool {
    let over = Instant::now().checked_add(pause);
    end.is_none_or(|end| over.is_some_and(|over| over < end))
}

async fn send_once<T: DeserializeOwned>(request: RequestBuilder) -> Result<Answered<T>, Error> {
    let response = request.send().await.map_err(Error::Unreachable)?;
    let status = response.status();
    let has_next = response.headers().contains_key(LINK);
    // It may also be a date, which proxies do not send.
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let body = response.bytes().await.map_err(Error::Unreachable)?;

    if status.is_success() {
        let document = serde_json::from_slice(&body).map_err(Error::UnexpectedAnswer)?;
        Ok(Answered { document, has_next })
    } else {
        let refusal = Refusal::read(status.as_u16(), &body, retry_after);
        Err(Error::Refused(Box::new(refusal)))
    }
}
