//! How many requests there were, how they were answered, and how long that took: by matched route, never by path.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use ktrdr_shared::prometheus::{Counters, Histograms, Page, REQUEST_BUCKETS};
use tokio::time::Instant;

use crate::state::AppState;

/// The counts.
#[derive(Debug)]
pub struct Requests {
    answered: Counters<3>,
    durations: Histograms<2>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            answered: Counters::new("ktrdr_http_requests_total", "Requests answered.", ["route", "method", "status"]),
            durations: Histograms::new(
                "ktrdr_http_request_duration_seconds",
                "Time until an answer began, the time that a client asked to wait included.",
                ["route", "method"],
                REQUEST_BUCKETS,
            ),
        }
    }
}

impl Requests {
    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        self.answered.write(page);
        self.durations.write(page);
    }
}

/// Measures one request.
pub async fn layer(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = word(request.method());
    let begun = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    state.requests.answered.add([route, method, response.status().as_str()], 1);
    state.requests.durations.observe_duration([route, method], begun.elapsed());
    response
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
