//! Schedules on the dashboard, in a real browser: made, changed, run, paused, deleted; found from
//! their operations.

use ktrdr_tests::browser::Browser;
use ktrdr_tests::{Client, Stack};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(api: &Client, id: &str, schedule: &Value) {
    let path = format!("/api/v1/schedules/{id}");
    let request = api.request(Method::PUT, &path).json(schedule);
    api.send(request).await.expect(201);
}

const SAVE: &str = "form.start-form > .form-end button[type=submit]";

#[tokio::test]
async fn a_schedule_is_made_run_paused_changed_and_deleted() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/schedules", stack.api().base()))
        .await;
    browser
        .wait_for_text("main", "No schedule is here yet")
        .await;

    // Each field says why the backend refused it, also those of the body.
    browser.click(".page-head a.button").await;
    browser.fill("[data-path='/id'] input", "night ly").await;
    browser
        .fill("[data-path='/cron'] input", "61 9 * * *")
        .await;
    browser
        .fill("[data-path='/time_zone'] input", "Europe/Berlin")
        .await;
    browser.fill("[data-path='/steps'] input", "-5").await;
    browser.click(SAVE).await;
    browser
        .wait_for_text("[data-path='/id'] .field-error", "characters")
        .await;
    browser.fill("[data-path='/id'] input", "nightly").await;
    browser.click(SAVE).await;
    browser
        .wait_for_text("[data-path='/cron'] .field-error", "minute")
        .await;
    browser
        .fill("[data-path='/cron'] input", "30 9 * * MON-FRI")
        .await;
    browser
        .wait_for_text(".cron-reading", "09:30 on weekdays, Europe/Berlin")
        .await;
    browser.click(SAVE).await;
    browser
        .wait_for_text("[data-path='/steps'] .field-error", "minimum")
        .await;
    browser.fill("[data-path='/steps'] input", "0").await;
    browser.screenshot("schedule-form").await;
    browser.click(SAVE).await;

    // Its page: in words, and in both time zones.
    browser
        .wait_for_text("#schedule h2", "09:30 on weekdays")
        .await;
    browser
        .wait_for_text("#schedule .slots", "Europe/Berlin")
        .await;
    let stored = stack.api().get("/api/v1/schedules/nightly").await;
    assert_eq!(stored.at("/data/body/steps"), 0);
    assert_eq!(stored.at("/data/overlap"), "skip");
    browser.click("[data-action='run now']").await;
    browser
        .wait_for_text("tbody tr[data-id] .chip", "completed")
        .await;
    browser.wait_for_text("#schedule", "by hand").await;
    browser.screenshot("schedule").await;
    browser.click("[data-action='pause']").await;
    browser
        .wait_for_text("#schedule .slots", "None while it is paused")
        .await;

    // A change begins with what it is, and keeps what is not changed.
    browser.click(".op-head a.button").await;
    browser
        .fill("[data-path='/cron'] input", "*/15 * * * *")
        .await;
    browser.click(SAVE).await;
    browser
        .wait_for_text("#schedule h2", "Every 15 minutes")
        .await;
    let stored = stack.api().get("/api/v1/schedules/nightly").await;
    assert_eq!(stored.at("/data/paused"), true);
    assert_eq!(stored.at("/data/time_zone"), "Europe/Berlin");
    assert_eq!(stored.at("/data/body/steps"), 0);

    // A new one does not take the place of another by mistake.
    browser.view("#/new-schedule").await;
    browser.fill("[data-path='/id'] input", "nightly").await;
    browser.fill("[data-path='/cron'] input", "0 1 * * *").await;
    browser.click(SAVE).await;
    browser
        .wait_for_text("[data-path='/id'] .field-error", "already")
        .await;

    // The list, and the end.
    browser.view("#/schedules").await;
    let row = "tr[data-id='nightly']";
    browser.wait_for_text(row, "Every 15 minutes").await;
    browser.wait_for_text(row, "paused").await;
    browser
        .click(&format!("{row} [data-action='resume']"))
        .await;
    browser.wait_for_text(&format!("{row} .chip"), "on").await;
    browser.screenshot("schedules").await;
    browser.fill("#schedule-search", "no such").await;
    browser.wait_for_text("main", "has this text in it").await;
    browser.fill("#schedule-search", "15 min").await;
    browser.click(&format!("{row} .op-about")).await;
    let delete = "[data-action='delete']";
    browser.click(delete).await;
    browser.wait_for_text(delete, "Really delete?").await;
    browser.click(delete).await;
    browser
        .wait_for_text("main", "No schedule is here yet")
        .await;
    let gone = stack.api().get("/api/v1/schedules/nightly").await;
    gone.expect_problem(404, "schedule_not_found");
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_schedule_leads_to_its_operations_and_back_also_on_a_phone() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let labels = json!({"night": "yes", "team": "alpha", "symbol": "GOOG", "venue": "XETRA"});
    let body = json!({"steps": 0, "execution": {"labels": labels}});
    put(
        stack.api(),
        "tick",
        &json!({"domain": "dummy", "body": body, "cron": "*/3 * * * * *", "overlap": "replace"}),
    )
    .await;
    let elsewhere = json!({"steps": 0, "task_id": "elsewhere"});
    stack.api().started("dummy", &elsewhere).await;
    browser.look(false, 390).await;
    browser
        .goto(&format!("{}/#/schedules", stack.api().base()))
        .await;
    browser
        .wait_for_text("tr[data-id='tick']", "Every 3 seconds")
        .await;
    fits_the_phone(&browser, "schedules").await;

    browser.click("tr[data-id='tick'] .op-about").await;
    browser
        .wait_for_text("tbody tr[data-id^='tick-'] .chip", "completed")
        .await;
    fits_the_phone(&browser, "schedule").await;
    // It starts no further ones meanwhile.
    browser.click("[data-action='pause']").await;
    browser
        .wait_for_text("#schedule .slots", "None while it is paused")
        .await;
    browser.view("#/operations?schedule_id=tick").await;
    browser
        .wait_for_text(".filter-chips", "Schedule: tick")
        .await;
    let ids = "const rows = [...document.querySelectorAll('tbody tr[data-id]')];
        return rows.length > 0 && rows.every((row) => row.dataset.id.startsWith('tick-'))";
    browser.wait("rows of the schedule alone", ids).await;
    let shown = "return document.querySelectorAll('tbody tr:first-child .tags a').length";
    assert_eq!(browser.run(shown).await, 3);
    fits_the_phone(&browser, "operations-of-schedule").await;

    // A label in a row narrows the list.
    browser.click("tbody tr:first-child .tags a").await;
    browser.wait_for_text(".filter-chips", "night").await;
    browser
        .wait_for_text(".filter-chips", "Schedule: tick")
        .await;
    browser.click("tbody tr:first-child .op-about").await;
    browser
        .wait_for_text(".op-line", "Started by the schedule tick")
        .await;
    browser.click(".op-line a").await;
    browser
        .wait_for_text("#schedule h2", "Every 3 seconds")
        .await;
    browser.view("#/new-schedule").await;
    browser.wait_for_text("form", "Cron line").await;
    fits_the_phone(&browser, "schedule-form").await;
    browser.view("#/queues").await;
    browser
        .wait_for_text("tbody[data-type='dummy']", "any")
        .await;
    fits_the_phone(&browser, "queues").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_slot_that_was_refused_says_why() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 0});
    // While one waits for a worker that does not come, `skip` would leave the slots out.
    let schedule =
        json!({"domain": "dummy", "body": body, "cron": "* * * * * *", "overlap": "replace"});
    put(stack.api(), "tick", &schedule).await;
    worker.process.stop().await;
    stack.api().wait_to_forget("dummy").await;

    browser.look(false, 1440).await;
    browser
        .goto(&format!("{}/#/schedules", stack.api().base()))
        .await;
    let row = "tr[data-id='tick']";
    browser
        .wait_for_text(&format!("{row} .chip"), "refused")
        .await;
    browser.wait_for_text(row, "dummy").await;
    browser.screenshot("schedules-refused").await;
    browser.click(&format!("{row} .op-about")).await;
    browser
        .wait_for_text("main > div.problem", "unknown_domain")
        .await;
    // Its page has the same state as its row.
    browser
        .wait_for_text(".op-head .chip[data-status='failed']", "refused")
        .await;
    browser.screenshot("schedule-refused").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// Nothing scrolls sideways, and everything that can be pressed is large enough for a finger.
async fn fits_the_phone(browser: &Browser, name: &str) {
    browser
        .wait(
            "no sideways scrolling",
            "return document.documentElement.scrollWidth <= innerWidth",
        )
        .await;
    browser.screenshot(&format!("{name}-phone")).await;
    let small = "return [...document.querySelectorAll('main :is(a, button, select, summary)')]
        .filter((one) => one.closest('p, dd, li') === null && one.getClientRects().length > 0)
        .map((one) => [one.innerText, one.getBoundingClientRect().height])
        .filter(([, height]) => height < 23.5)";
    assert_eq!(browser.run(small).await, json!([]), "{name}: too small");
}
