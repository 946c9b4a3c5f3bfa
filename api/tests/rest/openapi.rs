//! The document says what the front door does: no more, no less, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use orchestrator_protocol::request::{Request, Subscription};
use serde_json::{Value, json};

use crate::fake::{Fake, Seen, get, id, request, send};

/// The document, as it is served.
async fn document() -> Value {
    let answer = get(&Fake::healthy(), "/openapi.json").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// One operation.
struct Operation {
    method: Method,
    path: String,
    says: Value,
}

impl Operation {
    /// A path that names a task, or an environment, where it must.
    fn target(&self) -> String {
        self.path.replace("{id}", &id(1).to_string())
    }

    fn name(&self) -> &str {
        self.says["operationId"].as_str().unwrap()
    }

    /// The names of its parameters in one place.
    fn parameters(&self, place: &str) -> Vec<&str> {
        let all = self.says["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let here = all.iter().filter(|parameter| parameter["in"] == place);
        here.map(|parameter| parameter["name"].as_str().unwrap()).collect()
    }

    /// A body with all that is required, where it takes one.
    fn body(&self) -> Option<Value> {
        self.says.get("requestBody")?;
        Some(match self.name() {
            "submitWorkflow" => json!({ "tasks": [{ "script": "a.nu" }], "workflow": "install" }),
            "createServers" => json!({ "infra": "production", "settings": "settings.yaml" }),
            "deleteServers" => json!({ "infra": "production", "settings": "s.yaml", "servers": ["web-01"] }),
            "createTaskserv" => json!({ "infra": "production", "settings": "s.yaml", "taskserv": "redis" }),
            "createCluster" => json!({ "infra": "production", "settings": "s.yaml", "cluster_type": "web" }),
            "createTestEnvironment" => {
                json!({ "config": { "type": "single_taskserv", "taskserv": "redis" } })
            }
            "startMigration" | "validateMigration" => json!({ "storage_type": "filesystem" }),
            "injectFault" => json!({ "fault": { "kind": "kill", "node": "etcd-01" } }),
            _ => json!({}),
        })
    }

    async fn send(&self, service: &std::sync::Arc<Fake>, target: &str) -> Seen {
        let mut request = request(self.method.clone(), target);
        if let Some(body) = self.body() {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Body::from(body.to_string());
        }
        send(service, request).await
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, says) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { method, path: path.clone(), says: says.clone() });
        }
    }
    operations
}

#[tokio::test]
async fn the_document() {
    let answer = get(&Fake::healthy(), "/openapi.json").await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap());
}

#[tokio::test]
async fn every_question_of_the_protocol_can_be_asked() {
    let document = document().await;
    let mut asked = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for operation in operations(&document) {
        assert!(ids.insert(operation.name().to_owned()), "{} comes twice", operation.name());
        for extension in ["x-request", "x-request-when-waiting"] {
            asked.extend(operation.says[extension].as_str().map(str::to_owned));
        }
    }
    let all = Request::NAMES.iter().chain(Subscription::NAMES).map(|name| (*name).to_owned());
    assert_eq!(asked, all.collect());
}

#[tokio::test]
async fn what_an_operation_asks_is_what_it_says() {
    let document = document().await;
    for operation in operations(&document) {
        let service = Fake::healthy();
        let answer = operation.send(&service, &operation.target()).await;
        let asked: Vec<String> = (service.asked().iter().map(|request| request.name().to_owned()))
            .chain(service.subscribed().iter().map(|subscription| subscription.name().to_owned()))
            .collect();
        let said: Vec<String> = operation.says["x-request"].as_str().map(str::to_owned).into_iter().collect();
        assert_eq!(asked, said, "{} {answer:?}", operation.name());
    }
}

