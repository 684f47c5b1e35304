//! Query parameters. Their errors say which values are accepted.
//!
//! A parameter that a route does not know is refused: whoever misspells `status` would otherwise get
//! everything, and believe it. If a parameter with one value is given several times, the last one
//! counts. The types
//! in [`ktrdr_protocol::rest::query`] name the parameters; each of them is read here and not by
//! serde, because serde's errors do not name the parameter.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{self, FromRequestParts, Request, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::labels::{InvalidLabel, Label};
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::rest::query::{
    CancelOperation, FollowEvents, FollowOperation, GetOperation, Include, ListOperations,
    ListOrder, ListOwnOperations, ListWorkers, MetricsFormat, OperationFilter, ReadLogs,
    ReadMetrics, ReadStats,
};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::WorkerStatus;
use schemars::JsonSchema;

use crate::error::ApiError;
use crate::openapi::{Describe, Description};

/// Longest `wait`; a longer one counts as this.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Characters of an unknown name that an error repeats, at most.
const MAX_SHOWN: usize = 128;

/// Values of one parameter, at most.
const MAX_VALUES: usize = 100;

/// Bytes of a text that is looked for, at most.
const MAX_SEARCH: usize = 256;

/// What an answer has beside the usual.
const INCLUDE: &[(&str, Include)] = &[("result", Include::Result)];

/// Which operations come first.
const ORDERS: &[(&str, ListOrder)] =
    &[("newest", ListOrder::Newest), ("oldest", ListOrder::Oldest)];

/// How metric points are written.
const FORMATS: &[(&str, MetricsFormat)] =
    &[("json", MetricsFormat::Json), ("csv", MetricsFormat::Csv)];

/// Levels of log lines.
const LEVELS: &[(&str, LogLevel)] = &[
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
];

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

/// The names of the query parameters that a route takes.
#[derive(Debug, Clone)]
pub struct Known(Arc<[String]>);

impl Known {
    /// These names.
    pub fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }

    /// The refusal of an address with a parameter of another name.
    pub fn refusal(&self, uri: &Uri) -> Option<ApiError> {
        uri.query().filter(|query| !query.is_empty())?;
        // What cannot be read is refused by the handler that reads it.
        let extract::Query(params) =
            extract::Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
        let (unknown, _) = params
            .into_iter()
            .find(|(name, _)| !self.0.contains(name))?;

        let shown: String = unknown.chars().take(MAX_SHOWN).collect();
        let text = if self.0.is_empty() {
            format!("Unknown query parameter {shown:?}: this route takes none")
        } else {
            let names = self.0.join(", ");
            format!("Unknown query parameter {shown:?}; this route takes {names}")
        };
        let refusal = ApiError::new(ErrorCode::UnknownParameter, text)
            .with("parameter", shown)
            .with("known_parameters", self.0.to_vec());
        Some(refusal)
    }
}

/// Refuses a request with a query parameter that its route does not know.
pub async fn guard(State(known): State<Known>, request: Request, next: Next) -> Response {
    match known.refusal(request.uri()) {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    }
}

impl FromParams for OperationFilter {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        let statuses = params.list("status")?;
        let statuses = statuses.into_iter().map(operation_status);
        Ok(Self {
            operation_type: params.owned_list("operation_type")?,
            status: statuses.collect::<Result<_, _>>()?,
            worker_id: params.owned_text("worker_id"),
            schedule_id: params.owned_text("schedule_id"),
            error_code: params.owned_list("error_code")?,
            label: params.labels()?,
            created_after: params.time("created_after")?,
            created_before: params.time("created_before")?,
            ended_after: params.time("ended_after")?,
            search: params.search()?,
        })
    }
}

impl FromParams for ListOperations {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            filter: OperationFilter::from_params(params)?,
            limit: params.number("limit", 1..=1000)?,
            offset: params.number("offset", 0..=u64::MAX)?,
            include: params.word("include", INCLUDE)?,
            cursor: params.owned_text("cursor"),
            order: params.word("order", ORDERS)?,
        })
    }
}

