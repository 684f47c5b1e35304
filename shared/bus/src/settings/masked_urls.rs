//! Server addresses for logs, without the secrets in them.
//!
//! The problem: `NATS_URL` may hold user names, passwords and tokens, and a password may hold every
//! character that also separates addresses. To mask after splitting shows pieces of such passwords.
//!
//! How it is solved: only what certainly is a scheme, a host or a port is shown. A list is split
//! only in front of a known scheme; in each part, everything up to the last `@` and everything from
//! the first `?` or `#` on is hidden, and so is whatever is left and does not look like a host.

const HIDDEN: &str = "***";

/// What the client library accepts.
const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

/// Server addresses for logs: without the user names, passwords and tokens that they may contain.
///
/// ```
/// use ktrdr_bus::settings::masked_urls;
///
/// assert_eq!(masked_urls("nats://bob:secret@a:4222, b"), "nats://***@a:4222,b");
/// ```
pub fn masked_urls(urls: &str) -> String {
    parts(urls).map(masked).collect::<Vec<_>>().join(",")
}

/// The list, split at each comma in front of a scheme.
fn parts(urls: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(urls);
    std::iter::from_fn(move || {
        let text = rest?;
        let next = text
            .match_indices(',')
            .find(|(at, _)| scheme(text[at + 1..].trim_start()).is_some());
        let (part, following) = match next {
            Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = following;
        Some(part.trim())
    })
}

/// The scheme at the beginning, and what follows `://`.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    SCHEMES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(scheme))
        .then_some((scheme, rest))
}

/// A part: one scheme, then addresses.
fn masked(part: &str) -> String {
    let (scheme, rest) = match scheme(part) {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), part),
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if query.contains('@') {
        // A password may contain a `?`, and a query an `@`: nothing here is certain.
        return format!("{scheme}{HIDDEN}");
    }

    let (user, hosts) = match rest.rfind('@') {
        Some(at) => ("***@", &rest[at + 1..]),
        None => ("", rest),
    };
    let hosts: Vec<&str> = hosts
        .split(',')
        .map(|host| host.trim().trim_end_matches('/'))
        .map(|host| if is_address(host) { host } else { HIDDEN })
        .collect();
    let query = if query.is_empty() { "" } else { "?***" };
    format!("{scheme}{user}{}{query}", hosts.join(","))
}

/// Whether this is a host, with or without a port.
fn is_address(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some((host, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_host = host.parse::<std::net::Ipv6Addr>().is_ok();
        return is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }

    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    host.chars().all(is_host) && is_port(port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_shown_and_secrets_are_not() {
        for (urls, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("localhost", "localhost"),
            ("a:4222, b:4222", "a:4222,b:4222"),
            ("tls://[::1]:4222/", "tls://[::1]:4222"),
            (
                "nats://bob:secret@a:4222,tls://TOKEN@b",
                "nats://***@a:4222,tls://***@b",
            ),
            ("nats://TOKEN@h", "nats://***@h"),
            ("bob:secret@h", "***@h"),
            ("nats://bob:hun,ter2@h", "nats://***@h"),
            ("nats://bob:hun,ter2@h,nats://i", "nats://***@h,nats://i"),
            ("nats://bob:a@b@h", "nats://***@h"),
            ("nats://bob:a/b@h:1,i:2", "nats://***@h:1,i:2"),
            ("nats://h?password=secret", "nats://h?***"),
            ("nats://h?password=a,b@c", "nats://***"),
            ("nats://bob:a?b@h", "nats://***"),
            ("nats://bob:secret", "nats://***"),
            ("nats://bob:secret@", "nats://***@"),
            ("nats://h/secret", "nats://***"),
            ("NATS://bob:secret@h", "NATS://***@h"),
            ("http://bob:secret@h", "***@h"),
            ("", ""),
        ] {
            assert_eq!(masked_urls(urls), shown, "{urls}");
        }
    }

    proptest! {
        /// Secrets are in capital letters here, and hosts are not.
        #[test]
        fn no_secret_is_ever_shown(
            servers in proptest::collection::vec(("[a-z]{1,8}(:[0-9]{1,4})?", "[A-Z:/@?#&=%, -]{1,12}", 0..5), 1..4),
            separator in ",[ ]?",
        ) {
            let url = |(host, secret, form): &(String, String, i32)| match form {
                0 => format!("nats://{secret}@{host}"),
                1 => format!("tls://bob:{secret}@{host}"),
                2 => format!("nats://{host}?password=X{secret}"),
                3 => format!("nats://{host}"),
                _ => format!("wss://bob:X{secret}X@{host}/?x={secret}"),
            };
            let urls: Vec<String> = servers.iter().map(url).collect();

            let shown = masked_urls(&urls.join(&separator));

            prop_assert!(!shown.contains(|c: char| c.is_ascii_uppercase()), "{urls:?} {shown}");
        }
    }
}