#[tokio::test]
async fn every_operation_is_there_and_no_other_method_is() {
    let document = document().await;
    let mut methods: BTreeMap<String, BTreeSet<Method>> = BTreeMap::new();
    for operation in operations(&document) {
        methods.entry(operation.target()).or_default().insert(operation.method);
    }
    for (target, documented) in methods {
        let answer = send(&Fake::healthy(), request(Method::PUT, &target)).await;
        assert_eq!(answer.status, 405, "{target}");
        let allowed = answer.headers[header::ALLOW].to_str().unwrap().split(',');
        let allowed: BTreeSet<Method> = allowed.map(|name| name.parse().unwrap()).collect();
        let head = documented.contains(&Method::GET).then_some(Method::HEAD);
        assert_eq!(allowed, documented.into_iter().chain(head).collect(), "{target}");
    }
}

#[tokio::test]
async fn parameters_are_those_that_are_taken() {
    for operation in operations(&document().await) {
        let service = Fake::healthy();
        let answer = operation.send(&service, &format!("{}?colour=red", operation.target())).await;
        assert_eq!(answer.status, 400, "{}", operation.name());
        assert_eq!(service.asked(), [], "{}", operation.name());
        let answer = answer.json();
        let problem = answer["details"]["parameters"][0]["problem"].as_str().unwrap().to_owned();
        let documented = operation.parameters("query");
        match problem.split_once(": use ") {
            Some((_, taken)) => assert_eq!(taken, documented.join(", "), "{}", operation.name()),
            None => assert_eq!(documented, Vec::<&str>::new(), "{}", operation.name()),
        }
    }
}

/// What does not fit a schema, in words.
fn misfits(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
        return misfits(document, schema, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let all: Vec<_> = choices.iter().map(|choice| misfits(document, choice, value, place)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &Value| name == is || (name == "number" && is == "integer");
    let mut found = Vec::new();
    let is_of_type = match &schema["type"] {
        Value::Null => true,
        Value::Array(types) => types.iter().any(fits),
        one => fits(one),
    };
    if !is_of_type {
        found.push(format!("{place} is {value}, which is no {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{place} is {value}, which is none of {words:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(misfits(document, &schema["items"], item, &format!("{place}[{index}]")));
    }
    let Some(object) = value.as_object() else { return found };
    if schema["type"].is_null() {
        return found;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            found.push(format!("{place} has no {name}"));
        }
    }
    for (name, value) in object {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Object(any)) => {
                found.extend(misfits(document, &Value::Object(any.clone()), value, &place));
            }
            (Value::Null, _) if schema["properties"].is_null() => {}
            (Value::Null, _) => found.push(format!("{place} is not in the document")),
            (schema, _) => found.extend(misfits(document, schema, value, &place)),
        }
    }
    found
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let document = document().await;
    let mut seen = 0;
    for operation in operations(&document) {
        let answer = operation.send(&Fake::healthy(), &operation.target()).await;
        let schema =
            &operation.says["responses"][answer.status.to_string()]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{} answers {answer:?}", operation.name());
        let misfits = misfits(&document, schema, &answer.json(), "");
        assert_eq!(misfits, Vec::<String>::new(), "{}", operation.name());
        seen += usize::from(answer.status < 300);
    }
    // All but the three that need a stream.
    assert_eq!(seen, operations(&document).len() - 3);
}

#[tokio::test]
async fn bodies_that_are_taken_are_as_the_document_says() {
    let document = document().await;
    for operation in operations(&document) {
        let Some(body) = operation.body() else { continue };
        let mut schema = &operation.says["requestBody"]["content"]["application/json"]["schema"];
        if let Some(choices) = schema["oneOf"].as_array() {
            schema = choices.iter().find(|choice| choice["$ref"].is_string()).unwrap();
        }
        assert_eq!(misfits(&document, schema, &body, ""), Vec::<String>::new(), "{}", operation.name());
        let schema = document.pointer(schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
        for name in schema["required"].as_array().into_iter().flatten() {
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(name.as_str().unwrap());
            let mut request = request(operation.method.clone(), &operation.target());
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Body::from(without.to_string());
            let answer = send(&Fake::healthy(), request).await;
            assert_eq!(answer.status, 422, "{} without {name}", operation.name());
            assert_eq!(answer.json()["details"]["field"], *name, "{answer:?}");
        }
    }
}
