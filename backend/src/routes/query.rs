//! Query parameters, with errors that say what is accepted. Unknown ones are ignored; of several equal ones the last counts.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::error::{ApiError, Code};

/// Longest `wait`; more is cut to this.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The query parameters of a request.
#[derive(Debug)]
pub struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_none() {
            return Ok(Self(HashMap::new()));
        }
        match Query::<HashMap<String, String>>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::new(
                Code::InvalidQuery,
                format!("The query cannot be read: {error}"),
            )),
        }
    }
}

/// A parameter with an impossible value.
pub fn invalid(name: &str, accepted: &str) -> ApiError {
    ApiError::new(Code::InvalidQuery, format!("{name} must be {accepted}")).with("parameter", name)
}

impl Params {
    /// A text; empty counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// 400.
    pub fn number(
        &self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
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
    ///
    /// # Errors
    /// 400.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self
            .0
            .get(name)
            .map(|text| text.to_ascii_lowercase())
            .as_deref()
        {
            None | Some("false" | "0" | "no") => Ok(false),
            Some("true" | "1" | "yes" | "") => Ok(true),
            Some(_) => Err(invalid(name, "true or false")),
        }
    }

    /// Seconds to wait; bounded.
    ///
    /// # Errors
    /// 400.
    pub fn wait(&self) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.0.get("wait") else {
            return Ok(None);
        };
        match text.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Ok(Some(Duration::from_secs_f64(
                seconds.min(MAX_WAIT.as_secs_f64()),
            ))),
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
        let limit = |text: &str| params("limit", text).number("limit", 100, 1..=1000);
        assert_eq!(limit("1000").unwrap(), 1000);
        assert_eq!(
            Params(HashMap::new())
                .number("limit", 100, 1..=1000)
                .unwrap(),
            100
        );
        for bad in [
            "0",
            "1001",
            "-1",
            "1.5",
            "",
            "ten",
            "99999999999999999999999",
        ] {
            let body = limit(bad).unwrap_err().body();
            assert_eq!(body["parameter"], "limit");
            assert_eq!(body["error"], "limit must be a whole number from 1 to 1000");
        }
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(
            params("wait", "1.5").wait().unwrap(),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(params("wait", "1e300").wait().unwrap(), Some(MAX_WAIT));
        assert_eq!(params("wait", "inf").wait().unwrap(), Some(MAX_WAIT));
        for bad in ["", "-1", "NaN", "true"] {
            assert!(params("wait", bad).wait().is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_read_as_people_write_them() {
        assert!(
            params("force_refresh", "True")
                .flag("force_refresh")
                .unwrap()
        );
        assert!(!params("force_refresh", "0").flag("force_refresh").unwrap());
        assert!(
            params("force_refresh", "maybe")
                .flag("force_refresh")
                .is_err()
        );
    }
}
