//! The client: one method for each route, and waiting for the end of an operation.

use std::borrow::Cow;
use std::time::Duration;

use ktrdr_protocol::event::Failure;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::rest::OperationDocument;
use ktrdr_protocol::rest::cancel::CancelResponse;
use ktrdr_protocol::rest::logs::{LogsPage, LogsResponse};
use ktrdr_protocol::rest::operation::{
    ChangeOperation, OperationListResponse, OperationPage, OperationResponse,
};
use ktrdr_protocol::rest::query::{
    CancelOperation, GetOperation, ListOperations, ListWorkers, ReadLogs,
};
use ktrdr_protocol::rest::result::ResultResponse;
use ktrdr_protocol::rest::start::StartResponse;
use ktrdr_protocol::rest::stats::{Stats, StatsResponse};
use ktrdr_protocol::rest::worker::WorkerDocument;
use ktrdr_protocol::rest::worker_type::{WorkerTypeDocument, WorkerTypesResponse};
use ktrdr_protocol::state::Status;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::start::Start;
use crate::tries::{Answered, Tries};

/// How long the backend holds one request of [`Client::wait`].
const WAIT: Duration = Duration::from_secs(30);

/// How long an answer may take, without the time that the backend holds it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the answer with a large result may take. One that stands still ends after [`SILENCE`].
const RESULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long nothing may arrive of an answer: the backend holds some for [`WAIT`].
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// The header that makes a repeated request one request.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A client of one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    base: Url,
    http: reqwest::Client,
    patience: Duration,
    /// The header `Authorization`; marked as sensitive, so it is never shown.
    token: Option<HeaderValue>,
}

impl Client {
    /// A client of the backend at `address`, for example `http://127.0.0.1:8000`. With the feature `tls`
    /// also `https://…`: then it believes the authorities of this machine.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`]; [`Error::TlsNotEnabled`] for `https` without the feature.
    pub fn new(address: &str) -> Result<Self, Error> {
        let base = server_of(address)?;
        let http = http_client(base.scheme() == "https")?;
        Ok(Self::of(base, http))
    }

    /// The same for a backend whose certificate comes from an authority of your own. `pem` is the text
    /// of its certificate, or of several; the client believes no other authority.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ktrdr_client::Client;
    ///
    /// let pem = std::fs::read("authority.pem")?;
    /// let client = Client::with_authority("https://jobs.example.org:8000", &pem)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidAddress`], [`Error::InvalidAuthority`].
    #[cfg(feature = "tls")]
    pub fn with_authority(address: &str, pem: &[u8]) -> Result<Self, Error> {
        Self::with_http(address, crate::tls::with_authority(pem)?)
    }

    /// The same with an HTTP client of your own: for a proxy, another TLS library, or headers that every
    /// request needs.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`].
    pub fn with_http(address: &str, http: reqwest::Client) -> Result<Self, Error> {
        Ok(Self::of(server_of(address)?, http))
    }

    fn of(base: Url, http: reqwest::Client) -> Self {
        Self {
            base,
            http,
            patience: Duration::from_secs(30),
            token: None,
        }
    }

