//! What a page does when the server refuses its token, or something that the token does not allow.

use ktrdr_tests::browser::Browser;
use serde_json::{Value, json};

use super::{OPERATOR, Scene, asked, enter, give, not_asked};

/// Keeps a list of everything that the page said about its connection.
const WATCH_LINK: &str = "
    const link = document.getElementById('link'); const banner = document.getElementById('banner');
    globalThis.said = [];
    const note = () => said.push(`${link.dataset.state} ${banner.innerText}`);
    new MutationObserver(note).observe(link, {attributes: true});
    new MutationObserver(note).observe(banner, {attributes: true, childList: true, subtree: true});
";

#[tokio::test]
async fn a_token_that_is_revoked_is_asked_for_and_is_no_outage() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut scene = Scene::start().await;
    enter(&browser, scene.api().base(), &scene.operator).await;
    browser.wait_until_live().await;
    browser.run(WATCH_LINK).await;

    scene.revoke("operator").await;
    asked(&browser).await;
    browser.wait_for_text("dialog .problem", "not known").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    browser.screenshot("token-revoked").await;
    // Late answers about the old token do not refuse the new one.
    give(&browser, &scene.reader).await;
    browser.wait_until_live().await;
    not_asked(&browser).await;
    let said = browser.run("return said.join('\\n')").await;
    let said = said.as_str().unwrap();
    assert!(said.contains("unauthorized"), "{said}");
    for outage in ["lost", "unready", "Disconnected", "tries again"] {
        assert!(!said.contains(outage), "{outage}: {said}");
    }

    // A real outage still looks like one, and events flow afterwards.
    scene.stack.backend.process.kill();
    browser.wait_for_text("#banner", "Disconnected").await;
    scene.stack.backend.restart().await;
    browser.wait_until_live().await;
    let after = scene.api().started("dummy", &json!({"steps": 0})).await;
    let row = format!("tr[data-id='{after}'] .chip");
    browser.wait_for_text(&row, "completed").await;
    not_asked(&browser).await;

    // A form is kept, and nothing that was refused happens later by itself.
    browser.view("#/start/dummy").await;
    browser.fill("[data-path='/steps'] input", "7").await;
    browser.wait_until_live().await;
    scene.revoke("reader").await;
    asked(&browser).await;
    browser.press(Browser::ESCAPE).await;
    not_asked(&browser).await;
    browser.click("form.start-form button[type=submit]").await;
    asked(&browser).await;
    scene.tokens.set("operator", OPERATOR);
    scene.wait_for_answer(&scene.operator, 200).await;
    give(&browser, &scene.operator).await;
    browser.wait_until_live().await;
    browser
        .wait_for_text("form.start-form .problem", "Nothing was changed")
        .await;
    let page = scene.api().operations("").await;
    assert_eq!(page.at("/data/total"), 1);

    let steps = "return document.querySelector(\"[data-path='/steps'] input\").value";
    assert_eq!(browser.run(steps).await, "7");
    browser.click("form.start-form button[type=submit]").await;
    browser.wait_for_text(".op-head .chip", "completed").await;
    browser
        .wait_for_text("#facts", "Requested by\noperator")
        .await;
    browser.wait_for_text(".timeline", "by operator").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_action_that_the_token_does_not_allow_says_which_scope_is_missing() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let running = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    scene.api().started("dummy", &running).await;
    browser.look(false, 1280).await;
    enter(&browser, &scene.page("#/operations"), &scene.reader).await;

    // In a row of the list, and on the operation's page.
    for (page, place, picture) in [
        (
            "#/operations",
            "tr[data-id='long'] .actions",
            "scope-missing-row",
        ),
        ("#/operations/long", ".op-head .actions", "scope-missing"),
    ] {
        browser.view(page).await;
        let button = format!("{place} button");
        let refusal = format!("{place} .field-error");
        browser.wait_for_text(&button, "Cancel").await;
        let press = format!(
            "if (document.querySelector({})?.innerText.includes('scope cancel')) return true;
             document.querySelector({}).click();
             return false",
            json!(refusal),
            json!(button)
        );
        browser.wait("the refusal", &press).await;
        browser.screenshot(picture).await;
    }
    not_asked(&browser).await;

    // Also for all that a filter names, and for queues.
    browser.view("#/operations?status=running").await;
    browser.wait_for_text(".bulk", "The one that matches").await;
    browser.click("[data-action='cancel all…']").await;
    browser.wait_for_text(".bulk", "scope cancel").await;
    browser.view("#/queues").await;
    browser
        .click("[data-type='dummy'] [data-action='pause']")
        .await;
    browser.click("[data-action='confirm-pause']").await;
    browser.wait_for_text("dialog[open]", "scope admin").await;
    browser.press(Browser::ESCAPE).await;

    browser.view("#/start/dummy").await;
    browser.fill("[data-path='/steps'] input", "1").await;
    browser.click("form.start-form button[type=submit]").await;
    browser
        .wait_for_text("form.start-form .problem", "scope start")
        .await;
    not_asked(&browser).await;
    browser.wait_until_live().await;

    let operation = scene.api().get("/api/v1/operations/long").await;
    assert_eq!(operation.at("/data/status"), "running");
    assert_eq!(operation.at("/data/cancel_requested_at"), &Value::Null);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_narrowed_token_shows_less() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let id = scene
        .api()
        .started("dummy", &json!({"steps": 0, "task_id": "hidden-one"}))
        .await;
    scene.api().wait_for_status(&id, "completed").await;
    let narrow = "scopes = [\"read\"]\ntypes = [\"other\"]";
    let narrow = scene.tokens.set("narrow", narrow);
    scene.wait_for_answer(&narrow, 200).await;
    enter(&browser, scene.api().base(), &narrow).await;
    browser.wait_until_live().await;

    browser.wait_for_text("main", "No operations yet").await;
    browser.view("#/workers").await;
    browser.wait_for_text("main", "No worker is here").await;
    browser.view("#/operations/hidden-one").await;
    browser.wait_for_text("main .problem", "not found").await;
    browser.view("#/start").await;
    browser
        .wait_for_text("main", "No worker type is known")
        .await;
    browser.wait_until_live().await;
    not_asked(&browser).await;
}
