//! The AsyncAPI document: every channel of the bus with its messages, generated from the types that the
//! programs write and read.
//!
//! The problem: who writes a worker in another language, or looks at the bus with `nats`, needs to know
//! which messages there are, and a description that is written by hand is wrong soon.
//!
//! How it is solved: addresses come from [`SubjectNames`], schemas from the types of this crate. Only
//! the words around them stand here. `docs/asyncapi.json` is what [`document`] returns, and a test
//! compares it with the messages of a running system.
//!
//! AsyncAPI describes a bus from the view of one program. Here that is a worker: `send` means that
//! workers publish. `x-writers` and `x-readers` of a channel name all programs.
//!
//! | module | holds |
//! |---|---|
//! | [`channels`] | the channels: address, who writes, who reads |
//! | [`messages`] | the messages: payload and headers |

mod channels;
mod messages;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::id::InvalidName;
use crate::subject::SubjectNames;

/// The version of AsyncAPI that the document follows.
const ASYNCAPI: &str = "3.0.0";

/// The AsyncAPI document of all messages under these names.
///
/// ```
/// use ktrdr_protocol::asyncapi;
/// use ktrdr_protocol::subject::SubjectNames;
///
/// let document = asyncapi::document(&SubjectNames::new("acme")?)?;
/// let events = &document["channels"]["events"];
/// assert_eq!(events["address"], "acme.op.{worker_type}.{operation_id}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Never: the names that stand for parameters are valid.
pub fn document(names: &SubjectNames) -> Result<Value, InvalidName> {
    // What AsyncAPI's own schema language extends.
    let mut generator = SchemaSettings::draft07()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();

    let channels = channels::all(names)?;
    let messages = messages::all(&mut generator);
    let schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();

    let mut document = json!({
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "KTRDR Workers on NATS",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every message that backends and workers exchange. `send` and `receive` are \
                those of a worker; `x-writers` and `x-readers` name all programs, and `x-stream` the stream \
                that keeps the messages. Readers ignore fields that they do not know. \
                docs/protocol.md says in which order messages come.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": channels.iter().map(|channel| (channel.id.to_owned(), channel.document())).collect::<Map<_, _>>(),
        "operations": channels.iter().flat_map(channels::Channel::operations).collect::<Map<_, _>>(),
        "components": {"messages": messages, "schemas": schemas},
    });
    plain_descriptions(&mut document);
    Ok(document)
}

/// Makes plain sentences of the descriptions: they come from comments in the code, with line breaks and
/// links that lead nowhere here.
fn plain_descriptions(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text
                    .replace("[`", "`")
                    .replace("`]", "`")
                    .replace("\n\n", "\0")
                    .replace('\n', " ")
                    .replace('\0', "\n\n");
            }
            members.values_mut().for_each(plain_descriptions);
        }
        Value::Array(members) => members.iter_mut().for_each(plain_descriptions),
        _ => {}
    }
}

/// A reference to a part of the document.
fn reference(path: impl std::fmt::Display) -> Value {
    json!({"$ref": format!("#/{path}")})
}

#[cfg(test)]
mod tests;
