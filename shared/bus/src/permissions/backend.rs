//! What a backend may do. It provisions streams, buckets and queues, so it administers its own ones.
//! It can delete no stream. It removes operations that are over, so it can purge the streams of
//! operations and metrics.

use ktrdr_protocol::worker::PREFIX_KEY;

use super::{Installation, Rule, api, key_values, objects, publish, subscribe};

const NEW: &str = "only when it is created, at the first start";
const CHANGED: &str = "only when a setting has changed";
const RECREATED: &str = "only after messages on the way were lost";

pub(super) fn rules(installation: &Installation) -> Vec<Rule> {
    let names = &installation.names;
    let (operations, metrics) = (names.stream(), names.metrics_stream());
    let types = names.worker_types_bucket();
    let results = std::iter::once(names.results_bucket())
        .chain(
            installation
                .worker_types
                .iter()
                .map(|worker_type| names.results_bucket_of(worker_type)),
        )
        .map(|bucket| objects(&bucket));
    let results: Vec<String> = results.collect();

    let mut rules = vec![
        publish(names.all_starts(), "starts"),
        publish(
            names.all_operations(),
            "ends without a worker: cancels of pending operations, forced cancels",
        ),
        publish(names.all_cancels(), "cancel intents"),
        publish(names.heartbeat_request(), "to know all workers at once"),
        publish(
            names.worker_requests("operation"),
            "the current state of an operation, from its worker",
        ),
        publish(
            format!("$KV.{types}.domain.*"),
            "the record of who has a domain",
        ),
        publish(
            format!("$KV.{types}.queues.*"),
            "the queues of each worker type",
        ),
    ];

    rules.push(
        publish(
            format!("$KV.{types}.{PREFIX_KEY}"),
            "the record of whose streams they are",
        )
        .rare(NEW),
    );
    rules.push(publish(api("INFO"), "the limits of the account").rare(NEW));
    let streams = [
        operations.clone(),
        metrics.clone(),
        key_values(&types),
        key_values(&names.checkpoints_bucket()),
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
            "looking at a queue once more before it is removed",
        )
        .rare("only after a queue was unused for a while"),
        publish(
            api(format!("CONSUMER.DELETE.{operations}.*")),
            "queues that are no longer used",
        )
        .rare("only after a queue was unused for a while"),
    ]);
    for (right, why) in [
        (
            format!("STREAM.MSG.DELETE.{operations}"),
            "start requests that are over",
        ),
        (format!("STREAM.PURGE.{operations}"), "logs that are over"),
        (
            format!("STREAM.PURGE.{metrics}"),
            "metric points that are over",
        ),
    ] {
        rules.push(
            publish(api(right), why).rare("only while an operation is older than the retention"),
        );
    }
    // The bucket that all types share is only read.
    let shared = objects(&names.results_bucket());
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
            key_values(&types),
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
            api(format!("DIRECT.GET.{}.>", key_values(&types))),
            "the record of who has a domain, and the queues",
        ),
    ]);
    for stream in &results {
        let parts = api(format!("DIRECT.GET.{stream}"));
        rules.push(of_old(publish(parts, "large results")));
        let description = api(format!("DIRECT.GET.{stream}.>"));
        let why = "the description of a large result";
        rules.push(of_old(publish(description, why)));
    }
    rules.extend([
        publish("$JS.FC.>", "the pace at which it reads streams")
            .rare("only while much is read at once"),
        subscribe(names.all_heartbeats(), "the workers"),
        subscribe(names.all_progress(), "progress"),
    ]);
    rules
}
