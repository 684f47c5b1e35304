//! HTTP requests, counted and timed by the route they matched, never by their path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use ktrdr_http::metrics::{register, request_histogram};
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The route of requests that match none.
const UNMATCHED: &str = "unmatched";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone)]
struct Families {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    faults: Counter,
}

/// The metrics of all requests.
#[derive(Debug)]
pub struct RequestMetrics {
    families: Families,
    routes: Mutex<BTreeMap<Arc<str>, RouteMetrics>>,
}

/// The metrics of one route. Whoever serves the route holds them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Arc<Route>);

#[derive(Debug)]
struct Route {
    name: Arc<str>,
    families: Families,
    /// The few combinations of method and status that were answered so far, so that a request does
    /// not build a label set.
    answered: RwLock<Vec<AnswerMetrics>>,
}

/// The metrics of one method and status of a route.
#[derive(Debug)]
struct AnswerMetrics {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    durations: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            families: Families {
                requests: Family::default(),
                durations: Family::new_with_constructor(request_histogram),
                faults: Counter::default(),
            },
            routes: Mutex::default(),
        }
    }
}

impl RequestMetrics {
    /// The metrics of a route, to be held.
    pub fn for_route(&self, path: &str) -> RouteMetrics {
        let mut routes = self.routes.lock();
        if let Some(known) = routes.get(path) {
            return known.clone();
        }

        let name: Arc<str> = path.into();
        let metrics = RouteMetrics(Arc::new(Route {
            name: Arc::clone(&name),
            families: self.families.clone(),
            answered: RwLock::default(),
        }));
        routes.insert(name, metrics.clone());
        metrics
    }

    /// The metrics of a request without a handler: either its path has none for its method, or no
    /// route has its path.
    pub fn for_unmatched(&self, request: &Request) -> RouteMetrics {
        let path = request.extensions().get::<MatchedPath>();
        self.for_route(path.map_or(UNMATCHED, MatchedPath::as_str))
    }

    /// Adds all metrics to the page.
    pub fn register(&self, registry: &mut Registry) {
        let families = self.families.clone();
        register(
            registry,
            "ktrdr_http_requests_total",
            "Requests answered.",
            families.requests,
        );
        register(
            registry,
            "ktrdr_http_faults_total",
            "Requests answered with 500.",
            families.faults,
        );
        register(
            registry,
            "ktrdr_http_request_duration_seconds",
            "Time until an answer began, the time that a client asked to wait included.",
            families.durations,
        );
    }
}

impl Route {
    fn count(&self, method: &'static str, status: StatusCode, took: Duration) {
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            self.families.faults.inc();
        }

        let is_this = |known: &&AnswerMetrics| known.method == method && known.status == status;
        if let Some(known) = self.answered.read().iter().find(is_this) {
            return known.count(took);
        }

        let labels = Labels {
            route: Arc::clone(&self.name),
            method,
            status: status.as_u16(),
        };
        let metrics = AnswerMetrics {
            method,
            status,
            requests: self.families.requests.get_or_create_owned(&labels),
            durations: self.families.durations.get_or_create_owned(&labels),
        };
        metrics.count(took);
        let mut answered = self.answered.write();
        // Another request may have been faster.
        if !answered.iter().any(|known| is_this(&known)) {
            answered.push(metrics);
        }
    }
}

impl AnswerMetrics {
    fn count(&self, took: Duration) {
        self.requests.inc();
        self.durations.observe(took.as_secs_f64());
    }
}

/// A request that is being answered.
pub struct Measurement {
    route: RouteMetrics,
    method: &'static str,
}

impl Measurement {
    /// Begins before the request is given to its handler.
    pub fn begin(route: RouteMetrics, method: &Method) -> Self {
        Self {
            route,
            method: method_label(method),
        }
    }

    /// Counts the answer.
    pub fn end(self, status: StatusCode, took: Duration) {
        self.route.0.count(self.method, status, took);
    }
}

/// The label of a method. Clients may invent methods, so unknown ones share one.
fn method_label(method: &Method) -> &'static str {
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
