//! `GET /` and `GET /dashboard/{file}`: the dashboard, from inside the binary. It uses nothing but
//! the REST interface.

use axum::http::HeaderMap;

use super::PathText;
use super::assets::{AssetAnswer, Bundle, HtmlPage, bundle};
use crate::error::ApiError;

bundle! {
    static PAGE = "dashboard":
    "index.html" "text/html; charset=utf-8",
    "style.css" "text/css; charset=utf-8",
    "views.css" "text/css; charset=utf-8",
    "forms.css" "text/css; charset=utf-8",
    "control.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "about.js" "text/javascript; charset=utf-8",
    "action-button.js" "text/javascript; charset=utf-8",
    "addresses.js" "text/javascript; charset=utf-8",
    "age.js" "text/javascript; charset=utf-8",
    "api.js" "text/javascript; charset=utf-8",
    "app.js" "text/javascript; charset=utf-8",
    "attempt-timeline.js" "text/javascript; charset=utf-8",
    "attention.js" "text/javascript; charset=utf-8",
    "bar-chart.js" "text/javascript; charset=utf-8",
    "body-editor.js" "text/javascript; charset=utf-8",
    "bulk-bar.js" "text/javascript; charset=utf-8",
    "bulk-panel.js" "text/javascript; charset=utf-8",
    "bulk.js" "text/javascript; charset=utf-8",
    "confirm.js" "text/javascript; charset=utf-8",
    "copy.js" "text/javascript; charset=utf-8",
    "cron-text.js" "text/javascript; charset=utf-8",
    "curl.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "download.js" "text/javascript; charset=utf-8",
    "ended-card.js" "text/javascript; charset=utf-8",
    "equity-curve.js" "text/javascript; charset=utf-8",
    "event-parser.js" "text/javascript; charset=utf-8",
    "event-stream.js" "text/javascript; charset=utf-8",
    "exact.js" "text/javascript; charset=utf-8",
    "figure-table.js" "text/javascript; charset=utf-8",
    "figures.js" "text/javascript; charset=utf-8",
    "filter-bar.js" "text/javascript; charset=utf-8",
    "format.js" "text/javascript; charset=utf-8",
    "how-it-runs.js" "text/javascript; charset=utf-8",
    "icons.js" "text/javascript; charset=utf-8",
    "json-view.js" "text/javascript; charset=utf-8",
    "keys.js" "text/javascript; charset=utf-8",
    "label-links.js" "text/javascript; charset=utf-8",
    "line-chart.js" "text/javascript; charset=utf-8",
    "list-filter.js" "text/javascript; charset=utf-8",
    "live-view.js" "text/javascript; charset=utf-8",
    "log-lines.js" "text/javascript; charset=utf-8",
    "metric-series.js" "text/javascript; charset=utf-8",
    "metrics-csv.js" "text/javascript; charset=utf-8",
    "metrics.js" "text/javascript; charset=utf-8",
    "not-found.js" "text/javascript; charset=utf-8",
    "operation-actions.js" "text/javascript; charset=utf-8",
    "operation-checkpoint.js" "text/javascript; charset=utf-8",
    "operation-data.js" "text/javascript; charset=utf-8",
    "operation-events.js" "text/javascript; charset=utf-8",
    "operation-facts.js" "text/javascript; charset=utf-8",
    "operation-feed.js" "text/javascript; charset=utf-8",
    "operation-notes.js" "text/javascript; charset=utf-8",
    "operation-row.js" "text/javascript; charset=utf-8",
    "operation.js" "text/javascript; charset=utf-8",
    "operations.js" "text/javascript; charset=utf-8",
    "overview.js" "text/javascript; charset=utf-8",
    "page-changes.js" "text/javascript; charset=utf-8",
    "pause-dialog.js" "text/javascript; charset=utf-8",
    "picked-bar.js" "text/javascript; charset=utf-8",
    "priority-choice.js" "text/javascript; charset=utf-8",
    "problem-line.js" "text/javascript; charset=utf-8",
    "progress-bar.js" "text/javascript; charset=utf-8",
    "queue-table.js" "text/javascript; charset=utf-8",
    "queues.js" "text/javascript; charset=utf-8",
    "read-up-to.js" "text/javascript; charset=utf-8",
    "readiness.js" "text/javascript; charset=utf-8",
    "request-key.js" "text/javascript; charset=utf-8",
    "requirements.js" "text/javascript; charset=utf-8",
    "row-keys.js" "text/javascript; charset=utf-8",
    "scales.js" "text/javascript; charset=utf-8",
    "schedule-actions.js" "text/javascript; charset=utf-8",
    "schedule-facts.js" "text/javascript; charset=utf-8",
    "schedule-form.js" "text/javascript; charset=utf-8",
    "schedule.js" "text/javascript; charset=utf-8",
    "schedules.js" "text/javascript; charset=utf-8",
    "schema-entries.js" "text/javascript; charset=utf-8",
    "schema-errors.js" "text/javascript; charset=utf-8",
    "schema-fields.js" "text/javascript; charset=utf-8",
    "schema-form.js" "text/javascript; charset=utf-8",
    "schema-inputs.js" "text/javascript; charset=utf-8",
    "schema-row.js" "text/javascript; charset=utf-8",
    "schema-values.js" "text/javascript; charset=utf-8",
    "schema.js" "text/javascript; charset=utf-8",
    "selection.js" "text/javascript; charset=utf-8",
    "server-clock.js" "text/javascript; charset=utf-8",
    "skeleton.js" "text/javascript; charset=utf-8",
    "start-again.js" "text/javascript; charset=utf-8",
    "start-body.js" "text/javascript; charset=utf-8",
    "start-form.js" "text/javascript; charset=utf-8",
    "start.js" "text/javascript; charset=utf-8",
    "status.js" "text/javascript; charset=utf-8",
    "stream.js" "text/javascript; charset=utf-8",
    "tab-storage.js" "text/javascript; charset=utf-8",
    "tabs.js" "text/javascript; charset=utf-8",
    "throttle.js" "text/javascript; charset=utf-8",
    "throughput.js" "text/javascript; charset=utf-8",
    "toast.js" "text/javascript; charset=utf-8",
    "token-dialog.js" "text/javascript; charset=utf-8",
    "token-fetch.js" "text/javascript; charset=utf-8",
    "token.js" "text/javascript; charset=utf-8",
    "unserved-types.js" "text/javascript; charset=utf-8",
    "virtual-rows.js" "text/javascript; charset=utf-8",
    "waiting.js" "text/javascript; charset=utf-8",
    "words.js" "text/javascript; charset=utf-8",
    "worker-facts.js" "text/javascript; charset=utf-8",
    "worker-feed.js" "text/javascript; charset=utf-8",
    "worker-list.js" "text/javascript; charset=utf-8",
    "worker-row.js" "text/javascript; charset=utf-8",
    "worker-types.js" "text/javascript; charset=utf-8",
    "worker.js" "text/javascript; charset=utf-8",
    "workers.js" "text/javascript; charset=utf-8",
}

/// The page.
pub async fn index(headers: HeaderMap) -> Result<HtmlPage, ApiError> {
    PAGE.serve("index.html", &headers).map(HtmlPage)
}

/// One of its files.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<AssetAnswer, ApiError> {
    PAGE.serve(&name, &headers)
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn a_known_version_is_not_sent_again() {
        let first = index(HeaderMap::new()).await.unwrap().into_response();
        assert_eq!(first.status(), 200);
        let headers =
            HeaderMap::from_iter([(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())]);
        let again = index(headers).await.unwrap().into_response();
        assert_eq!(again.status(), 304);
        assert!(
            file(PathText("../Cargo.toml".to_owned()), HeaderMap::new())
                .await
                .is_err()
        );
    }
}
