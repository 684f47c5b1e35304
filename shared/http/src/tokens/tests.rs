//! The file of tokens, and what requests may do with them.

use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use futures::FutureExt;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use tempfile::NamedTempFile;

use super::check::Refused;
use super::file::{Digest, Entry, TokensError, parse, written};
use super::*;

fn parsed(text: &str) -> Result<Vec<Entry>, TokensError> {
    parse(text, Path::new("tokens.toml"))
}

fn refused(text: &str) -> String {
    parsed(text).unwrap_err().to_string()
}

/// An entry for the token that is called like its name.
fn entry(name: &str, rest: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    format!("[[token]]\nname = {name:?}\nsha256 = \"{digest}\"\n{rest}\n")
}

fn file(text: &str) -> (NamedTempFile, Tokens) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let options = TokenOptions {
        tokens_file: Some(file.path().to_owned()),
        insecure: false,
    };
    let tokens = Tokens::load(&options).unwrap();
    (file, tokens)
}

fn headers(values: &[&[u8]]) -> HeaderMap {
    let values = values
        .iter()
        .map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap()));
    values.collect()
}

fn check(tokens: &Tokens, value: &str, scope: Scope) -> Result<Principal, Refused> {
    tokens.check(&headers(&[value.as_bytes()]), Access::Needs(scope))
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let types = ["training".parse().unwrap(), "dummy".parse().unwrap()];
    let expires = file::parse_moment("2027-01-01T00:00:00+01:00").unwrap();
    let scopes = [Scope::Read, Scope::Start];
    let text = written(
        &TokenName::new(r#"a "b" \c"#).unwrap(),
        Digest::of(b"t"),
        &scopes,
        Some(&types),
        Some(expires),
    );

    let entries = parsed(&text).unwrap();

    let expected = Entry {
        name: TokenName::new(r#"a "b" \c"#).unwrap(),
        digest: Digest::of(b"t"),
        scopes: scopes.into_iter().collect(),
        types: Some(types.to_vec()),
        expires: Some(expires),
    };
    assert_eq!(entries, [expected], "{text}");
    assert_eq!(expires.to_string(), "2026-12-31T23:00:00.000Z");
}

/// Tokens of a file that is gone again.
static TABLE: LazyLock<Tokens> = LazyLock::new(|| file(&entry("x", "scopes = [\"read\"]")).1);

proptest::proptest! {
    #[test]
    fn every_name_is_read_as_it_was_written(name in "[!-~]([ -~]{0,62}[!-~])?", token: Vec<u8>) {
        let (name, digest) = (TokenName::new(name).unwrap(), Digest::of(&token));
        let text = written(&name, digest, &[Scope::Metrics], None, None);

        let entries = parsed(&text).unwrap();

        proptest::prop_assert_eq!((&entries[0].name, entries[0].digest), (&name, digest));
    }

    #[test]
    fn no_text_and_no_header_stops_the_program(text in ".{0,200}", value: Vec<u8>) {
        let _ = parsed(&text);
        let _ = parsed(&format!("[[token]]\n{text}"));
        let _ = file::parse_moment(&text);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let _ = TABLE.check(&headers, Access::Needs(Scope::Read));
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let good = "scopes = [\"read\"]";
    for (text, words) in [
        ("name = [".to_owned(), vec!["not TOML", "line 1"]),
        ("\n\n[[token]]\nname = x".to_owned(), vec!["line 4"]),
        ("[[tokens]]".to_owned(), vec!["may only hold", "\"tokens\""]),
        ("token = 1".to_owned(), vec!["may only hold"]),
        (
            entry("ok", good) + &entry("ci", "scopes = [\"write\"]"),
            vec!["token 2 (ci)", "\"write\"", "cancel"],
        ),
        (entry("ci", ""), vec!["(ci)", "scopes"]),
        (
            entry("ci", "scopes = [\"read\"]\nscope = 1"),
            vec!["(ci)", "`scope`"],
        ),
        (entry("ci", "scopes = []"), vec!["scopes is empty"]),
        (
            entry("ci", "scopes = [\"read\"]\ntypes = []"),
            vec!["types is empty"],
        ),
        (
            entry("ci", "scopes = [\"read\"]\ntypes = [\"a.b\"]"),
            vec!["\"a.b\""],
        ),
        (
            entry("ci", "scopes = [\"metrics\"]\ntypes = [\"dummy\"]"),
            vec!["narrow the scope metrics"],
        ),
        (
            entry("ci", "scopes = [\"admin\"]\ntypes = [\"dummy\"]"),
            vec!["narrow the scope admin"],
        ),
        (
            entry("ci", "scopes = [\"read\"]\nexpires = 2027-01-01"),
            vec!["expires", "2027-01-01T00:00:00Z"],
        ),
        (
            entry("ci", "scopes = [\"read\"]\nexpires = \"soon\""),
            vec!["expires"],
        ),
        (entry("a\nb", good), vec!["token 1 in", "printable"]),
        (entry("", good), vec!["1 to 64"]),
        (
            entry("ci", good) + &entry("ci", good),
            vec!["token 2", "same name"],
        ),
        (
            entry("ci", good) + &entry("ci", good).replacen("ci", "cd", 1),
            vec!["token 2 (cd)", "same sha256"],
        ),
        (
            entry("ci", good).replace("sha256 = \"", "sha256 = \"+"),
            vec!["64 hexadecimal digits"],
        ),
    ] {
        let said = refused(&text);
        for word in words {
            assert!(said.contains(word), "{text}\n{said}");
        }
        assert!(said.contains("tokens.toml"), "{said}");
    }
}

#[test]
fn a_token_is_found_in_its_header_only_and_allows_what_its_entry_says() {
    let (_file, tokens) = file(
        &[
            entry("reader", "scopes = [\"read\"]\ntypes = [\"training\"]"),
            entry("admin", "scopes = [\"admin\"]"),
            entry(
                "late",
                "scopes = [\"read\"]\nexpires = 2020-01-01T00:00:00Z",
            ),
        ]
        .concat(),
    );

    let reader = check(&tokens, "bEARER   reader", Scope::Read).unwrap();
    assert_eq!(reader.name(), Some("reader"));
    assert!(reader.sees("training") && !reader.sees("dummy"));
    assert!(!reader.reads_everything());

    let admin = check(&tokens, "Bearer admin", Scope::Metrics).unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| admin.may(scope)));
    assert!(admin.sees("dummy") && admin.reads_everything());

    for (value, refusal) in [
        ("Bearer reader", Refused::Scope(Scope::Start)),
        ("Bearer late", Refused::Expired),
        ("Bearer Reader", Refused::Unknown),
        ("Bearer reader reader", Refused::Unknown),
        ("Bearer ", Refused::Malformed),
        ("Bearer", Refused::Malformed),
        ("Bearerreader", Refused::Malformed),
        ("Basic reader", Refused::Malformed),
        ("", Refused::Malformed),
    ] {
        let answer = check(&tokens, value, Scope::Start);
        assert_eq!(answer.unwrap_err(), refusal, "{value}");
    }
    let long = [b"Bearer ".as_slice(), &[b'x'; 513]].concat();
    let needs = Access::Needs(Scope::Read);
    for (values, refusal) in [
        (headers(&[]), Refused::Missing),
        (headers(&[&long]), Refused::Malformed),
        (headers(&[b"Bearer \xff"]), Refused::Unknown),
        (
            headers(&[b"Bearer reader", b"Bearer reader"]),
            Refused::Malformed,
        ),
    ] {
        assert_eq!(tokens.check(&values, needs).unwrap_err(), refusal);
        let nobody = tokens.check(&values, Access::Open).unwrap();
        assert!(nobody.name().is_none() && !nobody.may(Scope::Read) && !nobody.sees("dummy"));
    }
}

#[test]
fn without_a_file_everybody_may_do_everything() {
    let tokens = Tokens::load(&TokenOptions {
        tokens_file: Some("".into()),
        insecure: false,
    })
    .unwrap();

    let principal = check(&tokens, "Bearer anything", Scope::Admin).unwrap();

    assert!(!tokens.are_needed());
    assert_eq!(principal.name(), None);
    assert!(principal.sees("dummy") && principal.types().is_none());
    assert!(principal.until_revoked().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_revokes_what_is_gone_and_leaves_the_rest() {
    let keeps = entry("keeps", "scopes = [\"read\"]");
    let (file, tokens) = file(
        &(entry("goes", "scopes = [\"read\"]")
            + &entry("shrinks", "scopes = [\"admin\"]")
            + &keeps),
    );
    let principal = |name: &str| check(&tokens, &format!("Bearer {name}"), Scope::Read);
    let (goes, shrinks) = (principal("goes").unwrap(), principal("shrinks").unwrap());
    let kept = principal("keeps").unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();

    let attack = async {
        // Neither a broken nor a missing file changes anything.
        write("[[token]");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(principal("goes").is_ok() && !goes.is_revoked());
        std::fs::rename(file.path(), file.path().with_extension("away")).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(principal("goes").is_ok() && !goes.is_revoked());

        write(&(keeps.clone() + &entry("shrinks", "scopes = [\"read\"]")));
        goes.until_revoked().await;
        shrinks.until_revoked().await;
        assert_eq!(principal("goes").unwrap_err(), Refused::Unknown);
        assert!(!principal("shrinks").unwrap().may(Scope::Start));
        assert!(!kept.is_revoked() && principal("keeps").is_ok());

        // An empty list is a list: it revokes the last token, too.
        write("# nobody\n");
        kept.until_revoked().await;
        assert_eq!(principal("keeps").unwrap_err(), Refused::Unknown);
    };
    tokio::select! {
        () = tokens.keep_current() => {}
        () = attack => {}
    }
    std::fs::remove_file(file.path().with_extension("away")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_ends_when_its_token_expires() {
    let soon = Timestamp::now().plus(Duration::from_millis(300));
    let rest = format!("scopes = [\"read\"]\nexpires = {soon}");
    let (_file, tokens) = file(&entry("short", &rest));
    let short = check(&tokens, "Bearer short", Scope::Read).unwrap();

    tokio::select! {
        () = tokens.keep_current() => {}
        () = short.until_revoked() => {}
    }

    assert!(Timestamp::now() >= soon && short.is_revoked());
    assert_eq!(
        check(&tokens, "Bearer short", Scope::Read).unwrap_err(),
        Refused::Expired
    );
}

#[test]
fn only_this_machine_is_served_without_tokens() {
    let allowed = |file: &str, insecure, address: &str| {
        let options = TokenOptions {
            tokens_file: Some(file.into()),
            insecure,
        };
        options
            .check_address(address.parse().unwrap(), false)
            .is_ok()
    };

    for address in [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        assert!(allowed("", false, address), "{address}");
    }
    for address in [
        "0.0.0.0:80",
        "[::]:80",
        "192.168.0.1:80",
        "[::ffff:10.0.0.1]:80",
    ] {
        assert!(!allowed("", false, address), "{address}");
        assert!(allowed("", true, address), "{address}");
        assert!(allowed("tokens.toml", false, address), "{address}");
    }
}
