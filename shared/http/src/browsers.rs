//! Limits what web pages may do with a REST interface. Checked for every request, before any
//! handler.
//!
//! The problem: a page of any site can make a browser send requests to every address that the
//! browser reaches, `localhost` included. The page can read the answers when the server allows it
//! (CORS), or when it makes its own host name lead to the server (DNS rebinding). It can start and
//! cancel operations without reading any answer.
//!
//! The solution: a browser says in headers, which a page cannot set, for whom it asks.
//! - `Host` must be an IP address, `localhost`, or a known name of this server. A rebound name is
//!   none of these.
//! - A request that may change something must not come from a page of another origin (`Origin`,
//!   `Sec-Fetch-Site`).
//! - A body that a browser sends must be declared as JSON; forms cannot do that.
//! - Only configured origins are told by CORS headers that they may read answers.
//!
//! Programs other than browsers send neither `Origin` nor `Sec-Fetch-*`, so for them only the check
//! of the host matters.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_TYPE, HOST, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clap::Args;
use ktrdr_protocol::rest::ErrorCode;

use crate::error::ApiError;
use crate::tls::Scheme;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Request headers that pages of configured origins may set.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, if-none-match, last-event-id, traceparent, x-request-id";
/// Answer headers that pages of configured origins may read, besides those that all pages may.
const EXPOSED_HEADERS: &str =
    "allow, etag, link, location, retry-after, www-authenticate, x-request-id";

/// Which names and pages a REST interface answers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Browsers")]
pub struct BrowserOptions {
    /// Other host names under which clients reach the REST interface, separated by commas. IP
    /// addresses, `localhost` and the configured name are always accepted; requests for other names
    /// are refused (421), because a web page can make its own name lead here.
    #[arg(
        long,
        env = "KTRDR_ALLOWED_HOSTS",
        default_value = "",
        hide_default_value = true
    )]
    pub allowed_hosts: HostNames,
    /// Origins whose web pages may use the REST interface from a browser, separated by commas, for
    /// example `https://jobs.example.com`. Default: none but its own pages.
    #[arg(
        long,
        env = "KTRDR_CORS_ORIGINS",
        default_value = "",
        hide_default_value = true
    )]
    pub cors_origins: WebOrigins,
}

/// Host names without ports, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

/// Origins of web pages, as browsers write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebOrigins(Vec<HeaderValue>);

/// Why a setting of [`BrowserOptions`] cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOption {
    /// Not a host name.
    #[error(
        "{0:?} is not a host name; write names without scheme, port and `*`, for example jobs.example.com"
    )]
    HostName(String),
    /// Not an origin.
    #[error(
        "{0:?} is not an origin; write scheme, host and port if there is one, without a path, for example https://jobs.example.com"
    )]
    Origin(String),
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

impl FromStr for HostNames {
    type Err = InvalidOption;

    fn from_str(list: &str) -> Result<Self, InvalidOption> {
        let name = |entry: &str| {
            let name = entry.strip_suffix('.').unwrap_or(entry);
            if is_host_name(name) {
                Ok(name.to_ascii_lowercase())
            } else {
                Err(InvalidOption::HostName(entry.to_owned()))
            }
        };
        entries(list).map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for WebOrigins {
    type Err = InvalidOption;

    fn from_str(list: &str) -> Result<Self, InvalidOption> {
        let origin =
            |entry: &str| web_origin(entry).ok_or_else(|| InvalidOption::Origin(entry.to_owned()));
        entries(list)
            .map(origin)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// An origin as browsers write it: in lower case, without the scheme's usual port.
fn web_origin(text: &str) -> Option<HeaderValue> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let (host, port) = split_port(authority)?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme || !(is_host_name(host) || is_ip_address(host)) {
        return None;
    }

    let origin = match (scheme, port) {
        (_, None) | ("http", Some("80")) | ("https", Some("443")) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    };
    HeaderValue::from_str(&origin).ok()
}

/// Host and port of an authority; `None` when it is not written like one.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at_checked(end)?;
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(port))),
        _ => None,
    }
}

