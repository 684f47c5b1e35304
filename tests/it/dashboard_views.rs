//! How people work with the dashboard in a real browser: filters and the way back, retries without
//! leaving the list, keys, a thousand workers, what is read when.

use ktrdr_tests::browser::Browser;
use ktrdr_tests::{LIMIT, Stack, wait_for};
use serde_json::{Value, json};

/// The ids of the rows that are shown.
const ROWS: &str =
    "[...document.querySelectorAll('tbody tr[data-id]')].map((row) => row.dataset.id)";

/// Waits until the rows of exactly these operations are shown.
pub(crate) async fn wait_for_rows(browser: &Browser, ids: &[&str]) {
    let script = format!(
        "return JSON.stringify({ROWS}.sort()) === JSON.stringify({})",
        {
            let mut sorted = ids.to_vec();
            sorted.sort_unstable();
            json!(sorted)
        }
    );
    browser.wait(&format!("the rows {ids:?}"), &script).await;
}

/// Starts a dummy that fails, and waits for its end.
pub(crate) async fn failed(stack: &Stack, id: &str) {
    let body = json!({"steps": 3, "step_ms": 1, "fail_at_step": 1, "task_id": id});
    stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(id, "failed").await;
}

/// Starts a dummy, and waits for its end.
pub(crate) async fn completed(stack: &Stack, id: &str) {
    let body = json!({"steps": 2, "step_ms": 1, "task_id": id});
    stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(id, "completed").await;
}

#[tokio::test]
async fn the_way_back_leads_to_the_filtered_list_and_a_retry_stays_in_it() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    failed(&stack, "bad-1").await;
    failed(&stack, "bad-2").await;
    completed(&stack, "good").await;
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/operations", stack.api().base()))
        .await;
    wait_for_rows(&browser, &["bad-1", "bad-2", "good"]).await;

    // Every filter is a step of the history.
    let choose = |id: &str, value: &str| {
        format!(
            "const field = document.getElementById('{id}'); field.value = '{value}'; field.dispatchEvent(new Event('change'))"
        )
    };
    browser.run(&choose("filter-status", "failed")).await;
    wait_for_rows(&browser, &["bad-1", "bad-2"]).await;
    browser.run(&choose("filter-time", "1h")).await;
    browser.fill("#search", "bad-2").await;
    wait_for_rows(&browser, &["bad-2"]).await;
    browser.run("history.back()").await;
    wait_for_rows(&browser, &["bad-1", "bad-2"]).await;
    let filters = "return ['filter-status', 'filter-time', 'search'].map((id) => document.getElementById(id).value)";
    assert_eq!(browser.run(filters).await, json!(["failed", "1h", ""]));

    // To an operation and back.
    browser.click("tr[data-id='bad-1'] .op-about").await;
    browser.wait_for_text(".problem", "as asked").await;
    browser.run("history.back()").await;
    wait_for_rows(&browser, &["bad-1", "bad-2"]).await;
    assert_eq!(browser.run(filters).await, json!(["failed", "1h", ""]));

    // A retry leaves the user where they are. The row says that it has been dealt with, also after
    // the page is loaded again, and leads to the new operation.
    browser.click("tr[data-id='bad-1'] .actions button").await;
    browser
        .wait_for_text("tr[data-id='bad-1'] .actions", "Retried")
        .await;
    browser.wait_for_text("#toasts", "Retried as").await;
    assert_eq!(
        browser.run("return location.hash").await,
        "#/operations?status=failed&since=1h"
    );
    browser.run("location.reload()").await;
    browser
        .wait_for_text("tr[data-id='bad-1'] .actions a", "Retried")
        .await;
    browser.screenshot("operations-retried").await;
    browser.click("tr[data-id='bad-1'] .actions a").await;
    browser.wait_for_text("main .note", "Repeats bad-1").await;
    browser.click("main .note a").await;
    browser
        .wait_for_text("main .note", "It was run again as")
        .await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// Notes, before each page begins, when it asks for what.
