//! Schedules: operations that start by the clock.

use ktrdr_protocol::id::{OperationId, ScheduleId};
use ktrdr_protocol::rest::schedules::{
    DeletedScheduleResponse, PutSchedule, ScheduleDocument, ScheduleResponse, SchedulesResponse,
};
use ktrdr_protocol::rest::start::StartResponse;
use reqwest::{Method, RequestBuilder};

use crate::client::IDEMPOTENCY_KEY;
use crate::{Client, Error};

impl Client {
    /// All schedules, by id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn schedules(&self) -> Result<Vec<ScheduleDocument>, Error> {
        let request = self.request(Method::GET, &["api", "v1", "schedules"]);
        let response: SchedulesResponse = self.send(request).await?;
        Ok(response.data.schedules)
    }

    /// One schedule.
    ///
    /// # Errors
    /// See [`Error`]; `schedule_not_found` when there is none.
    pub async fn schedule(&self, id: &ScheduleId) -> Result<ScheduleDocument, Error> {
        let request = self.request(Method::GET, &["api", "v1", "schedules", id.as_str()]);
        self.answer_of(request).await
    }

    /// Makes a schedule, or replaces the one with this id. Repeating it is harmless.
    ///
    /// ```no_run
    /// # async fn example(client: ktrdr_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use ktrdr_client::PutSchedule;
    ///
    /// let body = serde_json::json!({"symbol": "GOOG", "timeframe": "1d"});
    /// let nightly = PutSchedule {
    ///     time_zone: "Europe/Berlin".to_owned(),
    ///     ..PutSchedule::new("training", "30 2 * * *", &body)?
    /// };
    /// let schedule = client.put_schedule(&"nightly".parse()?, &nightly).await?;
    /// println!("first at {:?}", schedule.next_runs.first());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Error`]; `invalid_request` when the cron line, the time zone or the body cannot be used,
    /// `schedules_unsupported` when the NATS server is older than 2.14.
    pub async fn put_schedule(
        &self,
        id: &ScheduleId,
        schedule: &PutSchedule,
    ) -> Result<ScheduleDocument, Error> {
        let request = self.request(Method::PUT, &["api", "v1", "schedules", id.as_str()]);
        self.answer_of(request.json(schedule)).await
    }

    /// Deletes a schedule. Its operations stay.
    ///
    /// # Errors
    /// See [`Error`]; `schedule_not_found` when there is none.
    pub async fn delete_schedule(&self, id: &ScheduleId) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &["api", "v1", "schedules", id.as_str()]);
        self.delete::<DeletedScheduleResponse>(request).await
    }

    /// Lets a schedule start nothing by itself. Repeating it is harmless.
    ///
    /// # Errors
    /// See [`Error`]; `schedule_not_found` when there is none.
    pub async fn pause_schedule(&self, id: &ScheduleId) -> Result<ScheduleDocument, Error> {
        self.answer_of(self.verb(id, "pause")).await
    }

    /// Lets a paused schedule go on with its next slot. Repeating it is harmless.
    ///
    /// # Errors
    /// See [`Error`]; `schedule_not_found` when there is none.
    pub async fn resume_schedule(&self, id: &ScheduleId) -> Result<ScheduleDocument, Error> {
        self.answer_of(self.verb(id, "resume")).await
    }

    /// Starts an operation of a schedule now, also of a paused one.
    ///
    /// # Errors
    /// See [`Error`]; `schedule_not_found` when there is none, and what a start is refused with.
    pub async fn run_schedule(&self, id: &ScheduleId) -> Result<StartResponse<'static>, Error> {
        // A fresh key, so that a request that is sent twice starts one operation.
        let key = OperationId::generate();
        let request = self.verb(id, "run").header(IDEMPOTENCY_KEY, key.as_str());
        self.send(request).await
    }

    fn verb(&self, id: &ScheduleId, verb: &str) -> RequestBuilder {
        self.request(Method::POST, &["api", "v1", "schedules", id.as_str(), verb])
    }

    async fn answer_of(&self, request: RequestBuilder) -> Result<ScheduleDocument, Error> {
        let response: ScheduleResponse = self.send(request).await?;
        Ok(response.data)
    }
}