fn is_ip_address(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// `localhost` and everything below it: nobody can register these names.
fn is_localhost(name: &str) -> bool {
    const NAME: &str = "localhost";
    let Some((below, tail)) = name
        .len()
        .checked_sub(NAME.len())
        .and_then(|at| name.split_at_checked(at))
    else {
        return false;
    };
    tail.eq_ignore_ascii_case(NAME) && (below.is_empty() || below.ends_with('.'))
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host is missing, there are several, or it is not text.
    #[error("The request must have one header Host")]
    HostHeader,
    /// The host is not a known name of this server.
    #[error(
        "This server does not know the host name {0:?}: use its IP address or localhost, or add the name to KTRDR_ALLOWED_HOSTS"
    )]
    HostNotAllowed(String),
    /// A page of another origin wants to change something.
    #[error(
        "A web page of another origin ({0}) may not change anything here; add the origin to KTRDR_CORS_ORIGINS if it should"
    )]
    OriginNotAllowed(String),
    /// The body comes from a browser and is not declared as JSON.
    #[error("A browser must send the body as application/json, not as {0}")]
    UnsupportedMediaType(String),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::HostHeader => ErrorCode::InvalidHeader,
            Refusal::HostNotAllowed(_) => ErrorCode::HostNotAllowed,
            Refusal::OriginNotAllowed(_) => ErrorCode::OriginNotAllowed,
            Refusal::UnsupportedMediaType(_) => ErrorCode::UnsupportedMediaType,
        };
        Self::new(code, refusal.to_string())
    }
}

/// The beginning of a header value, for an error text.
fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(128).collect()
}

/// The checks of one REST interface.
#[derive(Debug)]
pub struct BrowserRules {
    names: Vec<String>,
    origins: Vec<HeaderValue>,
    scheme: Scheme,
}

impl BrowserRules {
    /// `addresses` are those that the interface is configured with or advertises: URLs, or a host
    /// with or without a port. A name in them is accepted.
    pub fn new(options: &BrowserOptions, addresses: &[&str]) -> Self {
        let own = addresses.iter().filter_map(|address| {
            let authority = address.split_once("://").map_or(*address, |(_, rest)| rest);
            let authority = authority.split(['/', '?', '#']).next()?;
            let (host, _) = split_port(authority)?;
            HostNames::from_str(host).ok()
        });
        let names = own.flat_map(|names| names.0);

        Self {
            names: names
                .chain(options.allowed_hosts.0.iter().cloned())
                .collect(),
            origins: options.cors_origins.0.clone(),
            scheme: Scheme::Http,
        }
    }

