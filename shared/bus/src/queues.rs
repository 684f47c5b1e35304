//! The consumers of queues, and the lists that name them.
//!
//! Backends make and remove the consumers ([`ensure`], [`list`], [`remove`]) and write the
//! lists. Workers read their own list ([`read_list`]). A worker uses the other functions only while
//! all backends are of an earlier version and write none.
//!
//! The lease is a setting of each queue's consumer, so all workers of a queue use the same one.

use std::time::Duration;

use async_nats::datetime::{DateTime, from_nanos};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PriorityPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind, Context};
use async_nats::jetstream::stream::{ConsumerCreateStrictErrorKind, Stream};
use futures::TryStreamExt;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_list::{QueueList, queues_key};
use ktrdr_protocol::queue_pause::QueuePause;
use ktrdr_protocol::subject::{PRIORITY_GROUP, SubjectNames, Topic};
use ktrdr_protocol::time::Timestamp;

use crate::key_values::KeyValues;
use crate::topology::{TopologyError, nats};

/// How many requests of one queue may be delivered and not acknowledged at a time: those that run, and
/// retries that wait. With the server's default of 1,000, a large fleet would stop getting work
/// without any error; with the 100,000 of version 0.1.0, so would a queue after many failures.
const MAX_ACK_PENDING: i64 = 1_000_000;

/// How many idle workers may wait on one queue. The server's default of 512 would turn away others.
const MAX_WAITING: i64 = 65_536;

/// The bound of a consumer that is being woken ([`resume`]): any value that no queue has.
const WAKING_ACK_PENDING: i64 = 2 * MAX_ACK_PENDING;

/// How often a consumer is created again while one of the same name is being removed, and the pause
/// between two tries.
const CREATE_TRIES: u32 = 10;
const CREATE_PAUSE: Duration = Duration::from_millis(50);

/// How many consumers the server allows on a stream that has no limit of its own. Servers before
/// 2.15 have no such limit, and an operator can configure another one (`default_max_consumers`);
/// the server tells neither.
pub const DEFAULT_MAX_CONSUMERS: usize = 1_000;

/// The durable pull consumer of one queue. The workers of the queue share it. It delivers the
/// requests from the sequence `from` on, `None` for all, and none before the end of `pause`.
pub fn queue_consumer(
    names: &SubjectNames,
    worker_type: &WorkerType,
    queue: &Queue,
    lease: Duration,
    from: Option<u64>,
    pause: Option<DateTime>,
) -> pull::Config {
    let deliver_policy = match from {
        Some(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        None => DeliverPolicy::All,
    };
    pull::Config {
        durable_name: Some(names.consumer(worker_type, queue)),
        description: Some(format!("queue {queue} of worker type {worker_type}")),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease,
        filter_subject: names.start(worker_type, &Origin::Queued(queue.clone())),
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        // Attempts are counted by `started` events, never by deliveries.
        max_deliver: -1,
        priority_policy: PriorityPolicy::Prioritized,
        priority_groups: vec![PRIORITY_GROUP.to_owned()],
        pause_until: pause,
        ..pull::Config::default()
    }
}

/// What the consumer of a queue has been created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ensured {
    /// The lease that applies: its `ack_wait`.
    pub lease: Duration,
    /// The sequence from which it delivers; `None` for all.
    pub from: Option<u64>,
}

impl Ensured {
    fn of(config: &consumer::Config) -> Self {
        let from = match config.deliver_policy {
            DeliverPolicy::ByStartSequence { start_sequence } => Some(start_sequence),
            _ => None,
        };
        Self {
            lease: config.ack_wait,
            from,
        }
    }
}

/// Creates the consumer of a queue if it is missing. One that exists keeps what it has delivered,
/// whatever `lease` and `from` say, and its own pause.
///
/// Callers that have seen the consumer pass the same `from` again: a cluster of servers can lose
/// the entry of a consumer and keep the consumer itself, and that one accepts no other.
///
/// # Errors
/// [`TopologyError`], also when another queue's consumer has this name.
pub async fn ensure(
    jetstream: &Context,
    names: &SubjectNames,
    worker_type: &WorkerType,
    queue: &Queue,
    lease: Duration,
    from: Option<u64>,
    pause: Option<QueuePause>,
) -> Result<Ensured, TopologyError> {
    let name = names.consumer(worker_type, queue);
    let what = format!("consumer {name}");
    let pause = pause.map(|pause| server_time(pause.end()));
    let pause = pause.transpose().map_err(|error| nats(&what, error))?;
    let config = queue_consumer(names, worker_type, queue, lease, from, pause);

    let mut tries = 1..=CREATE_TRIES;
    let found = loop {
        // A cluster that changes its leader can take a request to create what exists, and lose the
        // consumer's entry over it.
        if let Some(info) = find(jetstream, names, &name).await? {
            break info.config;
        }

        let created = jetstream
            .create_consumer_strict_on_stream(config.clone(), names.stream())
            .await;
        let error = match created {
            Ok(consumer) => return Ok(Ensured::of(&consumer.cached_info().config)),
            Err(error) => error,
        };

        // Another backend has created it, or an earlier one is still being removed.
        let has_more_tries = tries.next().is_some();
        match error.kind() {
            kind if says_too_many(&kind) => return Err(TopologyError::ConsumerLimit { what }),
            kind if has_more_tries
                && (says_it_exists(&kind) || says_it_is_being_removed(&kind)) => {}
            _ => return Err(nats(&what, error)),
        }
        tokio::time::sleep(CREATE_PAUSE).await;
    };

    if found.filter_subject != config.filter_subject {
        return Err(TopologyError::Incompatible {
            what,
            field: "filter",
            found: found.filter_subject.clone(),
            wanted: config.filter_subject,
        });
    }
    Ok(Ensured::of(&found))
}

