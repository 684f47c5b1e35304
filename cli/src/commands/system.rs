//! Workers, queues and worker types.

use std::io;

use ktrdr_client::{Client, ListWorkers, QueueOverview, Timestamp, WorkerTypeDocument};
use serde::Serialize;
use serde_json::Value;

use super::names;
use crate::args::{QueuesCommand, WorkersCommand};
use crate::failure::Failure;
use crate::text::{
    ago, duration, print, print_json, print_json_line, print_table, printable, word,
};

/// How many references and choices are followed to find a type, one in the other.
const TYPE_STEPS: usize = 4;
/// How many options of a choice are looked at: the steps multiply them.
const TYPE_CHOICES: usize = 8;

/// Prints the workers, or drains some.
///
/// # Errors
/// [`Failure`]: the first that is refused. What came before it is done.
pub async fn workers(
    client: &Client,
    command: Option<WorkersCommand>,
    json: bool,
) -> Result<(), Failure> {
    let (ids, drains) = match command {
        None => return list_workers(client, json).await,
        Some(WorkersCommand::Drain { ids }) => (ids, true),
        Some(WorkersCommand::Undrain { ids }) => (ids, false),
    };
    for id in &ids {
        let worker = if drains {
            client.drain(id).await?
        } else {
            client.undrain(id).await?
        };
        if json {
            print_json_line(&worker)?;
            continue;
        }
        let does = match worker.draining {
            true => "takes nothing more",
            false => "takes work",
        };
        print(&format!("{id}: {does}, runs {}", worker.running))?;
    }
    Ok(())
}

async fn list_workers(client: &Client, json: bool) -> Result<(), Failure> {
    let workers = client.workers(&ListWorkers::default()).await?;
    if json {
        return print_json(&workers);
    }

    let rows = workers
        .iter()
        .map(|worker| {
            vec![
                worker.worker_id.to_string(),
                worker.worker_type.to_string(),
                word(worker.status),
                format!("{}/{}", worker.current_operations.len(), worker.slots),
                worker.finished.to_string(),
                ago(worker.last_health_check),
                worker.version.clone(),
            ]
        })
        .collect();
    print_table(
        &[
            "ID",
            "TYPE",
            "STATUS",
            ">SLOTS",
            ">FINISHED",
            "HEARD",
            "VERSION",
        ],
        rows,
    )
}

/// Prints the queues, or pauses those of a worker type.
///
/// # Errors
/// [`Failure`].
pub async fn queues(
    client: &Client,
    command: Option<QueuesCommand>,
    json: bool,
) -> Result<(), Failure> {
    let now = match command {
        None => return list_queues(client, json).await,
        Some(QueuesCommand::Pause { worker_type, until }) => {
            let worker_type = names::resolve_one(client, worker_type).await?;
            client.pause_queues(&worker_type, until).await?
        }
        Some(QueuesCommand::Resume { worker_type }) => {
            let worker_type = names::resolve_one(client, worker_type).await?;
            client.resume_queues(&worker_type).await?
        }
    };
    if json {
        return print_json(&now);
    }
    let note = pause_note(now.paused, now.paused_until);
    let note = if note.is_empty() { "not paused" } else { &note };
    print(&format!("{}: {note}", now.worker_type))
}

async fn list_queues(client: &Client, json: bool) -> Result<(), Failure> {
    let queues = client.queues().await?;
    if json {
        return print_json(&queues);
    }

    let rows = queues
        .iter()
        .map(|queue| {
            vec![
                queue.worker_type.to_string(),
                queue.queue.to_string(),
                queue.waiting.to_string(),
                queue.running.to_string(),
                queue.delayed.to_string(),
                queue.oldest_seconds.map(duration).unwrap_or_default(),
                queue.workers.to_string(),
                note(queue),
            ]
        })
        .collect();
    print_table(
        &[
            "TYPE", "QUEUE", ">WAITING", ">RUNNING", ">DELAYED", ">OLDEST", ">WORKERS", "NOTE",
        ],
        rows,
    )
}

