//! A web page is an attacker: it can send requests to every address that its browser reaches.
//!
//! Longer than 600 lines: raw requests and a page in a real browser attack one and the same scene.

use std::fmt::Write as _;

use axum::Router;
use axum::response::Html;
use ktrdr_tests::browser::Browser;
use ktrdr_tests::engines::{BlockingEngine, FlakyEngine, GateEngine};
use ktrdr_tests::{Answer, Client, LocalWorker, Settings, Stack, wait_for};
use ktrdr_worker::Worker;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A page's origin in requests that no browser sends.
const FOREIGN: &str = "http://attacker.test";

/// One of the two REST interfaces, with an operation that runs behind it.
struct Interface {
    api: Client,
    /// Path of a start route.
    start: &'static str,
    /// Status of a start that is accepted: a worker with a free slot runs it at once.
    accepted: u16,
}

/// A backend, and a worker that runs the operation `secret` until the gate opens.
struct Scene {
    stack: Stack,
    worker: LocalWorker,
    _gate: ktrdr_tests::engines::Gate,
}

impl Scene {
    async fn new(change: impl Fn(Settings) -> Settings, worker: &[&str]) -> Self {
        let stack = Stack::start_with(change).await;
        let (engine, gate) = GateEngine::new();
        let arguments = [&["--concurrency", "16"], worker].concat();
        let worker = stack.local_worker(engine, "w1", &arguments).await;
        stack
            .api()
            .running("gate", &json!({"task_id": "secret"}))
            .await;

        Self {
            stack,
            worker,
            _gate: gate,
        }
    }

    fn interfaces(&self) -> [Interface; 2] {
        [
            Interface {
                api: self.stack.api().clone(),
                start: "/api/v1/gate/start",
                accepted: 202,
            },
            Interface {
                api: self.worker.api.clone(),
                start: "/gate/start",
                accepted: 200,
            },
        ]
    }

