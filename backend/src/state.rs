//! What request handlers and background duties share. Cheap to clone.

use std::sync::Arc;

use axum::extract::FromRef;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::signing::KeyError;
use ktrdr_http::answer::AnswerBudget;
use ktrdr_http::body::BodyBudget;
use ktrdr_http::browsers::BrowserRules;
use ktrdr_http::server::Connections;
use ktrdr_http::tls::Tls;
use ktrdr_http::tokens::Tokens;
use ktrdr_protocol::subject::SubjectNames;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::archive::Archive;
use crate::catalogue::Catalogue;
use crate::changes::Changes;
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::error::ApiError;
use crate::events::{Broadcaster, Sources};
use crate::figures::Figures;
use crate::held_requests::HeldRequests;
use crate::nats_answers::NatsAnswers;
use crate::projection::Projection;
use crate::queues::Queues;
use crate::refused::{LoggedOnce, RefusedMessages};
use crate::refused_starts::RefusedStarts;
use crate::registry::Registry;
use crate::request_metrics::RequestMetrics;
use crate::response_cache::ResponseCache;
use crate::result_buckets::ResultBuckets;
use crate::schedules::Schedules;
use crate::settings_in_force::SettingsInForce;
use crate::signatures::Signatures;
use crate::stream_end::StreamEnd;

/// Bytes of large answers that may be on their way to clients at a time.
const MAX_ANSWERS: usize = 64 * 1024 * 1024;

/// Bytes of request bodies that may be in memory at a time.
const MAX_BODIES: usize = 64 * 1024 * 1024;

/// The parts of the backend.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// What [`AppState`] points to.
pub struct Parts {
    /// Settings.
    pub config: Config,
    /// What web pages may do.
    pub browsers: BrowserRules,
    /// Who may do what.
    pub tokens: Tokens,
    /// Subjects and streams.
    pub names: SubjectNames,
    /// The settings in force.
    pub settings: Arc<SettingsInForce>,
    /// The connection to NATS.
    pub connection: Connection,
    /// Whether NATS answers.
    pub nats_answers: NatsAnswers,
    /// All operations.
    pub projection: Arc<Projection>,
    /// Where the stream ends, for requests about ids that are not known.
    pub stream_end: StreamEnd,
    /// Operations that have left the stream, if they are kept.
    pub archive: Option<Arc<Archive>>,
    /// Rendered responses about operations that have ended.
    pub responses: ResponseCache,
    /// How full streams and queues are, and how old unfinished work is.
    pub figures: Figures,
    /// All workers.
    pub registry: Arc<Registry>,
    /// Sends live events to clients.
    pub events: Broadcaster,
    /// Messages of the bus that were not believed.
    pub refused: RefusedMessages,
    /// Start requests that workers refused because of their signature.
    pub refused_starts: RefusedStarts,
    /// The operations whose stored result cannot be served.
    pub invalid_results: LoggedOnce,
    /// The buckets of large results.
    pub results: Arc<ResultBuckets>,
    /// The connections of the REST interface.
    pub connections: Connections,
    /// The TLS of the REST interface, if it has one.
    pub tls: Option<Tls>,
    /// Requests that may be held open: those that wait for an end, and live events.
    pub held: HeldRequests,
    /// Bytes of large answers that may be on their way.
    pub answers: AnswerBudget,
    /// Bytes of request bodies that may be in memory.
    pub bodies: BodyBudget,
    /// HTTP requests, counted and timed.
    pub requests: RequestMetrics,
    /// All worker types.
    pub catalogue: Catalogue,
    /// The queues of all worker types.
    pub queues: Arc<Queues>,
    /// Operations that start by the clock.
    pub schedules: Schedules,
    /// Publishes starts and cancels.
    pub dispatch: Dispatch,
    /// Requests that publish: they run to their end even when their client hangs up.
    pub publishing: TaskTracker,
    /// Set when the process has been asked to stop: requests that wait answer with the current
    /// state.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Connects the parts; nothing runs yet.
    ///
    /// # Errors
    /// [`KeyError`] when a key cannot be used.
    pub fn new(
        config: Config,
        (tokens, tls, archive): (Tokens, Option<Tls>, Option<Archive>),
        connection: Connection,
        stopping: CancellationToken,
    ) -> Result<Self, KeyError> {
        let names = config.nats.subject_prefix.clone();
        let changes = Changes::default();
        let projection = Arc::new(Projection::new(changes.clone()));
        if archive.is_some() {
            projection.keep_for_archive();
        }
        let registry = Arc::new(Registry::new(config.worker_remove_after, changes.clone()));
        let refused = RefusedMessages::default();
        let sources = Sources {
            projection: Arc::clone(&projection),
            registry: Arc::clone(&registry),
            changes,
            connection: connection.clone(),
            names: names.clone(),
            refused: refused.clone(),
        };
        let connections = Connections::for_this_process();
        let answers = AnswerBudget::new(MAX_ANSWERS);
        let log = OpLog::new(connection.jetstream.clone(), names.clone());
        let settings = Arc::new(SettingsInForce::new(
            config.protocol.streams,
            config.protocol.heartbeat_interval,
        ));
        let queues = Arc::new(Queues::new(
            connection.clone(),
            names.clone(),
            Arc::clone(&settings),
            Arc::clone(&projection),
        ));
        let signatures = Signatures::from_options(&config.signing, settings.get().retention)?;
        let dispatch = Dispatch::new(
            names.clone(),
            Arc::clone(&queues),
            log,
            signatures,
            connection.refusals.clone(),
        );

        let browsers =
            BrowserRules::new(&config.browsers, &[&config.api_addr]).served_by(config.tls.scheme());

        Ok(Self(Arc::new(Parts {
            browsers,
            tokens,
            nats_answers: NatsAnswers::default(),
            figures: Figures::default(),
            catalogue: Catalogue::new(projection.summaries()),
            projection,
            stream_end: StreamEnd::default(),
            archive: archive.map(Arc::new),
            responses: ResponseCache::default(),
            registry,
            refused,
            refused_starts: RefusedStarts::default(),
            invalid_results: LoggedOnce::default(),
            results: Arc::default(),
            events: Broadcaster::new(sources, stopping.clone()),
            held: HeldRequests::within(connections.most()),
            connections,
            tls,
            answers,
            bodies: BodyBudget::new(MAX_BODIES),
            requests: RequestMetrics::default(),
            schedules: Schedules::new(connection.clone(), names.clone()),
            queues,
            dispatch,
            publishing: TaskTracker::new(),
            stopping,
            names,
            settings,
            connection,
            config,
        })))
    }

