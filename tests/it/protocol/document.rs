//! The document: channels, and which message something is.

use std::collections::BTreeSet;

use jsonschema::{Draft, Validator};
use ktrdr_tests::settings::repository;
use serde_json::{Map, Value, json};

use super::recorder::Recorded;

/// `docs/asyncapi.json`.
pub struct Document {
    pub channels: Vec<Channel>,
    /// Channels of answers, by the channel of the request.
    answers: Vec<(String, Vec<String>)>,
}

pub struct Channel {
    pub id: String,
    /// `None` for the inboxes of those who ask.
    pub address: Option<String>,
    pub writers: Vec<String>,
    pub messages: Vec<Message>,
}

pub struct Message {
    pub name: String,
    headers: BTreeSet<String>,
    /// Those without which it is another message.
    required_headers: BTreeSet<String>,
    content: Content,
}

enum Content {
    Empty,
    Bytes,
    Text,
    Json(Validator),
}

fn words(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn last_part(reference: &Value) -> String {
    let path = reference["$ref"].as_str().unwrap();
    path.rsplit('/').next().unwrap().to_owned()
}

impl Document {
    pub fn read() -> Self {
        let text = std::fs::read_to_string(repository().join("docs/asyncapi.json")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let mut components = document["components"].clone();
        forbid_unknown_fields(&mut components);

        let channels = document["channels"].as_object().unwrap();
        let channels = channels.iter().map(|(id, channel)| Channel {
            id: id.clone(),
            address: channel["address"].as_str().map(str::to_owned),
            writers: words(&channel["x-writers"]),
            messages: channel["messages"]
                .as_object()
                .unwrap()
                .values()
                .map(|reference| Message::new(last_part(reference), &components))
                .collect(),
        });
        let operations = document["operations"].as_object().unwrap().values();
        let answers = operations
            .filter(|operation| operation["reply"].is_object())
            .map(|operation| {
                let messages = operation["reply"]["messages"].as_array().unwrap();
                let messages = messages.iter().map(last_part).collect();
                (last_part(&operation["channel"]), messages)
            });
        Self {
            channels: channels.collect(),
            answers: answers.collect(),
        }
    }

    /// Channel and message of something that was published.
    pub fn find(&self, recorded: &Recorded) -> Result<(&str, &str), String> {
        let (channel, allowed) = match &recorded.answers {
            None => (self.channel(&recorded.subject)?, None),
            Some(request) => {
                let asked = &self.channel(request)?.id;
                let (_, messages) = self
                    .answers
                    .iter()
                    .find(|(channel, _)| channel == asked)
                    .ok_or_else(|| format!("{asked} has no answer"))?;
                let inboxes = self.channels.iter().find(|one| one.address.is_none());
                (inboxes.unwrap(), Some(messages))
            }
        };

        let candidates = channel
            .messages
            .iter()
            .filter(|message| allowed.is_none_or(|allowed| allowed.contains(&message.name)));
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        for message in candidates {
            match message.check(recorded) {
                Ok(()) => found.push(message.name.as_str()),
                Err(why) => reasons.push(format!("no {}: {why}", message.name)),
            }
        }
        match found[..] {
            [name] => Ok((&channel.id, name)),
            [] => Err(format!("{}: {}", channel.id, reasons.join("; "))),
            _ => Err(format!("{} is each of {found:?}", channel.id)),
        }
    }

    fn channel(&self, subject: &str) -> Result<&Channel, String> {
        let of_subject = |channel: &&Channel| {
            let address = channel.address.as_deref();
            address.is_some_and(|address| is_at(address, subject))
        };
        match self.channels.iter().filter(of_subject).collect::<Vec<_>>()[..] {
            [channel] => Ok(channel),
            [] => Err("no channel has this subject".to_owned()),
            [first, second, ..] => Err(format!("{} and {} have this subject", first.id, second.id)),
        }
    }
}

/// Whether a subject is one of an address. A parameter stands for a whole token, or for its end.
fn is_at(address: &str, subject: &str) -> bool {
    let (mut expected, mut given) = (address.split('.'), subject.split('.'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return true,
            (Some(token), Some(word)) => {
                let fits = match token.split_once('{') {
                    None => token == word,
                    Some((before, _)) => word.len() > before.len() && word.starts_with(before),
                };
                if !fits {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

impl Message {
    fn new(name: String, components: &Value) -> Self {
        let message = &components["messages"][&name];
        let no_headers = Map::new();
        let headers = message["headers"]["properties"].as_object();
        let headers = headers.unwrap_or(&no_headers).keys().cloned().collect();

        let content = match (message["contentType"].as_str(), message.get("payload")) {
            (Some("application/octet-stream"), _) => Content::Bytes,
            (Some("text/plain"), _) => Content::Text,
            (_, None) => Content::Empty,
            (_, Some(_)) => {
                let path = format!("#/components/messages/{name}/payload");
                let schema = json!({"allOf": [{"$ref": path}], "components": components});
                let validator = jsonschema::options()
                    .with_draft(Draft::Draft7)
                    .build(&schema)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                Content::Json(validator)
            }
        };
        Self {
            name,
            headers,
            required_headers: words(&message["headers"]["required"]).into_iter().collect(),
            content,
        }
    }

    fn check(&self, recorded: &Recorded) -> Result<(), String> {
        let unknown: Vec<_> = recorded.headers.difference(&self.headers).collect();
        if !unknown.is_empty() {
            return Err(format!("the headers {unknown:?} are not in the document"));
        }

        let missing: Vec<_> = self
            .required_headers
            .difference(&recorded.headers)
            .collect();
        if !missing.is_empty() {
            return Err(format!("the headers {missing:?} are missing"));
        }

        let payload = &recorded.payload;
        match &self.content {
            Content::Empty if payload.is_empty() => Ok(()),
            Content::Empty => Err("there is a payload".to_owned()),
            _ if payload.is_empty() => Err("there is no payload".to_owned()),
            Content::Bytes => Ok(()),
            Content::Text => std::str::from_utf8(payload)
                .map(drop)
                .map_err(|error| error.to_string()),
            Content::Json(schema) => {
                let value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                let errors = schema.iter_errors(&value);
                let errors: Vec<_> = errors
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                match errors.is_empty() {
                    true => Ok(()),
                    false => Err(errors.join(", ")),
                }
            }
        }
    }
}

/// Readers ignore fields that they do not know. Here, each of them must be in the document.
fn forbid_unknown_fields(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(forbid_unknown_fields);
            let is_schema = members.get("properties").is_some_and(Value::is_object);
            if is_schema && members.get("type").is_some_and(|word| word == "object") {
                members
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
        }
        Value::Array(members) => members.iter_mut().for_each(forbid_unknown_fields),
        _ => {}
    }
}
