//! Attacks on start bodies, headers of browsers, and schemas.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderValue, Method, Request};
use ktrdr_fuzz::Attack;
use serde_json::{Value, json};

use crate::browsers::{BrowserOptions, BrowserRules};
use crate::schema::Schema;
use crate::start_body::{BodyError, StartBody};

/// Checking a hostile schema may take seconds, by its documented bounds.
const SCHEMA_TIME: Duration = Duration::from_secs(7);
const SCHEMA_MEMORY: usize = 256 * 1024 * 1024;

#[test]
fn start_bodies() {
    let schema = json!({
        "type": "object",
        "properties": {
            "source_file": {"type": "string", "maxLength": 100},
            "steps": {"type": "integer", "minimum": 0, "maximum": 1000},
            "operations": {"type": "array", "items": {"type": "object"}},
        },
        "additionalProperties": false,
    });
    let schema = Schema::compile(&schema).expect("a schema");
    let seeds = [
        r#"{"source_file":"in.csv","steps":3,"operations":[{"op":"clean"}]}"#,
        r#"{"task_id":"op-1","steps":1e2,"execution":{"requirements":{"gpu":true,"cores":8,"memory_gb":16},"timeout_seconds":60,"max_attempts":3,"retry_delay_seconds":1}}"#,
        r#" { "steps" : 0 , "task_id" : null } "#,
    ];
    Attack::on("start bodies").with(seeds).run(|bytes| {
        let body = match StartBody::read(bytes, Some(&schema)) {
            Ok(body) => body,
            Err(error) => return assert!(error.to_string().len() < 100_000),
        };
        // What was accepted is JSON as serde_json reads it, with every member where it belongs.
        let sent: Value = serde_json::from_slice(bytes).expect("JSON");
        let mut sent = sent.as_object().expect("an object").clone();
        let id = sent.remove("task_id").filter(|id| !id.is_null());
        assert_eq!(body.task_id.map(|id| json!(id)), id);
        sent.remove("execution");
        let parameters: Value = serde_json::from_str(body.parameters.get()).expect("JSON");
        assert_eq!(parameters, Value::Object(sent));
        assert!(
            parameters["steps"]
                .as_f64()
                .is_none_or(|steps| (0.0..=1000.0).contains(&steps))
        );
    });
}

#[test]
fn bodies_without_a_schema() {
    let seeds = [r#"{"a":[1,2.5,"x"],"task_id":"t"}"#, r#"{"":{"":""}}"#];
    Attack::on("bodies without a schema")
        .with(seeds)
        .run(|bytes| match StartBody::read(bytes, None) {
            Ok(body) => assert!(body.parameters.get().len() <= bytes.len() + 2),
            Err(BodyError::NotJson(why)) => assert!(!why.is_empty()),
            Err(_) => {}
        });
}

/// A header value as hyper would accept it.
fn header(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}

#[test]
fn hosts() {
    let options = BrowserOptions {
        allowed_hosts: "jobs.example.com".parse().expect("names"),
        cors_origins: "https://page.example.com".parse().expect("origins"),
    };
    let rules = BrowserRules::new(&options, &["http://worker-1:5003"]);
    let seeds = [
        "127.0.0.1:8000",
        "localhost",
        "[::1]:80",
        "a.localhost:1",
        "jobs.example.com",
        "JOBS.example.com.:443",
        "worker-1",
        "rebind.test",
        "::1",
        "[::ffff:1.2.3.4]",
    ];
    Attack::on("hosts").with(seeds).run(|bytes| {
        let Some(host) = header(bytes) else { return };
        let text = host.to_str().unwrap_or_default().to_owned();
        let mut request = Request::get("/api/v1/operations")
            .body(())
            .expect("a request");
        request.headers_mut().insert(HOST, host);

        if rules.check(&request).is_ok() {
            let name = match text.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                _ => &text,
            };
            let plain = name.trim_start_matches('[').trim_end_matches(']');
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            let is_known = ["jobs.example.com", "worker-1", "localhost"].contains(&name.as_str());
            assert!(
                is_known || name.ends_with(".localhost") || plain.parse::<IpAddr>().is_ok(),
                "{text:?} is accepted"
            );
        }
    });
}

#[test]
fn origins_and_content_types() {
    let options = BrowserOptions {
        allowed_hosts: "jobs.example.com".parse().expect("names"),
        cors_origins: "https://page.example.com".parse().expect("origins"),
    };
    let rules = BrowserRules::new(&options, &[]);
    let seeds = [
        "https://page.example.com",
        "http://127.0.0.1:8000",
        "null",
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "http://127.0.0.1:8000.evil.test",
    ];
    Attack::on("origins and content types")
        .with(seeds)
        .run(|bytes| {
            let Some(value) = header(bytes) else { return };
            for name in [ORIGIN, CONTENT_TYPE] {
                let mut request = Request::new(());
                *request.method_mut() = Method::POST;
                request
                    .headers_mut()
                    .insert(HOST, HeaderValue::from_static("127.0.0.1:8000"));
                request.headers_mut().insert(name.clone(), value.clone());
                let is_accepted = rules.answer(&request).is_none();
                let _ = rules.answer_headers(request.headers());

                if name == ORIGIN && is_accepted {
                    let own = value
                        .as_bytes()
                        .eq_ignore_ascii_case(b"http://127.0.0.1:8000");
                    assert!(
                        own || value == "https://page.example.com",
                        "{value:?} is accepted"
                    );
                }
            }
        });
}

#[test]
fn schemas() {
    let seeds = [
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]+$"}}}),
        json!({"$defs": {"x": {"allOf": [{"$ref": "#/$defs/y"}]}, "y": {"type": "object"}}, "$ref": "#/$defs/x"}),
        json!({"oneOf": [{"const": 1}, {"enum": [2, 3]}], "if": {"minimum": 1}, "then": {}, "else": false}),
    ];
    let seeds = seeds.map(|seed| seed.to_string());
    let bodies = [json!({"a": "x"}).to_string(), json!({}).to_string()];
    Attack::on("schemas")
        .with(seeds)
        .time(SCHEMA_TIME)
        .memory(SCHEMA_MEMORY)
        .run(|bytes| {
            let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
                return;
            };
            if let Ok(schema) = Schema::compile(&value) {
                for body in &bodies {
                    let _ = StartBody::read(body.as_bytes(), Some(&schema));
                }
            }
        });
}