impl FromParams for ListOwnOperations {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.number("limit", 1..=1000)?,
            offset: params.number("offset", 0..=u64::MAX)?,
            status: params.text("status").map(operation_status).transpose()?,
            operation_type: params.owned_text("operation_type"),
            include: params.word("include", INCLUDE)?,
        })
    }
}

impl FromParams for GetOperation {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            force_refresh: params.flag("force_refresh")?,
            wait: params.seconds("wait")?,
        })
    }
}

impl FromParams for CancelOperation {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            wait_seconds: params.seconds("wait_seconds")?,
            wait: params.seconds("wait")?,
            reason: params.owned_text("reason"),
        })
    }
}

impl FromParams for ReadMetrics {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.number("limit", 1..=10_000)?,
            cursor: params.owned_text("cursor"),
            name: params.owned_list("name")?,
            format: params.word("format", FORMATS)?,
        })
    }
}

impl FromParams for ReadLogs {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            cursor: params.owned_text("cursor"),
            level: params.word("level", LEVELS)?,
            limit: params.number("limit", 1..=10_000)?,
            follow: params.flag("follow")?,
        })
    }
}

impl FromParams for FollowOperation {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            logs: params.owned_text("logs"),
        })
    }
}

impl FromParams for ReadStats {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            window_seconds: params.number("window_seconds", 1..=31_536_000)?,
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
    serde_json::from_value(upper).map_err(|_| {
        invalid(
            "status",
            "AVAILABLE, BUSY, DRAINING or TEMPORARILY_UNAVAILABLE",
        )
    })
}

/// The time of a `wait` parameter, which is a number from 0 on.
pub fn patience(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64()))
}

