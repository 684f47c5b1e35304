//! Pausing queues and draining workers.

use ktrdr_protocol::id::{WorkerId, WorkerType};
use ktrdr_protocol::rest::queues::{
    PauseQueues, PausedQueues, PausedQueuesResponse, QueueOverview, QueuesResponse,
};
use ktrdr_protocol::rest::worker::{DrainResponse, DrainedWorker};
use ktrdr_protocol::time::Timestamp;
use reqwest::Method;

use crate::{Client, Error};

impl Client {
    /// The queues of all worker types: what waits, what runs, and whether they are paused.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn queues(&self) -> Result<Vec<QueueOverview>, Error> {
        let request = self.request(Method::GET, &["api", "v1", "queues"]);
        let response: QueuesResponse = self.send(request).await?;
        Ok(response.data.queues)
    }

    /// Lets no operation of a worker type start, until a time, or until [`Client::resume_queues`]. What
    /// runs goes on, and starts are accepted and wait. Repeating it is harmless.
    ///
    /// # Errors
    /// See [`Error`]; `worker_type_not_found` when there is no such type.
    pub async fn pause_queues(
        &self,
        worker_type: &WorkerType,
        until: Option<Timestamp>,
    ) -> Result<PausedQueues, Error> {
        let path = ["api", "v1", "queues", worker_type.as_str(), "pause"];
        let request = self.request(Method::POST, &path);
        let response: PausedQueuesResponse =
            self.send(request.json(&PauseQueues { until })).await?;
        Ok(response.data)
    }

    /// Lets operations of a worker type start again. Repeating it is harmless.
    ///
    /// # Errors
    /// As [`Client::pause_queues`].
    pub async fn resume_queues(&self, worker_type: &WorkerType) -> Result<PausedQueues, Error> {
        let path = ["api", "v1", "queues", worker_type.as_str(), "resume"];
        let response: PausedQueuesResponse = self.send(self.request(Method::POST, &path)).await?;
        Ok(response.data)
    }

    /// Lets a worker finish what it runs and take nothing more, until [`Client::undrain`] or its next
    /// start. Repeating it is harmless.
    ///
    /// # Errors
    /// See [`Error`]; `worker_not_found` when there is no such worker, `worker_not_answering` when it is
    /// silent.
    pub async fn drain(&self, worker: &WorkerId) -> Result<DrainedWorker, Error> {
        self.ask_worker(worker, "drain").await
    }

    /// Lets a drained worker go on. Repeating it is harmless.
    ///
    /// # Errors
    /// As [`Client::drain`].
    pub async fn undrain(&self, worker: &WorkerId) -> Result<DrainedWorker, Error> {
        self.ask_worker(worker, "undrain").await
    }

    async fn ask_worker(&self, worker: &WorkerId, verb: &str) -> Result<DrainedWorker, Error> {
        let path = ["api", "v1", "workers", worker.as_str(), verb];
        let response: DrainResponse = self.send(self.request(Method::POST, &path)).await?;
        Ok(response.data)
    }
}
