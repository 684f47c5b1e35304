//! A router that takes no route without its description: what is served and what is documented cannot differ.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};

use super::doc::Doc;
use crate::middleware::served::Served;
use crate::request_metrics::RequestMetrics;
use crate::state::AppState;

/// One method of one path.
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// As axum matches it, which is also how OpenAPI writes it.
    pub path: &'static str,
    /// Its description.
    pub doc: fn() -> Doc,
    /// Answered with 503 while the backend has not read the stream. What publishes is, too, while NATS is away.
    pub needs_nats: bool,
}

/// Routes with their descriptions.
pub struct Routes<'a> {
    requests: &'a RequestMetrics,
    router: Router<AppState>,
    routes: Vec<Route>,
    need_nats: bool,
}

impl<'a> Routes<'a> {
    /// Routes that are always served, and counted there.
    pub fn always(requests: &'a RequestMetrics) -> Self {
        Self {
            requests,
            router: Router::new(),
            routes: Vec::new(),
            need_nats: false,
        }
    }

    /// Routes that need what is in the stream.
    pub fn needing_nats(requests: &'a RequestMetrics) -> Self {
        Self {
            need_nats: true,
            ..Self::always(requests)
        }
    }

    /// `GET path`.
    pub fn get<H: Handler<T, AppState>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        doc: fn() -> Doc,
    ) -> Self {
        let served = get(self.served(path, handler));
        self.add("get", path, served, doc)
    }

    /// `POST path`.
    pub fn post<H: Handler<T, AppState>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        doc: fn() -> Doc,
    ) -> Self {
        let served = post(self.served(path, handler));
        self.add("post", path, served, doc)
    }

    /// `DELETE path`.
    pub fn delete<H: Handler<T, AppState>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        doc: fn() -> Doc,
    ) -> Self {
        let served = delete(self.served(path, handler));
        self.add("delete", path, served, doc)
    }

    fn served<H>(&self, path: &str, handler: H) -> Served<H> {
        Served::route(handler, self.requests.for_route(path), self.need_nats)
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<AppState>,
        doc: fn() -> Doc,
    ) -> Self {
        self.router = self.router.route(path, handler);
        self.routes.push(Route {
            method,
            path,
            doc,
            needs_nats: self.need_nats,
        });
        self
    }

    /// The router and what is known about it.
    pub fn into_parts(self) -> (Router<AppState>, Vec<Route>) {
        (self.router, self.routes)
    }
}
