//! The dashboard and the page at `/docs` on a server that asks for tokens, in a real browser.

mod asking;
mod other_uses;
mod refusals;

use ktrdr_tests::browser::Browser;
use ktrdr_tests::{Client, LIMIT, Stack, TokensFile, WorkerProcess, wait_for};
use serde_json::json;

/// A backend with a file of tokens, and a worker.
struct Scene {
    stack: Stack,
    worker: WorkerProcess,
    tokens: TokensFile,
    /// May read, start and cancel.
    operator: String,
    /// May only read.
    reader: String,
}

impl Scene {
    async fn start() -> Self {
        let tokens = TokensFile::new();
        let operator = tokens.set("operator", OPERATOR);
        let reader = tokens.set("reader", READER);
        let stack = Stack::start_with(|settings| settings.tokens(&tokens)).await;
        let worker = stack.worker("dummy", "w1").await;
        Self {
            stack,
            worker,
            tokens,
            operator,
            reader,
        }
    }

    /// The REST interface for the test itself, which may do everything.
    fn api(&self) -> &Client {
        self.stack.api()
    }

    /// The address of the dashboard, or of what follows.
    fn page(&self, rest: &str) -> String {
        format!("{}/{rest}", self.api().base())
    }

    /// Waits until the backend answers this token with a status.
    async fn wait_for_answer(&self, token: &str, status: u16) {
        let api = self.api().with_token(token);
        wait_for(&format!("status {status}"), LIMIT, async || {
            match api.try_get("/api/v1/operations?limit=1").await? {
                answer if answer.status == status => Ok(()),
                answer => Err(answer.to_string()),
            }
        })
        .await;
    }

    /// Removes a token, and waits until the backend refuses it.
    async fn revoke(&self, name: &str) {
        self.tokens.remove(name);
        self.wait_for_answer(&self.tokens.token(name), 401).await;
    }

    /// Fails when the token is anywhere but in the storage of the tab.
    async fn assert_no_trace(&self, browser: &Browser, token: &str) {
        let traces = browser.run(TRACES).await.to_string();
        assert!(!traces.contains(token), "the page has the token: {traces}");

        let console = json!(browser.console().await).to_string();
        assert!(!console.contains(token), "so has the console: {console}");

        for process in [&self.stack.backend.process, &self.worker.process] {
            assert!(!process.log().contains(token), "so has a log");
        }
    }
}

/// The lines of the operator's entry.
const OPERATOR: &str = "scopes = [\"read\", \"start\", \"cancel\"]";
/// The lines of the reader's entry.
const READER: &str = "scopes = [\"read\"]";

async fn asked(browser: &Browser) {
    browser
        .wait(
            "the question",
            "return document.querySelector('dialog[open] #token') !== null",
        )
        .await;
}

/// Answers the question.
async fn give(browser: &Browser, token: &str) {
    browser.fill("#token", token).await;
    browser.press(Browser::ENTER).await;
}

async fn not_asked(browser: &Browser) {
    browser
        .wait(
            "the question to go",
            "return document.querySelector('dialog[open]') === null",
        )
        .await;
}

/// Opens a page, and answers the question.
async fn enter(browser: &Browser, address: &str, token: &str) {
    browser.goto(address).await;
    asked(browser).await;
    give(browser, token).await;
    not_asked(browser).await;
}

/// Everything that the page keeps, shows, or has asked for, except the storage of the tab.
const TRACES: &str = "return JSON.stringify([
    document.documentElement.outerHTML, document.body.innerText, location.href, document.cookie,
    {...localStorage}, performance.getEntries().map((entry) => entry.name), document.title,
    [...document.querySelectorAll('input, textarea')].map((field) => field.value),
])";

/// Waits until the page at `/docs` has its routes.
async fn routes(browser: &Browser) {
    browser
        .wait(
            "the routes",
            "return document.querySelectorAll('.route').length > 20",
        )
        .await;
}