/// What keeps the operations of a queue waiting.
fn note(queue: &QueueOverview) -> String {
    let pause = pause_note(queue.paused, queue.paused_until);
    let permits = match queue.waiting_for_permit {
        0 => String::new(),
        waiting => format!("{waiting} wait for a permit"),
    };
    let notes = [pause, permits];
    let notes: Vec<_> = notes.iter().filter(|note| !note.is_empty()).collect();
    notes
        .into_iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `paused`, and until when; empty when it is not.
fn pause_note(paused: bool, until: Option<Timestamp>) -> String {
    match (paused, until) {
        (false, _) => String::new(),
        (true, None) => "paused".to_owned(),
        (true, Some(time)) => format!("paused until {time}"),
    }
}

/// Prints the worker types, or the parameters of one domain.
///
/// # Errors
/// [`Failure`]; [`Failure::Usage`] when there is no such domain.
pub async fn types(client: &Client, domain: Option<&str>, json: bool) -> Result<(), Failure> {
    let types = client.worker_types().await?;
    let Some(domain) = domain else {
        return if json {
            print_json(&as_value(&types)?)
        } else {
            print_types(&types)
        };
    };

    let is_meant =
        |of: &&WorkerTypeDocument| of.domain == domain || of.worker_type.as_str() == domain;
    let found = types.iter().find(is_meant).ok_or_else(|| {
        Failure::Usage(format!(
            "{domain:?} is neither a worker type nor a domain; `ktrdr types` lists them"
        ))
    })?;
    if json {
        print_json(&as_value(found)?)
    } else {
        print_parameters(found)
    }
}

/// With values in the place of schemas' texts, so that everything is indented.
fn as_value(document: &impl Serialize) -> Result<Value, Failure> {
    Ok(serde_json::to_value(document).map_err(io::Error::other)?)
}

fn print_types(types: &[WorkerTypeDocument]) -> Result<(), Failure> {
    let rows = types
        .iter()
        .map(|of| {
            vec![
                of.domain.clone(),
                of.worker_type.to_string(),
                of.workers.to_string(),
                of.description.clone(),
            ]
        })
        .collect();
    print_table(&["DOMAIN", "TYPE", ">WORKERS", "WHAT IT DOES"], rows)
}

fn print_parameters(of: &WorkerTypeDocument) -> Result<(), Failure> {
    print(&format!("{}: {}\n", of.domain, printable(&of.description)))?;

    // What cannot be read names no parameters.
    let schema = &of.request_schema.value().unwrap_or_default();
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let rows = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let is_required = required.contains(&name.as_str());
            vec![
                name.clone(),
                type_of(schema, property, TYPE_STEPS),
                match property.get("default") {
                    Some(default) => default.to_string(),
                    None if is_required => "required".to_owned(),
                    None => String::new(),
                },
                property["description"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            ]
        })
        .collect();
    print_table(&["PARAMETER", "TYPE", "DEFAULT", "MEANING"], rows)
}

/// The type of a property in a word or two, also behind a reference, a choice or a list of values;
/// empty when its schema says it in another way. The schema comes from a worker, so a
/// reference may lead in a circle: after some steps the type is not known.
fn type_of(schema: &Value, property: &Value, steps: usize) -> String {
    if steps == 0 {
        return String::new();
    }
    if let Some(reference) = property["$ref"].as_str() {
        let target = reference.strip_prefix('#');
        return target
            .and_then(|path| schema.pointer(path))
            .map(|target| type_of(schema, target, steps - 1))
            .unwrap_or_default();
    }

    let choices = |name: &str| property[name].as_array().filter(|list| !list.is_empty());
    let mut words: Vec<String> = match &property["type"] {
        Value::String(word) => vec![word.clone()],
        Value::Array(words) => words
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => match (choices("anyOf").or(choices("oneOf")), choices("enum")) {
            (Some(options), _) => options
                .iter()
                .take(TYPE_CHOICES)
                .map(|option| type_of(schema, option, steps - 1))
                .collect(),
            (None, Some(values)) => values.iter().map(kind_of).map(str::to_owned).collect(),
            (None, None) => property
                .get("const")
                .map(|value| kind_of(value).to_owned())
                .into_iter()
                .collect(),
        },
    };
    words.retain(|word| word != "null" && !word.is_empty());
    words.sort();
    words.dedup();
    words.join(" or ")
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_type_of_a_parameter_is_found_behind_references_and_choices() {
        let schema = json!({"$defs": {
            "Label": {"oneOf": [{"const": "next_up"}, {"const": "next_move"}]},
            "Circle": {"$ref": "#/$defs/Circle"},
        }});
        let shown = |property: Value| type_of(&schema, &property, TYPE_STEPS);

        assert_eq!(shown(json!({"type": ["integer", "null"]})), "integer");
        assert_eq!(shown(json!({"$ref": "#/$defs/Label"})), "string");
        assert_eq!(shown(json!({"enum": [1, "all"]})), "number or string");
        assert_eq!(
            shown(json!({"anyOf": [{"$ref": "#/$defs/Label"}, {"type": "null"}]})),
            "string"
        );
        assert_eq!(shown(json!({"$ref": "#/$defs/Circle"})), "");
        assert_eq!(shown(json!({})), "");
    }
}
