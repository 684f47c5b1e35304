//! Query parameters. Their errors say which values are accepted.
//!
//! Parameters with unknown names are ignored. If a parameter is given several times, the last one
//! counts. The types in [`ktrdr_protocol::rest::query`] name the parameters; each of them is read
//! here and not by serde, because serde's errors do not name the parameter.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_protocol::rest::query::{
    CancelOperation, FollowEvents, GetOperation, ListOperations, ListWorkers, ReadMetrics,
};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::WorkerStatus;
use schemars::JsonSchema;

use crate::error::{ApiError, ErrorCode};

/// Longest `wait`; a longer one counts as this.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The query parameters of a request, read as a `T`.
pub struct Query<T>(pub T);

impl<T: FromParams, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        T::from_params(&params).map(Self)
    }
}

impl<T: JsonSchema> Describe for Query<T> {
    fn describe(description: &mut Description<'_>) {
        description.query::<T>();
    }
}

/// A type that can be read from query parameters.
pub trait FromParams: Sized {
    /// Reads all parameters.
    ///
    /// # Errors
    /// `invalid_query` with the name of the parameter and the values that are accepted.
    fn from_params(params: &Params) -> Result<Self, ApiError>;
}

impl FromParams for ListOperations {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.number("limit", 1..=1000)?,
            offset: params.number("offset", 0..=u64::MAX)?,
            status: params.text("status").map(operation_status).transpose()?,
            operation_type: params.owned_text("operation_type"),
        })
    }
}

impl FromParams for GetOperation {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            force_refresh: params.flag("force_refresh")?,
            wait: params.wait()?,
        })
    }
}

impl FromParams for CancelOperation {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            wait: params.wait()?,
            reason: params.owned_text("reason"),
        })
    }
}

impl FromParams for ReadMetrics {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.number("limit", 1..=10_000)?,
            cursor: params.owned_text("cursor"),
        })
    }
}

impl FromParams for ListWorkers {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            status: params.text("status").map(worker_status).transpose()?,
            worker_type: params.owned_text("worker_type"),
            limit: params.number("limit", 1..=10_000)?,
            offset: params.number("offset", 0..=u64::MAX)?,
        })
    }
}

impl FromParams for FollowEvents {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            operation_type: params.owned_text("operation_type"),
            worker_type: params.owned_text("worker_type"),
        })
    }
}

/// Reads a status of operations in any case.
fn operation_status(text: &str) -> Result<Status, ApiError> {
    let lower = text.to_ascii_lowercase();
    Status::ALL
        .into_iter()
        .find(|status| status.as_str() == lower)
        .ok_or_else(|| {
            let names: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
            invalid("status", &format!("one of {}", names.join(", ")))
        })
}

/// Reads a status of workers in any case.
fn worker_status(text: &str) -> Result<WorkerStatus, ApiError> {
    let upper = serde_json::Value::String(text.to_ascii_uppercase());
    serde_json::from_value(upper)
        .map_err(|_| invalid("status", "AVAILABLE, BUSY or TEMPORARILY_UNAVAILABLE"))
}

/// The time of a `wait` parameter, which is a number from 0 on.
pub fn patience(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64()))
}

/// The query parameters of a request as text.
#[derive(Debug)]
pub struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_none() {
            return Ok(Self(HashMap::new()));
        }
        match extract::Query::<HashMap<String, String>>::from_request_parts(parts, state).await {
            Ok(extract::Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::new(
                ErrorCode::InvalidQuery,
                format!("The query cannot be read: {error}"),
            )),
        }
    }
}

/// A parameter with an impossible value.
pub fn invalid(name: &str, accepted: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidQuery,
        format!("{name} must be {accepted}"),
    )
    .with("parameter", name)
}

impl Params {
    /// A text. An empty one counts as absent.
    fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn owned_text(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A whole number within `range`.
    fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ if *range.end() == u64::MAX => Err(invalid(
                name,
                &format!("a whole number from {} on", range.start()),
            )),
            _ => Err(invalid(
                name,
                &format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// Yes or no, as Python and shells write it.
    fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "false" | "0" | "no" => Ok(Some(false)),
            "true" | "1" | "yes" | "" => Ok(Some(true)),
            _ => Err(invalid(name, "true or false")),
        }
    }

    /// Seconds to wait, from 0 on.
    fn wait(&self) -> Result<Option<f64>, ApiError> {
        let Some(text) = self.0.get("wait") else {
            return Ok(None);
        };
        match text.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Ok(Some(seconds)),
            _ => Err(invalid(
                "wait",
                &format!("a number of seconds from 0 to {}", MAX_WAIT.as_secs()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(name: &str, value: &str) -> Params {
        Params(HashMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn numbers_are_within_their_range() {
        let limit = |text: &str| params("limit", text).number("limit", 1..=1000);

        assert_eq!(limit("1000").unwrap(), Some(1000));
        let absent = Params(HashMap::new()).number("limit", 1..=1000);
        assert_eq!(absent.unwrap(), None);
        for bad in [
            "0",
            "1001",
            "-1",
            "1.5",
            "",
            "ten",
            "99999999999999999999999",
        ] {
            let error = limit(bad).unwrap_err();
            let problem = error.problem();
            assert_eq!(problem.fields["parameter"], "limit");
            assert_eq!(problem.error, "limit must be a whole number from 1 to 1000");
        }
    }

    #[test]
    fn waits_are_bounded() {
        let wait = |text: &str| params("wait", text).wait().map(|wait| wait.map(patience));

        assert_eq!(wait("1.5").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(wait("1e300").unwrap(), Some(MAX_WAIT));
        assert_eq!(wait("inf").unwrap(), Some(MAX_WAIT));
        for bad in ["", "-1", "NaN", "true"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_read_as_people_write_them() {
        let flag = |text: &str| params("force_refresh", text).flag("force_refresh");

        assert_eq!(flag("True").unwrap(), Some(true));
        assert_eq!(flag("0").unwrap(), Some(false));
        assert!(flag("maybe").is_err());
    }
}
