//! What is around every handler: a request's id and span, its log lines, its metrics, the check that everything is loaded, the
//! answer to a panic, the headers that let pages of other origins read the answer.
//!
//! One wrapper of the handler and no layer of the router: axum copies and boxes every layer anew for each request, which cost
//! more than most answers themselves.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::HeaderValue;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::{CatchUnwind, Either, Ready, ready};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use super::log_request::Logged;
use super::{loaded, panic, request_id};
use crate::request_metrics::{Measurement, RouteMetrics};
use crate::state::AppState;

/// A handler with everything around it.
#[derive(Clone)]
pub struct Served<H> {
    handler: H,
    /// `None` for what answers strays: their metrics are looked up.
    metrics: Option<RouteMetrics>,
    needs_nats: bool,
}

impl<H> Served<H> {
    /// The handler of a route. `needs_nats`: answered with 503 until the stream has been read.
    pub fn route(handler: H, metrics: RouteMetrics, needs_nats: bool) -> Self {
        Self {
            handler,
            metrics: Some(metrics),
            needs_nats,
        }
    }

    /// What answers requests that no route takes.
    pub fn stray(handler: H) -> Self {
        Self {
            handler,
            metrics: None,
            needs_nats: false,
        }
    }
}

impl<T, H: Handler<T, AppState>> Handler<T, AppState> for Served<H> {
    type Future = Answering<H::Future>;

    fn call(self, request: Request, state: AppState) -> Self::Future {
        let id = request_id::of(request.headers());
        let span = request_id::span(&id, &request);
        let metrics = self
            .metrics
            .unwrap_or_else(|| state.requests.for_unmatched(&request));
        let (measured, begun) = (
            Measurement::begin(metrics, request.method()),
            Instant::now(),
        );
        let (logged, answer) = span.in_scope(|| {
            let logged = Logged::begin(&request);
            let refusal = if self.needs_nats {
                loaded::why_not(&state)
            } else {
                None
            };
            let answer = match refusal {
                None => Either::Left(self.handler.call(request, state)),
                Some(error) => Either::Right(ready(error.into_response())),
            };
            (logged, answer)
        });
        let after = After {
            id,
            measured,
            logged,
            begun,
        };
        Answering {
            answer: AssertUnwindSafe(answer).catch_unwind().instrument(span),
            after: Some(after),
        }
    }
}

/// What is needed once there is an answer.
struct After {
    id: HeaderValue,
    measured: Measurement,
    logged: Logged,
    begun: Instant,
}

impl After {
    fn finish(self, answer: Result<Response, Box<dyn Any + Send>>) -> Response {
        let mut response = answer.unwrap_or_else(panic::answer);
        let took = self.begun.elapsed();
        self.measured.end(response.status(), took);
        self.logged.end(&self.id, &response, took);
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, self.id);
        // The origin is never looked at, so answers do not vary with it.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        response
    }
}

pin_project_lite::pin_project! {
    /// The future of [`Served`]: named and not boxed, as axum boxes it anyway.
    pub struct Answering<F> {
        #[pin]
        answer: Instrumented<CatchUnwind<AssertUnwindSafe<Either<F, Ready<Response>>>>>,
        after: Option<After>,
    }
}

impl<F: Future<Output = Response>> Future for Answering<F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let mut this = self.project();
        let answer = ready!(this.answer.as_mut().poll(context));
        // There once; nobody asks a future that has answered.
        let Some(after) = this.after.take() else {
            return Poll::Pending;
        };
        Poll::Ready(this.answer.span().in_scope(|| after.finish(answer)))
    }
}
