//! What a backend may do. It provisions streams, buckets and queues, so it administers its own ones.
//! It can delete no stream. It removes operations that are over, so it can purge the streams of
//! operations and metrics.

use ktrdr_protocol::subject::{SCHEDULES_CONSUMER, SubjectNames};
use ktrdr_protocol::worker::{DRAIN, PREFIX_KEY, UNDRAIN};

use super::{Installation, Rule, api, publish, subscribe};

const NEW: &str = "only when it is created, at the first start";
const CHANGED: &str = "only when a setting has changed";
const FORGOTTEN: &str = "only when a worker type is forgotten, or the bucket was lost";
const SURPLUS: &str =
    "only when there are many of them, a worker type is forgotten, or the bucket was lost";
const RECREATED: &str = "only after messages on the way were lost";

pub(super) fn rules(installation: &Installation) -> Vec<Rule> {
    let names = &installation.names;
    let (operations, metrics) = (names.stream(), names.metrics_stream());
    let logs = names.logs_stream();
    let types = names.worker_types_bucket();
    let results = std::iter::once(names.results_bucket())
        .chain(
            installation
                .worker_types
                .iter()
                .map(|worker_type| names.results_bucket_of(worker_type)),
        )
        .map(|bucket| SubjectNames::objects_stream(&bucket));
    let results: Vec<String> = results.collect();

    let mut rules = vec![
        publish(names.all_starts(), "starts"),
        publish(
            names.all_operations(),
            "ends without a worker: cancels of pending operations, forced cancels",
        ),
        publish(names.all_cancels(), "cancel intents"),
        publish(
            names.all_keys(),
            "who holds unique keys; leaving keys of operations that are over",
        ),
        publish(names.heartbeat_request(), "to know all workers at once"),
        publish(
            names.worker_requests("operation"),
            "the current state of an operation, from its worker",
        ),
        publish(
            names.worker_requests(DRAIN),
            "letting a worker take no more work",
        ),
        publish(names.worker_requests(UNDRAIN), "letting it go on"),
        publish(
            SubjectNames::key_value(&types, "pause.*"),
            "which worker types have paused queues",
        ),
        publish(SubjectNames::key_value(&types, "schedule.*"), "schedules"),
        publish(
            SubjectNames::key_value(&types, "schedule_run.*"),
            "what was decided about their slots",
        ),
        publish(names.all_schedules(), "telling the server when slots come"),
        publish(
            SubjectNames::key_value(&types, "domain.*"),
            "the record of who has a domain",
        ),
        publish(
            SubjectNames::key_value(&types, "queues.*"),
            "the queues of each worker type",
        ),
    ];

    for (key, why, when) in [
        ("*", "the entries of worker types", FORGOTTEN),
        ("version.*.*", "their versions", SURPLUS),
    ] {
        rules.push(publish(SubjectNames::key_value(&types, key), why).rare(when));
    }
    rules.push(
        publish(
            SubjectNames::key_value(&types, PREFIX_KEY),
            "the record of whose streams they are",
        )
        .rare(NEW),
    );
    rules.push(publish(api("INFO"), "the limits of the account").rare(NEW));
    let streams = [
        operations.clone(),
        metrics.clone(),
        logs.clone(),
        SubjectNames::key_values_stream(&types),
        SubjectNames::key_values_stream(&names.checkpoints_bucket()),
    ];
    for stream in streams.iter().chain(&results) {
        rules.push(publish(
            api(format!("STREAM.INFO.{stream}")),
            "provisioning and watching the stream",
        ));
        rules.push(publish(api(format!("STREAM.CREATE.{stream}")), "provisioning").rare(NEW));
        rules.push(publish(api(format!("STREAM.UPDATE.{stream}")), "provisioning").rare(CHANGED));
    }

    rules.extend([
        publish(
            api(format!("CONSUMER.LIST.{operations}")),
            "the queues, and their leases",
        ),
        publish(
            api(format!("CONSUMER.INFO.{operations}.*")),
            "a queue that exists already, or is about to be removed",
        )
        .rare("only when another backend has just created it, or after it was unused"),
        publish(
            api(format!("CONSUMER.CREATE.{operations}.>")),
            "queues; and its reader again, after messages on the way were lost",
        ),
        publish(
            api(format!("CONSUMER.PAUSE.{operations}.*")),
            "pausing a queue; looking at it once more before it is removed",
        ),
        publish(
            api(format!("CONSUMER.DELETE.{operations}.*")),
            "queues that are no longer used",
        )
        .rare("only after a queue was unused for a while"),
    ]);
    let schedules = names.schedules_stream();
    for (right, why) in [
        (
            format!("STREAM.INFO.{schedules}"),
            "the stream of schedules",
        ),
        (
            format!("STREAM.CREATE.{schedules}"),
            "the stream of schedules",
        ),
        (
            format!("STREAM.PURGE.{schedules}"),
            "schedules that are paused or deleted",
        ),
        (
            format!("CONSUMER.INFO.{schedules}.{SCHEDULES_CONSUMER}"),
            "the consumer of their slots",
        ),
        (
            format!("CONSUMER.CREATE.{schedules}.>"),
            "the consumer of their slots",
        ),
        (
            format!("CONSUMER.MSG.NEXT.{schedules}.{SCHEDULES_CONSUMER}"),
            "slots that have come",
        ),
    ] {
        rules.push(publish(api(right), why));
    }
    rules.extend([
        publish(
            api(format!("STREAM.UPDATE.{schedules}")),
            "the stream of schedules",
        )
        .rare(CHANGED),
        publish(
            api(format!("STREAM.MSG.GET.{schedules}")),
            "whether the server knows a schedule",
        )
        .rare("only for schedules of other backends"),
        publish(
            format!("$JS.ACK.{schedules}.{SCHEDULES_CONSUMER}.>"),
            "slots that have come",
        ),
    ]);
    for (right, why) in [
        (
            format!("STREAM.MSG.DELETE.{operations}"),
            "start requests of operations that are over",
        ),
        (
            format!("STREAM.PURGE.{operations}"),
            "logs of operations that are over, and entries of keys that nobody needs",
        ),
        (
            format!("STREAM.PURGE.{metrics}"),
            "metric points of operations that are over",
        ),
        (
            format!("STREAM.PURGE.{logs}"),
            "log lines of operations that are over",
        ),
    ] {
        rules.push(
            publish(api(right), why).rare(
                "only while an operation is older than the retention, or after keys were used",
            ),
        );
    }
    // The bucket that all types share is only read.
    let shared = SubjectNames::objects_stream(&names.results_bucket());
    let of_old = |rule: Rule| {
        let is_shared = rule.subject.split('.').any(|token| token == shared);
        match is_shared {
            true => rule.rare("only for results of version 0.1.0"),
            false => rule,
        }
    };
    let readers = [
        (operations.clone(), "the projection"),
        (metrics.clone(), "metric points of live events"),
        (
            SubjectNames::key_values_stream(&types),
            "the worker types, and the lists of queues",
        ),
    ];
    for (stream, why) in readers {
        rules.push(publish(api(format!("CONSUMER.CREATE.{stream}")), why));
        if stream != operations {
            let recreate = api(format!("CONSUMER.CREATE.{stream}.>"));
            rules.push(publish(recreate, why).rare(RECREATED));
            let delete = api(format!("CONSUMER.DELETE.{stream}.*"));
            rules.push(publish(delete, why).rare(RECREATED));
        }
    }

    rules.extend([
        publish(
            api(format!("STREAM.MSG.GET.{operations}")),
            "the log of an operation, from the leader of the stream",
        ),
        publish(
            api(format!("DIRECT.GET.{operations}")),
            "the history of an operation",
        ),
        publish(
            api(format!("DIRECT.GET.{metrics}")),
            "the metric points of an operation",
        ),
        publish(
            api(format!("STREAM.MSG.GET.{metrics}")),
            "the last metric points of an operation, from the leader of the stream",
        ),
        publish(
            api(format!("DIRECT.GET.{logs}")),
            "the log lines of an operation",
        ),
        publish(
            api(format!("STREAM.MSG.GET.{logs}")),
            "the last log lines of an operation, from the leader of the stream",
        ),
        publish(
            api(format!(
                "DIRECT.GET.{}.>",
                SubjectNames::key_values_stream(&types)
            )),
            "the record of who has a domain, and the queues",
        ),
    ]);
    rules.push(publish(
        api(format!(
            "STREAM.MSG.GET.{}",
            SubjectNames::key_values_stream(&types)
        )),
        "the list of queues and whether they are paused, from the leader of the bucket",
    ));
    for stream in &results {
        let parts = api(format!("DIRECT.GET.{stream}"));
        rules.push(of_old(publish(parts, "large results")));
        let description = api(format!("DIRECT.GET.{stream}.>"));
        let why = "the description of a large result";
        rules.push(of_old(publish(description, why)));
        let newest = api(format!("STREAM.MSG.GET.{stream}"));
        let why = "what a copy of the bucket lacks that lags";
        rules.push(of_old(publish(newest, why)).rare("only in a cluster"));
    }
    rules.extend([
        publish("$JS.FC.>", "the pace at which it reads streams")
            .rare("only while much is read at once"),
        subscribe(names.all_heartbeats(), "the workers"),
        subscribe(names.all_progress(), "progress"),
    ]);
    rules
}