    /// Sends this token with each request. A backend that has a file of tokens needs one; see
    /// `docs/security.md`.
    ///
    /// # Errors
    /// [`Error::InvalidToken`] when it cannot be sent in a header.
    pub fn token(self, token: &str) -> Result<Self, Error> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| Error::InvalidToken)?;
        header.set_sensitive(true);
        Ok(Self {
            token: Some(header),
            ..self
        })
    }

    /// Sets for how long requests are repeated while the backend or NATS is not reachable, or is overloaded.
    /// 30 s unless set; [`Duration::MAX`] for ever.
    #[must_use]
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts an operation of the worker type with this domain. `parameters` must be written as a
    /// JSON object. Options are set on the returned [`Start`]; `.await` sends it.
    pub fn start<'a>(&'a self, domain: &'a str, parameters: &impl Serialize) -> Start<'a> {
        Start::new(self, domain, parameters)
    }

    /// Starts an operation, waits until it has ended, and returns its result.
    ///
    /// # Errors
    /// [`Error::Failed`] and [`Error::Cancelled`] when the operation ended that way; see [`Error`]
    /// for the others.
    pub async fn run<T: DeserializeOwned>(
        &self,
        domain: &str,
        parameters: &impl Serialize,
    ) -> Result<T, Error> {
        self.start(domain, parameters).run().await
    }

    /// Waits until an operation has ended, however long that takes, and returns it.
    /// [`tokio::time::timeout`] limits the time; dropping the future is safe.
    ///
    /// # Errors
    /// See [`Error`]; `operation_not_found` when there is no such operation.
    pub async fn wait(&self, id: &OperationId) -> Result<OperationDocument<'static>, Error> {
        let query = GetOperation {
            wait: Some(WAIT.as_secs_f64()),
            force_refresh: None,
        };
        loop {
            let request = self
                .request(Method::GET, &["api", "v1", "operations", id.as_str()])
                .query(&query)
                .timeout(WAIT + TIMEOUT);
            let response: OperationResponse<'static> = self.send(request).await?;
            if response.status.is_terminal() {
                return Ok(response.data);
            }
        }
    }

    /// Waits until an operation has ended, and returns its result.
    ///
    /// # Errors
    /// [`Error::Failed`] and [`Error::Cancelled`] when the operation ended that way; see [`Error`]
    /// for the others.
    pub async fn wait_for_result<T: DeserializeOwned>(&self, id: &OperationId) -> Result<T, Error> {
        let operation = self.wait(id).await?;
        match operation.status {
            Status::Completed => {}
            Status::Cancelled => return Err(Error::Cancelled(id.clone())),
            _ => {
                return Err(Error::Failed {
                    operation_id: id.clone(),
                    failure: failure_of(operation),
                });
            }
        }

        match operation.result {
            Some(result) => serde_json::from_str(result.get()).map_err(Error::UnexpectedAnswer),
            // It is large, or it is `null`.
            None => self.result(id).await,
        }
    }

    /// The result of a completed operation.
    ///
    /// # Errors
    /// See [`Error`]; `not_finished`, `no_result`, `result_gone` or `invalid_result` when there is
    /// no result.
    pub async fn result<T: DeserializeOwned>(&self, id: &OperationId) -> Result<T, Error> {
        let path = ["api", "v1", "operations", id.as_str(), "results"];
        let request = self.request(Method::GET, &path).timeout(RESULT_TIMEOUT);
        let response: ResultResponse<'static> = self.send(request).await?;
        serde_json::from_str(response.data.get()).map_err(Error::UnexpectedAnswer)
    }

    /// One operation now.
    ///
    /// # Errors
    /// See [`Error`]; `operation_not_found` when there is no such operation.
    pub async fn get(&self, id: &OperationId) -> Result<OperationDocument<'static>, Error> {
        let path = ["api", "v1", "operations", id.as_str()];
        let response: OperationResponse<'static> =
            self.send(self.request(Method::GET, &path)).await?;
        Ok(response.data)
    }

    /// A page of operations, newest first. Without [`ListOperations::include`] they have no results,
    /// and only small parameters; `truncated` says what an operation lacks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, query: &ListOperations) -> Result<OperationPage, Error> {
        let request = self
            .request(Method::GET, &["api", "v1", "operations"])
            .query(&query.pairs());
        let response: OperationListResponse = self.send(request).await?;
        Ok(response.data)
    }

    /// A page of log lines of an operation, oldest first. [`LogsPage::cursor`] continues behind it.
    /// [`ReadLogs::follow`] has no effect here: ask again while the operation runs.
    ///
    /// # Errors
    /// See [`Error`]; `operation_not_found` when there is no such operation.
    pub async fn logs(
        &self,
        id: &OperationId,
        query: &ReadLogs,
    ) -> Result<LogsPage<'static>, Error> {
        let query = ReadLogs {
            follow: None,
            ..query.clone()
        };
        let request = self
            .request(
                Method::GET,
                &["api", "v1", "operations", id.as_str(), "logs"],
            )
            .query(&query);
        let response: LogsResponse<'static> = self.send(request).await?;
        Ok(response.data)
    }

    /// Cancels an operation. A running one is asked to stop, and the answer waits up to 2 seconds for
    /// that; its `status` says whether it has. [`Client::wait`] waits for longer. Repeating it is
    /// harmless.
    ///
    /// # Errors
    /// See [`Error`]; `already_finished` when the operation has completed or failed.
    pub async fn cancel(
        &self,
        id: &OperationId,
        reason: Option<&str>,
    ) -> Result<CancelResponse<'static>, Error> {
        let query = CancelOperation {
            reason: reason.map(str::to_owned),
            ..CancelOperation::default()
        };
        let path = ["api", "v1", "operations", id.as_str(), "cancel"];
        self.send(self.request(Method::DELETE, &path).query(&query))
            .await
    }

    /// Gives an operation that waits another priority, and returns the operation. Repeating it is
    /// harmless.
    ///
    /// # Errors
    /// See [`Error`]; `not_waiting` when the operation runs or has ended.
    pub async fn set_priority(
        &self,
        id: &OperationId,
        priority: Priority,
    ) -> Result<OperationDocument<'static>, Error> {
        let path = ["api", "v1", "operations", id.as_str()];
        let request = self.request(Method::PATCH, &path);
        let request = request.json(&ChangeOperation { priority });
        let response: OperationResponse<'static> = self.send(request).await?;
        Ok(response.data)
    }

    /// Runs a failed or cancelled operation again, as a new operation.
    ///
    /// # Errors
    /// See [`Error`]; `not_repeatable` when the operation has neither failed nor been cancelled.
    pub async fn retry(&self, id: &OperationId) -> Result<StartResponse<'static>, Error> {
        self.repeat(id, "retry").await
    }

    /// Runs a failed or cancelled operation again from its newest checkpoint, as a new operation.
    ///
    /// # Errors
    /// As [`Client::retry`].
    pub async fn resume(&self, id: &OperationId) -> Result<StartResponse<'static>, Error> {
        self.repeat(id, "resume").await
    }

    /// The workers that are alive or were a moment ago, by id: all that match, or as many as
    /// `limit`. Reads as many pages as the backend makes of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn workers(&self, query: &ListWorkers) -> Result<Vec<WorkerDocument>, Error> {
        let mut found: Vec<WorkerDocument> = Vec::new();
        let mut query = query.clone();
        loop {
            let request = self
                .request(Method::GET, &["api", "v1", "workers"])
                .query(&query);
            let page: Answered<Vec<WorkerDocument>> = self.ask(request).await?;
            let length = page.document.len() as u64;

            // Workers may have come since the page before, and moved the others.
            let last = found.last().map(|worker| worker.worker_id.clone());
            let is_new = |worker: &WorkerDocument| last.as_ref() < Some(&worker.worker_id);
            found.extend(page.document.into_iter().filter(is_new));

            query.limit = query.limit.map(|limit| limit.saturating_sub(length));
            query.offset = Some(query.offset.unwrap_or(0).saturating_add(length));
            if !page.has_next || length == 0 || query.limit == Some(0) {
                return Ok(found);
            }
        }
    }

    /// What can be started: the worker types with their schemas and queues.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn worker_types(&self) -> Result<Vec<WorkerTypeDocument>, Error> {
        let request = self.request(Method::GET, &["api", "v1", "worker-types"]);
        let response: WorkerTypesResponse = self.send(request).await?;
        Ok(response.data.worker_types)
    }

    /// Figures of the whole system: counts, queues, and what ended lately.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        let request = self.request(Method::GET, &["api", "v1", "stats"]);
        let response: StatsResponse = self.send(request).await?;
        Ok(response.data)
    }

    pub(crate) async fn send_start(
        &self,
        domain: &str,
        body: &Map<String, Value>,
        idempotency_key: Option<String>,
    ) -> Result<StartResponse<'static>, Error> {
        let mut request = self
            .request(Method::POST, &["api", "v1", domain, "start"])
            .json(body);
        if let Some(key) = idempotency_key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        self.send(request).await
    }

    async fn repeat(&self, id: &OperationId, how: &str) -> Result<StartResponse<'static>, Error> {
        // A fresh key, so that a request that is sent twice starts one operation.
        let key = OperationId::generate();
        let request = self
            .request(Method::POST, &["api", "v1", "operations", id.as_str(), how])
            .header(IDEMPOTENCY_KEY, key.as_str());
        self.send(request).await
    }

    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        // An address with a host always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url).timeout(TIMEOUT);
        match &self.token {
            None => request,
            Some(token) => request.header(AUTHORIZATION, token),
        }
    }

    /// Sends a request, and repeats it while the backend or NATS is not reachable, or is overloaded.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        Ok(self.ask(request).await?.document)
    }

    /// The same; says also whether another page follows.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Answered<T>, Error> {
        Tries::default().answer(request, self.patience).await
    }

    /// Deletes something. That it is not there is an error only of the first try: an earlier one may have
    /// deleted it, and its answer was lost.
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<(), Error> {
        let mut tries = Tries::default();
        match tries.answer::<T>(request, self.patience).await {
            Err(Error::Refused(refusal)) if tries.are_several && refusal.status == 404 => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// [`Self::send`]; says also whether the backend may have done what was asked although this is an error.
    pub(crate) async fn send_clearly<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, (Error, bool)> {
        let mut tries = Tries::default();
        match tries.answer(request, self.patience).await {
            Ok(answered) => Ok(answered.document),
            Err(error) => Err((error, tries.are_unclear)),
        }
    }
}

/// The address of a server.
fn server_of(address: &str) -> Result<Url, Error> {
    Url::parse(address)
        .ok()
        .filter(|url| url.has_host() && url.scheme().starts_with("http"))
        .ok_or_else(|| Error::InvalidAddress(address.to_owned()))
}

#[cfg(feature = "tls")]
fn http_client(is_https: bool) -> Result<reqwest::Client, Error> {
    match is_https {
        true => crate::tls::with_authorities_of_the_machine(),
        false => crate::tls::without_authorities(),
    }
}

#[cfg(not(feature = "tls"))]
fn http_client(is_https: bool) -> Result<reqwest::Client, Error> {
    match is_https {
        true => Err(Error::TlsNotEnabled),
        false => reqwest::Client::builder()
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Error::Tls(error.to_string())),
    }
}

