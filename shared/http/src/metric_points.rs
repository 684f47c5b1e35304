//! Metric points: where an answer begins, and the answer itself, JSON or a table.

use std::fmt::Write;

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::rest::metrics::{Cursor, MetricsResponse};
use ktrdr_protocol::rest::query::{MetricsFormat, ReadMetrics};

use crate::answer::{RenderedJson, Share};
use crate::error::ApiError;
use crate::openapi::{Describe, Description};

/// The header of a table with the cursor after its last point; a table has no other place for it.
const CURSOR: HeaderName = HeaderName::from_static("x-ktrdr-cursor");

/// The header of a table that says whether there are more points.
const HAS_MORE: HeaderName = HeaderName::from_static("x-ktrdr-has-more");

/// The media type of a table.
const CSV: &str = "text/csv; charset=utf-8; header=present";

/// Metric points, written as the client wants them.
pub struct PointsAnswer(Response);

impl PointsAnswer {
    /// Writes `page`; `share` was taken for it before.
    ///
    /// # Errors
    /// 500 when it cannot be written.
    pub fn write(
        page: &MetricsResponse<'_>,
        asked: Option<MetricsFormat>,
        headers: &HeaderMap,
        share: Share,
    ) -> Result<Self, ApiError> {
        if !wants_table(asked, headers) {
            let json = RenderedJson::<MetricsResponse<'static>>::write(page, share)?;
            return Ok(Self(json.into_response()));
        }

        let data = &page.data;
        let table = RenderedJson::<()>::with_share(table(&data.metrics), share);
        let mut response = table.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CSV));
        let cursor = HeaderValue::try_from(&data.cursor).map_err(ApiError::internal)?;
        headers.insert(CURSOR, cursor);
        let has_more = if data.has_more { "true" } else { "false" };
        headers.insert(HAS_MORE, HeaderValue::from_static(has_more));
        Ok(Self(response))
    }
}

impl IntoResponse for PointsAnswer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Describe for PointsAnswer {
    fn describe(description: &mut Description<'_>) {
        RenderedJson::<MetricsResponse<'_>>::describe(description);
        description.also_text(200, "text/csv");
        let cursor = "Of a table: the cursor after its last point.";
        description.answer_header(200, CURSOR.as_str(), cursor);
        let has_more = "Of a table: `true` when there are more points now.";
        description.answer_header(200, HAS_MORE.as_str(), has_more);
    }
}

/// The place where an answer begins: that of the query, or the first point.
///
/// # Errors
/// 400 `invalid_cursor`.
pub fn read_cursor(query: &ReadMetrics) -> Result<Cursor, ApiError> {
    let text = query.cursor.as_deref();
    text.map_or(Ok(Cursor::default()), str::parse).map_err(|_| {
        let text = "cursor must be one that an earlier answer gave; leave it out to start over";
        ApiError::new(ErrorCode::InvalidCursor, text)
    })
}

/// What the address says counts, then what the header `Accept` names first.
fn wants_table(asked: Option<MetricsFormat>, headers: &HeaderMap) -> bool {
    match asked {
        Some(format) => format == MetricsFormat::Csv,
        None => headers
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.trim_start().starts_with("text/csv")),
    }
}

/// The points as a table with a header, as RFC 4180 writes it.
fn table(points: &[MetricPoint]) -> String {
    let mut text = String::from("name,step,value,attempt,timestamp\r\n");
    let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
    for point in points {
        let attempt = point.attempt.map(|attempt| attempt.to_string());
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "{},{},{},{},{}\r\n",
            field(&point.name),
            number(point.step),
            number(point.value),
            attempt.unwrap_or_default(),
            point.timestamp
        );
    }
    text
}

/// A name as a field. Engines choose it, so it may have anything in it; a sheet would take one that
/// begins like a formula for a formula.
fn field(name: &str) -> String {
    let is_formula = name.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let name = if is_formula {
        format!("'{name}")
    } else {
        name.to_owned()
    };
    if name.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ktrdr_protocol::id::OperationId;
    use ktrdr_protocol::rest::metrics::MetricsPage;
    use ktrdr_protocol::time::Timestamp;

    use super::*;
    use crate::answer::AnswerBudget;
    use crate::tokens::Principal;

    fn point(name: &str, step: Option<f64>, value: Option<f64>) -> MetricPoint {
        MetricPoint {
            timestamp: Timestamp::from_millis(1_762_770_600_000),
            name: name.to_owned(),
            value,
            step,
            attempt: Some(2),
        }
    }

    #[tokio::test]
    async fn a_table_gives_back_what_it_does_not_need_of_its_share() {
        let budget = AnswerBudget::new(1024 * 1024);
        let share = budget
            .share(&Principal::everybody(), 1024 * 1024)
            .await
            .unwrap();
        let page = MetricsResponse {
            success: true,
            data: MetricsPage {
                operation_id: Cow::Owned(OperationId::new("a").unwrap()),
                metrics: vec![point(&"x".repeat(100 * 1024), None, None)],
                cursor: String::new(),
                has_more: false,
            },
        };

        let csv = Some(MetricsFormat::Csv);
        let answer = PointsAnswer::write(&page, csv, &HeaderMap::new(), share).unwrap();

        assert!(budget.try_share(900 * 1024).is_some());
        drop(answer);
    }

    #[test]
    fn a_table_has_one_line_for_each_point() {
        let points = [
            point("val_loss", Some(3.0), Some(0.5)),
            point("a \"b\", c", None, None),
            point("=1+1", None, Some(1e-7)),
        ];

        let expected = "name,step,value,attempt,timestamp\r\n\
            val_loss,3,0.5,2,2025-11-10T10:30:00.000Z\r\n\
            \"a \"\"b\"\", c\",,,2,2025-11-10T10:30:00.000Z\r\n\
            '=1+1,,0.0000001,2,2025-11-10T10:30:00.000Z\r\n";
        assert_eq!(table(&points), expected);
    }
}