    /// The ids of all operations that the backend knows.
    async fn operations(&self) -> Vec<String> {
        let page = self.stack.api().operations("limit=1000").await.expect(200);
        let operations = page.at("/data/operations").as_array().unwrap().iter();
        let mut ids: Vec<String> = operations
            .map(|one| one["operation_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort_unstable();
        ids
    }

    /// How many queues are paused and the execution options of `secret`, and the status of the answer to
    /// the question for the schedule `evil`.
    async fn settings(&self) -> (Value, u16) {
        let api = self.stack.api();
        let queues = api.get("/api/v1/queues").await.expect(200);
        let queues = queues.at("/data/queues").as_array().unwrap().iter();
        let paused = queues
            .map(|queue| queue["paused"] == true)
            .filter(|paused| *paused);
        let paused = paused.count();
        let operation = api.operation("secret").await.expect(200);
        let execution = operation.at("/data/execution").clone();
        let schedule = api.get("/api/v1/schedules/evil").await;
        (
            json!({"paused": paused, "execution": execution}),
            schedule.status,
        )
    }

    /// Whether somebody has asked to cancel `secret`.
    async fn is_cancelled(&self) -> bool {
        let operation = self.stack.api().operation("secret").await.expect(200);
        operation.at("/data/status") != "running"
            || !operation.at("/data/cancel_requested_at").is_null()
    }
}

impl Interface {
    fn authority(&self) -> &str {
        self.api.base().trim_start_matches("http://")
    }

    fn port(&self) -> &str {
        self.authority().rsplit_once(':').unwrap().1
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let request = headers
            .iter()
            .fold(self.api.request(method, path), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.api.send(request.body(body.to_owned())).await
    }

    /// The status of the answer to a request that is written to the connection as it is.
    async fn raw(&self, request: &str) -> u16 {
        let mut stream = TcpStream::connect(self.authority()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();

        std::str::from_utf8(&start[9..]).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn only_known_names_of_the_server_are_answered() {
    let scene = Scene::new(
        |settings| settings.with("KTRDR_ALLOWED_HOSTS", "jobs.example.com, Backend"),
        &[
            "--allowed-hosts",
            "jobs.example.com, Backend",
            "--endpoint-url",
            "http://advertised.test:1/worker",
        ],
    )
    .await;

    for interface in scene.interfaces() {
        let port = interface.port();
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("192.0.2.7", true),
            ("[::1]", true),
            ("jobs.example.com", true),
            ("backend", true),
            ("rebind.test", false),
            ("localhost.rebind.test", false),
            ("127.0.0.1.rebind.test", false),
            ("jobs.example.com.rebind.test", false),
            ("[::1].rebind.test", false),
            ("rebind.test:80@127.0.0.1", false),
            ("", false),
        ] {
            let host = if host.is_empty() {
                String::new()
            } else {
                format!("{host}:{port}")
            };
            let headers = [("host", host.as_str())];

            let read = interface
                .send(Method::GET, "/api/v1/operations", &headers, "")
                .await;
            let unknown = interface.send(Method::GET, "/nothing", &headers, "").await;

            if allowed {
                read.expect(200);
                unknown.expect_problem(404, "unknown_route");
            } else {
                read.expect_problem(421, "host_not_allowed");
                unknown.expect_problem(421, "host_not_allowed");
            }
        }
    }

    // A worker also knows the name that it advertises.
    let [backend, worker] = scene.interfaces();
    let advertised = [("host", "advertised.test:1")];
    worker
        .send(Method::GET, "/health", &advertised, "")
        .await
        .expect(200);
    backend
        .send(Method::GET, "/health", &advertised, "")
        .await
        .expect_problem(421, "host_not_allowed");
}

#[tokio::test]
async fn the_host_of_a_request_is_found_wherever_it_stands() {
    let scene = Scene::new(|settings| settings, &[]).await;

    for interface in scene.interfaces() {
        for (request, status) in [
            // Without a host: no browser.
            ("GET /health HTTP/1.0\r\n\r\n", 200),
            ("GET /health HTTP/1.0\r\nHost: rebind.test\r\n\r\n", 421),
            ("GET /health HTTP/1.1\r\n\r\n", 400),
            (
                "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: rebind.test\r\n\r\n",
                400,
            ),
            // The authority of the URI counts, not the header.
            (
                "GET http://localhost/health HTTP/1.1\r\nHost: rebind.test\r\n\r\n",
                200,
            ),
            (
                "GET http://rebind.test/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
                421,
            ),
            (
                "DELETE http://rebind.test/api/v1/operations/secret HTTP/1.1\r\nHost: localhost\r\n\r\n",
                421,
            ),
        ] {
            assert_eq!(interface.raw(request).await, status, "{request}");
        }
    }
    assert!(!scene.is_cancelled().await);
}

#[tokio::test]
async fn a_request_of_another_origin_changes_nothing() {
    let scene = Scene::new(|settings| settings, &[]).await;
    let before = scene.operations().await;

    for interface in scene.interfaces() {
        let other_port = "http://127.0.0.1:1";
        let other_scheme = interface.api.base().replace("http:", "https:");
        for headers in [
            &[("origin", FOREIGN)][..],
            &[("origin", "null")],
            &[("origin", other_port), ("sec-fetch-site", "same-site")],
            &[("origin", &other_scheme)],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", FOREIGN), ("sec-fetch-site", "same-origin")],
        ] {
            let start = interface
                .send(Method::POST, interface.start, headers, "{}")
                .await;
            let cancel = interface
                .send(
                    Method::DELETE,
                    "/api/v1/operations/secret/cancel",
                    headers,
                    "",
                )
                .await;
            let delete = interface
                .send(Method::DELETE, "/api/v1/operations/secret", headers, "")
                .await;

            for refused in [start, cancel, delete] {
                let refused = refused.expect_problem(403, "origin_not_allowed");
                assert_eq!(refused.header("access-control-allow-origin"), "");
            }
        }
    }
    assert_eq!(scene.operations().await, before);
    assert!(!scene.is_cancelled().await);

    // Its own pages, and programs that are not a page, still work.
    for interface in scene.interfaces() {
        let own = interface.api.base();
        for headers in [
            &[][..],
            &[("origin", own), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            interface
                .send(Method::POST, interface.start, headers, "{}")
                .await
                .expect(interface.accepted);
        }
    }
}

#[tokio::test]
async fn a_form_of_a_browser_starts_nothing_and_curl_does() {
    let scene = Scene::new(|settings| settings, &[]).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = ("content-type", "application/json; charset=utf-8");

    for interface in scene.interfaces() {
        let own = interface.api.base();
        for (headers, status) in [
            (&[form][..], interface.accepted),
            (&[form, ("origin", own)], 415),
            (&[form, ("sec-fetch-site", "none")], 415),
            (&[form, ("sec-fetch-mode", "navigate")], 415),
            (
                &[
                    ("content-type", "text/plain"),
                    ("sec-fetch-dest", "document"),
                ],
                415,
            ),
            (
                &[("content-type", "application/jsonx"), ("origin", own)],
                415,
            ),
            (&[json, ("origin", own)], interface.accepted),
        ] {
            let answer = interface
                .send(Method::POST, interface.start, headers, "{}")
                .await;

            if status == 415 {
                answer.expect_problem(415, "unsupported_media_type");
            } else {
                answer.expect(status);
            }
        }
    }
}

#[tokio::test]
async fn only_configured_origins_are_told_what_they_may_do() {
    let page = "https://page.example.com";
    let scene = Scene::new(
        |settings| {
            settings.with(
                "KTRDR_CORS_ORIGINS",
                "http://a.test, https://page.example.com",
            )
        },
        &["--cors-origins", "http://a.test, https://page.example.com"],
    )
    .await;

    for interface in scene.interfaces() {
        let asks = |origin| {
            [
                ("origin", origin),
                ("access-control-request-method", "DELETE"),
                ("access-control-request-headers", "idempotency-key"),
            ]
        };
        let path = "/api/v1/operations/secret/cancel";

        let granted = interface.send(Method::OPTIONS, path, &asks(page), "").await;
        let refused = interface
            .send(Method::OPTIONS, path, &asks(FOREIGN), "")
            .await;
        let read = interface
            .send(Method::GET, "/api/v1/operations", &[("origin", page)], "")
            .await;
        let foreign = interface
            .send(
                Method::GET,
                "/api/v1/operations",
                &[("origin", FOREIGN)],
                "",
            )
            .await;
        let started = interface
            .send(Method::POST, interface.start, &[("origin", page)], "{}")
            .await;

        let granted = granted.expect(204);
        assert_eq!(granted.header("access-control-allow-origin"), page);
        assert!(
            granted
                .header("access-control-allow-methods")
                .contains("DELETE")
        );
        for name in [
            "authorization",
            "content-type",
            "idempotency-key",
            "last-event-id",
        ] {
            let names = granted.header("access-control-allow-headers");
            assert!(names.contains(name), "{name} in {names}");
        }
        assert_eq!(
            read.clone()
                .expect(200)
                .header("access-control-allow-origin"),
            page
        );
        let started = started.expect(interface.accepted);
        assert_eq!(started.header("access-control-allow-origin"), page);
        assert_eq!(refused.status, 405, "{refused}");
        assert_eq!(foreign.status, 200, "{foreign}");
        for answer in [&refused, &foreign] {
            assert_eq!(answer.header("access-control-allow-origin"), "");
            assert_eq!(answer.header("access-control-allow-methods"), "");
        }
        for answer in [&granted, &refused, &read, &foreign] {
            assert_eq!(answer.header("vary"), "Origin");
        }
    }
}

#[tokio::test]
async fn answers_are_of_no_use_to_other_pages() {
    let scene = Scene::new(|settings| settings, &[]).await;

    for interface in scene.interfaces() {
        for path in [
            "/health",
            "/metrics",
            "/openapi.json",
            "/api/v1/operations",
            "/api/v1/operations/secret",
            "/nothing",
        ] {
            let answer = interface
                .send(Method::GET, path, &[("origin", FOREIGN)], "")
                .await;

            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            let sharing = answer.header("cross-origin-resource-policy");
            assert_eq!(sharing, "same-origin", "{path}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            for (name, value) in &answer.headers {
                assert!(
                    !name.as_str().starts_with("access-control"),
                    "{path}: {name}"
                );
                assert_ne!(value, "*", "{path}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn several_workers_in_one_process_are_protected_alike() {
    let stack = Stack::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Client::new(format!("http://{}", listener.local_addr().unwrap()));
    let _worker = Worker::builder()
        .engine(FlakyEngine)
        .engine(BlockingEngine)
        .config(LocalWorker::config(&stack.settings, "both", &[]))
        .listener(listener)
        .start()
        .await
        .unwrap();

    for path in [
        "/flaky/health",
        "/blocking/openapi.json",
        "/flaky/nothing",
        "/nothing",
    ] {
        let request = api.request(Method::GET, path).header("host", "rebind.test");
        api.send(request)
            .await
            .expect_problem(421, "host_not_allowed");
    }
}

/// A server whose pages are empty, at a port of its own: the origin of the scripts that the tests
/// run.
struct Pages {
    port: u16,
    server: JoinHandle<()>,
}

impl Pages {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let page = async || Html("<!doctype html><title>page</title><body></body>");
        let app = Router::new().fallback(page);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, server }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a page tries. Each attempt says what it got; `null` when the browser or the server kept it
/// away.
const ATTEMPTS: &str = r#"
    const attempt = async (name, act) => {
        try { found[name] = await act() } catch { found[name] = null }
    };
    const found = {};
    const only = (wanted) => (answer) => wanted(answer) ? answer.status || answer.type : null;
    const body = (id) => JSON.stringify({task_id: id});
    const send = (method, path, more) => fetch(target + path, {method, ...more});
    const tag = `${name}-${location.hostname.replaceAll('.', '-')}`;

    await attempt('read', async () => {
        const text = await (await fetch(target + '/api/v1/operations')).text();
        return text.includes('secret') ? 'secret' : null;
    });
    await attempt('embed', async () => (await send('GET', '/openapi.json', {mode: 'no-cors'})).type);
    await attempt('post', async () => (await send('POST', start,
        {body: new Blob([body(`${tag}-post`)])})).status);
    await attempt('blind post', async () => (await send('POST', start,
        {mode: 'no-cors', body: new Blob([body(`${tag}-blind`)])})).type);
    await attempt('text', async () => (await send('POST', start,
        {mode: 'no-cors', body: body(`${tag}-text`)})).type);
    await attempt('json', async () => (await send('POST', start, {
        headers: {'content-type': 'application/json', 'idempotency-key': `${tag}-key`},
        body: JSON.stringify({}),
    })).status);
    await attempt('cancel', async () =>
        (await send('DELETE', '/api/v1/operations/secret/cancel')).status);
    await attempt('bulk', async () => (await send('POST', '/api/v1/operations/cancel',
        {body: JSON.stringify({filter: {operation_type: 'gate'}})})).status);
    await attempt('priority', async () => (await send('PATCH', '/api/v1/operations/secret',
        {headers: {'content-type': 'application/json'}, body: '{"priority":1}'})).status);
    await attempt('schedule', async () => (await send('PUT', '/api/v1/schedules/evil', {
        headers: {'content-type': 'application/json'},
        body: '{"domain":"gate","body":{},"cron":"* * * * *"}',
    })).status);
    await attempt('pause', async () =>
        (await send('POST', '/api/v1/queues/gate/pause', {body: '{}'})).status);
    await attempt('events', () => new Promise((resolve, reject) => {
        const events = new EventSource(target + '/api/v1/events');
        events.onopen = () => { events.close(); resolve('open') };
        events.onerror = () => { events.close(); reject() };
    }));
    return found;
"#;

/// Runs the attempts in the page that the browser shows.
async fn attempts(browser: &Browser, name: &str, target: &str, start: &str) -> Value {
    let given = format!(
        "const [name, target, start] = {};",
        json!([name, target, start])
    );
    browser
        .run(&format!("return (async () => {{ {given} {ATTEMPTS} }})()"))
        .await
}

/// Sends the form of the review from the page that the browser shows, and waits until its answer is
/// shown instead.
async fn submit_form(browser: &Browser, id: &str, target: &str, start: &str) {
    let action = json!(format!("{target}{start}"));
    let field = json!(format!("{{\"task_id\":\"{id}\",\"note\":\""));
    let script = format!(
        "const form = document.createElement('form');
         form.method = 'POST'; form.enctype = 'text/plain'; form.action = {action};
         const field = document.createElement('input');
         field.name = {field}; field.value = '\"}}';
         form.append(field); document.body.append(form); form.submit();"
    );
    browser.run(&script).await;
    let arrived =
        format!("return location.href === {action} && document.readyState === 'complete'");
    browser.wait("the answer to the form", &arrived).await;
}

#[tokio::test]
async fn a_hostile_page_reads_starts_and_cancels_nothing() {
    let Some(browser) = Browser::start_with(&["--host-resolver-rules=MAP *.test 127.0.0.1"]).await
    else {
        return;
    };
    let (scene, pages) = (
        Scene::new(|settings| settings, &[]).await,
        Pages::serve().await,
    );
    let before = scene.operations().await;
    let (settings_before, _) = scene.settings().await;
    let mut succeeded = String::new();

    for (name, interface) in ["backend", "worker"].into_iter().zip(scene.interfaces()) {
        let (target, start) = (interface.api.base(), interface.start);

        // Another site, and another port of the same site.
        for host in ["attacker.test", "127.0.0.1"] {
            browser
                .goto(&format!("http://{host}:{}/", pages.port))
                .await;
            let found = attempts(&browser, name, target, start).await;
            for attack in [
                "read", "embed", "post", "json", "cancel", "events", "bulk", "priority",
                "schedule", "pause",
            ] {
                if !found[attack].is_null() {
                    let got = &found[attack];
                    writeln!(succeeded, "{name}, page of {host}: {attack}: {got}").unwrap();
                }
            }
            submit_form(
                &browser,
                &format!("form-{name}-{}", host.len()),
                target,
                start,
            )
            .await;
        }

        // A host name of the attacker that leads to the server: for the browser, the page and the
        // server are one origin.
        let rebound = format!("http://rebind.test:{}", interface.port());
        browser.goto(&format!("{rebound}/health")).await;
        let found = attempts(&browser, name, &rebound, start).await;
        for (attack, harmless) in [
            ("read", &[][..]),
            ("embed", &[]),
            ("post", &[421]),
            ("json", &[421]),
            ("cancel", &[421]),
            ("events", &[]),
            ("bulk", &[421]),
            ("priority", &[421]),
            ("schedule", &[421]),
            ("pause", &[421]),
        ] {
            let got = &found[attack];
            let is_harmless = got.is_null()
                || got == "basic"
                || got
                    .as_u64()
                    .is_some_and(|status| harmless.contains(&status));
            if !is_harmless {
                writeln!(succeeded, "{name}, rebound name: {attack}: {got}").unwrap();
            }
        }
    }

    for id in scene.operations().await {
        if !before.contains(&id) {
            writeln!(succeeded, "started: {id}").unwrap();
        }
    }
    if scene.is_cancelled().await {
        writeln!(succeeded, "cancelled: secret").unwrap();
    }
    // A browser hides the answer from the page also when the server did what was asked.
    if !scene.stack.bus.stored("ktrdr.cancel.>").await.is_empty() {
        writeln!(succeeded, "a cancel was stored").unwrap();
    }
    let (settings, schedules) = scene.settings().await;
    if settings != settings_before {
        writeln!(succeeded, "changed: {settings}, it was {settings_before}").unwrap();
    }
    if schedules != 404 {
        writeln!(succeeded, "the schedule evil: {schedules}").unwrap();
    }
    assert!(succeeded.is_empty(), "attacks succeeded:\n{succeeded}");
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_do_everything() {
    let Some(browser) = Browser::start_with(&["--host-resolver-rules=MAP *.test 127.0.0.1"]).await
    else {
        return;
    };
    let pages = Pages::serve().await;
    let origin = format!("http://page.test:{}", pages.port);
    let scene = Scene::new(
        |settings| settings.with("KTRDR_CORS_ORIGINS", &origin),
        &["--cors-origins", &origin],
    )
    .await;

    for (name, interface) in ["worker", "backend"].into_iter().zip({
        let [backend, worker] = scene.interfaces();
        [worker, backend]
    }) {
        browser.goto(&origin).await;
        let found = attempts(&browser, name, interface.api.base(), interface.start).await;

        assert_eq!(found["read"], "secret", "{name}: {found}");
        for start in ["post", "json"] {
            assert_eq!(found[start], interface.accepted, "{name}: {found}");
        }
        assert_eq!(found["cancel"], 200, "{name}: {found}");
        if name == "backend" {
            assert_eq!(found["events"], "open", "{found}");
        }
    }

    wait_for("the cancel", ktrdr_tests::LIMIT, async || {
        match scene.is_cancelled().await {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
}
