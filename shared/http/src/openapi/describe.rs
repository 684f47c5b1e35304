//! How argument and return types of handlers describe themselves.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{MatchedPath, Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use ktrdr_protocol::rest::ErrorCode;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::answer::{PrometheusText, RenderedJson};
use crate::error::ApiError;

/// The description of one route while it is made.
pub struct Description<'g> {
    pub(super) generator: &'g mut SchemaGenerator,
    pub(super) parameters: Vec<Value>,
    pub(super) responses: BTreeMap<u16, Value>,
    pub(super) errors: Vec<ErrorCode>,
    pub(super) takes_start_body: bool,
    /// The schema of the JSON body that the route takes.
    pub(super) body: Option<Value>,
    answer: &'static str,
}

impl<'g> Description<'g> {
    pub(super) fn new(generator: &'g mut SchemaGenerator, answer: &'static str) -> Self {
        Self {
            generator,
            parameters: Vec::new(),
            responses: BTreeMap::new(),
            errors: Vec::new(),
            takes_start_body: false,
            body: None,
            answer,
        }
    }

    /// Adds the answer 200 with a JSON document of type `T`.
    pub fn document<T: JsonSchema>(&mut self) {
        self.json::<T>(200, self.answer);
    }

    /// Adds an answer with a JSON document of type `T`.
    pub fn json<T: JsonSchema>(&mut self, status: u16, description: &str) {
        let schema = self.generator.subschema_for::<T>().to_value();
        self.add(status, description, Some(("application/json", schema)));
    }

    /// Adds the answer 200 with text of the media type `kind`.
    pub fn text(&mut self, kind: &str) {
        let schema = json!({"type": "string"});
        self.add(200, self.answer, Some((kind, schema)));
    }

    /// Says that an answer that was added before may also be text of the media type `kind`.
    pub fn also_text(&mut self, status: u16, kind: &str) {
        if let Some(response) = self.responses.get_mut(&status) {
            response["content"][kind]["schema"] = json!({"type": "string"});
        }
    }

    /// Adds an answer without a body.
    pub fn empty(&mut self, status: u16, description: &str) {
        self.add(status, description, None);
    }

    /// Adds a header to an answer that was added before.
    pub fn answer_header(&mut self, status: u16, name: &str, description: &str) {
        if let Some(response) = self.responses.get_mut(&status) {
            response["headers"][name] =
                json!({"description": description, "schema": {"type": "string"}});
        }
    }

    /// Says that the route takes a start body.
    pub fn start_body(&mut self) {
        self.takes_start_body = true;
        self.errors.extend(BODY_ERRORS);
    }

    /// Says that the route takes a JSON body of type `T`.
    pub fn json_body<T: JsonSchema>(&mut self) {
        let mut settings = SchemaSettings::draft2020_12().for_deserialize();
        settings.inline_subschemas = true;
        let schema = settings.into_generator().into_root_schema_for::<T>();
        let mut schema = schema.to_value();
        plain_enums(&mut schema);
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$schema");
        }
        self.body = Some(schema);
        self.errors.extend(BODY_ERRORS);
    }

    /// Says that the route refuses a body.
    pub fn no_body(&mut self) {
        self.errors
            .extend([ErrorCode::InvalidBody, ErrorCode::InvalidRequest]);
    }

    /// Adds an optional query parameter for each field of `T`.
    pub fn query<T: JsonSchema>(&mut self) {
        let mut settings = SchemaSettings::draft2020_12().for_deserialize();
        settings.inline_subschemas = true;
        let schema = settings.into_generator().into_root_schema_for::<T>();
        let fields = schema.get("properties").and_then(Value::as_object);

        for (name, schema) in fields.into_iter().flatten() {
            let mut schema = schema.as_object().cloned().unwrap_or_default();
            let description = schema.shift_remove("description").unwrap_or_default();
            self.parameters.push(json!({
                "name": name, "in": "query", "required": false,
                "description": description, "schema": without_null(schema),
            }));
        }
        self.errors.push(ErrorCode::InvalidQuery);
    }

    fn add(&mut self, status: u16, description: &str, content: Option<(&str, Value)>) {
        let mut response = json!({"description": description});
        if let Some((kind, schema)) = content {
            response["content"][kind]["schema"] = schema;
        }
        self.responses.insert(status, response);
    }
}

