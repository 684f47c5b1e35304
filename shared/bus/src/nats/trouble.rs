//! Why there is no connection, in the log.
//!
//! The problem: the client library tries again without an end and reports each failure as
//! "IO error". Its own lines come with each try, and there may be twenty a minute.
//!
//! How it is solved: the library keeps the last error of each server and shows it before each
//! round of tries. [`Trouble::look`] writes one line for each cause: what is wrong, and which setting
//! to change; then one a minute with the number of tries. The library's own lines are switched off
//! in [`crate::telemetry`].

use std::collections::{BTreeMap, HashMap};

use async_nats::Server;
use parking_lot::Mutex;

use super::credentials::Credentials;
use crate::settings::masked_urls;
use crate::telemetry::{Repeated, beginning};

/// Longest error text of the library in a line, in characters.
const TEXT: usize = 300;

/// Failed tries to connect.
#[derive(Debug)]
pub(super) struct Trouble {
    credentials: Credentials,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Failed tries since the last connection, by server.
    tries: HashMap<String, usize>,
    lines: BTreeMap<Cause, Repeated>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Refused,
    UnknownName,
    Silent,
    Unauthorized,
    Credentials,
    UnknownIssuer,
    WrongName,
    Expired,
    NeedsCertificate,
    NoTls,
    Tls,
    Other,
}

impl Trouble {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            seen: Mutex::default(),
        }
    }

    /// Forgets what was written, so that the next outage is explained at once.
    pub(super) fn over(&self) {
        self.seen.lock().lines.clear();
    }

    /// Writes about the servers that failed since the last look.
    pub(super) fn look(&self, servers: &[Server]) {
        let mut seen = self.seen.lock();
        let mut tries = HashMap::with_capacity(servers.len());

        for server in servers {
            let address = server.addr.as_url_str().to_owned();
            let before = seen.tries.get(&address).copied().unwrap_or_default();
            let failed = server.failed_attempts;
            tries.insert(address, failed);

            let Some(error) = server.last_error.as_deref().filter(|_| failed > before) else {
                continue;
            };
            let cause = cause(error);
            let line = seen.lines.entry(cause).or_default();
            if let Some(count) = line.note() {
                tracing::warn!(
                    error = %beginning(error.to_owned(), TEXT),
                    tries = count,
                    "cannot connect to NATS at {}, trying again: {}",
                    masked_urls(server.addr.as_url_str()),
                    self.explain(cause, error)
                );
            }
        }
        seen.tries = tries;
    }

    fn explain(&self, cause: Cause, error: &str) -> String {
        let text = match cause {
            Cause::Refused => {
                "nobody listens at this address. Is NATS running there? If it is elsewhere, set NATS_URL"
            }
            Cause::UnknownName => "the host name is not known. Check NATS_URL",
            Cause::Silent => {
                "the server says nothing. If it has handshake_first, set NATS_TLS_FIRST=true"
            }
            Cause::Unauthorized => return self.unauthorized(),
            Cause::Credentials => return between(error, "AuthError(", ")"),
            Cause::UnknownIssuer => {
                "the server's certificate is signed by an authority that is not known. Set NATS_CA to its certificate"
            }
            Cause::WrongName => {
                "the server's certificate is for another name than the one in NATS_URL"
            }
            Cause::Expired => "the server's certificate has expired, or the clock is wrong",
            Cause::NeedsCertificate => {
                "the server wants a client certificate that it accepts. Check NATS_CERT and NATS_KEY"
            }
            Cause::NoTls => {
                "the server does not speak TLS, or not from the first byte. Check NATS_URL, NATS_CA and NATS_TLS_FIRST"
            }
            Cause::Tls => "TLS cannot be used",
            Cause::Other => "the connection was not made",
        };
        text.to_owned()
    }

    fn unauthorized(&self) -> String {
        if let Some(expired) = self.credentials.expired() {
            return expired;
        }
        let text = match &self.credentials {
            Credentials::None => {
                "the server wants credentials. Set NATS_USER with NATS_PASSWORD_FILE, or NATS_CREDS, NATS_NKEY, NATS_TOKEN, or NATS_CERT with NATS_KEY"
            }
            Credentials::Jwt { .. } => "the server refuses the JWT in NATS_CREDS",
            Credentials::Nkey(_) => "the server does not know the key in NATS_NKEY",
            Credentials::User(..) => "the server refuses the user and its password",
            Credentials::Token(_) => "the server refuses the token",
        };
        text.to_owned()
    }
}

/// The cause, by the library's text: it keeps the error itself to itself.
fn cause(error: &str) -> Cause {
    let known = [
        ("Connection refused", Cause::Refused),
        ("DNS error", Cause::UnknownName),
        ("timed out", Cause::Silent),
        ("expected INFO, got nothing", Cause::Silent),
        ("authorization violation", Cause::Unauthorized),
        ("Authentication Expired", Cause::Unauthorized),
        ("AuthError(", Cause::Credentials),
        ("UnknownIssuer", Cause::UnknownIssuer),
        ("BadSignature", Cause::UnknownIssuer),
        ("not valid for name", Cause::WrongName),
        ("NotValidForName", Cause::WrongName),
        ("certificate expired", Cause::Expired),
        ("Expired", Cause::Expired),
        ("CertificateRequired", Cause::NeedsCertificate),
        ("BadCertificate", Cause::NeedsCertificate),
        ("UnknownCA", Cause::NeedsCertificate),
        ("CertificateUnknown", Cause::NeedsCertificate),
        ("InvalidContentType", Cause::NoTls),
        ("TLS error", Cause::Tls),
    ];

    known
        .into_iter()
        .find_map(|(part, cause)| error.contains(part).then_some(cause))
        .unwrap_or(Cause::Other)
}

/// The part of a text between two others.
fn between(text: &str, before: &str, after: &str) -> String {
    let part = text.split_once(before).map_or(text, |(_, part)| part);
    part.strip_suffix(after).unwrap_or(part).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_librarys_texts_have_causes() {
        let texts = [
            (
                "IO error: Connection refused (os error 111)",
                Cause::Refused,
            ),
            (
                "IO error: invalid peer certificate: UnknownIssuer",
                Cause::UnknownIssuer,
            ),
            (
                "IO error: invalid peer certificate: certificate not valid for name \"localhost\"",
                Cause::WrongName,
            ),
            (
                "IO error: invalid peer certificate: certificate expired: verification time 2 (UNIX)",
                Cause::Expired,
            ),
            (
                "authorization violation: nats: authorization violation",
                Cause::Unauthorized,
            ),
            ("timed out", Cause::Silent),
            ("IO error: expected INFO, got nothing", Cause::Silent),
            ("something new", Cause::Other),
        ];

        for (text, expected) in texts {
            assert_eq!(cause(text), expected, "{text}");
        }
    }
}
