//! What the workers of one type may do: everything about operations of their own type, and nothing
//! about others.

use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::keys::KeyKind;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::{DRAIN, PREFIX_KEY, UNDRAIN, version_key};

use super::{Installation, Role, Rule, api, publish, subscribe};

pub(super) fn rules(installation: &Installation, worker_type: &WorkerType) -> Vec<Rule> {
    let names = &installation.names;
    let stream = names.stream();
    let types = names.worker_types_bucket();
    let checkpoints = names.checkpoints_bucket();
    let results = names.results_bucket_of(worker_type);

    let mut rules = vec![
        publish(
            names.operations_of(worker_type),
            "state changes of its operations",
        ),
        publish(
            names.keys_of(worker_type, KeyKind::Concurrency),
            "who holds concurrency keys of its type",
        ),
        publish(names.progress_of(worker_type), "progress"),
        publish(names.metrics_of(worker_type), "metric points"),
        publish(names.logs_of(worker_type), "log lines"),
        publish(names.heartbeats_of(worker_type), "heartbeats"),
        publish(
            SubjectNames::key_value(&types, worker_type.as_str()),
            "its entry in the catalogue",
        ),
        publish(
            SubjectNames::key_value(&types, &version_key(worker_type, "*")),
            "its version in the catalogue",
        ),
    ];

    // A class has a queue for each priority.
    let levels = |queue: &Queue| match QueueName::parse(queue.as_str()) {
        Some(name) => QueueName::levels(name.class)
            .map(|level| level.queue())
            .collect(),
        None => vec![queue.clone()],
    };
    let queues = installation.queues.iter().flat_map(levels);
    let consumers = queues.map(|queue| names.consumer(worker_type, &queue));
    let (pulls, acks): (Vec<_>, Vec<_>) = consumers
        .map(|consumer| {
            let pull = publish(
                api(format!("CONSUMER.MSG.NEXT.{stream}.{consumer}")),
                "pulling from the queue",
            );
            let ack = publish(
                format!("$JS.ACK.{stream}.{consumer}.>"),
                "acknowledging requests of the queue, and extending their leases",
            );
            (pull, ack)
        })
        .unzip();
    rules.extend(pulls.into_iter().chain(acks));
    let any = ktrdr_protocol::requirements::Requirements::default().queue();
    let read_key = |bucket: &str, key: &str| {
        let stream = SubjectNames::key_values_stream(bucket);
        api(format!("DIRECT.GET.{stream}.$KV.{bucket}.{key}"))
    };

    rules.extend([
        publish(
            format!("{}.>", Role::Worker(worker_type.clone()).inbox_prefix()),
            "taking pulls back",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{stream}.{}",
                names.operations_of(worker_type)
            )),
            "the last event of an operation of its type",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{stream}.{}",
                names.cancels_of(worker_type)
            )),
            "the cancel intent of an operation of its type",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{stream}.{}",
                names.keys_of(worker_type, KeyKind::Concurrency)
            )),
            "who holds a concurrency key of its type",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{}.{}",
                names.logs_stream(),
                names.logs_of(worker_type)
            )),
            "how much an operation has said that begins another attempt",
        ),
        publish(
            api(format!(
                "CONSUMER.INFO.{stream}.{}",
                names.consumer(worker_type, &any)
            )),
            "the time of the server, when a start or a retry may be due",
        ),
        publish(
            read_key(&types, worker_type.as_str()),
            "whether its entry in the catalogue is the same",
        ),
        publish(
            read_key(&types, &version_key(worker_type, "*")),
            "whether its version is in the catalogue",
        ),
        publish(
            read_key(&types, &format!("queues.{worker_type}")),
            "the queues of its type",
        ),
        publish(read_key(&types, "domain.*"), "whether its domain is taken"),
        publish(
            read_key(&types, PREFIX_KEY),
            "whether the streams are of its prefix",
        ),
        publish(
            SubjectNames::key_value(&checkpoints, &format!("{worker_type}.*")),
            "storing and removing checkpoints",
        ),
        publish(
            read_key(&checkpoints, &format!("{worker_type}.*")),
            "reading checkpoints",
        ),
        publish(
            api(format!(
                "STREAM.INFO.{}",
                SubjectNames::objects_stream(&results)
            )),
            "the bucket of its large results",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{}.$O.{results}.M.*",
                SubjectNames::objects_stream(&results)
            )),
            "whether a large result is stored already",
        ),
        publish(format!("$O.{results}.C.*"), "large results"),
        publish(format!("$O.{results}.M.*"), "large results"),
        publish(
            api(format!(
                "STREAM.PURGE.{}",
                SubjectNames::objects_stream(&results)
            )),
            "replacing a large result",
        )
        .rare("only when storing it was interrupted"),
    ]);
    if installation.direct_starts {
        rules.extend([
            publish(
                names.start(worker_type, &Origin::Direct),
                "starts at its own REST interface",
            ),
            publish(
                names.cancels_of(worker_type),
                "cancels at its own REST interface",
            ),
        ]);
    }

    rules.extend([
        subscribe(
            names.operations_of(worker_type),
            "noticing that an attempt is lost",
        ),
        subscribe(names.cancels_of(worker_type), "cancel intents"),
        subscribe(
            names.queue_list(worker_type),
            "changes of the queues of its type",
        ),
        subscribe(
            names.heartbeat_request(),
            "the question of a backend that has just started",
        ),
    ]);
    for (verb, why) in [
        ("operation", "requests for its current state"),
        ("health", "requests for its current state"),
        (DRAIN, "being told to take no more work"),
        (UNDRAIN, "being told to go on"),
    ] {
        rules.push(subscribe(names.worker_requests(verb), why));
    }
    for verb in ["PING", "INFO", "STATS"] {
        let name = format!("ktrdr-worker-{worker_type}");
        for rest in [String::new(), format!(".{name}"), format!(".{name}.*")] {
            rules.push(subscribe(
                format!("$SRV.{verb}{rest}"),
                "`nats micro`: the workers as NATS services",
            ));
        }
    }
    rules
}
