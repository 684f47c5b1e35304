//! Many operations in one request: starts, and cancels and retries by filter.

use std::iter::Peekable;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::json::length;
use ktrdr_protocol::rest::many::{
    ByFilter, ByFilterResponse, MAX_OPERATIONS, ManyStarted, StartMany, StartManyResponse,
};
use reqwest::Method;
use serde_json::{Map, Value};

use crate::client::IDEMPOTENCY_KEY;
use crate::{Client, Error, Start, StartManyError};

/// Bytes of the start bodies of one request, about. A backend takes 16 MiB.
const MAX_REQUEST: usize = 8 * 1024 * 1024;

impl Client {
    /// Starts many operations of one domain, and says in order what became of each start. One that is
    /// refused keeps none of the others. More than 1,000, or than 8 MiB, are sent in several
    /// requests.
    ///
    /// Every start gets an id before it is sent, so a request that is repeated starts each operation
    /// once. [`ManyStarted::refused`] counts those that are worth a look at
    /// [`ManyStarted::results`].
    ///
    /// ```no_run
    /// # async fn example(client: ktrdr_client::Client) -> Result<(), ktrdr_client::Error> {
    /// let symbols = ["GOOG", "IBM"];
    /// let starts = symbols.map(|symbol| {
    ///     let parameters = serde_json::json!({"symbol": symbol, "timeframe": "1d"});
    ///     client.start("training", &parameters).label("symbol", symbol)
    /// });
    /// let started = client.start_many(starts).await?;
    /// println!("{} of {} accepted", started.accepted, started.results.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StartManyError`], which converts into [`Error`]: it also has the results of the requests before the
    /// one that failed. [`Error::InvalidStarts`] when the starts cannot be in one request: nothing is sent
    /// then.
    pub async fn start_many<'a>(
        &self,
        starts: impl IntoIterator<Item = Start<'a>>,
    ) -> Result<ManyStarted, StartManyError> {
        let (mut domain, mut bodies) = (None, Vec::new());
        for start in starts {
            let its = start.domain();
            if *domain.get_or_insert(its) != its {
                return Err(Error::InvalidStarts("they are of several domains").into());
            }
            if start.has_idempotency_key() {
                return Err(Error::InvalidStarts(
                    "an idempotency key is for one request; give each start an id",
                )
                .into());
            }
            bodies.push(start.into_body()?);
        }

        let mut all = ManyStarted::default();
        let Some(domain) = domain else {
            return Ok(all);
        };
        let mut bodies = bodies.into_iter().peekable();
        while bodies.peek().is_some() {
            let operations = first_request(&mut bodies);
            let request = self
                .request(Method::POST, &["api", "v1", domain, "start-many"])
                .json(&StartMany { operations });
            let response: StartManyResponse = match self.send_clearly(request).await {
                Ok(response) => response,
                Err((error, is_unclear)) => {
                    return Err(StartManyError {
                        started: Box::new(all),
                        is_unclear,
                        error,
                    });
                }
            };
            all.accepted += response.data.accepted;
            all.refused += response.data.refused;
            all.results.extend(response.data.results);
        }
        Ok(all)
    }

    /// Cancels all operations that match a filter, up to its limit. With `dry_run`, says only what would
    /// happen. Running ones are asked to stop; the answer does not wait for that.
    ///
    /// ```no_run
    /// # async fn example(client: ktrdr_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use ktrdr_client::{ByFilter, OperationFilter};
    ///
    /// let filter = OperationFilter {
    ///     label: vec!["symbol:GOOG".parse()?],
    ///     ..OperationFilter::default()
    /// };
    /// let asked = ByFilter { filter, limit: None, dry_run: true };
    /// let would = client.cancel_all(&asked).await?;
    /// println!("{} operations match", would.data.matched);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Error`]; `invalid_request` when the filter is empty.
    pub async fn cancel_all(&self, asked: &ByFilter) -> Result<ByFilterResponse, Error> {
        self.by_filter("cancel", asked).await
    }

    /// Runs all failed and cancelled operations that match a filter again, up to its limit, each as a new
    /// operation. What was retried before is not retried again.
    ///
    /// # Errors
    /// As [`Client::cancel_all`].
    pub async fn retry_all(&self, asked: &ByFilter) -> Result<ByFilterResponse, Error> {
        self.by_filter("retry", asked).await
    }

    async fn by_filter(&self, verb: &str, asked: &ByFilter) -> Result<ByFilterResponse, Error> {
        // A fresh key, so that a request that is sent twice retries each operation once.
        let key = OperationId::generate();
        let request = self
            .request(Method::POST, &["api", "v1", "operations", verb])
            .header(IDEMPOTENCY_KEY, key.as_str())
            .json(asked);
        self.send(request).await
    }
}

/// As many start bodies as one request may have; at least one.
fn first_request(
    bodies: &mut Peekable<impl Iterator<Item = Map<String, Value>>>,
) -> Vec<Map<String, Value>> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    while taken.len() < MAX_OPERATIONS
        && let Some(body) = bodies.next_if(|body| {
            bytes += length(body);
            bytes <= MAX_REQUEST || taken.is_empty()
        })
    {
        taken.push(body);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_thousand_starts_and_eight_mebibytes_at_most() {
        let body = |length: usize| Map::from_iter([("x".to_owned(), "y".repeat(length).into())]);
        let split = |bodies: Vec<Map<String, Value>>| {
            let mut bodies = bodies.into_iter().peekable();
            let mut lengths = Vec::new();
            while bodies.peek().is_some() {
                lengths.push(first_request(&mut bodies).len());
            }
            lengths
        };

        assert_eq!(split(vec![body(1); 1001]), [1000, 1]);
        assert_eq!(split(vec![body(3 << 20); 5]), [2, 2, 1]);
        assert_eq!(split(vec![body(9 << 20); 2]), [1, 1]);
    }
}
