//! What the dashboard does about queues: labels that find, queues that are paused, workers that are
//! drained.

use ktrdr_tests::Stack;
use ktrdr_tests::browser::Browser;
use serde_json::json;

use crate::dashboard_views::{completed, wait_for_rows};

#[tokio::test]
async fn a_label_leads_to_all_operations_with_it() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for (id, symbol) in [("one", "GOOG"), ("two", "GOOG"), ("other", "IBM")] {
        let labels = json!({"symbol": symbol, "night": id});
        let body = json!({"steps": 0, "task_id": id, "execution": {"labels": labels}});
        stack.api().started("dummy", &body).await;
        stack.api().wait_for_status(id, "completed").await;
    }
    let base = stack.api().base();

    browser.goto(&format!("{base}/#/operations/one")).await;
    browser
        .wait_for_text(".op-head .tags", "symbol: GOOG")
        .await;
    browser
        .click(".op-head .tags a[href='#/operations?label=symbol%3AGOOG']")
        .await;
    wait_for_rows(&browser, &["one", "two"]).await;

    // Another one narrows it, and each goes by itself.
    browser.fill("#filter-label", "night:two").await;
    browser.press(Browser::ENTER).await;
    wait_for_rows(&browser, &["two"]).await;
    browser.screenshot("operations-labels").await;
    browser.click(".filter-chip button").await;
    browser.wait_for_text(".filter-chips", "night:two").await;
    browser.click(".filter-chip button").await;
    wait_for_rows(&browser, &["one", "other", "two"]).await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn queues_are_paused_and_workers_drained() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    completed(&stack, "before").await;
    let base = stack.api().base();
    browser.look(false, 1440).await;

    // It asks for how long.
    browser.goto(&format!("{base}/#/")).await;
    browser.click("[data-action='pause']").await;
    browser.wait_for_text("dialog[open]", "Pause Dummy").await;
    browser.click("[data-action='confirm-pause']").await;
    browser
        .wait_for_text(".chip[data-status='paused']", "paused")
        .await;
    let body = json!({"steps": 0, "task_id": "held"});
    stack.api().started("dummy", &body).await;
    browser
        .wait_for_text(".attention", "Dummy is paused: 1 pending")
        .await;
    browser.screenshot("overview-paused").await;

    // So does the operation that waits for it.
    browser.view("#/operations/held").await;
    browser
        .wait_for_text("main .note", "Dummy is paused until somebody resumes it")
        .await;
    browser.view("#/").await;
    browser.click("[data-action='resume']").await;
    stack.api().wait_for_status("held", "completed").await;

    browser.goto(&format!("{base}/#/workers/w1")).await;
    let drain = "[data-action='drain']";
    browser.click(drain).await;
    browser.wait_for_text(drain, "Take no more work?").await;
    browser.click(drain).await;
    browser
        .wait_for_text(".page-head .chip[data-status='DRAINING']", "draining")
        .await;
    browser.click("[data-action='take work again']").await;
    browser
        .wait_for_text(".page-head .chip[data-status='AVAILABLE']", "available")
        .await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_type_without_workers_says_what_is_pending() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    worker.process.stop().await;
    stack.api().started("dummy", &json!({"steps": 0})).await;
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/workers", stack.api().base()))
        .await;

    let entry = ".unserved [data-type='dummy']";
    browser.wait_for_text(entry, "1 pending").await;
    browser.screenshot("workers-unserved").await;
    let link = format!("{entry} a[href='#/operations?operation_type=dummy&status=pending']");
    browser.click(&link).await;
    browser.wait_for_text("tbody tr[data-id]", "pending").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// Chooses in a select, as a user does.
async fn choose(browser: &Browser, selector: &str, value: &str) {
    let script = format!(
        "const field = document.querySelector({}); field.value = {}; field.dispatchEvent(new Event('change'))",
        json!(selector),
        json!(value)
    );
    browser.run(&script).await;
}