/// The failure of an operation that failed.
fn failure_of(operation: OperationDocument<'static>) -> Failure {
    let unknown = || Failure {
        code: "unknown".to_owned(),
        message: operation
            .error_message
            .map_or_else(String::new, Cow::into_owned),
        permanent: false,
    };
    operation.error.map_or_else(unknown, Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(address: &str, path: &[&str]) -> String {
        let client = Client::new(address).unwrap();
        let request = client.request(Method::GET, path).build().unwrap();
        request.url().to_string()
    }

    #[test]
    fn paths_follow_the_address_and_are_escaped() {
        assert_eq!(url("http://h:1", &["a", "b"]), "http://h:1/a/b");
        assert_eq!(url("http://h/base/", &["a"]), "http://h/base/a");
        assert_eq!(url("http://h", &["../x", "é"]), "http://h/..%2Fx/%C3%A9");
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let client = || Client::new("http://h").unwrap();

        let with_token = client().token(" secret\n").unwrap();

        let request = with_token.request(Method::GET, &["a"]).build().unwrap();
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer secret");
        for shown in [format!("{with_token:?}"), format!("{request:?}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        let refused = client().token("a\nb");
        assert!(matches!(refused, Err(Error::InvalidToken)));
    }

    #[test]
    fn only_addresses_of_servers_are_accepted() {
        for bad in ["", "127.0.0.1:8000", "mailto:a@b", "file:///x", "/api"] {
            assert!(
                matches!(Client::new(bad), Err(Error::InvalidAddress(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn https_needs_the_feature() {
        let client = Client::new("https://h");

        let expected = if cfg!(feature = "tls") {
            client.is_ok()
        } else {
            matches!(client, Err(Error::TlsNotEnabled))
        };
        assert!(expected, "{client:?}");
    }
}
