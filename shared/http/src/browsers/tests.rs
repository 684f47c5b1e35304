use super::*;

fn rules() -> BrowserRules {
    let options = BrowserOptions {
        allowed_hosts: "jobs.example.com., Node-7".parse().unwrap(),
        cors_origins: "https://page.example.com,http://[::1]:3000"
            .parse()
            .unwrap(),
    };
    BrowserRules::new(
        &options,
        &[
            "0.0.0.0:8000",
            "http://advertised.test:5003/worker",
            "bound",
        ],
    )
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> http::Request<()> {
    let request = http::Request::builder().method(method).uri(uri);
    headers
        .iter()
        .fold(request, |request, (name, value)| {
            request.header(*name, *value)
        })
        .body(())
        .unwrap()
}

fn code(outcome: Result<(), Refusal>) -> &'static str {
    match outcome {
        Ok(()) => "ok",
        Err(Refusal::HostHeader) => "header",
        Err(Refusal::HostNotAllowed(_)) => "host",
        Err(Refusal::OriginNotAllowed(_)) => "origin",
        Err(Refusal::UnsupportedMediaType(_)) => "type",
    }
}

#[test]
fn the_host_decides_whether_a_request_is_for_this_server() {
    for (host, expected) in [
        ("127.0.0.1:8000", "ok"),
        ("127.0.0.1", "ok"),
        ("127.0.0.1:", "ok"),
        ("203.0.113.9:80", "ok"),
        ("[::1]:8000", "ok"),
        ("[2001:db8::7]", "ok"),
        ("localhost:8000", "ok"),
        ("LocalHost", "ok"),
        ("localhost.", "ok"),
        ("a.b.localhost:8000", "ok"),
        ("JOBS.example.com:443", "ok"),
        ("jobs.example.com.", "ok"),
        ("node-7", "ok"),
        ("advertised.test:1", "ok"),
        ("bound:8000", "ok"),
        ("", "host"),
        (".", "host"),
        (":8000", "host"),
        ("rebind.test", "host"),
        ("xlocalhost", "host"),
        ("localhost.rebind.test", "host"),
        ("127.0.0.1.rebind.test", "host"),
        ("127.0.0.1.", "host"),
        ("127.0.0.1:80:80", "host"),
        ("127.0.0.1:8a", "host"),
        ("user@127.0.0.1", "host"),
        ("user:1@localhost", "host"),
        ("[::1", "host"),
        ("[::1]x", "host"),
        ("[::1].rebind.test", "host"),
        ("::1", "host"),
        ("sub.jobs.example.com", "host"),
        ("jobs.example.com,rebind.test", "host"),
        ("localhost\u{e9}", "header"),
        ("äocalhost", "header"),
    ] {
        for method in ["GET", "OPTIONS", "POST", "DELETE"] {
            let asked = request(method, "/", &[("host", host)]);

            assert_eq!(code(rules().check(&asked)), expected, "{method} {host:?}");
        }
    }
}

#[test]
fn an_absolute_uri_is_judged_by_its_authority() {
    for (uri, host, expected) in [
        ("http://localhost/x", "rebind.test", "ok"),
        ("http://rebind.test/x", "localhost", "host"),
        ("http://user@rebind.test/x", "localhost", "host"),
    ] {
        let asked = request("GET", uri, &[("host", host)]);

        assert_eq!(code(rules().check(&asked)), expected, "{uri}");
    }
}

#[test]
fn only_old_clients_may_leave_the_host_out() {
    let mut old = request("POST", "/", &[]);
    *old.version_mut() = Version::HTTP_10;
    let mut page = request("POST", "/", &[("origin", "http://a.test")]);
    *page.version_mut() = Version::HTTP_10;
    let new = request("POST", "/", &[]);
    let twice = request("POST", "/", &[("host", "localhost"), ("host", "localhost")]);

    let codes = [old, page, new, twice].map(|asked| code(rules().check(&asked)));

    assert_eq!(codes, ["ok", "origin", "header", "header"]);
}

#[test]
fn a_change_comes_from_no_page_or_from_a_known_one() {
    let (own, other) = (
        ("origin", "http://localhost:8000"),
        ("origin", "http://a.test"),
    );
    let site = |site| ("sec-fetch-site", site);
    for (headers, expected) in [
        (&[][..], "ok"),
        (&[own], "ok"),
        (&[own, site("same-origin")], "ok"),
        (&[site("same-origin")], "ok"),
        (&[site("none")], "ok"),
        (
            &[("origin", "https://page.example.com"), site("cross-site")],
            "ok",
        ),
        (&[("origin", "http://[::1]:3000")], "ok"),
        (&[other], "origin"),
        (&[other, site("same-origin")], "origin"),
        (&[("origin", "null")], "origin"),
        (&[("origin", "")], "origin"),
        (&[("origin", "*")], "origin"),
        (&[("origin", "https://localhost:8000")], "origin"),
        (&[("origin", "http://localhost")], "origin"),
        (&[("origin", "http://localhost:80001")], "origin"),
        (&[("origin", "http://page.example.com")], "origin"),
        (&[("origin", "https://page.example.com.a.test")], "origin"),
        (&[site("same-site")], "origin"),
        (&[site("cross-site")], "origin"),
        (&[site("something-new")], "origin"),
    ] {
        let headers = [&[("host", "localhost:8000")], headers].concat();
        for method in ["POST", "DELETE", "PUT", "PATCH", "CONNECT", "MADE-UP"] {
            let asked = request(method, "/", &headers);
            assert_eq!(
                code(rules().check(&asked)),
                expected,
                "{method} {headers:?}"
            );
        }

        // Whether a page may read an answer is the browser's decision, by the headers of the
        // answer.
        let asked = request("GET", "/", &headers);
        assert_eq!(code(rules().check(&asked)), "ok", "{headers:?}");
    }
}

