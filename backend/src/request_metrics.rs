//! How many requests there were, how they were answered, and how long that took: by matched route, never by path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use ktrdr_http::metrics::{Histograms, HistogramsBy, Page, REQUEST_BUCKETS};

/// What counts as the route of requests that match none.
const UNMATCHED: &str = "unmatched";

/// The counts.
#[derive(Debug)]
pub struct RequestMetrics(HistogramsBy<2>);

/// The counts of one route.
pub type RouteMetrics = Arc<Histograms<2>>;

impl Default for RequestMetrics {
    fn default() -> Self {
        Self(HistogramsBy::new("route", || {
            Histograms::new(
                "ktrdr_http_request_duration_seconds",
                "Time until an answer began, the time that a client asked to wait included.",
                ["method", "status"],
                REQUEST_BUCKETS,
            )
        }))
    }
}

impl RequestMetrics {
    /// Those of a route, to be held.
    pub fn for_route(&self, path: &str) -> RouteMetrics {
        self.0.of(path)
    }

    /// Those of a request that has no handler: its path is there and its method is not, or nothing is.
    pub fn for_unmatched(&self, request: &Request) -> RouteMetrics {
        self.0.of(request
            .extensions()
            .get::<MatchedPath>()
            .map_or(UNMATCHED, MatchedPath::as_str))
    }

    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        self.0
            .write_counts("ktrdr_http_requests_total", "Requests answered.", page);
        let faults = self.0.count(|[_, status]| status == "500");
        page.count(
            "ktrdr_http_faults_total",
            "Requests answered with 500.",
            faults,
        );
        self.0.write(page);
    }
}

/// What a request is counted by.
pub struct Measurement {
    metrics: RouteMetrics,
    method: &'static str,
}

impl Measurement {
    /// Looked up before the request is given away.
    pub fn begin(metrics: RouteMetrics, method: &Method) -> Self {
        Self {
            metrics,
            method: word(method),
        }
    }

    /// Counts the answer.
    pub fn end(self, status: StatusCode, took: Duration) {
        self.metrics
            .observe_duration([self.method, status.as_str()], took);
    }
}

/// Clients may call a method anything.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
