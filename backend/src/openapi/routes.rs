//! A router that takes no route without its description: what is served and what is documented cannot differ.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};

use super::doc::Doc;
use crate::middleware::served::Served;
use crate::state::AppState;

/// One method of one path.
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// As axum matches it, which is also how OpenAPI writes it.
    pub path: &'static str,
    /// Its description.
    pub doc: fn() -> Doc,
    /// Answered with 503 while the backend has not read the stream, or NATS is away.
    pub needs_nats: bool,
}

/// Routes with their descriptions.
#[derive(Default)]
pub struct Routes {
    router: Router<AppState>,
    routes: Vec<Route>,
    need_nats: bool,
}

impl Routes {
    /// Routes that are always served.
    pub fn always() -> Self {
        Self::default()
    }

    /// Routes that need what is in the stream.
    pub fn needing_nats() -> Self {
        Self { need_nats: true, ..Self::default() }
    }

    /// `GET path`.
    pub fn get<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let served = get(self.served(handler));
        self.add("get", path, served, doc)
    }

    /// `POST path`.
    pub fn post<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let served = post(self.served(handler));
        self.add("post", path, served, doc)
    }

    /// `DELETE path`.
    pub fn delete<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let served = delete(self.served(handler));
        self.add("delete", path, served, doc)
    }

    fn served<H>(&self, handler: H) -> Served<H> {
        if self.need_nats { Served::needing_nats(handler) } else { Served::always(handler) }
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<AppState>,
        doc: fn() -> Doc,
    ) -> Self {
        self.router = self.router.route(path, handler);
        self.routes.push(Route { method, path, doc, needs_nats: self.need_nats });
        self
    }

    /// The router and what is known about it.
    pub fn into_parts(self) -> (Router<AppState>, Vec<Route>) {
        (self.router, self.routes)
    }
}
