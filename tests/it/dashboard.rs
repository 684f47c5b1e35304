//! The dashboard in a real browser. Screenshots are kept in `target/screenshots`.

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::browser::Browser;
use ktrdr_tests::{Stack, WorkerProcess};
use serde_json::{Value, json};

/// A text that would run a script if a page took it for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.body.dataset.hacked='yes'\">";

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy_and_revalidates() {
    let stack = Stack::start().await;

    let page = stack.api().get("/").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("script-src 'self'")
            && !policy.contains("unsafe")
    );

    let script = stack.api().get("/dashboard/app.js").await.expect(200);
    assert!(script.header("content-type").starts_with("text/javascript"));

    let known = stack
        .api()
        .request(reqwest::Method::GET, "/dashboard/app.js");
    let known = stack
        .api()
        .send(known.header("if-none-match", script.header("etag")))
        .await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));

    let _ = stack
        .api()
        .get("/dashboard/nothing.js")
        .await
        .expect_problem(404, "unknown_route");
}

#[tokio::test]
async fn an_operation_is_started_watched_and_cancelled() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    browser.look(false, 1280).await;
    browser.goto(stack.api().base()).await;
    browser.wait_until_live().await;

    // The form is made from the worker type's schema. Each field shows why the backend refused it.
    browser.click("#start-link").await;
    browser.fill("[data-path='/steps'] input", "-5").await;
    browser
        .fill("[data-path='/metrics_per_step'] input", "many")
        .await;
    browser.click("details.options > summary").await;
    browser
        .fill("[data-path='/execution/max_attempts'] input", "0")
        .await;
    browser.click("form button[type=submit]").await;
    browser
        .wait_for_text("[data-path='/steps'] .field-error", "minimum")
        .await;
    browser
        .wait_for_text("[data-path='/metrics_per_step'] .field-error", "integer")
        .await;
    browser
        .wait_for_text(
            "[data-path='/execution/max_attempts'] .field-error",
            "minimum",
        )
        .await;
    browser.screenshot("start-refused").await;

    browser.fill("[data-path='/steps'] input", "600").await;
    browser.fill("[data-path='/step_ms'] input", "50").await;
    browser
        .fill("[data-path='/metrics_per_step'] input", "1")
        .await;
    browser
        .fill("[data-path='/execution/max_attempts'] input", "2")
        .await;
    browser
        .fill("[data-path='/task_id'] input", "from-the-form")
        .await;
    browser.click("form button[type=submit]").await;

    // It runs, and the bar moves without anybody doing anything.
    browser.wait_for_text(".op-head", "from-the-form").await;
    let now = "return Number(document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow')) > ";
    browser.wait("progress", &format!("{now} 1")).await;
    browser.wait("more progress", &format!("{now} 4")).await;
    browser
        .wait(
            "a plot of the metrics",
            "return document.querySelector('#metrics svg path.line') !== null",
        )
        .await;
    browser.wait_for_text(".timeline", "Attempt 1 on w1").await;

    let shown = stack.api().operation("from-the-form").await.json;
    assert_eq!(
        (
            &shown["data"]["metadata"]["steps"],
            &shown["data"]["execution"]
        ),
        (&json!(600), &json!({"max_attempts": 2}))
    );
    browser.screenshot("operation-running").await;

    // In the list, filtered; its row is live, too.
    browser
        .goto(&format!(
            "{}/#/operations?status=running",
            stack.api().base()
        ))
        .await;
    let row = "tr[data-id='from-the-form']";
    browser
        .wait_for_text(&format!("{row} .chip"), "running")
        .await;
    browser.screenshot("operations-running").await;

    // A press on the wrong row does nothing: the button asks first, and stops asking when the focus
    // leaves it, and with Escape.
    let button = format!("{row} .actions button");
    let calm = format!("return document.querySelector(\"{button}\").innerText === 'Cancel'");
    browser.click(&button).await;
    browser.wait_for_text(&button, "Really cancel?").await;
    browser.run("document.activeElement.blur()").await;
    browser.wait("the button to be calm", &calm).await;
    browser.click(&button).await;
    browser.wait_for_text(&button, "Really cancel?").await;
    browser.press(Browser::ESCAPE).await;
    browser.wait("the button to be calm again", &calm).await;
    assert_eq!(
        stack
            .api()
            .operation("from-the-form")
            .await
            .at("/data/cancel_requested_at"),
        &json!(null)
    );

    browser.click(&button).await;
    browser.wait_for_text(&button, "Really cancel?").await;
    browser.click(&button).await;
    // On a slow machine the button may have stopped asking, and that press was a first one.
    let pressed = format!(
        "const button = document.querySelector(\"{button}\"); if (button?.innerText === 'Really cancel?') button.click();
         return document.querySelector(\"{row}\") === null"
    );
    browser.wait("the row to leave the filter", &pressed).await;
    browser
        .wait_for_text(".empty", "No operation matches")
        .await;

    browser
        .run("const s = document.getElementById('filter-status'); s.value = ''; s.dispatchEvent(new Event('change'))")
        .await;
    browser
        .wait_for_text(&format!("{row} .chip"), "cancelled")
        .await;

    // To its page and back to the filtered list; the focus follows.
    browser
        .goto(&format!(
            "{}/#/operations?status=cancelled",
            stack.api().base()
        ))
        .await;
    browser.click(&format!("{row} .op-about")).await;
    browser.wait_for_text(".timeline", "Cancelled").await;
    assert_eq!(
        browser.run("return document.activeElement.id").await,
        "main"
    );

    browser.click(".back").await;
    browser
        .wait_for_text(&format!("{row} .chip"), "cancelled")
        .await;
    assert_eq!(
        browser.run("return location.hash").await,
        "#/operations?status=cancelled"
    );

    // By id: the list, and then its page.
    browser.fill("#search", "never-was").await;
    browser
        .wait_for_text(".empty", "No operation matches")
        .await;

    browser.fill("#search", "from-the-form").await;
    browser.wait_for_text(row, "cancelled").await;
    browser.press(Browser::ENTER).await;
    browser.wait_for_text(".timeline", "Cancelled").await;
    browser.wait_for_text(".op-head .actions", "Retry").await;
    browser.wait_until_live().await;

    // Again, as a new operation that points back.
    browser.click(".op-head .actions button").await;
    browser.wait_for_text("main", "Repeats from-the-form").await;

    let retried = stack
        .api()
        .operations("limit=1")
        .await
        .at("/data/operations/0/retry_of")
        .clone();
    assert_eq!(retried, "from-the-form");
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// The schema behind references and optional values.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match (schema["$ref"].as_str(), schema.pointer("/anyOf/0")) {
        (Some(reference), _) => {
            let target = document.pointer(reference.trim_start_matches('#'));
            resolved(document, target.expect("a reference that leads somewhere"))
        }
        (None, Some(first)) => resolved(document, first),
        (None, None) => schema,
    }
}

