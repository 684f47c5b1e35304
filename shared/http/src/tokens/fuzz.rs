//! Attacks on files of tokens, and on the header that brings one.

use std::io::Write;
use std::path::Path;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use ktrdr_fuzz::Attack;
use tempfile::NamedTempFile;

use super::file::{Digest, Entry, parse, parse_moment};
use super::*;

const TOKEN: &str = "ktrdr_0af7651916cd43dd8448eb211c80319c";

fn file() -> String {
    let (one, two) = (Digest::of(TOKEN.as_bytes()), Digest::of(b"other"));
    format!(
        "# comment\n[[token]]\nname = \"ci\"\nsha256 = \"{one}\"\nscopes = [\"read\", \"start\"]\ntypes = [\"training\"]\n\
         expires = 2999-01-01T00:00:00Z\n\n[[token]]\nname = \"ops\"\nsha256 = '{two}'\nscopes = [\"admin\"]\n"
    )
}

/// A name goes to log lines, answers and messages.
fn is_shown_safely(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[test]
fn files_of_tokens() {
    let path = Path::new("tokens.toml");
    assert_eq!(parse(&file(), path).unwrap().len(), 2);
    Attack::on("files of tokens").with([file()]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        match parse(text, path) {
            Ok(entries) => {
                for (at, entry) in entries.iter().enumerate() {
                    assert!(is_shown_safely(entry.name.as_str()));
                    let same =
                        |other: &Entry| other.name == entry.name || other.digest == entry.digest;
                    assert!(!entries[at + 1..].iter().any(same));
                    assert!(entry.types.as_ref().is_none_or(|types| !types.is_empty()));
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn moments() {
    let seeds = ["2027-01-01T00:00:00Z", "2027-01-01 00:00:00+02:00"];
    Attack::on("moments").with(seeds).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(moment) = parse_moment(text) {
            assert_eq!(parse_moment(&moment.to_string()).ok(), Some(moment));
        }
    });
}

#[test]
fn authorization_headers() {
    let mut written = NamedTempFile::new().unwrap();
    written.write_all(file().as_bytes()).unwrap();
    let tokens = Tokens::load(&TokenOptions {
        tokens_file: Some(written.path().to_owned()),
        insecure: false,
    })
    .unwrap();
    let seeds = [
        format!("Bearer {TOKEN}"),
        format!("bearer   {TOKEN} "),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
    ];
    Attack::on("authorization headers")
        .with(seeds)
        .run(|bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else {
                return;
            };
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value);
            if let Ok(principal) = tokens.check(&headers, Access::Needs(Scope::Read)) {
                // Nothing but the token itself, behind the scheme, opens a route.
                let text = std::str::from_utf8(bytes).unwrap();
                let (scheme, token) = text.split_once(' ').unwrap();
                assert!(scheme.eq_ignore_ascii_case("bearer"));
                assert!([TOKEN, "other"].contains(&token.trim()), "{text:?}");
                assert!(principal.name().is_some());
            }
        });
}