fn says_it_exists(kind: &ConsumerCreateStrictErrorKind) -> bool {
    match kind {
        ConsumerCreateStrictErrorKind::AlreadyExists => true,
        ConsumerCreateStrictErrorKind::JetStream(error) => {
            matches!(
                error.error_code(),
                ErrorCode::CONSUMER_NAME_EXIST | ErrorCode::CONSUMER_ALREADY_EXISTS
            )
        }
        _ => false,
    }
}

/// The server frees a consumer's name before it has removed its files.
fn says_it_is_being_removed(kind: &ConsumerCreateStrictErrorKind) -> bool {
    matches!(kind, ConsumerCreateStrictErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::CONSUMER_CREATE)
}

fn says_too_many(kind: &ConsumerCreateStrictErrorKind) -> bool {
    matches!(kind, ConsumerCreateStrictErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::MAXIMUM_CONSUMERS_LIMIT)
}

/// All consumers of the operations stream.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those of queues.
    pub queues: Vec<QueueConsumer>,
    /// How many there are, others included.
    pub consumers: usize,
}

/// The consumer of a queue, as the server describes it.
#[derive(Debug)]
pub struct QueueConsumer {
    /// The worker type.
    pub worker_type: WorkerType,
    /// The queue.
    pub queue: Queue,
    /// The server's description.
    pub info: consumer::Info,
}

/// Asks the server for all consumers of the operations stream.
///
/// # Errors
/// [`TopologyError`] when it does not answer.
pub async fn list(jetstream: &Context, names: &SubjectNames) -> Result<Listing, TopologyError> {
    let what = format!("the consumers of {}", names.stream());
    let stream = stream(jetstream, names, &what).await?;
    let infos: Vec<consumer::Info> = stream
        .consumers()
        .try_collect()
        .await
        .map_err(|error| nats(&what, error))?;

    let consumers = infos.len();
    let queues = infos
        .into_iter()
        .filter_map(|info| {
            let (worker_type, queue) = queue_of(names, &info.config)?;
            Some(QueueConsumer {
                worker_type,
                queue,
                info,
            })
        })
        .collect();
    Ok(Listing { queues, consumers })
}

/// Gives the consumer of a queue another lease. It also counts for what the queue has delivered
/// already, and at once: a lease that is shortened takes work from workers that do not know it yet.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn set_lease(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &consumer::Info,
    lease: Duration,
) -> Result<(), TopologyError> {
    tracing::info!(consumer = %consumer.name, from = ?consumer.config.ack_wait, to = ?lease, "changing the lease");
    let config = consumer::Config {
        ack_wait: lease,
        ..consumer.config.clone()
    };
    update(jetstream, names, config).await
}

/// Gives the consumer of a queue this configuration.
async fn update(
    jetstream: &Context,
    names: &SubjectNames,
    config: consumer::Config,
) -> Result<(), TopologyError> {
    let name = config.name.as_ref().or(config.durable_name.as_ref());
    let what = format!("consumer {}", name.map_or("", String::as_str));
    jetstream
        .update_consumer_on_stream(config, names.stream())
        .await
        .map(drop)
        .map_err(|error| nats(&what, error))
}

/// Whether the consumer of a queue has a lower bound of unacknowledged requests than new ones.
pub fn is_bounded_too_low(consumer: &consumer::Config) -> bool {
    (1..MAX_ACK_PENDING).contains(&consumer.max_ack_pending)
}

/// Gives the consumer of a queue the bound that new ones have.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn raise_bound(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &consumer::Info,
) -> Result<(), TopologyError> {
    tracing::info!(consumer = %consumer.name, from = consumer.config.max_ack_pending, to = MAX_ACK_PENDING, "raising the bound of unacknowledged requests");
    let config = consumer::Config {
        max_ack_pending: MAX_ACK_PENDING,
        ..consumer.config.clone()
    };
    update(jetstream, names, config).await
}