#[tokio::test]
async fn the_form_has_a_field_for_each_execution_option_of_the_api_document() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let document = stack.api().get("/openapi.json").await.expect(200).json;
    let body = "/paths/~1api~1v1~1dummy~1start/post/requestBody/content/application~1json/schema";
    let start = resolved(&document, document.pointer(body).expect("the start body"));
    let execution = resolved(&document, &start["properties"]["execution"]);
    let requirements = resolved(&document, &execution["properties"]["requirements"]);
    let paths = |base: &str, schema: &Value| -> Vec<String> {
        let properties = schema["properties"].as_object().expect("properties");
        properties
            .keys()
            .map(|name| format!("{base}/{name}"))
            .collect()
    };
    let mut expected = paths("/execution", execution);
    expected.extend(paths("/execution/requirements", requirements));
    expected.sort();

    browser
        .goto(&format!("{}/#/start/dummy", stack.api().base()))
        .await;
    let shown = browser
        .wait(
            "the form",
            "const fields = [...document.querySelectorAll(\"[data-path^='/execution/']\")];
             return fields.length > 0 && fields.map((field) => field.dataset.path).sort()",
        )
        .await;

    assert_eq!(shown, json!(expected));
    assert!(expected.contains(&"/execution/requirements/gpu".to_owned()));
    // Nothing is sent for options that nobody has set.
    browser.fill("[data-path='/steps'] input", "0").await;
    browser.click("form button[type=submit]").await;
    browser.wait_for_text(".op-head .chip", "completed").await;
    let started = stack.api().operations("limit=1").await;
    assert_eq!(started.at("/data/operations/0/execution"), &json!(null));
}

