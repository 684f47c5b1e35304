//! A headless Chromium, controlled through ChromeDriver.
//!
//! The tests need few WebDriver commands. They are sent with the HTTP client of the other tests, so
//! that no WebDriver library is needed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::process::{Process, free_port};
use crate::scratch::Scratch;
use crate::wait::{LIMIT, wait_for};

/// With these, Chromium connects only to the page. By default it also contacts Google's servers at
/// each start.
const ARGUMENTS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,900",
];

/// The name under which WebDriver returns the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page. It ends when it is dropped.
pub struct Browser {
    driver: Client,
    port: u16,
    session: String,
    // Fields drop in this order. The profile goes last, when no process uses it.
    _process: Process,
    _scratch: Scratch,
}

/// The first of these programs that is in `PATH`.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| places.iter().map(move |place| place.join(name)))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts a browser. Returns `None` and prints a line when none is installed.
    ///
    /// # Panics
    /// When a browser is installed and does not start, and when none is installed although
    /// `KTRDR_TEST_BROWSER=required`.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further arguments for Chromium.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with(more: &[&str]) -> Option<Self> {
        let chromium = find(&[
            "chromium",
            "chromium-browser",
            "google-chrome",
            "google-chrome-stable",
        ]);
        let (Some(chromium), Some(driver)) = (chromium, find(&["chromedriver"])) else {
            let required =
                std::env::var("KTRDR_TEST_BROWSER").is_ok_and(|value| value == "required");
            assert!(
                !required,
                "chromium and chromedriver are not installed, and KTRDR_TEST_BROWSER=required"
            );
            eprintln!(
                "SKIPPED: chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
            );
            return None;
        };

        let (scratch, port) = (Scratch::new("browser"), free_port());
        let mut command = Command::new(driver);
        command
            .arg(format!("--port={port}"))
            .env("HOME", scratch.path());
        let mut process = Process::spawn("chromedriver", command, &scratch.join("log"));
        let client = Client::new(format!("http://127.0.0.1:{port}"));
        wait_for("chromedriver to be ready", LIMIT, async || {
            process
                .check_alive()
                .unwrap_or_else(|ended| panic!("{ended}"));
            let answer = client.try_get("/status").await?;
            if answer.at("/value/ready") == true {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        })
        .await;

        let given = ARGUMENTS.iter().chain(more);
        let mut arguments: Vec<String> = given.map(|&argument| argument.to_owned()).collect();
        arguments.push(format!(
            "--user-data-dir={}",
            scratch.join("profile").display()
        ));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium.display().to_string(), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});

        let answer = client.post("/session", &capabilities).await.expect(200);
        let session = answer
            .at("/value/sessionId")
            .as_str()
            .expect("a session")
            .to_owned();
        Some(Self {
            driver: client,
            port,
            session,
            _process: process,
            _scratch: scratch,
        })
    }

    async fn command(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let request = self
            .driver
            .request(method, &format!("/session/{}/{path}", self.session));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = self.driver.try_send(request).await?;
        if answer.status == 200 {
            Ok(answer.at("/value").clone())
        } else {
            Err(answer.to_string())
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        self.command(Method::POST, path, Some(body)).await
    }

    /// Sends a command of the DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", body)
            .await
            .expect("a DevTools command")
    }

    /// Opens an address.
    ///
    /// # Panics
    /// When the page cannot be loaded.
    pub async fn goto(&self, url: &str) {
        self.post("url", json!({"url": url})).await.expect("a page");
    }

    /// Runs JavaScript at the beginning of each page, before the page's own.
    pub async fn before_each_page(&self, script: &str) {
        let parameters = json!({"source": script});
        self.devtools("Page.addScriptToEvaluateOnNewDocument", parameters)
            .await;
    }

    /// Runs JavaScript in the page and returns its result.
    ///
    /// # Panics
    /// When the script throws.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []}))
            .await
            .expect("a script that works")
    }

    async fn find(&self, selector: &str) -> Result<String, String> {
        let found = self
            .post(
                "element",
                json!({"using": "css selector", "value": selector}),
            )
            .await?;
        found[ELEMENT]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| found.to_string())
    }

    /// Waits for an element and clicks it as a user would: the element must be visible and
    /// uncovered.
    pub async fn click(&self, selector: &str) {
        wait_for(&format!("a click on {selector}"), LIMIT, async || {
            let element = self.find(selector).await?;
            self.post(&format!("element/{element}/click"), json!({}))
                .await
        })
        .await;
    }

    /// Replaces the text of a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        wait_for(&format!("{selector} to take text"), LIMIT, async || {
            let element = self.find(selector).await?;
            self.post(&format!("element/{element}/clear"), json!({}))
                .await?;
            self.post(&format!("element/{element}/value"), json!({"text": text}))
                .await
        })
        .await;
    }

    /// Presses a key where the focus is. WebDriver names keys by characters, for example
    /// [`Self::ENTER`].
    ///
    /// # Panics
    /// When nothing has the focus.
    pub async fn press(&self, key: &str) {
        let active = self
            .command(Method::GET, "element/active", None)
            .await
            .expect("an element with the focus");
        let element = active[ELEMENT].as_str().expect("an element");
        self.post(&format!("element/{element}/value"), json!({"text": key}))
            .await
            .expect("a key that can be pressed");
    }

    /// The Enter key.
    pub const ENTER: &str = "\u{e007}";

    /// The Escape key.
    pub const ESCAPE: &str = "\u{e00c}";

    /// Lets the browser save downloads in a directory.
    pub async fn save_downloads(&self, directory: &Path) {
        let parameters = json!({"behavior": "allow", "downloadPath": directory});
        self.devtools("Browser.setDownloadBehavior", parameters)
            .await;
    }

    /// Waits until a script returns something other than `null` and `false`, and returns that.
    pub async fn wait(&self, what: &str, script: &str) -> Value {
        wait_for(what, LIMIT, async || {
            match self
                .post("execute/sync", json!({"script": script, "args": []}))
                .await?
            {
                Value::Null | Value::Bool(false) => Err(format!(
                    "not yet: {}",
                    self.run("return document.body.innerText").await
                )),
                value => Ok(value),
            }
        })
        .await
    }

    /// Waits until the dashboard is connected to its backend.
    ///
    /// # Panics
    /// When it does not connect in time.
    pub async fn wait_until_live(&self) {
        self.wait(
            "the page to be live",
            "return document.getElementById('link')?.dataset.state === 'live'",
        )
        .await;
    }

    /// Goes to a view of the dashboard without loading the page again.
    pub async fn view(&self, hash: &str) {
        self.run(&format!("location.hash = {}", Value::from(hash)))
            .await;
    }

    /// Waits until an element shows a text.
    pub async fn wait_for_text(&self, selector: &str, text: &str) {
        let script = format!(
            "const e = document.querySelector({}); return e !== null && e.innerText.includes({})",
            json!(selector),
            json!(text)
        );
        self.wait(&format!("{text:?} in {selector}"), &script).await;
    }

    /// Sets the colour scheme and the width. Below 500 pixels the page sees a phone.
    pub async fn look(&self, dark: bool, width: u32) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;

        let (height, mobile) = if width < 500 {
            (844, true)
        } else {
            (900, false)
        };
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Writes a picture of the visible part of the page to a file in [`screenshots`].
    ///
    /// # Panics
    /// When the picture cannot be taken or written.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let shot = self
            .devtools("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let encoded = shot["data"].as_str().expect("a picture");
        let picture = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .expect("base64");

        let path = screenshots().join(format!("{name}.png"));
        std::fs::create_dir_all(screenshots()).expect("a directory");
        std::fs::write(&path, picture).expect("a file");
        path
    }

    /// Errors in the page's console since the last look, without those about failed requests.
    pub async fn errors(&self) -> Vec<String> {
        let entries = self.console().await;
        let bad = entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    /// What the page's console has got since the last look.
    ///
    /// # Panics
    /// When the console cannot be read.
    pub async fn console(&self) -> Vec<Value> {
        let entries = self
            .post("se/log", json!({"type": "browser"}))
            .await
            .expect("the console");
        entries.as_array().cloned().unwrap_or_default()
    }
}

/// The folder of screenshots, in the target directory.
///
/// # Panics
/// When this test does not run from a target directory.
pub fn screenshots() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors()
        .nth(3)
        .map(Path::to_owned)
        .expect("target/<profile>/deps/")
        .join("screenshots")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium outlives a ChromeDriver that is killed. So the session ends first, also when a
        // test has failed.
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return;
        };

        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.session, self.port
        );
        if stream.write_all(request.as_bytes()).is_ok() {
            let _ = stream.read(&mut [0; 512]);
        }
    }
}
