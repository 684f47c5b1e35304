//! What is seen of the dashboard at every width: long names hide nothing, and a page of something that
//! is not there is no empty shell.

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::Stack;
use ktrdr_tests::browser::Browser;
use serde_json::json;

use crate::dashboard_views::{completed, failed, wait_for_rows};

const TYPE: &str = "market_report_builder_for_all_regions_and_all_years";

/// Stores a start request for workers of [`TYPE`], which are not there.
async fn store(stack: &Stack, id: &str) {
    let word = "verylong".repeat(30);
    let request = json!({
        "operation_id": id, "operation_type": TYPE, "created_at": Timestamp::now(),
        "parameters": {"title": "A title of some words", &word: &word, "lines": "one\ntwo"},
        "execution": {"labels": {"made_by": word, "b": "2", "c": "3", "d": "4"}},
    });
    let subject = stack.bus.names.start(
        &WorkerType::new(TYPE).unwrap(),
        &Origin::from_token("any").unwrap(),
    );
    stack.bus.store(subject, request.to_string()).await;
}

#[tokio::test]
async fn long_names_hide_nothing_at_any_width() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    store(&stack, "long").await;
    let base = stack.api().base();
    let fits = "return document.documentElement.scrollWidth <= innerWidth";

    // The link of a row and its progress have room; only some labels are shown, and how many more there
    // are.
    for (width, labels) in [
        (1440, 3),
        (1240, 2),
        (1100, 2),
        (981, 2),
        (760, 2),
        (390, 3),
    ] {
        browser.look(false, width).await;
        browser.goto("about:blank").await;
        browser.goto(&format!("{base}/#/operations")).await;
        wait_for_rows(&browser, &["long"]).await;
        let row =
            "const width = (selector) => document.querySelector(`tbody tr[data-id] ${selector}`)
                .getBoundingClientRect().width;
            return [width('.op-about') > 70, width('.cell-progress') > 60 || innerWidth < 721,
                document.querySelectorAll('tbody .tags a').length,
                document.querySelector('tbody .tags span').innerText]";
        let wanted = json!([true, true, labels, format!("+{}", 4 - labels)]);
        assert_eq!(browser.run(row).await, wanted, "{width}");
        browser.wait("no sideways scrolling", fits).await;
        browser.screenshot(&format!("long-names-{width}")).await;
    }

    // Nor is the header ever wider than the page.
    for width in [1341, 1321, 1001, 976, 961, 960, 721] {
        browser.look(false, width).await;
        let whole = "const { scrollWidth, clientWidth } = document.querySelector('.top');
            return scrollWidth <= clientWidth";
        browser.wait(&format!("the header at {width}"), whole).await;
    }

    // Names that users chose stay as they are, lines stay lines, and values are beside their names.
    for width in [1440, 1100, 390] {
        browser.look(false, width).await;
        browser.view("#/operations/long").await;
        browser.wait_for_text(".columns", "made_by").await;
        browser.wait("no sideways scrolling", fits).await;
        let values = "return [...document.querySelectorAll('.columns .string')].every((one) => {
                const { width, right } = one.closest('dd').getBoundingClientRect();
                return width > 80 && right <= innerWidth
                    && getComputedStyle(one).whiteSpace.startsWith('pre-wrap');
            })";
        browser.wait("values that can be read", values).await;
        browser
            .screenshot(&format!("long-names-operation-{width}"))
            .await;
        browser.view("#/operations").await;
    }

    // The table of queues is whole on the overview.
    for width in [1440, 1240, 1000] {
        browser.look(false, width).await;
        browser.view("#/").await;
        browser.wait_for_text(".queue-sums", "Market").await;
        let whole =
            "return [...document.querySelectorAll('.queue-sums, .type-sums')].every((one) =>
            [one, ...one.querySelectorAll('*')].every(({ scrollWidth, clientWidth, tagName }) =>
                tagName !== 'DIV' || scrollWidth <= clientWidth))";
        browser.wait("whole tables", whole).await;
    }
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_there_has_a_message_and_the_way_back() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let base = stack.api().base();
    browser.look(false, 1440).await;
    browser.goto(base).await;
    browser.wait_until_live().await;

    for (view, list) in [
        ("operations", "Operations"),
        ("workers", "Workers"),
        ("schedules", "Schedules"),
    ] {
        browser.view(&format!("#/{view}/none")).await;
        let alone = format!(
            "const shown = [...document.querySelectorAll('#main > *')].filter((one) => one.offsetParent);
             return shown.length === 2 && shown[0].innerText.trim() === '{list}'
                && shown[1].matches('.problem') && shown[1].innerText.includes('none')"
        );
        browser
            .wait(&format!("only a message of {view}"), &alone)
            .await;
        browser.screenshot(&format!("none-of-{view}")).await;
    }

    // It is shown once it is there.
    browser.view("#/workers/w1").await;
    browser.wait_for_text(".problem", "w1").await;
    let _worker = stack.worker("dummy", "w1").await;
    browser.wait_for_text(".page-head .chip", "available").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_error_has_the_place_of_progress_and_worker_at_every_width() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    failed(&stack, "bad").await;
    completed(&stack, "good").await;
    // In a failed row each cell stands below the heading that it stands below in others, and the error
    // reaches no cell that shows something.
    let aligned = "
        const row = document.querySelector(\"tr[data-id='bad']\");
        const other = document.querySelector(\"tr[data-id='good']\");
        if (!row || !other) return null;
        const shown = (row) => [...row.children].filter((cell) => cell.offsetWidth > 0);
        const lefts = (row) => shown(row).map((cell) => Math.round(cell.getBoundingClientRect().left));
        const said = row.querySelector('.said').getBoundingClientRect();
        const created = row.querySelector('.created').getBoundingClientRect();
        return [JSON.stringify(lefts(row)) === JSON.stringify(lefts(other)), said.right <= created.left];";

    for width in [1440, 1100, 900, 760] {
        browser.look(false, width).await;
        browser
            .goto(&format!("{}/#/operations", stack.api().base()))
            .await;
        wait_for_rows(&browser, &["bad", "good"]).await;
        assert_eq!(
            browser.wait("both rows", aligned).await,
            json!([true, true]),
            "{width}"
        );
        browser
            .screenshot(&format!("operations-failed-{width}"))
            .await;
    }
}
