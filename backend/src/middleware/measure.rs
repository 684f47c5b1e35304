//! How many requests there were, how they were answered, and how long that took: by matched route, never by path.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use ktrdr_shared::prometheus::{Histograms, Page, REQUEST_BUCKETS};

/// The counts.
#[derive(Debug)]
pub struct Requests(Histograms<3>);

impl Default for Requests {
    fn default() -> Self {
        Self(Histograms::new(
            "ktrdr_http_request_duration_seconds",
            "Time until an answer began, the time that a client asked to wait included.",
            ["route", "method", "status"],
            REQUEST_BUCKETS,
        ))
    }
}

impl Requests {
    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        self.0.write_counts("ktrdr_http_requests_total", "Requests answered.", page);
        self.0.write(page);
    }
}

/// What a request is counted by.
pub struct Measured {
    route: Option<MatchedPath>,
    method: &'static str,
}

impl Measured {
    /// Looked up before the request is given away.
    pub fn begin(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { route, method: word(request.method()) }
    }

    /// Counts the answer.
    pub fn end(self, requests: &Requests, status: StatusCode, took: Duration) {
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        requests.0.observe_duration([route, self.method, status.as_str()], took);
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
