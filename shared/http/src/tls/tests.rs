//! The settings; `tests/it/tls.rs` tests everything that needs certificates.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    tls: TlsOptions,
}

fn options(cert: &str, key: &str) -> TlsOptions {
    let arguments = ["program", "--tls-cert", cert, "--tls-key", key];
    Program::parse_from(arguments).tls
}

#[test]
fn without_files_there_is_no_tls() {
    for none in [TlsOptions::default(), options("", "")] {
        assert!(matches!(none.load(), Ok(None)));
        assert_eq!(none.scheme(), Scheme::Http);
    }
}

#[test]
fn one_file_alone_is_refused() {
    for (options, set, missing) in [
        (options("c.pem", ""), "KTRDR_TLS_CERT", "KTRDR_TLS_KEY"),
        (options("", "k.pem"), "KTRDR_TLS_KEY", "KTRDR_TLS_CERT"),
    ] {
        let error = options.load().unwrap_err().to_string();

        assert!(
            error.starts_with(&format!("{set} is set and {missing} is not")),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = options("/nowhere/c.pem", "/nowhere/k.pem")
        .load()
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/c.pem");

    let device = options("/dev/zero", "/dev/zero").load().unwrap_err();
    assert_eq!(device.to_string(), "cannot read /dev/zero");
}

#[test]
fn the_scheme_of_a_url_is_recognised() {
    assert_eq!(Scheme::of_url("HTTPS://h/x"), Scheme::Https);
    assert_eq!(Scheme::of_url("http://h"), Scheme::Http);
    assert_eq!(Scheme::of_url("h:1"), Scheme::Http);
}