/// The query parameters of a request as text.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_none() {
            return Ok(Self(Vec::new()));
        }
        match extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
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
    /// These names and values.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The last value of a parameter.
    fn last(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().rev();
        let (_, value) = values.find(|(own, _)| own == name)?;
        Some(value)
    }

    /// A text. An empty one counts as absent.
    fn text(&self, name: &str) -> Option<&str> {
        self.last(name).filter(|text| !text.is_empty())
    }

    /// All values of a parameter that may be repeated, and whose values commas may separate.
    fn list(&self, name: &str) -> Result<Vec<&str>, ApiError> {
        let values = self.0.iter().filter(|(own, _)| own == name);
        let values = values.flat_map(|(_, value)| value.split(','));
        let values: Vec<&str> = values
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .take(MAX_VALUES + 1)
            .collect();
        if values.len() > MAX_VALUES {
            return Err(invalid(name, &format!("at most {MAX_VALUES} values")));
        }
        Ok(values)
    }

    fn owned_list(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let values = self.list(name)?.into_iter();
        Ok(values.map(str::to_owned).collect())
    }

    /// All labels. A value may have commas, so these separate nothing.
    fn labels(&self) -> Result<Vec<Label>, ApiError> {
        let values = self.0.iter().filter(|(own, _)| own == "label");
        let mut labels = Vec::new();
        for (_, text) in values.filter(|(_, text)| !text.is_empty()) {
            if labels.len() == MAX_VALUES {
                return Err(invalid("label", &format!("at most {MAX_VALUES} values")));
            }
            let label = text.parse().map_err(|error: InvalidLabel| {
                ApiError::new(ErrorCode::InvalidQuery, format!("label {error}"))
                    .with("parameter", "label")
            })?;
            labels.push(label);
        }
        Ok(labels)
    }

    /// A moment as RFC 3339 writes it.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        // A plus that was not escaped arrives as a space.
        let text = text.trim().replace(' ', "+");
        match serde_json::from_value(text.into()) {
            Ok(time) => Ok(Some(time)),
            Err(_) => Err(invalid(
                name,
                "a time such as 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+01:00",
            )),
        }
    }

    /// A text to look for.
    fn search(&self) -> Result<Option<String>, ApiError> {
        let text = self.text("search").map(str::trim);
        match text.filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) if text.len() <= MAX_SEARCH => Ok(Some(text.to_owned())),
            Some(_) => Err(invalid("search", &format!("at most {MAX_SEARCH} bytes"))),
        }
    }

    fn owned_text(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A whole number within `range`.
    fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.last(name) else {
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
        let Some(text) = self.last(name) else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "false" | "0" | "no" => Ok(Some(false)),
            "true" | "1" | "yes" | "" => Ok(Some(true)),
            _ => Err(invalid(name, "true or false")),
        }
    }

    /// One of these words, each with what it stands for.
    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(invalid(name, &words.join(" or ")))
            }
        }
    }

    /// Seconds to wait, from 0 on.
    fn seconds(&self, name: &str) -> Result<Option<f64>, ApiError> {
        let Some(text) = self.last(name) else {
            return Ok(None);
        };
        match text.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Ok(Some(seconds)),
            _ => Err(invalid(
                name,
                &format!("a number of seconds from 0 to {}", MAX_WAIT.as_secs()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(name: &str, value: &str) -> Params {
        Params(vec![(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn numbers_are_within_their_range() {
        let limit = |text: &str| params("limit", text).number("limit", 1..=1000);

        assert_eq!(limit("1000").unwrap(), Some(1000));
        let absent = Params(Vec::new()).number("limit", 1..=1000);
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
        let wait = |text: &str| {
            params("wait", text)
                .seconds("wait")
                .map(|wait| wait.map(patience))
        };

        assert_eq!(wait("1.5").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(wait("1e300").unwrap(), Some(MAX_WAIT));
        assert_eq!(wait("inf").unwrap(), Some(MAX_WAIT));
        for bad in ["", "-1", "NaN", "true"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_that_a_route_does_not_know_are_refused_by_their_name() {
        let known = Known::new(vec!["limit".to_owned(), "status".to_owned()]);
        let refusal = |address: &str| known.refusal(&address.parse().unwrap());

        for fine in ["/x", "/x?", "/x?limit=1", "/x?status=a&limit=&status=b"] {
            assert!(refusal(fine).is_none(), "{fine}");
        }
        for (bad, name) in [("stat=a", "stat"), ("limit=1&Limit=2", "Limit"), ("=a", "")] {
            let refusal = refusal(&format!("/x?{bad}")).unwrap();
            let problem = refusal.problem();
            assert_eq!(problem.code, ErrorCode::UnknownParameter, "{bad}");
            assert_eq!(problem.fields["parameter"], name);
            assert!(problem.error.contains("limit, status"), "{}", problem.error);
        }

        let long = format!("/x?{}=1", "y".repeat(5000));
        let text = refusal(&long).unwrap().problem().error.clone();
        assert!(text.len() < 300, "{text}");
        let none = Known::new(Vec::new());
        assert!(none.refusal(&"/x?a=1".parse().unwrap()).is_some());
    }

    #[test]
    fn values_are_repeated_or_separated_by_commas() {
        let pairs = [
            ("status", "failed, ,running"),
            ("x", "1"),
            ("status", "PENDING"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));

        let filter = OperationFilter::from_params(&Params(pairs.to_vec())).unwrap();

        let statuses = [Status::Failed, Status::Running, Status::Pending];
        assert_eq!(filter.status, statuses);
        assert!(params("status", "failed,odd").list("status").is_ok());
        assert!(OperationFilter::from_params(&params("status", "failed,odd")).is_err());
        let many = "a,".repeat(101);
        assert!(params("error_code", &many).list("error_code").is_err());
    }

    #[test]
    fn times_have_an_offset_whose_plus_may_be_lost() {
        let time = |text: &str| params("created_after", text).time("created_after");
        let noon = time("2026-01-31T12:00:00Z").unwrap();

        assert!(noon.is_some());
        assert_eq!(time("2026-01-31T13:00:00+01:00").unwrap(), noon);
        assert_eq!(time("2026-01-31T13:00:00 01:00").unwrap(), noon);
        for bad in ["2026-01-31", "yesterday", "1700000000"] {
            assert!(time(bad).is_err(), "{bad}");
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
