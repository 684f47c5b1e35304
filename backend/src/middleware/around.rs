//! The one service around all routes: a request's id and span, its log lines, its figures.
//!
//! One service and not one layer for each: axum copies and boxes every layer anew for each request, which cost more than the
//! answer itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::Instrument;

use super::log_request::Logged;
use super::measure::Measured;
use super::request_id;
use crate::state::AppState;

/// Gives every request an id, logs it and measures it.
#[derive(Clone)]
pub struct Around(pub AppState);

impl<S> Layer<S> for Around {
    type Service = AroundService<S>;

    fn layer(&self, inner: S) -> AroundService<S> {
        AroundService { state: self.0.clone(), inner }
    }
}

/// See [`Around`].
#[derive(Clone)]
pub struct AroundService<S> {
    state: AppState,
    inner: S,
}

impl<S, B> Service<Request> for AroundService<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let id = request_id::of(request.headers());
        let span = request_id::span(&id, request.headers());
        let (measured, begun) = (Measured::begin(&request), Instant::now());
        let (logged, answer) = span.in_scope(|| (Logged::begin(&request), self.inner.call(request)));
        let state = self.state.clone();
        let around = async move {
            let mut response = answer.await?;
            let (status, took) = (response.status(), begun.elapsed());
            measured.end(&state.requests, status, took);
            logged.end(status, took);
            response.headers_mut().insert(request_id::HEADER, id);
            Ok(response)
        };
        Box::pin(around.instrument(span))
    }
}
