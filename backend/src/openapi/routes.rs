//! A router that takes no route without its description: what is served and what is documented cannot differ.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};

use super::doc::Doc;
use crate::middleware::loaded::Loaded;
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
    gate: Option<Loaded>,
}

impl Routes {
    /// Routes that are always served.
    pub fn always() -> Self {
        Self::default()
    }

    /// Routes that need what is in the stream.
    pub fn needing_nats(state: AppState) -> Self {
        Self { gate: Some(Loaded(state)), ..Self::default() }
    }

    /// `GET path`.
    pub fn get<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let routed = match &self.gate {
            Some(gate) => get(handler.layer(gate.clone())),
            None => get(handler),
        };
        self.add("get", path, routed, doc)
    }

    /// `POST path`.
    pub fn post<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let routed = match &self.gate {
            Some(gate) => post(handler.layer(gate.clone())),
            None => post(handler),
        };
        self.add("post", path, routed, doc)
    }

    /// `DELETE path`.
    pub fn delete<H: Handler<T, AppState>, T: 'static>(self, path: &'static str, handler: H, doc: fn() -> Doc) -> Self {
        let routed = match &self.gate {
            Some(gate) => delete(handler.layer(gate.clone())),
            None => delete(handler),
        };
        self.add("delete", path, routed, doc)
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<AppState>,
        doc: fn() -> Doc,
    ) -> Self {
        self.router = self.router.route(path, handler);
        self.routes.push(Route { method, path, doc, needs_nats: self.gate.is_some() });
        self
    }

    /// The router and what is known about it.
    pub fn into_parts(self) -> (Router<AppState>, Vec<Route>) {
        (self.router, self.routes)
    }
}