const WATCH_REQUESTS: &str = "
    globalThis.asked = [];
    const realFetch = globalThis.fetch;
    globalThis.fetch = async (...request) => {
        const path = String(request[0]);
        const entry = {path, begun: performance.now(), headers: request[1]?.headers ?? {}};
        asked.push(entry);
        const response = await realFetch(...request);
        entry.answered = performance.now();
        return response;
    };";

#[tokio::test]
async fn a_view_is_read_once_and_without_results() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    completed(&stack, "one").await;
    browser.before_each_page(WATCH_REQUESTS).await;

    for (hash, what) in [
        ("#/operations", "/api/v1/operations?"),
        ("#/", "/api/v1/stats"),
        ("#/workers", "/api/v1/workers"),
    ] {
        browser.goto("about:blank").await;
        browser
            .goto(&format!("{}/{hash}", stack.api().base()))
            .await;
        browser.wait_until_live().await;
        browser
            .wait(
                "a row",
                "return document.querySelector('tbody tr[data-id]') !== null",
            )
            .await;

        let asked = browser.run("return asked").await;
        let asked = asked.as_array().unwrap();
        let is = |entry: &&Value, path: &str| entry["path"].as_str().unwrap().starts_with(path);
        let stream = asked
            .iter()
            .find(|entry| is(entry, "/api/v1/events"))
            .unwrap();
        let opened = stream["answered"].as_f64().unwrap();
        let (before, after): (Vec<_>, Vec<_>) = asked
            .iter()
            .filter(|entry| is(entry, what))
            .partition(|entry| entry["begun"].as_f64().unwrap() < opened);

        // What a slow stream does not bring is asked for without it.
        let was_slow = opened - stream["begun"].as_f64().unwrap() > 600.0;
        assert_eq!(after.len(), 1, "{hash}: {asked:?}");
        assert!(was_slow || before.is_empty(), "{hash}: {asked:?}");
        let all = Value::from(asked.clone()).to_string();
        assert!(!all.contains("include=result"), "{all}");
    }
}

#[tokio::test]
async fn pages_that_were_left_keep_no_stream() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let streams = async || {
        let stats = stack.api().get("/api/v1/stats").await.expect(200);
        stats.at("/data/event_streams/all").as_u64().unwrap()
    };

    // More visits than a browser has connections for one server.
    for _ in 0..8 {
        browser
            .goto(&format!("{}/#/workers", stack.api().base()))
            .await;
        browser.wait_for_text("tr[data-id='w1']", "available").await;
        browser.goto("about:blank").await;
    }
    let no_stream = async || match streams().await {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    };
    wait_for("the streams to end", LIMIT, no_stream).await;

    // The one that the user comes back to is live again.
    browser.run("history.back()").await;
    browser.wait_for_text("tr[data-id='w1']", "available").await;
    browser.wait_until_live().await;
    assert_eq!(streams().await, 1);
}

