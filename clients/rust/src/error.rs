//! Why a call did not succeed.

use std::time::Duration;

use ktrdr_protocol::event::Failure;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::many::ManyStarted;
use ktrdr_protocol::rest::{ErrorCode, Violation};
use serde_json::{Map, Value};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not the URL of a server.
    #[error("{0:?} is not the address of a backend; use http://host:port")]
    InvalidAddress(String),
    /// The address begins with `https`, and this program was built without TLS.
    #[error(
        "https needs the feature `tls` of ktrdr-client, or an HTTP client of your own (Client::with_http)"
    )]
    TlsNotEnabled,
    /// The text is no certificate of an authority.
    #[error("the certificate of the authority cannot be used: {0}")]
    InvalidAuthority(String),
    /// The TLS library cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The token has characters that no header can hold.
    #[error("the token cannot be sent: it has characters that no header can hold")]
    InvalidToken,
    /// The parameters of a start are not a JSON object.
    #[error("the parameters cannot be written as a JSON object: {0}")]
    InvalidParameters(String),
    /// A label cannot be used.
    #[error("the label {0:?} cannot be used: {1}")]
    InvalidLabel(String, &'static str),
    /// These starts cannot be in one request.
    #[error("the starts cannot be in one request: {0}")]
    InvalidStarts(&'static str),
    /// The backend cannot be reached, or the connection broke.
    #[error("the backend cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The backend refused the request.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The answer is not the expected document, or the result is not of the expected type.
    #[error("the answer of the backend cannot be read")]
    UnexpectedAnswer(#[source] serde_json::Error),
    /// The operation ended with an error.
    #[error("operation {operation_id} failed: {}", failure.message)]
    Failed {
        /// The id of the operation.
        operation_id: OperationId,
        /// What went wrong.
        failure: Failure,
    },
    /// The operation was cancelled.
    #[error("operation {0} was cancelled")]
    Cancelled(OperationId),
}

impl Error {
    /// The error code of a refusal; `None` for other errors, and for a code that this version does
    /// not know.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => refusal.code,
            _ => None,
        }
    }

    /// Whether the backend may have done what was asked.
    pub(crate) fn leaves_open(&self) -> bool {
        match self {
            // Without a connection, nothing was sent.
            Self::Unreachable(error) => !error.is_connect(),
            Self::UnexpectedAnswer(_) => true,
            Self::Refused(refusal) => match refusal.code {
                Some(code) => {
                    matches!(code, ErrorCode::OutcomeUnknown | ErrorCode::Internal)
                }
                // Something between has answered, or a backend that knows more codes.
                None => refusal.status >= 500,
            },
            _ => false,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(error) => !is_about_certificate(error),
            Self::Refused(refusal) => match refusal.code {
                Some(code) => {
                    code.is_passing() && !refusal.document.contains_key("missing_permissions")
                }
                // Something between has answered, or a backend that knows more codes.
                None => matches!(refusal.status, 429 | 502..=504),
            },
            _ => false,
        }
    }

    /// How long the backend asks to wait before the request is repeated.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(refusal) => refusal.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

/// Whether a certificate was not accepted: that is so at each try. Every TLS library says the word.
fn is_about_certificate(error: &reqwest::Error) -> bool {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source())
        .any(|cause| cause.to_string().contains("certificate"))
}

/// Many starts that were not all sent: see [`crate::Client::start_many`].
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct StartManyError {
    /// What became of the first ones, which were answered: one result for each, in order. There is none for
    /// the others.
    pub started: Box<ManyStarted>,
    /// Whether some of the others may have started all the same: their request was sent, and nobody knows
    /// what became of it.
    pub is_unclear: bool,
    /// Why the others were not started.
    pub error: Error,
}

impl From<Error> for StartManyError {
    fn from(error: Error) -> Self {
        Self {
            started: Box::default(),
            is_unclear: false,
            error,
        }
    }
}

impl From<StartManyError> for Error {
    fn from(failed: StartManyError) -> Self {
        failed.error
    }
}

/// A request that the backend refused. `docs/errors.md` describes the codes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} (HTTP status {status})")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error code; `None` when this version does not know it, or when something between
    /// answered instead of the backend.
    pub code: Option<ErrorCode>,
    /// What went wrong and what to do about it.
    pub message: String,
    /// With [`ErrorCode::InvalidRequest`]: every place that does not match the schema.
    pub violations: Vec<Violation>,
    /// The whole error document, with the fields that only this code has.
    pub document: Map<String, Value>,
    /// How long to wait before the request is repeated, when the answer says so.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads an error document. Reads what it can when the body is something else, for example a
    /// proxy's page.
    pub(crate) fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let document: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let message = text("error").map_or_else(
            || String::from_utf8_lossy(body).chars().take(200).collect(),
            str::to_owned,
        );
        let violations = document.get("violations").cloned().unwrap_or_default();

        Self {
            status,
            code: text("code").and_then(ErrorCode::from_word),
            message,
            violations: serde_json::from_value(violations).unwrap_or_default(),
            document,
            retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_everything_of_the_document() {
        let body = br#"{"success":false,"error":"no","code":"invalid_request","status_code":422,
            "violations":[{"path":"/steps","message":"too small"}],"hint":7}"#;

        let refusal = Refusal::read(422, body, None);

        assert_eq!(refusal.code, Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal.message, "no");
        assert_eq!(refusal.violations[0].path, "/steps");
        assert_eq!(refusal.document["hint"], 7);
    }

    #[test]
    fn a_page_of_a_proxy_is_a_refusal_too() {
        let refusal = Refusal::read(502, b"<html>Bad gateway</html>", None);

        assert_eq!(refusal.code, None);
        assert!(Error::Refused(Box::new(refusal.clone())).is_passing());
        assert_eq!(
            refusal.to_string(),
            "<html>Bad gateway</html> (HTTP status 502)"
        );
    }
}
