//! A start and its options.

use std::future::IntoFuture;
use std::pin::Pin;

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::start::StartResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Client, Error};

/// A start that is not sent yet. `.await` sends it; [`Start::run`] also waits for the result.
///
/// ```no_run
/// # async fn example(client: ktrdr_client::Client) -> Result<(), ktrdr_client::Error> {
/// use ktrdr_client::{ExecutionOptions, Requirements};
///
/// let started = client
///     .start("training", &serde_json::json!({"epochs": 3}))
///     .execution(ExecutionOptions {
///         requirements: Requirements { gpu: true, ..Requirements::default() },
///         max_attempts: Some(5),
///         ..ExecutionOptions::default()
///     })
///     .idempotency_key("training of 2025-11-10")
///     .await?;
/// println!("{} is {}", started.operation_id, started.status);
/// # Ok(())
/// # }
/// ```
#[must_use = "a start does nothing until it is awaited"]
#[derive(Debug)]
pub struct Start<'a> {
    client: &'a Client,
    domain: &'a str,
    parameters: Result<Map<String, Value>, Error>,
    operation_id: Option<OperationId>,
    execution: ExecutionOptions,
    idempotency_key: Option<String>,
}

impl<'a> Start<'a> {
    pub(crate) fn new(client: &'a Client, domain: &'a str, parameters: &impl Serialize) -> Self {
        let parameters = match serde_json::to_value(parameters) {
            Ok(Value::Object(parameters)) => Ok(parameters),
            Ok(other) => Err(Error::InvalidParameters(format!("they are {other}"))),
            Err(error) => Err(Error::InvalidParameters(error.to_string())),
        };
        Self {
            client,
            domain,
            parameters,
            operation_id: None,
            execution: ExecutionOptions::default(),
            idempotency_key: None,
        }
    }

    /// Sets the id of the operation. A second start with the same id starts nothing and answers
    /// with the first operation, or with `idempotency_mismatch` when it asks for something else. Without an id and without an idempotency key, the client chooses
    /// an id.
    pub fn operation_id(mut self, id: OperationId) -> Self {
        self.operation_id = Some(id);
        self
    }

    /// Sets how to run the operation: requirements, time limit, attempts, retry delay.
    pub fn execution(mut self, execution: ExecutionOptions) -> Self {
        self.execution = execution;
        self
    }

    /// Adds a label: a text by which the operation is found. It has up to 16, each with a name of 1 to 63
    /// letters, digits, `_`, `.` or `-`, and up to 256 characters.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        if !self.execution.labels.add(name, value) && self.parameters.is_ok() {
            let why = "use up to 16, with names of letters, digits, _ . - and values of up to 256 characters";
            self.parameters = Err(Error::InvalidLabel(format!("{name}:{value}"), why));
        }
        self
    }

    /// Sets the header `Idempotency-Key`: the backend derives the id of the operation from it and
    /// from the domain.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Sends the start, waits until the operation has ended, and returns its result.
    ///
    /// # Errors
    /// [`Error::Failed`] and [`Error::Cancelled`] when the operation ended that way; see [`Error`]
    /// for the others.
    pub async fn run<T: DeserializeOwned>(self) -> Result<T, Error> {
        let client = self.client;
        let started = self.send().await?;
        client.wait_for_result(&started.operation_id).await
    }

    async fn send(mut self) -> Result<StartResponse<'static>, Error> {
        let (client, domain) = (self.client, self.domain);
        let key = self.idempotency_key.take();
        let body = self.body(key.is_none())?;
        client.send_start(domain, &body, key).await
    }

    pub(crate) fn domain(&self) -> &'a str {
        self.domain
    }

    pub(crate) fn has_idempotency_key(&self) -> bool {
        self.idempotency_key.is_some()
    }

    /// The start body, with an id.
    pub(crate) fn into_body(self) -> Result<Map<String, Value>, Error> {
        self.body(true)
    }

    fn body(self, needs_id: bool) -> Result<Map<String, Value>, Error> {
        let mut body = self.parameters?;
        // The parameters may be a whole start body, with an id and execution options of its own.
        if let Some(id) = self.operation_id {
            body.insert("task_id".to_owned(), id.as_str().into());
        } else if needs_id && !body.contains_key("task_id") {
            let id = OperationId::generate();
            body.insert("task_id".to_owned(), id.as_str().into());
        }

        if !self.execution.is_default() {
            let execution =
                serde_json::to_value(&self.execution).map_err(Error::UnexpectedAnswer)?;
            match (body.get_mut("execution"), execution) {
                (Some(Value::Object(given)), Value::Object(more)) => given.extend(more),
                (_, execution) => drop(body.insert("execution".to_owned(), execution)),
            }
        }
        Ok(body)
    }
}

impl<'a> IntoFuture for Start<'a> {
    type Output = Result<StartResponse<'static>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client() -> Client {
        Client::new("http://h").unwrap()
    }

    #[test]
    fn an_id_in_the_parameters_is_kept() {
        let client = client();
        let parameters = json!({"task_id": "own", "steps": 1});

        let own = client.start("dummy", &parameters).into_body().unwrap();
        let chosen = client
            .start("dummy", &parameters)
            .operation_id(OperationId::new("chosen").unwrap());
        let made = client.start("dummy", &json!({})).into_body().unwrap();

        assert_eq!(own["task_id"], "own");
        assert_eq!(chosen.into_body().unwrap()["task_id"], "chosen");
        assert!(made["task_id"].is_string());
    }

    #[test]
    fn labels_are_checked_before_anything_is_sent() {
        let client = client();

        let parameters = json!({"execution": {"max_attempts": 2}});
        let good = client.start("dummy", &parameters).label("symbol", "GOOG");
        let bad = client.start("dummy", &json!({})).label("no name", "x");

        let body = good.into_body().unwrap();
        assert_eq!(body["execution"]["labels"]["symbol"], "GOOG");
        assert_eq!(body["execution"]["max_attempts"], 2);
        let refused = bad.into_body();
        assert!(
            matches!(refused, Err(Error::InvalidLabel(..))),
            "{refused:?}"
        );
    }
}
