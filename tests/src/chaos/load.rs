//! The client: starts operations over REST through any backend, repeats starts that
//! were not acknowledged, cancels some operations, and keeps the ledger.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ledger::{AcknowledgedStart, Ledger};
use super::plans::{Kinds, PlannedOperation, plan};
use crate::client::{Answer, Client};

/// How long the client waits for an answer. Some backends are frozen for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it repeats a start or a cancel.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Pause before a repetition.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A load: which backends it uses, and how many operations it starts.
#[derive(Clone)]
pub struct Load {
    /// The backends.
    pub apis: Vec<Client>,
    /// What the backends answered.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Which operations it starts.
    pub kinds: Kinds,
    /// About how many operations are started a second.
    pub rate: u32,
    /// When it stops starting operations.
    pub until: Instant,
    /// It goes on after that until so many were acknowledged.
    pub at_least: usize,
}

/// An answer, or why there is none.
enum Reply {
    Answer(Answer),
    /// It was not sent: nobody listens at the address.
    NotSent,
    /// No answer in time: it may have arrived.
    NoAnswer,
}

impl Load {
    /// Runs `clients` clients side by side until the time is over and every start is either
    /// acknowledged or given up.
    pub async fn run(self, clients: u32, seed: u64) {
        self.run_until(clients, seed, CancellationToken::new())
            .await;
    }

