//! The REST APIs as a user sees them: status, headers, JSON.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::wait::{LIMIT, wait_for};

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` when it is not JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Insists on a status.
    ///
    /// # Panics
    /// When it is another one, with the whole answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected answer: {self}");
        self
    }

    /// Insists on the one error shape of both APIs, with this status and code.
    ///
    /// # Panics
    /// When it is anything else, with the whole answer.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let this = self.expect(status);
        assert_eq!(this.json["code"], code, "unexpected problem: {this}");
        assert_eq!(this.json["success"], false, "{this}");
        assert_eq!(this.json["status_code"], status, "{this}");
        assert!(
            this.json["error"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{this}"
        );
        this
    }

    /// The value at a JSON pointer, for example `/data/status`; `null` when there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

/// A client of one backend's or one worker's REST API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    /// A client of the API at `base`, for example `http://127.0.0.1:8000`.
    ///
    /// # Panics
    /// When the HTTP client cannot be made.
    pub fn new(base: impl Into<String>) -> Self {
        // The client crate has TLS in this workspace, and reqwest then wants to know by which library.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        // Everything runs on this machine; a proxy from the environment would be in the way.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(90))
            .build()
            .expect("an HTTP client");
        Self {
            base: base.into().trim_end_matches('/').to_owned(),
            http,
            token: None,
        }
    }

    /// The same API with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same API without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// The address given.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to a path of this API, for the test to complete.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            None => request,
            Some(token) => request.bearer_auth(token),
        }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When nobody answers, with the cause.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response
            .text()
            .await
            .map_err(|error| format!("{error:?}"))?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);

        Ok(Answer {
            status,
            headers,
            json,
            text,
        })
    }

    /// Sends it.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer from {}: {error}", self.base))
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When nobody answers, with the cause.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.try_send(self.request(Method::GET, path)).await
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Whether a backend is ready.
    ///
    /// # Errors
    /// What it says instead.
    pub async fn is_ready(&self) -> Result<(), String> {
        let answer = self.try_get("/ready").await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    }

    /// `POST /api/v1/{domain}/start`.
    pub async fn start(&self, domain: &str, body: &Value) -> Answer {
        self.post(&format!("/api/v1/{domain}/start"), body).await
    }

    /// Starts an operation, insists on 202, and returns the operation's id.
    ///
    /// # Panics
    /// When it was not.
    pub async fn started(&self, domain: &str, body: &Value) -> String {
        let answer = self.start(domain, body).await.expect(202);
        answer.json["operation_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no operation_id: {answer}"))
            .to_owned()
    }

    /// Starts an operation and waits until a worker runs it; the operation's id.
    ///
    /// # Panics
    /// When the start is refused, or nobody runs it within [`LIMIT`].
    pub async fn running(&self, domain: &str, body: &Value) -> String {
        let id = self.started(domain, body).await;
        self.wait_for_status(&id, "running").await;
        id
    }

    /// `GET /api/v1/operations/{id}`.
    pub async fn operation(&self, id: &str) -> Answer {
        self.get(&format!("/api/v1/operations/{id}")).await
    }

    /// The texts of the log lines of an operation, given its document; those of the first page.
    pub async fn log_texts(&self, operation: &Value) -> Vec<String> {
        let id = operation["operation_id"].as_str().expect("an id");
        let path = format!("/api/v1/operations/{id}/logs");
        let page = self.get(&path).await.expect(200);
        let lines = page.at("/data/lines").as_array().expect("lines").iter();
        lines
            .map(|line| line["text"].as_str().expect("a text").to_owned())
            .collect()
    }

    /// `GET /api/v1/operations?{query}`.
    pub async fn operations(&self, query: &str) -> Answer {
        self.get(&format!("/api/v1/operations?{query}")).await
    }

    /// `DELETE /api/v1/operations/{id}/cancel`.
    pub async fn cancel(&self, id: &str) -> Answer {
        self.delete(&format!("/api/v1/operations/{id}/cancel"))
            .await
    }

    /// Waits until an operation has one of these statuses, and returns its document (`data`).
    ///
    /// # Panics
    /// When it has another terminal status, or none of them within [`LIMIT`].
    pub async fn wait_for_any_status(&self, id: &str, wanted: &[&str]) -> Value {
        wait_for(
            &format!("operation {id} to be {}", wanted.join(" or ")),
            LIMIT,
            async || {
                let answer = self.try_get(&format!("/api/v1/operations/{id}")).await?;
                let status = answer.at("/data/status").as_str().unwrap_or_default();
                if wanted.contains(&status) {
                    return Ok(answer.at("/data").clone());
                }
                assert!(
                    !["completed", "failed", "cancelled"].contains(&status),
                    "operation {id} should become {}: {answer}",
                    wanted.join(" or ")
                );
                Err(answer.to_string())
            },
        )
        .await
    }

    /// Waits until an operation has this status, and returns its document (`data`).
    ///
    /// # Panics
    /// When it has another terminal status, or not this one within [`LIMIT`].
    pub async fn wait_for_status(&self, id: &str, status: &str) -> Value {
        self.wait_for_any_status(id, &[status]).await
    }

    /// Asks `GET path` until the answer meets `condition`, and returns that answer. `what` names
    /// the condition in the failure message.
    ///
    /// # Panics
    /// When no answer meets it within [`LIMIT`].
    pub async fn wait_for_answer(
        &self,
        path: &str,
        what: &str,
        condition: impl Fn(&Answer) -> bool,
    ) -> Answer {
        wait_for(what, LIMIT, async || {
            let answer = self.try_get(path).await?;
            if condition(&answer) {
                Ok(answer)
            } else {
                Err(answer.to_string())
            }
        })
        .await
    }

    /// The same for `GET /api/v1/operations/{id}`.
    ///
    /// # Panics
    /// When no answer meets the condition within [`LIMIT`].
    pub async fn wait_for_operation(
        &self,
        id: &str,
        what: &str,
        condition: impl Fn(&Answer) -> bool,
    ) -> Answer {
        self.wait_for_answer(&format!("/api/v1/operations/{id}"), what, condition)
            .await
    }

    /// `GET /api/v1/workers`, as a list.
    ///
    /// # Panics
    /// When the answer is not a list.
    pub async fn workers(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/workers").await.expect(200);
        answer
            .json
            .as_array()
            .unwrap_or_else(|| panic!("not a list: {answer}"))
            .clone()
    }

    /// Forgets a worker type, as soon as the backend sees that nobody serves it.
    pub async fn wait_to_forget(&self, worker_type: &str) {
        let path = format!("/api/v1/worker-types/{worker_type}");
        wait_for("the type to be forgotten", LIMIT, async || {
            let answer = self.delete(&path).await;
            (answer.status == 200)
                .then_some(())
                .ok_or(answer.to_string())
        })
        .await;
    }

    /// Waits until the registry shows a worker with this status, and returns its record.
    ///
    /// # Panics
    /// When it does not within [`LIMIT`].
    pub async fn wait_for_worker(&self, id: &str, status: &str) -> Value {
        wait_for(&format!("worker {id} to be {status}"), LIMIT, async || {
            let answer = self.try_get(&format!("/api/v1/workers/{id}")).await?;
            if answer.json["status"] == status {
                Ok(answer.json)
            } else {
                Err(answer.to_string())
            }
        })
        .await
    }
}
