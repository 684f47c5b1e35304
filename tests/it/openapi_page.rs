//! `/docs`: the page lists the routes and tries them.

use ktrdr_tests::Stack;
use ktrdr_tests::browser::Browser;

#[tokio::test]
async fn the_page_lists_the_routes_and_tries_them() {
    let stack = Stack::start().await;
    let page = stack.api().get("/docs").await.expect(200);
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );

    let Some(browser) = Browser::start().await else {
        return;
    };
    let _worker = stack.worker("dummy", "w1").await;
    browser.look(true, 1100).await;
    browser.goto(&format!("{}/docs", stack.api().base())).await;
    browser
        .wait(
            "the routes",
            "return document.querySelectorAll('.route').length > 20",
        )
        .await;

    browser.click("#start_dummy > summary").await;
    browser
        .fill(
            "#start_dummy textarea",
            r#"{"task_id": "from-the-docs", "steps": 1, "step_ms": 1}"#,
        )
        .await;
    browser.click("#start_dummy button[type=submit]").await;
    browser.wait_for_text("#start_dummy .answer", "202").await;
    browser
        .wait_for_text("#start_dummy .answer", "from-the-docs")
        .await;

    browser.screenshot("docs").await;
    stack
        .api()
        .wait_for_status("from-the-docs", "completed")
        .await;

    browser.look(false, 390).await;
    browser
        .wait(
            "no sideways scrolling",
            "return document.documentElement.scrollWidth <= innerWidth",
        )
        .await;
}
