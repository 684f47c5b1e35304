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
    /// with the first operation. Without an id and without an idempotency key, the client chooses
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

    async fn send(self) -> Result<StartResponse<'static>, Error> {
        let mut body = self.parameters?;
        let key = self.idempotency_key;
        let id = match self.operation_id {
            None if key.is_none() => Some(OperationId::generate()),
            given => given,
        };
        if let Some(id) = id {
            body.insert("task_id".to_owned(), id.as_str().into());
        }
        if !self.execution.is_default() {
            let execution =
                serde_json::to_value(&self.execution).map_err(Error::UnexpectedAnswer)?;
            body.insert("execution".to_owned(), execution);
        }

        self.client.send_start(self.domain, &body, key).await
    }
}

impl<'a> IntoFuture for Start<'a> {
    type Output = Result<StartResponse<'static>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
