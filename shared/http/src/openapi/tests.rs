use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use ktrdr_protocol::rest::query::ListOperations;
use ktrdr_protocol::rest::worker::WorkerDocument;

use super::*;
use crate::error::ApiError;
use crate::tokens::Scope;

const DOC: Doc = Doc {
    errors: &[ErrorCode::WorkerNotFound],
    ..Doc::new("Workers", "getWorker", "One worker")
};

const INTERFACE: Interface = Interface {
    title: "test",
    description: "",
    tags: &[],
    links: &[],
};

async fn show(_: State<()>, _: Path<String>) -> Result<Json<WorkerDocument>, ApiError> {
    Err(ApiError::nats_unavailable())
}

#[test]
fn the_answer_of_a_route_is_the_type_that_its_handler_returns() {
    let access = Access::Needs(Scope::Read);
    let route = Route::new::<_, ((), _, _)>("get", "/workers/{id}", access, &show, DOC);

    let document = document(&INTERFACE, "/", true, &[route], &[]);
    let document = serde_json::to_value(&document).unwrap();

    let operation = &document["paths"]["/workers/{id}"]["get"];
    let schema = |status: &str| {
        &operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
    };
    assert_eq!(schema("200"), "#/components/schemas/Worker");
    assert_eq!(schema("404"), "#/components/schemas/Problem");
    assert_eq!(
        operation["responses"]["404"]["x-ktrdr-codes"],
        json!(["worker_not_found", "unknown_route"])
    );
    assert_eq!(operation["parameters"][0]["name"], "id");
    assert_eq!(operation["security"], json!([{"token": ["read"]}]));
    let status = &document["components"]["schemas"]["WorkerStatus"];
    assert_eq!(status["enum"][0], "AVAILABLE");
}

async fn begin(_: State<()>, _: Body) -> Result<Json<WorkerDocument>, ApiError> {
    Err(ApiError::nats_unavailable())
}

#[test]
fn schemas_that_are_too_large_here_are_left_out_and_harm_no_other() {
    let access = Access::Needs(Scope::Start);
    let route = Route::new::<_, ((), _, _)>("post", "/start", access, &begin, DOC);
    // References to a name of 128 characters are ten times as long as `#`.
    let name = "x".repeat(128);
    let large = json!({"allOf": vec![json!({"$ref": "#"}); 4_000]});
    let one = |worker_type, request_schema: &Value| StartRoute {
        worker_type,
        path: None,
        description: "",
        request_schema: SchemaText::of(request_schema),
        result_schema: SchemaText::of(&Value::Null),
    };
    // Its definition would have the place of the other one's request.
    let odd = json!({"$defs": {"request": {"type": "null"}}, "$ref": "#/$defs/request"});
    let plain = json!({"properties": {"p": true}});
    let types = [one("a", &odd), one("a_request", &plain), one(&name, &large)];

    let document = document(&INTERFACE, "/", true, &[route], &types);
    let document = serde_json::to_value(&document).unwrap();

    let schemas = &document["components"]["schemas"];
    let left_out = &schemas[format!("{name}_start")];
    let text = left_out["description"].as_str().unwrap();
    assert!(text.contains("too large"), "{text}");
    assert!(left_out["properties"]["task_id"].is_object(), "{left_out}");
    assert_eq!(schemas["a_request_request"], plain);
    assert_eq!(
        schemas["a_request"]["$ref"],
        "#/components/schemas/a_request_request_2"
    );
    assert!(document.to_string().len() < 200_000);
}

#[test]
fn each_field_of_a_query_is_a_typed_parameter() {
    let mut generator = SchemaGenerator::default();
    let mut description = Description::new(&mut generator, "");

    description.query::<ListOperations>();

    let by_name: BTreeMap<&str, &Value> = description
        .parameters
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), &one["schema"]))
        .collect();
    assert_eq!(by_name["search"]["type"], "string");
    assert_eq!(by_name["operation_type"]["items"]["type"], "string");
    assert_eq!(by_name["limit"]["maximum"], 1000);
    assert_eq!(by_name["limit"]["default"], 100);
    assert_eq!(by_name["status"]["type"], "array");
    let status = &by_name["status"]["items"];
    assert_eq!(status["type"], "string");
    assert_eq!(status["enum"].as_array().unwrap().len(), 5);
}
