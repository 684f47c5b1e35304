//! Checks answers against `/openapi.json`.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::client::{Answer, Client};

/// A client that checks every answer against the document.
#[derive(Debug)]
pub struct Contract {
    /// The client beneath.
    pub api: Client,
    document: Value,
    seen: Mutex<BTreeSet<String>>,
}

impl Contract {
    /// Reads the document.
    ///
    /// # Panics
    /// When there is none.
    pub async fn read(api: &Client) -> Self {
        let mut document = api.get("/openapi.json").await.expect(200).json;

        // Later versions may add fields to answers. In the tests, a field without a description is
        // a mistake.
        let schemas = document
            .pointer_mut("/components/schemas")
            .and_then(Value::as_object_mut)
            .expect("schemas");
        for schema in schemas.values_mut().filter_map(Value::as_object_mut) {
            if schema.contains_key("properties") && !schema.contains_key("additionalProperties") {
                schema.insert("additionalProperties".to_owned(), json!(false));
            }
        }

        Self {
            api: api.clone(),
            document,
            seen: Mutex::default(),
        }
    }

    /// The document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, |request| request).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, |request| request.json(body))
            .await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Sends a request that `change` completes, and checks the answer.
    ///
    /// # Panics
    /// When the answer is not as documented.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        adjust: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let answer = self
            .api
            .send(adjust(self.api.request(method.clone(), path)))
            .await;
        self.check(&method, path, &answer);
        answer
    }

    /// Checks an answer that came another way.
    ///
    /// # Panics
    /// When it is not as documented.
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let method = method.as_str().to_lowercase();
        let plain = path.split('?').next().unwrap_or_default();
        let template = self
            .template(plain)
            .unwrap_or_else(|| panic!("{plain} is not documented"));
        let operation = &self.document["paths"][&template][&method];

        assert!(
            operation.is_object(),
            "{method} {template} is not documented"
        );
        let response = &operation["responses"][answer.status.to_string()];
        assert!(
            response.is_object(),
            "{method} {template}: {} is not documented: {answer}",
            answer.status
        );
        self.seen.lock().insert(format!("{method} {template}"));
        let Some(content) = response["content"].as_object() else {
            assert_eq!(
                answer.text, "",
                "{method} {template}: a body that is not documented"
            );
            return;
        };

        let kind = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap_or_default();
        let media = content.get(kind).or_else(|| content.get("*/*"));
        let media =
            media.unwrap_or_else(|| panic!("{method} {template}: {kind} is not documented"));
        if kind == "application/json" {
            let found = self.violations(&media["schema"], &answer.json);
            assert!(
                found.is_empty(),
                "{method} {template} {}: {found:#?}\n{answer}",
                answer.status
            );
        }
        if let Some(codes) = response["x-ktrdr-codes"].as_array() {
            assert!(
                codes.contains(&answer.json["code"]),
                "{method} {template}: the code is not among {codes:?}: {answer}"
            );
            assert_eq!(answer.json["status_code"], answer.status, "{answer}");
            assert_eq!(answer.json["success"], false, "{answer}");
        }
    }

    /// Where `value` does not match a schema of the document.
    ///
    /// # Panics
    /// When the schema itself is wrong, for example when it refers to nothing.
    pub fn violations(&self, schema: &Value, value: &Value) -> Vec<String> {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema], "components": self.document["components"],
        });
        let validator = jsonschema::validator_for(&whole).expect("a schema that compiles");
        validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    /// The documented path that a request is routed to: the one with the fewest variable parts.
    fn template(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let paths = self.document["paths"].as_object().expect("paths").keys();
        let matching = paths.filter(|template| {
            let wanted: Vec<&str> = template.split('/').collect();
            wanted.len() == parts.len()
                && wanted
                    .iter()
                    .zip(&parts)
                    .all(|(w, p)| w.starts_with('{') || w == p)
        });

        matching
            .min_by_key(|template| template.matches('{').count())
            .cloned()
    }

    /// Documented answers that no request has provoked.
    pub fn unseen(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let paths = self.document["paths"].as_object().expect("paths");
        let all = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(move |method| format!("{method} {path}"))
        });
        all.filter(|one| !seen.contains(one)).collect()
    }
}