    /// The same, and stops starting operations when `stop` is cancelled.
    pub async fn run_until(self, clients: u32, seed: u64, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (load, stop) = (self.clone(), stop.clone());
            let rng = fastrand::Rng::with_seed(
                seed.wrapping_mul(1_000_003).wrapping_add(u64::from(client)),
            );
            tasks.spawn(async move { load.client(client, clients, rng, stop).await });
        }
        tasks.join_all().await;
    }

    async fn client(
        &self,
        client: u32,
        clients: u32,
        mut rng: fastrand::Rng,
        stop: CancellationToken,
    ) {
        let mut cancels = JoinSet::new();
        let pause = 1000.0 * f64::from(clients) / f64::from(self.rate);
        for number in 0_u32.. {
            let next = Instant::now() + Duration::from_millis((pause * 2.0 * rng.f64()) as u64);
            if self.is_over(next) || stop.is_cancelled() {
                break;
            }
            sleep_until(next).await;
            let planned = plan(self.kinds, &mut rng);
            let acknowledged = self
                .start(&planned, &format!("chaos-{client}-{number}"), &mut rng)
                .await;
            if let (Some(id), Some(after)) = (acknowledged, planned.cancel_after) {
                let (load, rng) = (self.clone(), rng.fork());
                cancels.spawn(async move {
                    sleep(after).await;
                    load.cancel(&id, rng).await;
                });
            }
        }

        cancels.join_all().await;
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until && self.ledger.lock().acknowledged.len() >= self.at_least
    }

    fn any(&self, rng: &mut fastrand::Rng) -> &Client {
        &self.apis[rng.usize(0..self.apis.len())]
    }

    /// Repeats a start until it is acknowledged, and returns the operation's id.
    async fn start(
        &self,
        planned: &PlannedOperation,
        name: &str,
        rng: &mut fastrand::Rng,
    ) -> Option<String> {
        let mut body = planned.body.clone();

        // A third leaves the id to the backend. Some of the others name it in the header.
        let mut id = (rng.u32(0..3) > 0).then(|| name.to_owned());
        let in_header = id.is_some() && rng.u32(0..5) == 0;
        let through_two = id.is_some() && !in_header && rng.u32(0..10) == 0 && self.apis.len() > 1;
        let gives_up = rng.u32(0..4) == 0;
        let key = in_header.then(|| name.to_owned());

        if in_header {
            id = None;
        }

        let mut nothing_stored = true;
        let deadline = Instant::now() + RETRY_TIME;
        for tries in 1_u32.. {
            if let Some(id) = &id {
                body["task_id"] = json!(id);
            }
            let api = self.any(rng);
            let reply = match through_two {
                true => self.start_through_two(planned.domain, &body).await,
                false => {
                    send(
                        api,
                        Method::POST,
                        &start_path(planned.domain),
                        Some(&body),
                        key.as_deref(),
                    )
                    .await
                }
            };
            match &reply {
                Reply::Answer(answer) if answer.status == 202 || answer.status == 200 => {
                    let acknowledged = answer.json["operation_id"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    self.acknowledged(&acknowledged, id.as_deref(), planned.kind, tries, answer);
                    if answer.status == 202 && !through_two && rng.u32(0..4) == 0 {
                        self.read_back(self.any(rng), &acknowledged).await;
                    }
                    return Some(acknowledged);
                }
                // A backend that has just started does not know the worker types yet, when somebody
                // has deleted them.
                Reply::Answer(answer) if is_unknown_type(answer) => {
                    self.ledger.lock().refusal("unknown_domain");
                    if Instant::now() >= deadline {
                        let text = format!("worker types did not come back: {answer}");
                        self.ledger.lock().problems.push(text);
                    }
                }
                // Another one with the unique key is open. It may be this one, when an answer got lost.
                Reply::Answer(answer) if answer.json["code"] == "not_unique" => {
                    self.not_unique(id, nothing_stored);
                    return None;
                }
                // The store is full: nothing was stored.
                Reply::Answer(answer) if answer.status == 507 => {
                    self.ledger.lock().refusal("storage_full");
                }
                Reply::Answer(answer) if answer.status == 503 => {
                    let code = answer.json["code"].as_str().unwrap_or_default().to_owned();
                    let mut ledger = self.ledger.lock();
                    ledger.refusal(&code);
                    if answer.header("retry-after").is_empty() {
                        ledger
                            .problems
                            .push(format!("503 without Retry-After: {answer}"));
                    }
                    if code == "outcome_unknown" {
                        nothing_stored = false;
                        // Do what the answer says.
                        if key.is_none() {
                            id = answer.json["operation_id"]
                                .as_str()
                                .map(str::to_owned)
                                .or(id);
                        }
                    }
                }
                Reply::Answer(answer) => {
                    self.ledger
                        .lock()
                        .problems
                        .push(format!("a start was answered with {answer}"));
                    return None;
                }
                Reply::NotSent => self.ledger.lock().refusal("nobody listens"),
                Reply::NoAnswer => {
                    nothing_stored = false;
                    self.ledger.lock().refusal("no answer");
                }
            }
            let over = Instant::now() >= deadline || (gives_up && tries == 2);
            if over || (id.is_none() && key.is_none() && !nothing_stored) {
                let mut ledger = self.ledger.lock();
                match id {
                    Some(id) if nothing_stored => drop(ledger.refused.insert(id)),
                    Some(id) => drop(ledger.open.insert(id)),
                    None => ledger.unseen += u32::from(!nothing_stored),
                }
                return None;
            }
            self.ledger.lock().retried += 1;
            sleep(RETRY_PAUSE).await;
        }

        None
    }

    fn not_unique(&self, id: Option<String>, nothing_stored: bool) {
        let mut ledger = self.ledger.lock();
        ledger.refusal("not_unique");
        match id {
            Some(id) if nothing_stored => drop(ledger.refused.insert(id)),
            Some(id) => drop(ledger.open.insert(id)),
            None => ledger.unseen += u32::from(!nothing_stored),
        }
    }

    /// The same start through two backends at the same time; the first acknowledgement counts.
    async fn start_through_two(&self, domain: &str, body: &Value) -> Reply {
        self.ledger.lock().through_two += 1;
        let path = start_path(domain);
        let both = self
            .apis
            .iter()
            .take(2)
            .map(|api| send(api, Method::POST, &path, Some(body), None));
        let mut replies = futures::future::join_all(both).await;
        let acknowledged =
            |reply: &Reply| matches!(reply, Reply::Answer(answer) if answer.status < 300);
        let unknown = |reply: &Reply| match reply {
            Reply::Answer(answer) => answer.json["code"] == "outcome_unknown",
            Reply::NoAnswer => true,
            Reply::NotSent => false,
        };
        let best = replies
            .iter()
            .position(acknowledged)
            .or_else(|| replies.iter().position(unknown));

        replies.swap_remove(best.unwrap_or(0))
    }

    fn acknowledged(
        &self,
        id: &str,
        wanted: Option<&str>,
        kind: &'static str,
        tries: u32,
        answer: &Answer,
    ) {
        let mut ledger = self.ledger.lock();
        if id.is_empty() || wanted.is_some_and(|wanted| wanted != id) {
            ledger.problems.push(format!(
                "the start of {wanted:?} was answered with another id: {answer}"
            ));
        }

        let start = AcknowledgedStart {
            kind,
            tries,
            cancel: None,
        };
        if ledger.acknowledged.insert(id.to_owned(), start).is_some() {
            ledger
                .problems
                .push(format!("id {id} was given out twice: {answer}"));
        }
    }

    /// Checks that a backend finds an operation that it, or another one, has just acknowledged.
    async fn read_back(&self, api: &Client, id: &str) {
        let reply = send(
            api,
            Method::GET,
            &format!("/api/v1/operations/{id}"),
            None,
            None,
        )
        .await;

        let Reply::Answer(answer) = reply else { return };
        let mut ledger = self.ledger.lock();

        ledger.reads += 1;

        if answer.status != 200 && answer.status != 503 {
            ledger
                .problems
                .push(format!("{id} was acknowledged, and then: {answer}"));
        }
    }

    async fn cancel(&self, id: &str, mut rng: fastrand::Rng) {
        let deadline = Instant::now() + RETRY_TIME;
        while Instant::now() < deadline {
            let reply = send(
                self.any(&mut rng),
                Method::DELETE,
                &format!("/api/v1/operations/{id}/cancel"),
                None,
                None,
            )
            .await;

            match reply {
                Reply::Answer(answer) if answer.status == 200 => {
                    let status = answer.json["status"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    if let Some(start) = self.ledger.lock().acknowledged.get_mut(id) {
                        start.cancel = Some(status);
                    }
                    return;
                }
                Reply::Answer(answer) if answer.status == 409 => return,
                Reply::Answer(answer) if [503, 507].contains(&answer.status) => {}
                Reply::Answer(answer) => {
                    return self
                        .ledger
                        .lock()
                        .problems
                        .push(format!("a cancel was answered with {answer}"));
                }
                Reply::NotSent | Reply::NoAnswer => {}
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

fn is_unknown_type(answer: &Answer) -> bool {
    answer.status == 404 && answer.json["code"] == "unknown_domain"
}

fn start_path(domain: &str) -> String {
    format!("/api/v1/{domain}/start")
}

async fn send(
    api: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> Reply {
    let mut request = api.request(method, path).timeout(ANSWER_TIMEOUT);
    if let Some(body) = body {
        request = request.json(body);
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }

    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Reply::NotSent,
        Err(_) => return Reply::NoAnswer,
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    match response.text().await {
        Ok(text) => {
            let json = serde_json::from_str(&text).unwrap_or(Value::Null);
            Reply::Answer(Answer {
                status,
                headers,
                json,
                text,
            })
        }
        Err(_) => Reply::NoAnswer,
    }
}
