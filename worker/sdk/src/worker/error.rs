//! Why a worker could not run.

use ktrdr_bus::nats::ConnectError;
use ktrdr_bus::signing::KeyError;
use ktrdr_bus::topology::TopologyError;
use ktrdr_http::tls::TlsError;
use ktrdr_http::tokens::{ListenError, TokensError};
use ktrdr_protocol::id::InvalidName;

use crate::dynamic::EngineInfo;
use crate::engine::declaration::BadDeclaration;
use crate::worker::capabilities::InvalidCapabilities;

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No engine was given to the builder.
    #[error("there is no engine to run; add one with `.engine(…)`")]
    NoEngine,
    /// Two engines have the same name.
    #[error("two engines have the name {0}; start a second process to run an engine twice")]
    DuplicateEngine(String),
    /// A worker id is not a valid name.
    #[error("the engine cannot be served")]
    Name(#[from] InvalidName),
    /// An engine is declared in a way that cannot work.
    #[error("engine {engine} cannot be served: {fault}")]
    Declaration {
        /// The engine's name.
        engine: String,
        /// What is wrong with it, and what to do.
        fault: BadDeclaration,
    },
    /// Two engines of this process have the same domain.
    #[error(
        "the engines {first} and {second} have the same domain {domain:?}; set DOMAIN of one of them to another word"
    )]
    SharedDomain {
        /// The engine that was added first.
        first: String,
        /// The other one.
        second: String,
        /// Their domain.
        domain: String,
    },
    /// The stated capabilities do not fit.
    #[error(transparent)]
    Capabilities(#[from] InvalidCapabilities),
    /// The environment holds a setting that cannot be read.
    #[error("a setting cannot be read: {0}")]
    Settings(String),
    /// `KTRDR_VERIFY_KEYS` cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// NATS cannot be reached with these settings at all.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Streams, consumers or buckets exist and cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The REST interface may not listen where it should.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The HTTP interface cannot be served.
    #[error("cannot serve HTTP on {address}")]
    Http {
        /// The address that was to be listened on.
        address: String,
        /// Why the system refused it.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key of the REST interface cannot be used.
    #[error("the TLS settings cannot be used")]
    Tls(#[from] TlsError),
    /// What [`WorkerBuilder::run_prepared`](crate::WorkerBuilder::run_prepared) does first did not succeed.
    #[error(transparent)]
    Prepare(#[from] anyhow::Error),
    /// The process could not be set up.
    #[error("cannot set up the process")]
    Process(#[source] std::io::Error),
    /// The worker stopped before it was ready.
    #[error("the worker stopped before it was ready; `wait` says why")]
    Stopped,
}

impl WorkerError {
    /// Whether a setting cannot be used, so that starting the worker again does not help.
    pub fn is_about_settings(&self) -> bool {
        match self {
            Self::Capabilities(_)
            | Self::Settings(_)
            | Self::Key(_)
            | Self::Connect(_)
            | Self::Listen(_)
            | Self::Tokens(_)
            | Self::Tls(_) => true,
            Self::Topology(error) => !error.is_transient(),
            Self::NoEngine
            | Self::DuplicateEngine(_)
            | Self::Name(_)
            | Self::Declaration { .. }
            | Self::SharedDomain { .. }
            | Self::Http { .. }
            | Self::Prepare(_)
            | Self::Process(_)
            | Self::Stopped => false,
        }
    }

    /// `fault` in the declaration of this engine.
    pub(crate) fn declaration(info: &EngineInfo, fault: BadDeclaration) -> Self {
        Self::Declaration {
            engine: info.worker_type.to_string(),
            fault,
        }
    }
}