#[test]
fn the_usual_port_may_be_written_or_not() {
    for (host, origin) in [
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost"),
    ] {
        let asked = request("POST", "/", &[("host", host), ("origin", origin)]);

        assert_eq!(code(rules().check(&asked)), "ok", "{host}");
    }
}

#[test]
fn over_tls_only_pages_that_came_over_tls_are_the_servers_own() {
    let rules = rules().served_by(Scheme::Https);
    for (host, origin, expected) in [
        ("localhost:8443", "https://localhost:8443", "ok"),
        ("localhost:443", "https://localhost", "ok"),
        ("localhost", "https://localhost", "ok"),
        ("localhost:8443", "http://localhost:8443", "origin"),
        ("localhost:80", "https://localhost", "origin"),
        ("localhost:8443", "https://localhost:8444", "origin"),
        ("localhost:8443", "https://evil.test", "origin"),
        ("localhost", "httpss://localhost", "origin"),
        ("localhost", "https//localhost", "origin"),
    ] {
        let asked = request("POST", "/", &[("host", host), ("origin", origin)]);

        assert_eq!(code(rules.check(&asked)), expected, "{host} {origin}");
    }
}

#[test]
fn a_browser_declares_json() {
    let own = ("origin", "http://localhost");
    for (kind, expected) in [
        ("application/json", "ok"),
        ("Application/JSON ; charset=utf-8", "ok"),
        ("text/plain", "type"),
        ("text/plain;application/json", "type"),
        ("text/plain, application/json", "type"),
        ("application/json, text/plain", "type"),
        ("application/jsonp", "type"),
        ("application/x-www-form-urlencoded", "type"),
        ("multipart/form-data; boundary=x", "type"),
        ("", "type"),
    ] {
        let kind = ("content-type", kind);
        for browser in [own, ("sec-fetch-mode", "cors"), ("sec-fetch-site", "none")] {
            let asked = request("POST", "/", &[("host", "localhost"), kind, browser]);
            assert_eq!(
                code(rules().check(&asked)),
                expected,
                "{kind:?} {browser:?}"
            );
        }

        let curl = request("POST", "/", &[("host", "localhost"), kind]);
        assert_eq!(code(rules().check(&curl)), "ok", "{kind:?}");
    }
}

#[test]
fn settings_are_lists_of_names_and_of_origins() {
    for bad in [
        "*",
        "*.example.com",
        "http://a.test",
        "a.test:80",
        "a b",
        "a/b",
        "é",
    ] {
        assert!(HostNames::from_str(bad).is_err(), "{bad}");
    }
    for bad in [
        "*",
        "null",
        "a.test",
        "https://*.example.com",
        "https://a.test/",
        "https://a.test/x",
        "https://user@a.test",
        "https://",
        "://a.test",
        "https://a.test:https",
    ] {
        assert!(WebOrigins::from_str(bad).is_err(), "{bad}");
    }

    assert_eq!("".parse(), Ok(HostNames::default()));
    assert_eq!(" , ".parse(), Ok(WebOrigins::default()));
    let written: WebOrigins = "HTTPS://A.test:443, http://a.test:80,http://a.test:8080"
        .parse()
        .unwrap();
    let expected = ["https://a.test", "http://a.test", "http://a.test:8080"];
    assert_eq!(written.0, expected);
}

#[test]
fn preflights_are_granted_to_configured_origins() {
    let ask = |origin| {
        let asked = request(
            "OPTIONS",
            "/",
            &[
                ("host", "localhost"),
                ("origin", origin),
                ("access-control-request-method", "POST"),
            ],
        );
        rules().answer(&asked).map(|answer| answer.status())
    };

    assert_eq!(
        ask("https://page.example.com"),
        Some(StatusCode::NO_CONTENT)
    );
    assert_eq!(ask("https://a.test"), None);
    assert_eq!(ask("null"), None);
}

#[test]
fn answers_name_only_the_origin_that_asks() {
    let headers_for = |rules: &BrowserRules, origin: &'static str| {
        let asked = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        let mut headers = HeaderMap::new();
        rules.answer_headers(&asked).add_to(&mut headers);
        headers
    };
    let nobody = BrowserRules::new(&BrowserOptions::default(), &[]);

    let configured = headers_for(&rules(), "https://page.example.com");
    let other = headers_for(&rules(), "https://a.test");
    let none = headers_for(&nobody, "https://page.example.com");

    let allowed = &configured[ACCESS_CONTROL_ALLOW_ORIGIN];
    assert_eq!(allowed, "https://page.example.com");
    assert!(!other.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert_eq!(other[VARY], "Origin");
    assert!(!none.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(!none.contains_key(VARY));
    assert_eq!(none[X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[test]
fn a_header_that_is_there_twice_must_be_acceptable_twice() {
    let own = ("origin", "http://localhost:8000");
    let json = ("content-type", "application/json");
    for (headers, expected) in [
        ([own, own], "ok"),
        ([own, ("origin", "http://evil.test")], "origin"),
        (
            [
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "cross-site"),
            ],
            "origin",
        ),
    ] {
        let headers = [&[("host", "localhost:8000"), json][..], &headers].concat();
        let outcome = rules().check(&request("POST", "/x", &headers));
        assert_eq!(code(outcome), expected, "{headers:?}");
    }

    let headers = [
        ("host", "localhost:8000"),
        own,
        json,
        ("content-type", "text/plain"),
    ];
    assert_eq!(
        code(rules().check(&request("POST", "/x", &headers))),
        "type"
    );
}