/// The worker type and queue of a consumer; `None` when it is not a queue's consumer, for example
/// when an operator created it on the same subject.
pub fn queue_of(names: &SubjectNames, consumer: &consumer::Config) -> Option<(WorkerType, Queue)> {
    let Topic::Start { worker_type, queue } = names.parse(&consumer.filter_subject)? else {
        return None;
    };
    let (worker_type, queue) = (WorkerType::new(worker_type).ok()?, Queue::new(queue).ok()?);
    let own = names.consumer(&worker_type, &queue);
    (consumer.durable_name.as_deref() == Some(&own)).then_some((worker_type, queue))
}

/// The list of a worker type's queues; `None` when no backend has written one. What cannot be
/// believed in it is left out.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the list cannot be read.
pub async fn read_list(
    jetstream: &Context,
    names: &SubjectNames,
    worker_type: &WorkerType,
) -> Result<Option<QueueList>, TopologyError> {
    let what = format!("the list of queues of {worker_type}");
    // A worker needs no right to ask for the bucket's description.
    let bucket = KeyValues::new(jetstream.clone(), names.worker_types_bucket());
    let found = bucket
        .read(&queues_key(worker_type))
        .await
        .map_err(|error| nats(&what, error))?;
    let Some(value) = found.and_then(|found| found.value) else {
        return Ok(None);
    };

    let list: QueueList = serde_json::from_slice(&value).map_err(|error| nats(&what, error))?;
    Ok(Some(list.believed(names, worker_type)))
}

/// Asks the server about the consumer of a queue.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn info(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
) -> Result<consumer::Info, TopologyError> {
    ask(jetstream, names, consumer)
        .await?
        .map_err(|error| nats(&format!("consumer {consumer}"), error))
}

/// Asks the server about the consumer of a queue that may not exist.
async fn find(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
) -> Result<Option<consumer::Info>, TopologyError> {
    match ask(jetstream, names, consumer).await? {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(nats(&format!("consumer {consumer}"), error)),
    }
}

/// The server's own answer about a consumer.
async fn ask(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
) -> Result<Result<consumer::Info, ConsumerInfoError>, TopologyError> {
    let stream = stream(jetstream, names, &format!("consumer {consumer}")).await?;
    Ok(stream.consumer_info(consumer).await)
}

/// The stream whose consumers the queues are. `what` names in an error what it was needed for.
async fn stream(
    jetstream: &Context,
    names: &SubjectNames,
    what: &str,
) -> Result<Stream<()>, TopologyError> {
    jetstream
        .get_stream_no_info(names.stream())
        .await
        .map_err(|error| nats(what, error))
}

/// Lets the consumer of a queue deliver nothing until then, by the server's clock. What is delivered
/// already stays with its workers.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn pause(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
    until: Timestamp,
) -> Result<(), TopologyError> {
    let what = format!("consumer {consumer}");
    let until = server_time(until).map_err(|error| nats(&what, error))?;
    let stream = stream(jetstream, names, &what).await?;
    stream
        .pause_consumer(consumer, until)
        .await
        .map(drop)
        .map_err(|error| nats(&what, error))
}

/// Whether the consumer of a queue was paused until exactly then, which may have passed.
pub fn is_paused_until(consumer: &consumer::Config, until: Timestamp) -> bool {
    let found = consumer.pause_until;
    found.is_some_and(|found| server_time(until).is_ok_and(|until| until == found))
}

fn server_time(time: Timestamp) -> Result<DateTime, async_nats::Error> {
    from_nanos(i128::from(time.as_millis()) * 1_000_000)
}

/// Lets a paused consumer deliver again, to the pulls that wait already.
///
/// The server does not look for messages when a pause is ended early. What was published meanwhile
/// would wait for the next pull or the next message. A change of `max_ack_pending` makes it look.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn resume(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
) -> Result<(), TopologyError> {
    let what = format!("consumer {consumer}");
    let stream = stream(jetstream, names, &what).await?;
    stream
        .resume_consumer(consumer)
        .await
        .map_err(|error| nats(&what, error))?;

    let found = info(jetstream, names, consumer).await?.config;
    let usual = match found.max_ack_pending {
        // A backend was killed while it woke the consumer.
        WAKING_ACK_PENDING => MAX_ACK_PENDING,
        usual => usual,
    };
    for max_ack_pending in [WAKING_ACK_PENDING, usual] {
        let config = consumer::Config {
            max_ack_pending,
            ..found.clone()
        };
        update(jetstream, names, config).await?;
    }
    Ok(())
}

/// Removes the consumer of a queue. The stream keeps all start requests.
///
/// # Errors
/// [`TopologyError`] when the server does not answer, or the consumer does not exist.
pub async fn remove(
    jetstream: &Context,
    names: &SubjectNames,
    consumer: &str,
) -> Result<(), TopologyError> {
    jetstream
        .delete_consumer_from_stream(consumer, names.stream())
        .await
        .map(drop)
        .map_err(|error| nats(&format!("consumer {consumer}"), error))
}
