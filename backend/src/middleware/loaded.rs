//! While the projection has not caught up, the API says so: an honest 503 is better than a wrong 404.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use tower::{Layer, Service};

use crate::error::{ApiError, Code};
use crate::state::AppState;

/// Answers 503 until everything that is in the stream has been read. Afterwards reads are served even while NATS is away.
#[derive(Clone)]
pub struct Loaded(pub AppState);

impl<S> Layer<S> for Loaded {
    type Service = LoadedService<S>;

    fn layer(&self, inner: S) -> LoadedService<S> {
        LoadedService { state: self.0.clone(), inner }
    }
}

/// See [`Loaded`].
#[derive(Clone)]
pub struct LoadedService<S> {
    state: AppState,
    inner: S,
}

impl<S: Service<Request, Response = Response>> Service<Request> for LoadedService<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match why_not(&self.state) {
            None => Either::Left(self.inner.call(request)),
            Some(error) => Either::Right(ready(Ok(error.into_response()))),
        }
    }
}

fn why_not(state: &AppState) -> Option<ApiError> {
    if state.is_loaded() {
        None
    } else if state.connection.is_up() {
        let text = "The backend has just started and is still reading the operations. Try again";
        Some(ApiError::new(Code::NotReady, text).with("sequence", state.projection.applied()))
    } else {
        Some(ApiError::nats_unavailable())
    }
}
