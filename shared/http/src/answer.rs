//! Answers that are not made by [`axum::Json`], with the type of their document.

use std::marker::PhantomData;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::metrics;

/// JSON text that was written before, or is written piece by piece: a document of type `T`.
pub struct RenderedJson<T> {
    body: Body,
    document: PhantomData<fn() -> T>,
}

impl<T> RenderedJson<T> {
    /// `body` must be a document as `T` is written.
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            document: PhantomData,
        }
    }
}

impl<T> IntoResponse for RenderedJson<T> {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The page that Prometheus scrapes.
pub struct PrometheusText(pub String);

impl IntoResponse for PrometheusText {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], self.0).into_response()
    }
}