#[tokio::test]
async fn a_thousand_workers_are_a_table_that_finds_each() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    for number in 0..1000 {
        let (id, kind) = (format!("w-{number:04}"), ["dummy", "training"][number % 2]);
        let heartbeat = json!({
            "worker_id": id, "worker_type": kind, "instance": id, "status": "AVAILABLE",
            "endpoint_url": "http://127.0.0.1:1", "capabilities": {"gpu": number == 999, "cores": 4},
            "version": "1", "registered_at": "2026-01-01T00:00:00Z",
            "at": "2026-01-01T00:00:00Z", "interval_seconds": 3600.0, "slots": 1, "running": [],
        });
        let subject = format!("ktrdr.heartbeat.{kind}.{id}");
        stack.bus.publish(subject, heartbeat.to_string()).await;
    }
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/workers", stack.api().base()))
        .await;
    browser.wait_for_text(".page-head", "1000 workers").await;

    // Only what is on the screen is made; the page is as long as the list.
    let made = "return document.querySelectorAll('main tr').length";
    assert!(browser.run(made).await.as_u64() < Some(100));
    let height = browser.run("return document.body.scrollHeight").await;
    assert!(height.as_u64() > Some(30_000), "{height}");
    browser.screenshot("workers-1000").await;
    browser.run("scrollTo(0, document.body.scrollHeight)").await;
    browser.wait_for_text(".workers", "w-0999").await;
    assert!(browser.run(made).await.as_u64() < Some(100));

    // Found by id, by what it has, by its type; a group can be closed.
    browser.fill("#worker-search", "w-0777").await;
    wait_for_rows(&browser, &["w-0777"]).await;
    browser.fill("#worker-search", "\"gpu\":true").await;
    wait_for_rows(&browser, &["w-0999"]).await;
    browser.click("[data-type='training'] .group-toggle").await;
    wait_for_rows(&browser, &[]).await;
    browser.click("[data-type='training'] .group-toggle").await;
    browser.click("tr[data-id='w-0999'] .worker-id").await;
    browser.wait_for_text("#worker", "GPU").await;
    browser.wait_for_text("main", "It has run nothing").await;

    browser.look(false, 390).await;
    browser.view("#/workers").await;
    browser.wait_for_text(".workers", "w-0000").await;
    browser
        .wait(
            "no sideways scrolling",
            "return document.documentElement.scrollWidth <= innerWidth",
        )
        .await;
    browser.screenshot("workers-1000-phone").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn keys_go_through_the_list_and_act_on_a_row() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    failed(&stack, "bad").await;
    let running = json!({"steps": 100_000, "step_ms": 20, "task_id": "long"});
    stack.api().running("dummy", &running).await;
    browser.goto(stack.api().base()).await;
    browser.wait_until_live().await;

    // From everywhere to the search; there, letters are only letters.
    browser.press("/").await;
    browser
        .wait(
            "the focus in the search",
            "return document.activeElement?.id === 'search'",
        )
        .await;
    browser.press("j").await;
    assert_eq!(
        browser
            .run("return document.getElementById('search').value")
            .await,
        "j"
    );
    browser.view("#/operations?operation_type=dummy").await;
    wait_for_rows(&browser, &["bad", "long"]).await;

    // Newest first: the running one, then the failed one.
    let current = "return document.activeElement.closest('tr')?.dataset.id ?? ''";
    browser.press("j").await;
    assert_eq!(browser.run(current).await, "long");
    browser.press("j").await;
    assert_eq!(browser.run(current).await, "bad");
    browser.press("r").await;
    browser
        .wait_for_text("tr[data-id='bad'] .actions", "Retried")
        .await;
    browser
        .run("document.querySelector(\"tr[data-id='long'] a\").focus()")
        .await;
    // The first press asks. On a slow machine it has to be asked again.
    browser.press("c").await;
    browser
        .wait_for_text("tr[data-id='long'] .actions", "Really cancel?")
        .await;
    let again = "if (document.querySelector(\"tr[data-id='long'] .chip\").innerText === 'cancelled') return true;
         dispatchEvent(new KeyboardEvent('keydown', {key: 'c'})); return false";
    browser.wait("the cancel", again).await;

    // The list of keys, and the switch that turns them off.
    browser.press("?").await;
    browser.wait_for_text("dialog[open]", "Next row").await;
    browser.screenshot("keys").await;
    browser
        .run("[...document.querySelectorAll('dialog[open] button')].at(-1).click()")
        .await;
    browser.press(Browser::ESCAPE).await;
    browser.run("document.activeElement.blur()").await;
    browser.press("/").await;
    assert_ne!(
        browser.run("return document.activeElement.id").await,
        "search"
    );
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_row_keeps_the_focus_when_one_above_it_leaves() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _workers = (
        stack.worker("dummy", "w1").await,
        stack.worker("dummy", "w2").await,
    );
    for id in ["below", "above"] {
        let body = json!({"steps": 100_000, "step_ms": 20, "task_id": id});
        stack.api().running("dummy", &body).await;
    }
    browser
        .goto(&format!(
            "{}/#/operations?status=running",
            stack.api().base()
        ))
        .await;
    wait_for_rows(&browser, &["above", "below"]).await;
    browser
        .run("document.querySelector(\"tr[data-id='below'] a\").focus()")
        .await;

    stack.api().cancel("above").await.expect(200);

    wait_for_rows(&browser, &["below"]).await;
    let focus = "return document.activeElement.closest('tr')?.dataset.id ?? ''";
    assert_eq!(browser.run(focus).await, "below");
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_operation_says_why_it_was_not_retried_and_can_be_run_with_changes() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("backtesting", "w1").await;
    let request = json!({
        "symbol": "NOPE", "timeframe": "1d", "task_id": "no-bars",
        "strategy": {"type": "sma_cross", "fast": 3, "slow": 9},
        "execution": {"max_attempts": 3},
    });
    stack.api().started("backtests", &request).await;
    stack.api().wait_for_status("no-bars", "failed").await;

    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/operations/no-bars", stack.api().base()))
        .await;
    browser
        .wait_for_text("main .problem", "This failure is permanent")
        .await;
    browser.wait_for_text(".timeline", "Attempt 1 on w1").await;
    // It has saved nothing, so there is nothing to resume.
    browser.wait_for_text(".op-head .actions", "Retry").await;
    let actions = "return document.querySelector('.op-head .actions').innerText";
    assert_eq!(browser.run(actions).await, "Retry");
    browser.screenshot("operation-permanent").await;

    // The same with another symbol. The form has all values of the operation.
    browser.click("#main .columns a.button").await;
    browser
        .wait_for_text("main .note", "Filled in as no-bars")
        .await;
    let values = "const at = (path) => document.querySelector(`[data-path='${path}'] input`)?.value;
         return [at('/symbol'), at('/strategy/fast'), at('/strategy/slow'), at('/execution/max_attempts')]";
    assert_eq!(browser.run(values).await, json!(["NOPE", "3", "9", "3"]));
    browser.fill("[data-path='/symbol'] input", "IBM").await;
    browser.click("form button[type=submit]").await;
    browser.wait_for_text(".op-head .chip", "completed").await;

    // How it went stands first, above plots and parts.
    browser.wait_for_text("#verdict", "Equity curve").await;
    browser.wait_for_text("#result", "Sharpe").await;
    let order = "return [...document.querySelectorAll('#verdict, #metrics, .columns, #result')]
        .map((one) => one.id || one.className)";
    assert_eq!(
        browser.run(order).await,
        json!(["verdict", "metrics", "columns", "result"])
    );
    browser.screenshot("operation-verdict").await;
    let started = stack.api().operations("limit=1").await;
    assert_eq!(
        started.at("/data/operations/0/metadata/strategy"),
        &json!({"type": "sma_cross", "fast": 3, "slow": 9})
    );
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// Scrolls as a user does who wants to press the button.
const SHOW_BUTTON: &str =
    "document.querySelector('form button[type=submit]').scrollIntoView({block: 'center'})";