#[tokio::test]
async fn a_worker_dies_and_comes_back_and_so_does_the_backend() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    let running = stack
        .api()
        .started("dummy", &json!({"steps": 100_000, "step_ms": 20}))
        .await;

    browser.look(false, 1280).await;
    browser
        .goto(&format!("{}/#/workers", stack.api().base()))
        .await;
    let row = "tr[data-id='w1']";
    browser
        .wait(
            "what the worker runs",
            &format!("return document.querySelector(\"{row} a[title='{running}']\") !== null"),
        )
        .await;
    browser.wait_for_text(&format!("{row} .chip"), "busy").await;

    worker.process.kill();
    browser
        .wait_for_text(&format!("{row} .chip"), "silent")
        .await;
    browser.screenshot("worker-silent").await;

    worker.restart().await;
    browser.wait_for_text(&format!("{row} .chip"), "busy").await;
    browser.wait_for_text(row, "attempt 2").await;
    stack.api().cancel(&running).await.expect(200);
    browser
        .wait_for_text(&format!("{row} .chip"), "available")
        .await;

    // The backend dies: the page says so, keeps what it shows, and recovers by itself.
    browser
        .goto(&format!("{}/#/operations", stack.api().base()))
        .await;
    browser
        .wait_for_text(&format!("tr[data-id='{running}'] .chip"), "cancelled")
        .await;
    browser.wait_until_live().await;

    stack.backend.process.kill();
    browser.wait_for_text("#banner", "Disconnected").await;
    assert!(
        browser
            .run("return document.querySelectorAll('tbody tr').length")
            .await
            .as_u64()
            > Some(0)
    );
    browser.screenshot("disconnected").await;

    stack.backend.restart().await;
    browser.wait_until_live().await;
    browser
        .wait(
            "the banner to go",
            "return document.getElementById('banner').hidden",
        )
        .await;

    let after = stack.api().started("dummy", &json!({"steps": 0})).await;
    browser
        .wait_for_text(&format!("tr[data-id='{after}'] .chip"), "completed")
        .await;
}

/// A page that is live, a worker, and an operation that has completed.
async fn page_beside_a_completed_operation(browser: &Browser) -> (Stack, WorkerProcess, String) {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let done = stack
        .api()
        .started("dummy", &json!({"steps": 3, "step_ms": 1}))
        .await;
    stack.api().wait_for_status(&done, "completed").await;

    browser.goto(stack.api().base()).await;
    browser.wait_until_live().await;
    (stack, worker, done)
}

