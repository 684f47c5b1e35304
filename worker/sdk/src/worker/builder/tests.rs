use ktrdr_http::tls::Scheme;
use serde_json::json;

use super::identity::default_url;
use super::*;
use crate::{Context, OperationError};

struct Echo;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct EchoRequest {
    text: String,
}

impl Engine for Echo {
    const NAME: &'static str = "echo";
    type Request = EchoRequest;
    type Output = String;

    async fn run(&self, _: Context, request: EchoRequest) -> Result<String, OperationError> {
        Ok(request.text)
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

/// An engine with one fault in its declaration.
macro_rules! engine_with {
    ($name:ident, $schema:expr $(, $constant:ident: $type:ty = $value:expr)*) => {
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
            $(const $constant: $type = $value;)*
            type Request = $name;
            type Output = String;

            async fn run(&self, _: Context, _: $name) -> Result<String, OperationError> {
                Ok(String::new())
            }
        }
    };
}

type Text = Option<&'static str>;

engine_with!(Remote, json!({"$ref": "https://example.com/s.json"}));
engine_with!(Broken, json!({"pattern": "([a-z"}));
engine_with!(Reserved, json!({}), DOMAIN: Text = Some("operations"));
engine_with!(NoPath, json!({}), DOMAIN: Text = Some("bad domain/x"));
engine_with!(NoMark, json!({}), SHORT: Text = Some("b.d *"));
engine_with!(Sentence, json!({"type": "string"}));
engine_with!(TaskId, json!({"properties": {"task_id": {}}}));
engine_with!(Execution, json!({"required": ["execution"]}));
engine_with!(NoAttempt, json!({}), MAX_ATTEMPTS: Option<u32> = Some(0));
engine_with!(NoTime, json!({}), TIMEOUT: Option<Duration> = Some(Duration::ZERO));
engine_with!(SameDomain, json!({}), DOMAIN: Text = Some("echo"));

async fn refused(builder: WorkerBuilder) -> String {
    let error = builder.mounted_at("http://here").start().await.unwrap_err();
    error.to_string()
}

#[tokio::test]
async fn an_engine_that_is_declared_wrongly_does_not_start() {
    async fn check(engine: impl Engine, what: &str, remedy: &str) {
        let told = refused(Worker::builder().engine(engine)).await;
        assert!(
            told.starts_with("engine odd cannot be served: its "),
            "{told}"
        );
        assert!(told.contains(what) && told.contains(remedy), "{told}");
    }

    check(
        Remote {},
        "https://example.com/s.json",
        "Change the type Request",
    )
    .await;
    check(Broken {}, "cannot be compiled", "Change the type Request").await;
    check(Reserved {}, "\"operations\" is reserved", "Set DOMAIN").await;
    check(NoPath {}, "\"bad domain/x\"", "Set DOMAIN").await;
    check(NoMark {}, "\"b.d *\"", "Set SHORT").await;
    check(Sentence {}, "never a JSON object", "Make Request a struct").await;
    check(TaskId {}, "field \"task_id\"", "another name").await;
    check(Execution {}, "field \"execution\"", "another name").await;
    check(NoAttempt {}, "MAX_ATTEMPTS is 0", "1 to 1000").await;
    check(NoTime {}, "TIMEOUT is 0ns", "1ms to 31536000s").await;
}

/// An engine that is nothing but what it says about itself.
struct Described(EngineInfo);

impl DynEngine for Described {
    fn info(&self) -> EngineInfo {
        self.0.clone()
    }

    fn run<'a>(
        &'a self,
        _: Context,
        parameters: &'a serde_json::value::RawValue,
    ) -> futures::future::BoxFuture<'a, Result<Box<serde_json::value::RawValue>, OperationError>>
    {
        std::future::ready(Ok(parameters.to_owned())).boxed()
    }
}

#[tokio::test]
async fn what_an_engine_says_at_run_time_is_checked_like_a_declaration() {
    async fn check(info: EngineInfo, what: &str) {
        let told = refused(Worker::builder().dyn_engine(Described(info))).await;
        assert!(told.starts_with("engine ") && told.contains(what), "{told}");
    }
    let odd = || EngineInfo::new("odd");

    check(EngineInfo::new("odd one"), "Set NAME").await;
    check(odd().domain("workers"), "\"workers\" is reserved").await;
    check(odd().short("b.d"), "Set SHORT").await;
    check(odd().request_schema(json!(false)), "never a JSON object").await;
    check(odd().max_attempts(0), "MAX_ATTEMPTS is 0").await;
    check(odd().version("7".repeat(257)), "VERSION is 257 bytes long").await;
    check(
        odd().request_schema(json!({"required": ["task_id"]})),
        "field \"task_id\"",
    )
    .await;
}

#[tokio::test]
async fn two_engines_of_one_process_cannot_share_a_domain() {
    let told = refused(Worker::builder().engine(Echo).engine(SameDomain {})).await;

    assert!(
        told.contains("echo and odd have the same domain \"echo\""),
        "{told}"
    );
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