#[tokio::test]
async fn nothing_jumps_on_a_phone_and_no_banner_covers_a_button() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    browser.look(false, 390).await;
    browser
        .before_each_page(
            "globalThis.heights = new Set();
             new MutationObserver(() => {
                 const header = document.querySelector('.top');
                 // Not before the sheet is there.
                 const hasSheet = header && getComputedStyle(header).display === 'flex';
                 if (hasSheet) heights.add(Math.round(header.getBoundingClientRect().height));
             }).observe(document, {subtree: true, childList: true, attributes: true});",
        )
        .await;
    browser
        .goto(&format!("{}/#/start/dummy", stack.api().base()))
        .await;
    browser.wait_until_live().await;
    browser.fill("[data-path='/steps'] input", "3").await;

    stack.backend.process.kill();
    browser.wait_for_text("#banner", "Disconnected").await;
    browser.screenshot("disconnected-phone").await;
    // The button takes a press although the banner is there, and the page says what happened.
    browser.run(SHOW_BUTTON).await;
    browser.click("form button[type=submit]").await;
    browser
        .wait_for_text("form .problem", "it starts once")
        .await;

    stack.backend.restart().await;
    browser.wait_until_live().await;
    assert_eq!(
        browser
            .run("return [...heights]")
            .await
            .as_array()
            .unwrap()
            .len(),
        1,
        "the header has one height in all states"
    );
    browser.run(SHOW_BUTTON).await;
    browser.click("form button[type=submit]").await;
    browser.wait_for_text(".op-head .chip", "completed").await;
}

