//! The router that takes a route only together with its description and with what a request must
//! bring: what is served and what is documented cannot differ, and no route is open by oversight.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
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
        let served = get(self.served(&route, handler));
        self.add(route, served)
    }

    /// Adds `POST path`.
    pub fn post<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("post", path, access, &handler, doc);
        let served = post(self.served(&route, handler));
        self.add(route, served)
    }

    /// Adds `PATCH path`.
    pub fn patch<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("patch", path, access, &handler, doc);
        let served = patch(self.served(&route, handler));
        self.add(route, served)
    }

    /// Adds `PUT path`.
    pub fn put<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("put", path, access, &handler, doc);
        let served = put(self.served(&route, handler));
        self.add(route, served)
    }

    /// Adds `DELETE path`.
    pub fn delete<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, AppState> + DescribeHandler<T>,
        T: 'static,
    {
        let route = Route::new("delete", path, access, &handler, doc);
        let served = delete(self.served(&route, handler));
        self.add(route, served)
    }

    /// Adds `GET path` for the files of a page. Everybody may read them. The document does not have
    /// them: only browsers ask for them, as the page says.
    pub fn files<H, T>(mut self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        let metrics = self.requests.for_route(path);
        let served = Served::route(handler, Access::Open, None, metrics, false);
        self.router = self.router.route(path, get(served));
        self
    }

    fn served<H>(&self, route: &Route, handler: H) -> Served<H> {
        Served::route(
            handler,
            route.access,
            route.known_parameters(),
            self.requests.for_route(&route.path),
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
