//! An engine's verdict on an operation that did not complete.

use std::time::Duration;

/// Why an operation did not complete, and what shall become of it.
///
/// | verdict | attempts left and retries asked for | otherwise |
/// |---|---|---|
/// | [`Failed`](Self::Failed) | pending again after the request's `retry_delay` | `failed` |
/// | [`RetryAfter`](Self::RetryAfter) | pending again after the engine's delay | `failed` |
/// | [`Permanent`](Self::Permanent) | `failed` | `failed` |
/// | [`Cancelled`](Self::Cancelled) | `cancelled` | `cancelled` |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// It went wrong, and might go better another time.
    #[error("{message}")]
    Failed {
        /// Stable word for programs.
        code: &'static str,
        /// What happened and what to do, for people.
        message: String,
    },
    /// It went wrong, and might go better after this delay.
    #[error("{message}")]
    RetryAfter {
        /// What happened, for people.
        message: String,
        /// How long to wait.
        delay: Duration,
    },
    /// It went wrong, and will every time.
    #[error("{message}")]
    Permanent {
        /// Stable word for programs.
        code: &'static str,
        /// What happened and what to do, for people.
        message: String,
    },
    /// The engine saw the cancellation and stopped.
    #[error("cancelled")]
    Cancelled,
}

impl OperationError {
    /// It went wrong, and might go better another time.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            code: "engine_error",
            message: message.into(),
        }
    }

    /// The request or its data cannot be worked with: trying again cannot help.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Permanent {
            code: "invalid_request",
            message: message.into(),
        }
    }

    /// It went wrong and will every time.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::Permanent {
            code,
            message: message.into(),
        }
    }
}

impl From<std::io::Error> for OperationError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