#[tokio::test]
async fn back_does_not_lead_into_a_page_beyond_the_end() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    completed(&stack, "only").await;
    let base = stack.api().base();
    browser.goto(&format!("{base}/#/workers")).await;
    browser.wait_for_text("tr[data-id='w1']", "available").await;

    // A link to a page that operations have left meanwhile shows the last one instead.
    browser
        .goto(&format!("{base}/#/operations?offset=5000"))
        .await;
    wait_for_rows(&browser, &["only"]).await;
    assert_eq!(browser.run("return location.hash").await, "#/operations");

    browser.run("history.back()").await;
    browser.wait_for_text("tr[data-id='w1']", "available").await;
}

#[tokio::test]
async fn the_overview_says_how_operations_ended_and_leads_to_exactly_those() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    failed(&stack, "bad").await;
    completed(&stack, "good").await;
    let base = stack.api().base();
    browser.look(false, 1440).await;

    browser.goto(base).await;
    browser
        .wait_for_text("#ended tbody tr", "Dummy: Engine error")
        .await;
    let seconds = "return [...document.querySelectorAll('#ended dd')].every((one) => /s p95 .*s$/.test(one.innerText))";
    browser.wait("percentiles of both times", seconds).await;
    browser.screenshot("overview-ended").await;

    for link in ["#ended tbody a", ".tile[data-mark='failed']"] {
        browser.goto(&format!("{base}/#/")).await;
        browser.wait_for_text("#ended tbody tr", "Dummy").await;
        browser.click(link).await;
        wait_for_rows(&browser, &["bad"]).await;
        browser.wait_for_text(".filter-chips", "Ended since").await;
    }
    let since = "return new URLSearchParams(location.hash.split('?')[1]).get('ended_after')";
    let since = browser.run(since).await;
    let query = format!("ended_after={}", since.as_str().unwrap());
    let listed = stack.api().operations(&query).await.expect(200);
    assert_eq!(listed.at("/data/total"), 2);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_form_has_the_order_and_the_examples_of_the_author() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("data_processing", "w1").await;
    browser
        .goto(&format!("{}/#/start/data_processing", stack.api().base()))
        .await;
    browser.wait_for_text("form", "Fill in an example").await;
    // The fields in the order of their author, with the author's examples to choose from.
    let paths = "return [...document.querySelectorAll('.form-body > .fields > [data-path]')].map((field) => field.dataset.path)";
    let paths = browser.run(paths).await;
    assert_eq!(paths[0], "/source_file");
    assert_eq!(paths[2], "/operations");
    let suggested =
        "return document.querySelector(\"[data-path='/source_file'] input\").list.options[0].value";
    assert_eq!(browser.run(suggested).await, "messy/titanic.csv");

    // An example does not change how to run it.
    browser.click("details.options > summary").await;
    browser
        .fill("[data-path='/execution/max_attempts'] input", "2")
        .await;
    browser.fill("[data-path='/task_id'] input", "mine").await;
    // The header would cover the button.
    browser.run("scrollTo(0, 0)").await;
    browser.click(".form-tools > button").await;
    let entered =
        "const value = (path) => document.querySelector(`[data-path='${path}'] input`)?.value;
        return [value('/execution/max_attempts'), value('/task_id'), value('/source_file') !== '']";
    assert_eq!(browser.run(entered).await, json!(["2", "mine", true]));
}
