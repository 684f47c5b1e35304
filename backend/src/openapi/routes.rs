//! The router that takes a route only together with its description and with what a request must
//! bring: what is served and what is documented cannot differ, and no route is open by oversight.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};
use ktrdr_http::openapi::{DescribeHandler, Doc, Route};
use ktrdr_http::tokens::Access;

use crate::middleware::served::Served;
use crate::request_metrics::RequestMetrics;
use crate::state::AppState;

/// Routes with their descriptions.
pub struct Routes<'a> {
    requests: &'a RequestMetrics,
    router: Router<AppState>,
    routes: Vec<Route>,
    needs_projection: bool,
}

impl<'a> Routes<'a> {
    /// Routes that are always served. `requests` counts their requests.
    pub fn always(requests: &'a RequestMetrics) -> Self {
        Self {
            requests,
            router: Router::new(),
            routes: Vec::new(),
            needs_projection: false,
        }
    }

    /// Routes that answer 503 until the projection is loaded.
    pub fn needing_projection(requests: &'a RequestMetrics) -> Self {
        Self {
            needs_projection: true,
            ..Self::always(requests)
        }
    }

    /// Adds `GET path`.
    pub fn get<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("get", path, access, &handler, doc);
        let served = get(self.served(path, access, handler));
        self.add(route, served)
    }

    /// Adds `POST path`.
    pub fn post<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("post", path, access, &handler, doc);
        let served = post(self.served(path, access, handler));
        self.add(route, served)
    }

    /// Adds `DELETE path`.
    pub fn delete<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("delete", path, access, &handler, doc);
        let served = delete(self.served(path, access, handler));
        self.add(route, served)
    }

    fn served<H>(&self, path: &str, access: Access, handler: H) -> Served<H> {
        Served::route(
            handler,
            access,
            self.requests.for_route(path),
            self.needs_projection,
        )
    }

    fn add(mut self, mut route: Route, handler: MethodRouter<AppState>) -> Self {
        self.router = self.router.route(&route.path, handler);
        route.needs_projection = self.needs_projection;
        self.routes.push(route);
        self
    }

    /// The router, and the descriptions of its routes.
    pub fn into_parts(self) -> (Router<AppState>, Vec<Route>) {
        (self.router, self.routes)
    }
}
