//! What somebody may do who only looks: the read-only half of `docs/nats-cli.md`. It shows parameters
//! and results of all operations.

use ktrdr_protocol::subject::SubjectNames;

use super::{Installation, Rule, api, publish, subscribe};

const BY_HAND: &str = "by hand";

pub(super) fn rules(installation: &Installation) -> Vec<Rule> {
    let names = &installation.names;
    let prefix = names.prefix();
    let (operations, metrics) = (names.stream(), names.metrics_stream());
    let logs = names.logs_stream();
    let types = SubjectNames::key_values_stream(&names.worker_types_bucket());

    let mut rules = vec![
        subscribe(format!("{prefix}.>"), "`nats sub`: all messages"),
        publish(
            api(format!("STREAM.MSG.GET.{operations}")),
            "`nats stream get`",
        ),
        publish(
            api(format!("CONSUMER.LIST.{operations}")),
            "`nats consumer report`: the queues",
        ),
        publish(
            api(format!("CONSUMER.NAMES.{operations}")),
            "`nats consumer ls`",
        ),
        publish(
            api(format!("CONSUMER.INFO.{operations}.*")),
            "`nats consumer info`: one queue",
        ),
    ];
    for stream in [&operations, &metrics, &logs, &types] {
        rules.push(publish(
            api(format!("STREAM.INFO.{stream}")),
            "`nats stream info`, `nats stream subjects`",
        ));
        rules.push(publish(
            api(format!("DIRECT.GET.{stream}.>")),
            "the last message of a subject, `nats kv get`",
        ));
    }
    for verb in ["operation", "health"] {
        rules.push(publish(
            names.worker_requests(verb),
            "the current state of a worker",
        ));
    }
    for verb in ["PING", "INFO", "STATS"] {
        for rest in ["", ".>"] {
            rules.push(publish(format!("$SRV.{verb}{rest}"), "`nats micro`"));
        }
    }
    rules.into_iter().map(|rule| rule.rare(BY_HAND)).collect()
}
