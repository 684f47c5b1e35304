use ktrdr_http::tls::Scheme;

use super::identity::default_url;
use super::*;
use crate::{Context, OperationError};

struct Echo;

impl Engine for Echo {
    const NAME: &'static str = "echo";
    type Request = String;
    type Output = String;

    async fn run(&self, _: Context, request: String) -> Result<String, OperationError> {
        Ok(request)
    }
}

#[tokio::test]
async fn a_builder_without_an_engine_or_with_one_twice_is_refused() {
    let none = Worker::builder().mounted_at("http://here").start().await;
    assert!(matches!(none, Err(WorkerError::NoEngine)));

    let twice = Worker::builder()
        .engine(Echo)
        .engine(Echo)
        .mounted_at("http://here")
        .start()
        .await;
    assert!(matches!(twice, Err(WorkerError::DuplicateEngine(name)) if name == "echo"));
}

/// An engine whose requests have a schema of their own.
macro_rules! engine_with {
    ($name:ident, $domain:literal, $schema:expr) => {
        #[derive(serde::Deserialize)]
        struct $name {}

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let schema: schemars::Schema = $schema.try_into().unwrap();
                schema
            }
        }

        impl Engine for $name {
            const NAME: &'static str = "odd";
            const DOMAIN: Option<&'static str> = Some($domain);
            type Request = $name;
            type Output = String;

            async fn run(&self, _: Context, _: $name) -> Result<String, OperationError> {
                Ok(String::new())
            }
        }
    };
}

engine_with!(
    Remote,
    "odd",
    serde_json::json!({"$ref": "https://example.com/s.json"})
);
engine_with!(Broken, "odd", serde_json::json!({"pattern": "("}));
engine_with!(Reserved, "operations", serde_json::json!({}));
engine_with!(NoPath, "a/b", serde_json::json!({}));

#[tokio::test]
async fn an_engine_that_backends_would_refuse_does_not_start() {
    async fn refused(engine: impl Engine) -> String {
        let builder = Worker::builder().engine(engine).mounted_at("http://here");
        builder.start().await.unwrap_err().to_string()
    }

    assert!(
        refused(Remote {})
            .await
            .contains("https://example.com/s.json")
    );
    assert!(refused(Broken {}).await.contains("cannot be compiled"));
    assert!(
        refused(Reserved {})
            .await
            .contains("\"operations\" of engine odd")
    );
    assert!(refused(NoPath {}).await.contains("\"a/b\" of engine odd"));
}

#[test]
fn the_default_url_has_the_scheme_that_is_spoken() {
    let address = "127.0.0.1:5003".parse().unwrap();

    for (scheme, url) in [
        (Scheme::Http, "http://127.0.0.1:5003"),
        (Scheme::Https, "https://127.0.0.1:5003"),
    ] {
        assert_eq!(default_url(scheme, address, "127.0.0.1"), url);
    }
}

#[test]
fn a_configured_worker_id_is_shared_out_among_several_engines() {
    let config = Config {
        worker_id: Some(WorkerId::new("w").unwrap()),
        ..Config::default()
    };
    let endpoint = Endpoint {
        listener: None,
        tls: None,
        scheme: Scheme::Http,
        url: "http://here".to_owned(),
        number: 1,
    };
    let info = Echo.info();

    let alone = Identity::of(&info, &config, &endpoint, false).unwrap();
    let one_of_many = Identity::of(&info, &config, &endpoint, true).unwrap();

    assert_eq!(alone.worker_id.as_str(), "w");
    assert_eq!(alone.endpoint_url, "http://here");
    assert_eq!(one_of_many.worker_id.as_str(), "w-echo");
    assert_eq!(one_of_many.endpoint_url, "http://here/echo");
}