    /// Sets how the URLs of the interface's own pages begin. [`Scheme::Http`] unless set.
    pub fn served_by(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    /// Whether the request may reach its handler.
    ///
    /// # Errors
    /// [`Refusal`] when it may not.
    pub fn check<B>(&self, request: &http::Request<B>) -> Result<(), Refusal> {
        let authority = authority(request)?;
        if let Some(authority) = authority
            && !self.knows(authority)
        {
            return Err(Refusal::HostNotAllowed(shown(authority.as_bytes())));
        }
        if request.method().is_safe() {
            return Ok(());
        }

        self.check_origin(request.headers(), authority)?;
        check_content_type(request.headers())
    }

    fn knows(&self, authority: &str) -> bool {
        let Some((host, _)) = split_port(authority) else {
            return false;
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        is_ip_address(host)
            || is_localhost(name)
            || self
                .names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }

    fn check_origin(&self, headers: &HeaderMap, own: Option<&str>) -> Result<(), Refusal> {
        let is_accepted =
            |origin: &&HeaderValue| self.is_own(origin, own) || self.origins.contains(*origin);
        let foreign = if headers.contains_key(ORIGIN) {
            let mut origins = headers.get_all(ORIGIN).iter();
            origins.find(|origin| !is_accepted(origin))
        } else {
            let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
            sites.find(|site| *site != "same-origin" && *site != "none")
        };
        match foreign {
            None => Ok(()),
            Some(value) => Err(Refusal::OriginNotAllowed(shown(value.as_bytes()))),
        }
    }

    /// Whether a page of this origin was loaded from the authority that the request asks for. A page
    /// that came by the other scheme is another server's: this one does not speak it.
    fn is_own(&self, origin: &HeaderValue, authority: Option<&str>) -> bool {
        let origin = origin
            .as_bytes()
            .strip_prefix(self.scheme.as_str().as_bytes());
        let origin = origin.and_then(|rest| rest.strip_prefix(b"://"));
        let (Some(origin), Some(authority)) = (origin, authority) else {
            return false;
        };
        let usual_port = match self.scheme {
            Scheme::Http => ":80",
            Scheme::Https => ":443",
        };
        let authority = authority.strip_suffix(usual_port).unwrap_or(authority);
        origin.eq_ignore_ascii_case(authority.as_bytes())
    }

    /// The answer to a request that must not reach its handler, or that no handler answers: a
    /// refusal, or the permission that a browser asks for before it sends a request from a page of
    /// a configured origin.
    pub fn answer<B>(&self, request: &http::Request<B>) -> Option<Response> {
        match self.check(request) {
            Err(refusal) => Some(ApiError::from(refusal).into_response()),
            Ok(()) if request.method() == Method::OPTIONS => self.preflight(request.headers()),
            Ok(()) => None,
        }
    }

    fn preflight(&self, headers: &HeaderMap) -> Option<Response> {
        let is_configured = self.origins.contains(headers.get(ORIGIN)?);
        if !is_configured || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let permissions = [
            (
                ACCESS_CONTROL_ALLOW_METHODS,
                "GET, HEAD, POST, PUT, PATCH, DELETE",
            ),
            (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        Some((StatusCode::NO_CONTENT, permissions).into_response())
    }

    /// The headers for the answer to a request with these headers.
    pub fn answer_headers(&self, request: &HeaderMap) -> AnswerHeaders {
        let reader = || {
            let origin = request.get(ORIGIN)?;
            self.origins.iter().find(|known| *known == origin).cloned()
        };
        let depends_on_origin = !self.origins.is_empty();
        AnswerHeaders {
            depends_on_origin,
            reader: if depends_on_origin { reader() } else { None },
        }
    }
}

/// Headers that keep an answer from pages that may not read it.
#[derive(Debug)]
pub struct AnswerHeaders {
    depends_on_origin: bool,
    /// The configured origin that asks.
    reader: Option<HeaderValue>,
}

impl AnswerHeaders {
    /// Adds them to an answer.
    pub fn add_to(self, headers: &mut HeaderMap) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(
            CROSS_ORIGIN_RESOURCE_POLICY,
            HeaderValue::from_static("same-origin"),
        );
        if self.depends_on_origin {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = self.reader {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// All of it as axum middleware, for [`axum::middleware::from_fn_with_state`].
pub async fn guard(
    State(rules): State<Arc<BrowserRules>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = rules.answer_headers(request.headers());
    let mut answer = match rules.answer(&request) {
        Some(answer) => answer,
        None => next.run(request).await,
    };
    headers.add_to(answer.headers_mut());
    answer
}

/// Host and port that the request asks for: of an absolute URI, otherwise of the header. A request
/// of HTTP/1.0 may have none; it comes from no browser.
fn authority<B>(request: &http::Request<B>) -> Result<Option<&str>, Refusal> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() <= Version::HTTP_10 => Ok(None),
        (Some(host), None) => host.to_str().map(Some).map_err(|_| Refusal::HostHeader),
        _ => Err(Refusal::HostHeader),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    match kinds.find(|kind| !is_json(kind.as_bytes())) {
        Some(kind) if is_from_browser(headers) => {
            Err(Refusal::UnsupportedMediaType(shown(kind.as_bytes())))
        }
        _ => Ok(()),
    }
}

fn is_json(kind: &[u8]) -> bool {
    let essence = kind.split(|&b| b == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

fn is_from_browser(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name == ORIGIN || name.as_str().starts_with("sec-fetch-"))
}

#[cfg(test)]
mod tests;
