//! How an engine reports that an operation did not complete.

use std::borrow::Cow;
use std::time::Duration;

/// Why an operation did not complete, and what happens to it.
///
/// | error | attempts are left and failures are retried | otherwise |
/// |---|---|---|
/// | [`Failed`](Self::Failed) | pending again after the retry delay | `failed` |
/// | [`RetryAfter`](Self::RetryAfter) | pending again after the engine's delay | `failed` |
/// | [`Permanent`](Self::Permanent) | `failed` | `failed` |
/// | [`Cancelled`](Self::Cancelled) | `cancelled` | `cancelled` |
///
/// `RetryAfter` needs attempts that are left, and nothing else: it is retried even when neither the
/// request nor the engine asks for retries.
///
/// With `?`, an [`std::io::Error`] and an [`anyhow::Error`] become `Failed` with the code
/// `engine_error` and the causes in the message. An `OperationError` inside an `anyhow::Error`
/// keeps its kind and code, so [`Cancelled`](Self::Cancelled) passes through functions that return
/// `anyhow::Result`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// It failed, and another attempt may succeed.
    #[error("{message}")]
    Failed {
        /// Stable word for programs.
        code: Cow<'static, str>,
        /// What happened and what to do, for people.
        message: String,
    },
    /// It failed, and an attempt after this delay may succeed.
    #[error("{message}")]
    RetryAfter {
        /// Stable word for programs.
        code: Cow<'static, str>,
        /// What happened, for people.
        message: String,
        /// How long to wait before the next attempt.
        delay: Duration,
    },
    /// It failed, and every other attempt would fail too.
    #[error("{message}")]
    Permanent {
        /// Stable word for programs.
        code: Cow<'static, str>,
        /// What happened and what to do, for people.
        message: String,
    },
    /// The engine noticed the request to stop, and stopped.
    #[error("cancelled")]
    Cancelled,
}

impl OperationError {
    /// A failure with the code `engine_error`; another attempt may succeed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            code: Cow::Borrowed("engine_error"),
            message: message.into(),
        }
    }

    /// A failure after which an attempt may succeed, but only after `delay`, which is at most a day: a
    /// longer one counts as a day.
    pub fn retry_after(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        delay: Duration,
    ) -> Self {
        Self::RetryAfter {
            code: code.into(),
            message: message.into(),
            delay,
        }
    }

    /// A permanent failure with the code `invalid_request`: the request or its data cannot be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::permanent("invalid_request", message)
    }

    /// A failure that every other attempt would repeat.
    pub fn permanent(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Permanent {
            code: code.into(),
            message: message.into(),
        }
    }

    fn with_message(self, message: String) -> Self {
        match self {
            Self::Failed { code, .. } => Self::Failed { code, message },
            Self::RetryAfter { code, delay, .. } => Self::RetryAfter {
                code,
                message,
                delay,
            },
            Self::Permanent { code, .. } => Self::Permanent { code, message },
            Self::Cancelled => Self::Cancelled,
        }
    }
}

impl From<std::io::Error> for OperationError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(ktrdr_bus::telemetry::chain(&error))
    }
}

impl From<anyhow::Error> for OperationError {
    fn from(error: anyhow::Error) -> Self {
        // The alternate form has every layer of context and every cause.
        let message = format!("{error:#}");
        match error.downcast::<Self>() {
            Ok(own) => own.with_message(message),
            Err(_) => Self::failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_causes_in_the_text() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause)
            .context("cannot write bars.csv")
            .context("export failed");

        assert_eq!(
            OperationError::from(error),
            OperationError::failed("export failed: cannot write bars.csv: disk full")
        );
    }

    #[test]
    fn an_operation_error_passes_through_anyhow_with_its_kind_and_code() {
        let cancelled = anyhow::Error::new(OperationError::Cancelled);
        assert_eq!(
            OperationError::from(cancelled.context("while reading")),
            OperationError::Cancelled
        );

        let busy = OperationError::retry_after("exchange_busy", "429", Duration::from_secs(7));
        assert_eq!(
            OperationError::from(anyhow::Error::new(busy).context("cannot download")),
            OperationError::retry_after(
                "exchange_busy",
                "cannot download: 429",
                Duration::from_secs(7)
            )
        );
    }
}
