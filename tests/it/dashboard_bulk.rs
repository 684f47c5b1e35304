//! Cancels and retries of everything that the filter of the list names, in a real browser.

use ktrdr_tests::Stack;
use ktrdr_tests::browser::Browser;
use serde_json::{Value, json};

use crate::dashboard_views::wait_for_rows;

/// Starts a dummy with a label.
async fn labelled(stack: &Stack, id: &str, batch: &str, mut body: Value) {
    body["task_id"] = id.into();
    body["execution"] = json!({"labels": {"batch": batch}});
    stack.api().started("dummy", &body).await;
}

fn failing() -> Value {
    json!({"steps": 2, "step_ms": 1, "fail_at_step": 1})
}

#[tokio::test]
async fn all_that_a_filter_names_are_retried_after_a_question() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for id in ["bad-1", "bad-2", "bad-3"] {
        labelled(&stack, id, "a", failing()).await;
        stack.api().wait_for_status(id, "failed").await;
    }
    labelled(&stack, "good", "a", json!({"steps": 0})).await;
    stack.api().wait_for_status("good", "completed").await;
    labelled(&stack, "other", "b", failing()).await;
    stack.api().wait_for_status("other", "failed").await;
    browser.look(false, 1440).await;

    // Without a filter there is nothing to press: nobody retries everything by mistake.
    browser
        .goto(&format!("{}/#/operations", stack.api().base()))
        .await;
    wait_for_rows(&browser, &["bad-1", "bad-2", "bad-3", "good", "other"]).await;
    let is_hidden = "return document.querySelector('.bulk').hidden";
    assert_eq!(browser.run(is_hidden).await, true);

    // The question says what would happen, and changes nothing.
    browser.view("#/operations?label=batch:a").await;
    wait_for_rows(&browser, &["bad-1", "bad-2", "bad-3", "good"]).await;
    browser.wait_for_text(".bulk", "All 4 that match").await;
    browser.click("[data-action='retry all…']").await;
    browser
        .wait_for_text(".bulk-text", "4 operations match. 3 can be retried.")
        .await;
    browser.click(".bulk-refused summary").await;
    browser.wait_for_text(".bulk-refused", "good").await;
    browser.screenshot("operations-bulk").await;
    browser
        .run("document.querySelector('.bulk-text').focus()")
        .await;
    assert_eq!(stack.api().operations("").await.at("/data/total"), 5);
    let count = "window.posts = 0;
        const { fetch } = window;
        window.fetch = (...request) => {
            if (request[1]?.method === 'POST') window.posts += 1;
            return fetch(...request);
        };";
    browser.run(count).await;

    // The text has the focus, so a second Enter does nothing; Tab leads to the button.
    browser.press(Browser::ENTER).await;
    browser.press("\u{e004}").await;
    let focused = "return document.activeElement.innerText";
    assert_eq!(browser.run(focused).await, "Retry 3 operations");
    assert_eq!(browser.run("return window.posts").await, 0);
    browser.press(Browser::ENTER).await;
    browser
        .wait_for_text(".bulk-text", "Retried: 3 operations.")
        .await;
    assert_eq!(browser.run("return window.posts").await, 1);
    for id in ["bad-1", "bad-2", "bad-3"] {
        browser
            .wait_for_text(&format!("tr[data-id='{id}'] .actions"), "Retried")
            .await;
    }
    assert_eq!(stack.api().operations("").await.at("/data/total"), 8);
    let other = stack.api().operation("other").await;
    assert_eq!(other.at("/data/retried_as"), &Value::Null);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn all_that_wait_are_cancelled_and_what_another_filter_names_goes_on() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let long = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    stack.api().running("dummy", &long).await;
    for id in ["one", "two"] {
        labelled(&stack, id, "a", json!({"steps": 0})).await;
    }
    labelled(&stack, "three", "b", json!({"steps": 0})).await;
    browser.look(false, 390).await;
    browser
        .goto(&format!(
            "{}/#/operations?label=batch:a&status=pending",
            stack.api().base()
        ))
        .await;
    wait_for_rows(&browser, &["one", "two"]).await;

    // What waits cannot be retried.
    let offered = "return document.querySelector('.bulk-offer').innerText";
    let offered = browser.run(offered).await;
    assert!(!offered.as_str().unwrap().contains("Retry"), "{offered}");

    // Escape answers the question with no.
    let ask = "[data-action='cancel all…']";
    browser.click(ask).await;
    browser
        .wait_for_text(".bulk-text", "2 operations match. 2 can be cancelled.")
        .await;
    browser.screenshot("operations-bulk-phone").await;
    browser.press(Browser::ESCAPE).await;
    let focused = "return document.activeElement.dataset.action";
    assert_eq!(browser.run(focused).await, "cancel all…");
    stack.api().wait_for_status("one", "pending").await;

    browser.click(ask).await;
    browser.click(".bulk-panel .danger").await;
    browser
        .wait_for_text(".bulk-text", "asked to stop: 2 operations.")
        .await;
    wait_for_rows(&browser, &[]).await;
    for id in ["one", "two"] {
        stack.api().wait_for_status(id, "cancelled").await;
    }
    stack.api().wait_for_status("three", "pending").await;
    stack.api().wait_for_status("long", "running").await;

    // Another filter is another question.
    browser.view("#/operations?status=completed").await;
    browser.wait_for_text("main", "No operation matches").await;
    let shown = "return document.querySelector('.bulk-panel').hidden";
    assert_eq!(browser.run(shown).await, true);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn rows_are_picked_by_mouse_or_key_and_only_they_are_cancelled_or_retried() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    labelled(&stack, "bad", "a", failing()).await;
    stack.api().wait_for_status("bad", "failed").await;
    let long = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    stack.api().running("dummy", &long).await;
    for id in ["one", "two"] {
        labelled(&stack, id, "a", json!({"steps": 0})).await;
    }
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/operations", stack.api().base()))
        .await;
    wait_for_rows(&browser, &["bad", "long", "one", "two"]).await;

    browser.click("tr[data-id='bad'] .pick").await;
    browser
        .run("document.querySelector(\"tr[data-id='one'] a\").focus()")
        .await;
    browser.press("x").await;
    browser.wait_for_text(".bulk", "2 picked").await;
    browser.wait_for_text(".bulk", "Cancel 1").await;
    browser.click("[data-action='retry 1']").await;
    browser
        .wait_for_text(".bulk-text", "Retried: 1 operation.")
        .await;
    let left = "return document.querySelectorAll('.pick:checked').length";
    assert_eq!(browser.run(left).await, 0);

    browser.click("tr[data-id='one'] .pick").await;
    let cancel = "[data-action='cancel 1']";
    browser.click(cancel).await;
    browser.wait_for_text(cancel, "Really cancel?").await;
    browser.click(cancel).await;
    stack.api().wait_for_status("one", "cancelled").await;
    stack.api().wait_for_status("two", "pending").await;
    stack.api().wait_for_status("long", "running").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}