#[tokio::test]
async fn the_page_of_queues_shows_each_and_pauses_for_a_time() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let long = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    stack.api().running("dummy", &long).await;
    for (id, execution) in [
        ("first", json!({"priority": 1})),
        ("usual", json!({})),
        ("later", json!({"delay_seconds": 600})),
        ("gpu", json!({"requirements": {"gpu": true}})),
    ] {
        let body = json!({"steps": 0, "task_id": id, "execution": execution});
        stack.api().started("dummy", &body).await;
    }
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/queues", stack.api().base()))
        .await;

    // Queue, priority, waiting, running, delayed, oldest, workers.
    let rows = "return JSON.stringify([...document.querySelectorAll(\"[data-type='dummy'] tr:not(.type-row)\")]
        .map((row) => [...row.children].map((cell) => cell.innerText))
        .map((cells) => [...cells.slice(0, 5), cells[6]]))";
    let wanted = json!([
        ["any-p1", "1", "1", "0", "0", "1"],
        ["any", "3", "1", "1", "1", "1"],
        ["gpu", "3", "1", "0", "0", "0"],
    ]);
    let script = format!("{} === {}", rows.trim_end(), json!(wanted.to_string()));
    browser.wait("the queues", &script).await;
    browser.screenshot("queues").await;

    let pause = "[data-type='dummy'] [data-action='pause']";
    browser.click(pause).await;
    choose(&browser, "#pause-until", "3600").await;
    browser.click("[data-action='confirm-pause']").await;
    browser
        .wait_for_text("[data-type='dummy'] .type-row", "until ")
        .await;
    let queues = stack.api().get("/api/v1/queues").await.expect(200);
    let until = queues.at("/data/queues/0/paused_until").clone();
    let end: ktrdr_protocol::time::Timestamp = serde_json::from_value(until).unwrap();
    let ahead = end.seconds_since(ktrdr_protocol::time::Timestamp::now());
    assert!((3300.0..3700.0).contains(&ahead), "{ahead}");
    browser
        .click("[data-type='dummy'] [data-action='resume']")
        .await;
    browser.wait_for_text(pause, "Pause").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_says_for_what_and_takes_another_priority() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let long = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    stack.api().running("dummy", &long).await;
    for (id, execution) in [
        ("later", json!({"delay_seconds": 600})),
        ("late", json!({"queue_timeout_seconds": 1})),
    ] {
        let body = json!({"steps": 0, "task_id": id, "execution": execution});
        stack.api().started("dummy", &body).await;
    }
    browser.look(false, 1440).await;
    let base = stack.api().base();
    browser.goto(&format!("{base}/#/operations")).await;
    let row = "tr[data-id='later']";
    browser
        .wait_for_text(&format!("{row} .chip"), "delayed")
        .await;
    browser.wait_for_text(row, "Starts in ").await;
    browser
        .wait_for_text("tr[data-id='late'] .chip", "expired")
        .await;
    browser.screenshot("operations-delayed").await;

    browser.click(&format!("{row} .op-about")).await;
    browser.wait_for_text(".op-head .chip", "delayed").await;
    browser.wait_for_text("#progress", "Starts in ").await;
    browser.wait_for_text("main .note", "at the earliest").await;
    choose(&browser, "#priority", "1").await;
    browser.wait_for_text(".timeline", "Moved").await;
    browser.wait_for_text(".timeline", "any-p1-later").await;
    assert_eq!(stack.api().operation("later").await.at("/data/priority"), 1);
    browser.screenshot("operation-delayed").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_start_takes_time_order_and_labels_from_the_form() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/start/dummy", stack.api().base()))
        .await;
    browser
        .wait_for_text("form", "When and in which order")
        .await;
    browser
        .run("document.querySelectorAll('details.options').forEach((one) => { one.open = true })")
        .await;

    browser
        .fill("[data-path='/execution/priority'] input", "2")
        .await;
    browser
        .run(
            "const field = document.querySelector(\"[data-path='/execution/start_at'] input\");
            const at = new Date(Date.now() + 3600000 - new Date().getTimezoneOffset() * 60000);
            field.value = at.toISOString().slice(0, 19)",
        )
        .await;
    browser
        .click("[data-path='/execution/labels'] button")
        .await;
    browser
        .fill("[data-path='/execution/labels'] .item input", "night")
        .await;
    browser
        .fill(
            "[data-path='/execution/labels'] .item > [data-path] input",
            "yes",
        )
        .await;
    browser.screenshot("start-when").await;
    browser.click("form.start-form button[type=submit]").await;
    browser.wait_for_text(".op-head .chip", "delayed").await;
    browser.wait_for_text(".op-head .tags", "night: yes").await;
    let page = stack.api().operations("").await;
    assert_eq!(page.at("/data/operations/0/priority"), 2);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}