#[tokio::test]
async fn a_view_opened_while_the_backend_is_away_is_filled_once_it_is_back() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (mut stack, _worker, done) = page_beside_a_completed_operation(&browser).await;

    // A view without anything to show still knows whether the backend is there.
    browser.view("#/operations/never-was").await;
    browser.wait_for_text(".problem", "not found").await;
    browser.wait_until_live().await;

    browser.view("#/nowhere").await;
    browser.wait_for_text("h1", "There is nothing here").await;
    browser.wait_until_live().await;
    assert_eq!(
        browser.run("return document.title").await,
        "Nothing here · KTRDR Workers"
    );

    stack.backend.process.kill();
    browser.wait_for_text("#banner", "Disconnected").await;
    browser.view(&format!("#/operations/{done}")).await;
    browser
        .wait_for_text("main .problem", "cannot be reached")
        .await;

    stack.backend.restart().await;
    browser.wait_for_text(".op-head .chip", "completed").await;
    browser.wait_for_text(".timeline", "Completed").await;
    browser
        .wait(
            "the result",
            "return document.querySelector('#result .data-view') !== null",
        )
        .await;
    browser.wait_until_live().await;

    let left = "return [...document.querySelectorAll('#banner, main .problem')].every((one) => one.hidden)";
    browser.wait("no complaint to be left", left).await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_page_goes_through_an_outage_of_nats() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (mut stack, _worker, done) = page_beside_a_completed_operation(&browser).await;

    stack.nats.kill();
    let state =
        |wanted| format!("return document.getElementById('link').dataset.state === '{wanted}'");
    // A request that fails leads to a check at once, before the next regular one.
    browser.view(&format!("#/operations/{done}")).await;
    browser
        .wait("the page to say that it is not ready", &state("unready"))
        .await;
    browser.wait_for_text("#banner", "NATS").await;
    browser.wait_for_text(".op-head .chip", "completed").await;
    browser.wait_for_text(".timeline", "NATS").await;
    browser.screenshot("nats-away").await;

    // Each view opens a stream of its own. An open stream says nothing about NATS.
    browser
        .run(
            "const link = document.getElementById('link'); globalThis.seen = []; globalThis.opened = 0;
             new MutationObserver(() => seen.push(link.dataset.state)).observe(link, {attributeFilter: ['data-state']});
             const realFetch = globalThis.fetch;
             globalThis.fetch = async (...request) => {
               const response = await realFetch(...request);
               if (response.headers.get('content-type') === 'text/event-stream') opened += 1;
               return response;
             };",
        )
        .await;

    let shown = format!("#/operations/{done}");
    for (at, hash) in [
        "#/operations?operation_type=dummy",
        "#/workers",
        "#/operations?status=failed&operation_type=dummy",
        &shown,
    ]
    .iter()
    .enumerate()
    {
        browser.view(hash).await;
        browser
            .wait(
                "the view's stream to be open",
                &format!("return opened > {at}"),
            )
            .await;
    }
    browser.wait_for_text(".timeline", "NATS").await;
    assert_eq!(browser.run("return seen.includes('live')").await, false);

    stack.nats.run().await;
    browser.wait_until_live().await;
    browser.wait_for_text(".timeline", "Completed").await;
    browser
        .wait(
            "the result",
            "return document.querySelector('#result .data-view') !== null",
        )
        .await;
    browser
        .wait(
            "the banner to go",
            "return document.getElementById('banner').hidden",
        )
        .await;

    let after = stack.api().started("dummy", &json!({"steps": 0})).await;
    browser.view("#/operations").await;
    browser
        .wait_for_text(&format!("tr[data-id='{after}'] .chip"), "completed")
        .await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_operation_that_nobody_runs_says_why() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;

    let asks = json!({"execution": {"requirements": {"cores": 256}}});
    let waiting = stack.api().started("dummy", &asks).await;
    browser
        .goto(&format!("{}/#/operations/{waiting}", stack.api().base()))
        .await;
    browser
        .wait_for_text("main .note", "has what it asks for (256 cores)")
        .await;
    browser.wait_for_text("main .step", "Place 1").await;

    // The worker dies during an operation, and comes back.
    let running = stack
        .api()
        .started("dummy", &json!({"steps": 100_000, "step_ms": 20}))
        .await;
    stack.api().wait_for_status(&running, "running").await;
    browser.view(&format!("#/operations/{running}")).await;
    browser.wait_for_text(".op-head .chip", "running").await;

    worker.process.kill();
    browser
        .wait_for_text("main .note", "unless it comes back")
        .await;

    worker.restart().await;
    browser
        .wait(
            "the note to go",
            "return document.querySelector('main .note').hidden",
        )
        .await;
    browser.wait_for_text(".timeline", "lost").await;
    browser.wait_for_text(".timeline", "Attempt 2 on w1").await;

    stack.api().cancel(&running).await.expect(200);
    browser.wait_for_text(".op-head .chip", "cancelled").await;
}

#[tokio::test]
async fn hostile_names_and_parameters_stay_text() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let stack = Stack::start().await;
    let subject = stack.bus.names.start(
        &WorkerType::new("fake").unwrap(),
        &Origin::from_token("any").unwrap(),
    );
    let request = json!({
        "operation_id": "hostile", "operation_type": "fake", "created_at": Timestamp::now(),
        "parameters": {HOSTILE: HOSTILE, "list": [{"a": HOSTILE}], "deep": {"b": [HOSTILE]}, "long": "x".repeat(300_000)},
    });
    stack.bus.store(subject, request.to_string()).await;

    browser
        .goto(&format!("{}/#/operations/hostile", stack.api().base()))
        .await;
    browser.wait_for_text("main", "onerror").await;

    // A long text is not laid out before a user asks for it.
    let length = "return document.querySelector('main').innerText.length";
    assert!(browser.run(length).await.as_u64() < Some(5_000));
    browser.click(".string button").await;
    assert!(browser.run(length).await.as_u64() > Some(200_000));

    browser
        .run("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        .await;
    browser.wait_for_text("main pre", "onerror").await;

    let found = browser
        .run("return [document.querySelectorAll('main img').length, document.body.dataset.hacked ?? 'no']")
        .await;
    assert_eq!(found, json!([0, "no"]));

    let refused = browser
        .run("try { document.body.innerHTML = '<b>x</b>'; return 'taken' } catch (error) { return error.name }")
        .await;
    assert_eq!(refused, "TypeError", "the policy forbids markup from text");
}
