//! Downloads, the page at `/docs`, and pages of other origins.

use axum::Router;
use axum::response::Html;
use ktrdr_tests::browser::Browser;
use ktrdr_tests::{LIMIT, Scratch, wait_for};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Scene, TRACES, asked, enter, give, not_asked, routes};

#[tokio::test]
async fn results_are_downloaded_with_the_token_up_to_a_limit() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let id = scene
        .api()
        .started(
            "dummy",
            &json!({"steps": 2, "step_ms": 1, "task_id": "small"}),
        )
        .await;
    scene.api().wait_for_status(&id, "completed").await;
    let downloads = Scratch::new("downloads");
    let page = scene.page("#/operations/small");
    enter(&browser, &page, &scene.reader).await;
    browser.save_downloads(downloads.path()).await;

    browser.click("#result a[download]").await;
    let file = downloads.join("small.json");
    let saved = wait_for("the file", LIMIT, async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
    })
    .await;
    let answer = scene.api().get("/api/v1/operations/small/results").await;
    assert_eq!(saved, answer.json);

    // A result that does not fit is not read at all.
    let reference = json!({"bucket": "KTRDR_RESULTS", "object": "huge.1", "size": 100_000_000});
    scene.stack.bus.store_completed("huge", &reference).await;
    scene.api().wait_for_status("huge", "completed").await;
    browser.view("#/operations/huge").await;
    browser.click("#result a[download]").await;
    let command = format!(
        "curl -fsS -o 'huge.json' '{}/api/v1/operations/huge/results' -H \"Authorization: Bearer $KTRDR_TOKEN\"",
        scene.api().base()
    );
    browser.wait_for_text("#result .note", &command).await;
    browser.screenshot("download-too-large").await;
    scene.assert_no_trace(&browser, &scene.reader).await;

    // A failure is told, and does not become a file.
    let reference = json!({"bucket": "KTRDR_RESULTS", "object": "gone.1", "size": 9_000_000});
    scene.stack.bus.store_completed("gone", &reference).await;
    scene.api().wait_for_status("gone", "completed").await;
    browser.view("#/operations/gone").await;
    browser.wait_for_text("#result", "9,000,000 bytes").await;
    browser.click("#result a[download]").await;
    browser
        .wait_for_text("#result .note", "The download failed")
        .await;
    let mut names: Vec<_> = std::fs::read_dir(downloads.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["small.json"]);
}

#[tokio::test]
async fn the_page_of_the_api_sends_the_token_and_does_not_show_it() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let downloads = Scratch::new("downloads");
    browser.save_downloads(downloads.path()).await;
    browser.look(false, 1100).await;
    browser.goto(&scene.page("docs")).await;
    asked(&browser).await;
    assert!(
        !browser
            .run(TRACES)
            .await
            .to_string()
            .contains("start_dummy")
    );
    give(&browser, &scene.operator).await;
    routes(&browser).await;

    browser.click("#start_dummy > summary").await;
    let body = r#"{"task_id": "from-the-docs", "steps": 1, "step_ms": 1}"#;
    browser.fill("#start_dummy textarea", body).await;
    browser.click("#start_dummy button[type=submit]").await;
    browser.wait_for_text("#start_dummy .answer", "202").await;
    let curl = "-H \"Authorization: Bearer $KTRDR_TOKEN\"";
    browser
        .wait_for_text("#start_dummy .answer pre", curl)
        .await;
    scene
        .api()
        .wait_for_status("from-the-docs", "completed")
        .await;
    scene.assert_no_trace(&browser, &scene.operator).await;
    browser.screenshot("docs-token").await;
    browser.look(false, 390).await;
    browser
        .wait(
            "no sideways scrolling",
            "return document.documentElement.scrollWidth <= innerWidth",
        )
        .await;
    browser.look(false, 1100).await;

    // What the token does not allow is shown, and the token stays.
    browser.fill("#find", "prometheus").await;
    browser.click("details.route:not([hidden]) > summary").await;
    browser
        .click("details.route[open]:not([hidden]) button[type=submit]")
        .await;
    browser
        .wait_for_text("details.route[open]:not([hidden]) .answer", "scope metrics")
        .await;
    not_asked(&browser).await;

    browser.click("#document").await;
    let file = downloads.join("openapi.json");
    let saved = wait_for("the document", LIMIT, async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(
        saved["openapi"],
        scene.api().get("/openapi.json").await.json["openapi"]
    );
    assert_eq!(browser.errors().await, Vec::<String>::new());

    // Revoked: the answer is shown, and the page asks.
    scene.revoke("operator").await;
    browser
        .click("details.route[open]:not([hidden]) button[type=submit]")
        .await;
    asked(&browser).await;
    browser
        .wait_for_text("details.route[open]:not([hidden]) .answer", "401")
        .await;
}

#[tokio::test]
async fn a_page_of_another_origin_gets_neither_the_token_nor_what_it_opens() {
    let Some(browser) = Browser::start_with(&["--disable-popup-blocking"]).await else {
        return;
    };
    let scene = Scene::start().await;
    scene
        .api()
        .started(
            "dummy",
            &json!({"steps": 100_000, "step_ms": 20, "task_id": "secret"}),
        )
        .await;
    // The same site: another port of the same address.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hostile = format!("http://{}", listener.local_addr().unwrap());
    let page = async || Html("<!doctype html><title>page</title><body></body>");
    let server = tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(page))
            .await
            .unwrap();
    });
    enter(&browser, scene.api().base(), &scene.operator).await;
    browser.wait_until_live().await;

    // The same tab, with the token in the storage of the other origin.
    browser.goto(&hostile).await;
    let target = json!(scene.api().base());
    let found = browser
        .run(&format!(
            "return (async () => {{
                const target = {target};
                const attempt = async (act) => {{ try {{ return await act() }} catch {{ return null }} }};
                const loaded = (frame) => new Promise((resolve) => {{
                    frame.onload = resolve; frame.src = target; document.body.append(frame);
                }});
                const frame = document.createElement('iframe');
                await loaded(frame);
                const opened = window.open(target);
                return {{
                    own: JSON.stringify({{...sessionStorage}}) + JSON.stringify({{...localStorage}}) + document.cookie,
                    frame: await attempt(() => frame.contentWindow.sessionStorage.getItem('ktrdr-token')),
                    opened: await attempt(() => opened.sessionStorage.getItem('ktrdr-token')),
                    read: await attempt(async () => (await fetch(target + '/api/v1/operations', {{credentials: 'include'}})).text()),
                    cancel: await attempt(async () => (await fetch(target + '/api/v1/operations/secret/cancel',
                        {{method: 'DELETE', credentials: 'include'}})).status),
                    module: await attempt(async () => (await import(target + '/dashboard/token.js')).tabToken.value),
                }};
            }})()"
        ))
        .await;
    assert_eq!(
        found,
        json!({"own": "{}{}", "frame": null, "opened": null, "read": null, "cancel": null, "module": null})
    );
    let operation = scene.api().get("/api/v1/operations/secret").await;
    assert_eq!(operation.at("/data/cancel_requested_at"), &Value::Null);

    // The tab itself still has it. The page that was opened may cover it, so it is not live.
    browser.goto(scene.api().base()).await;
    browser
        .wait_for_text("tr[data-id='secret']", "running")
        .await;
    not_asked(&browser).await;
    server.abort();
}
