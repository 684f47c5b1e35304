//! Log lines on the dashboard: they come while an operation runs, and are found by level and text.

use ktrdr_tests::Stack;
use ktrdr_tests::browser::Browser;
use ktrdr_tests::talk::TalkEngine;
use serde_json::json;

#[tokio::test]
async fn log_lines_come_while_it_runs_and_are_filtered() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let base = stack.api().base();
    browser.look(false, 1440).await;
    let body = json!({"task_id": "one", "lines": 400, "pause_ms": 20, "ways": true,
        "text": " <img src=x onerror=alert(1)>"});
    stack.api().started("talk", &body).await;

    browser.goto(&format!("{base}/#/operations/one")).await;
    browser
        .wait_for_text("#logs .log-lines", "with fields rows=7")
        .await;
    browser
        .wait_for_text("#logs .log-lines", "line 3 <img src=x onerror=alert(1)>")
        .await;
    browser.screenshot("operation-logs").await;

    // A line that somebody reads stays the same element while others come.
    browser
        .run(
            "globalThis.read = document.querySelector('#logs .log-line');
             getSelection().selectAllChildren(globalThis.read)",
        )
        .await;
    stack.api().wait_for_status("one", "completed").await;
    browser.wait_for_text("#logs .log-lines", "line 399").await;
    let kept = "return [globalThis.read.isConnected, getSelection().toString() !== '']";
    assert_eq!(browser.run(kept).await, json!([true, true]));
    // Nothing comes any more.
    browser
        .wait(
            "no choice to follow",
            "return document.querySelector('#log-follow').offsetParent === null",
        )
        .await;

    browser.fill("#log-search", "line 399").await;
    let one = "return document.querySelectorAll('#logs .log-line').length === 1";
    browser.wait("one line", one).await;
    browser.fill("#log-search", "no such text").await;
    browser.wait_for_text("#logs", "No line matches").await;
    browser.fill("#log-search", "").await;
    browser
        .run("const level = document.querySelector('#log-level'); level.value = 'warn'; level.dispatchEvent(new Event('change'))")
        .await;
    browser.wait("the only warning", one).await;
    browser
        .wait_for_text("#logs .log-lines", "with fields")
        .await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}