    /// Whether reads can be answered: the projection is loaded and the worker types are known.
    pub fn is_loaded(&self) -> bool {
        self.projection.is_caught_up() && self.catalogue.is_loaded()
    }

    /// Whether NATS can be used: there is a connection, and the server answers.
    pub fn has_nats(&self) -> bool {
        self.connection.is_up() && !self.nats_answers.are_missing()
    }

    /// Waits until all that the stream held when this was called has been read. False when that is not
    /// known.
    pub async fn has_read_all(&self) -> bool {
        let end = &self.stream_end;
        end.reach(
            &self.projection,
            &self.connection,
            &self.nats_answers,
            &self.names,
        )
        .await
    }

    /// Whether everything can be served: `/ready` answers 200.
    pub fn is_ready(&self) -> bool {
        self.has_nats() && self.is_loaded() && self.need_reader().is_ok()
    }

    /// Refuses a request that needs NATS, before anything is begun.
    ///
    /// # Errors
    /// 503 while there is no connection, or no answer.
    pub fn need_nats(&self) -> Result<(), ApiError> {
        if self.has_nats() {
            Ok(())
        } else {
            Err(ApiError::nats_unavailable())
        }
    }

    /// The same for a request that only reads.
    ///
    /// # Errors
    /// 503 while there is no connection, or no answer.
    pub fn need_nats_to_read(&self) -> Result<(), ApiError> {
        if self.has_nats() {
            Ok(())
        } else {
            Err(ApiError::nats_away())
        }
    }

    /// Refuses a request whose effect this backend could not show, because it cannot read the stream.
    ///
    /// # Errors
    /// 503 with the cause.
    pub fn need_reader(&self) -> Result<(), ApiError> {
        match self.projection.reader.trouble() {
            None => Ok(()),
            Some(cause) => Err(ApiError::cannot_read(&cause)),
        }
    }

    /// Runs `work` to its end, also when its client hangs up: a half-finished publish must not be
    /// left behind, and the answer to a finished one may still be needed.
    ///
    /// # Errors
    /// Those of `work`; 500 when it panics.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.publishing.spawn(work.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

impl FromRef<AppState> for BodyBudget {
    fn from_ref(state: &AppState) -> Self {
        state.bodies.clone()
    }
}

impl std::ops::Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
