//! A page asks for a token, keeps it, and forgets it.

use ktrdr_tests::browser::Browser;
use ktrdr_tests::{LIMIT, Stack, wait_for};
use serde_json::json;

use super::{Scene, TRACES, asked, enter, give, not_asked, routes};

#[tokio::test]
async fn without_tokens_nothing_is_asked_and_nothing_more_is_sent() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    browser.goto(stack.api().base()).await;
    browser.wait_until_live().await;

    let mut sent: Vec<String> = serde_json::from_value(
        browser
            .run(
                "return performance.getEntriesByType('resource')
                     .filter((entry) => entry.initiatorType === 'fetch')
                     .map((entry) => entry.name.replace(location.origin, ''))",
            )
            .await,
    )
    .unwrap();
    sent.sort_unstable();
    sent.dedup();
    // The stream has no entry before it has ended.
    assert_eq!(
        sent,
        [
            "/api/v1/operations?limit=8",
            "/api/v1/queues",
            "/api/v1/stats",
            "/ready"
        ]
    );
    let seen = "return [document.querySelector('dialog'), document.getElementById('token-button').checkVisibility(),
                sessionStorage.length]";
    assert_eq!(browser.run(seen).await, json!([null, false, 0]));
}

#[tokio::test]
async fn a_page_asks_for_a_token_and_is_live_with_the_right_one() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let starter = scene.tokens.set("starter", "scopes = [\"start\"]");
    scene.wait_for_answer(&starter, 403).await;
    let before = scene.api().started("dummy", &json!({"steps": 0})).await;
    browser.look(false, 1280).await;
    browser.goto(scene.api().base()).await;

    // The question, for people who do not see it too.
    asked(&browser).await;
    let facts = browser
        .run(
            "const dialog = document.querySelector('dialog');
             return [document.activeElement.id, document.querySelector('label[for=token]').innerText,
                document.getElementById(dialog.getAttribute('aria-labelledby')).innerText,
                document.getElementById('token').type, document.getElementById('token').autocomplete]",
        )
        .await;
    assert_eq!(
        facts,
        json!([
            "token",
            "Token",
            "This server asks for a token",
            "password",
            "off"
        ])
    );
    browser
        .wait_for_text("dialog", "ktrdr-backend token new")
        .await;
    browser.screenshot("token-asked").await;
    assert!(!browser.run(TRACES).await.to_string().contains(&before));

    // Escape puts it away. It is no outage, and the button brings it back.
    browser.press(Browser::ESCAPE).await;
    not_asked(&browser).await;
    browser.wait_for_text("#banner", "No access").await;
    browser.wait_for_text("#link", "No access").await;
    let banner = browser
        .run("return document.getElementById('banner').innerText")
        .await;
    assert!(!banner.as_str().unwrap().contains("again"), "{banner}");
    browser.screenshot("token-missing").await;
    browser.click("#token-button").await;
    asked(&browser).await;

    // Wrong ones.
    for (token, problem) in [
        ("", "Enter a token"),
        ("two words", "no spaces"),
        ("schlüssel", "no spaces"),
        ("nobody-has-this-one", "not known"),
        (&starter, "does not have the scope read"),
    ] {
        give(&browser, token).await;
        browser.wait_for_text("#token-problem", problem).await;
    }
    browser.screenshot("token-wrong").await;
    let kept = browser
        .run("return [sessionStorage.length, document.activeElement.id]")
        .await;
    assert_eq!(kept, json!([0, "token"]));

    // The right one. What happens from now on appears by itself.
    give(&browser, &scene.operator).await;
    browser.wait_until_live().await;
    let row = |id: &str| format!("tr[data-id='{id}'] .chip");
    browser.wait_for_text(&row(&before), "completed").await;
    let after = scene
        .api()
        .started("dummy", &json!({"steps": 3, "step_ms": 1}))
        .await;
    browser.wait_for_text(&row(&after), "completed").await;
    browser.wait_for_text("#token-button", "Sign out").await;
    scene.assert_no_trace(&browser, &scene.operator).await;
    browser.screenshot("token-live").await;

    // The tab keeps it, on both pages.
    browser.goto(&scene.page("#/workers")).await;
    browser.wait_until_live().await;
    browser.goto(&scene.page("docs")).await;
    routes(&browser).await;
    not_asked(&browser).await;
    scene.assert_no_trace(&browser, &scene.operator).await;

    // On a phone nothing is cut off.
    browser.look(true, 390).await;
    browser.goto(scene.api().base()).await;
    browser.wait_until_live().await;
    browser
        .wait(
            "no sideways scrolling",
            "return document.documentElement.scrollWidth <= innerWidth",
        )
        .await;
    // Each view has its icon, and nothing covers the word of another one.
    let tabs = "const tabs = [...document.querySelectorAll('.tabs a')];
        return tabs.every((tab) => tab.querySelector('.icon').getClientRects().length > 0
            && tab.scrollWidth <= tab.clientWidth)";
    browser.wait("a bar with icons", tabs).await;
    browser.screenshot("token-phone").await;
}

#[tokio::test]
async fn signing_out_ends_the_stream_and_empties_the_page() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let scene = Scene::start().await;
    let id = scene.api().started("dummy", &json!({"steps": 0})).await;
    let streams = async |wanted: u32| {
        let line = format!("\nktrdr_event_streams {wanted}.0\n");
        wait_for(&format!("{wanted} event streams"), LIMIT, async || {
            let page = scene.api().try_get("/metrics").await?.expect(200).text;
            page.contains(&line).then_some(()).ok_or(page)
        })
        .await;
    };
    enter(&browser, scene.api().base(), &scene.reader).await;
    browser
        .wait_for_text(&format!("tr[data-id='{id}'] .chip"), "completed")
        .await;
    browser.wait_until_live().await;
    streams(1).await;

    // The browser may keep a page that is left. Its stream ends all the same, and goes on when the
    // user comes back.
    browser.goto(&scene.page("docs")).await;
    routes(&browser).await;
    streams(0).await;
    browser.run("history.back()").await;
    browser.wait_until_live().await;
    streams(1).await;

    // Signed out on another page of the tab.
    browser.goto(&scene.page("docs")).await;
    routes(&browser).await;
    browser.click("#token-button").await;
    asked(&browser).await;
    browser
        .wait_for_text("main", "This server asks for a token")
        .await;
    streams(0).await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    assert!(
        !browser
            .run(TRACES)
            .await
            .to_string()
            .contains("dummy/start")
    );

    // The way back leads to a page without data.
    browser.run("history.back()").await;
    browser
        .wait(
            "the dashboard",
            "return document.getElementById('link') !== null",
        )
        .await;
    asked(&browser).await;
    let text = browser
        .run("return document.documentElement.outerHTML")
        .await;
    assert!(!text.as_str().unwrap().contains(&id), "{text}");

    give(&browser, &scene.reader).await;
    browser.wait_until_live().await;
    streams(1).await;
    browser.click("#token-button").await;
    asked(&browser).await;
    streams(0).await;
}