/// What a route with a body may refuse it for.
const BODY_ERRORS: [ErrorCode; 4] = [
    ErrorCode::BadJson,
    ErrorCode::InvalidBody,
    ErrorCode::BodyTooLarge,
    ErrorCode::InvalidRequest,
];

/// The schema of an optional field without its `null`: a query parameter is absent instead.
fn without_null(mut schema: Map<String, Value>) -> Value {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(mut alternatives)) = schema.shift_remove("anyOf") {
        alternatives.retain(|one| one["type"] != "null");
        match (alternatives.pop(), alternatives.is_empty()) {
            (Some(Value::Object(only)), true) => schema.extend(only),
            (last, _) => {
                alternatives.extend(last);
                schema.insert("anyOf".to_owned(), alternatives.into());
            }
        }
    }
    make_plain_enum(&mut schema);
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        make_plain_enum(items);
    }
    Value::Object(schema)
}

/// Turns a choice among words that each have a description into an enum. Generators make a type
/// with named values of an enum, and an anonymous union of such a choice. The descriptions of the
/// words go to the description of the enum.
pub(super) fn make_plain_enum(schema: &mut Map<String, Value>) {
    let Some(choices) = schema.get("oneOf").and_then(Value::as_array) else {
        return;
    };
    let words: Vec<&str> = choices
        .iter()
        .filter_map(|choice| choice["const"].as_str())
        .collect();
    if words.is_empty() || words.len() < choices.len() {
        return;
    }

    let own = schema.get("description").and_then(Value::as_str);
    let of_words = choices.iter().filter_map(|choice| {
        let word = choice["const"].as_str()?;
        Some(format!("`{word}`: {}", choice["description"].as_str()?))
    });
    let description: Vec<String> = own.map(str::to_owned).into_iter().chain(of_words).collect();
    let (words, description) = (Value::from(words), description.join(" ").into());
    schema.shift_remove("oneOf");
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), words);
    schema.insert("description".to_owned(), description);
}

/// Turns every choice among words in a schema into an enum.
fn plain_enums(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            make_plain_enum(members);
            members.values_mut().for_each(plain_enums);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_enums),
        _ => {}
    }
}

/// A type of a handler's argument or return value that can describe its part of the route.
pub trait Describe {
    /// Adds to the description.
    fn describe(description: &mut Description<'_>);
}

/// A handler whose argument types and return type describe themselves. `T` is the same as in
/// [`axum::handler::Handler`].
pub trait DescribeHandler<T> {
    /// Adds parameters and answers to the description.
    fn describe(description: &mut Description<'_>);
}

/// Arguments that clients do not see, or that the path or [`super::Doc`] describes.
macro_rules! describes_nothing {
    ($([$($generic:ident)?] $name:ty,)*) => {
        $(impl<$($generic)?> Describe for $name {
            fn describe(_: &mut Description<'_>) {}
        })*
    };
}

describes_nothing! {
    [S] State<S>,
    [E] Extension<E>,
    [P] Path<P>,
    [] HeaderMap,
    [] MatchedPath,
    [] Result<Bytes, BytesRejection>,
}

/// Only start routes take a body as it comes.
impl Describe for Body {
    fn describe(description: &mut Description<'_>) {
        description.start_body();
    }
}

impl<T: JsonSchema> Describe for Json<T> {
    fn describe(description: &mut Description<'_>) {
        description.document::<T>();
    }
}

impl<T: JsonSchema> Describe for RenderedJson<T> {
    fn describe(description: &mut Description<'_>) {
        description.document::<T>();
    }
}

impl Describe for PrometheusText {
    fn describe(description: &mut Description<'_>) {
        description.text("text/plain");
    }
}

impl<R: Describe> Describe for Result<R, ApiError> {
    fn describe(description: &mut Description<'_>) {
        R::describe(description);
    }
}
