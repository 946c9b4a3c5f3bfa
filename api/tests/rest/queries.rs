//! Which queries are understood, and what is said about the others.

use orchestrator_protocol::Error;
use orchestrator_protocol::request::{ListTasks, Request};
use orchestrator_protocol::task::{TaskKind, TaskStatus};

use crate::fake::{Fake, get, id};

async fn asked(query: &str) -> ListTasks {
    let service = Fake::healthy();
    let answer = get(&service, &format!("/tasks{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    match service.asked().as_slice() {
        [Request::ListTasks(list)] => list.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn filters_reach_the_engine() {
    let everything = format!(
        "?status=failed&status=PENDING,Running&group=pro%20duction&kind=Command&parent={}&label=team=data\
         &label=a=b=c&since=2026-01-31T12:00:00%2B02:00&until=2026-02-01T00:00:00Z&text=caf%C3%A9+1&limit=1000&offset=7",
        id(2)
    );
    let expected = ListTasks {
        statuses: vec![TaskStatus::Failed, TaskStatus::Pending, TaskStatus::Running],
        group: Some("pro duction".into()),
        kind: Some(TaskKind::Command),
        parent: Some(id(2)),
        labels: [("team".into(), "data".into()), ("a".into(), "b=c".into())].into(),
        since: Some("2026-01-31T10:00:00Z".parse().unwrap()),
        until: Some("2026-02-01T00:00:00Z".parse().unwrap()),
        text: Some("café 1".into()),
        offset: 7,
        limit: Some(1000),
        cursor: None,
    };
    assert_eq!(asked(&everything).await, expected);
}

#[tokio::test]
async fn without_a_query_nothing_is_filtered() {
    assert_eq!(asked("").await, ListTasks::default());
    assert_eq!(asked("?").await, ListTasks::default());
}

#[tokio::test]
async fn a_cursor_is_handed_on_as_it_is() {
    assert_eq!(asked("?cursor=any%2Fthing").await.cursor.as_deref(), Some("any/thing"));
}

#[tokio::test]
async fn bad_queries_name_what_is_bad() {
    let table: [(&str, &[&str]); 22] = [
        ("status=done", &["status"]),
        ("status=failed,", &["status"]),
        ("status=", &["status"]),
        ("kind=script", &["kind"]),
        ("parent=seven", &["parent"]),
        ("label=team", &["label"]),
        ("label==data", &["label"]),
        ("label=team=data&label=team=web", &["label"]),
        ("since=yesterday", &["since"]),
        ("until=2026-02-30T00:00:00Z", &["until"]),
        ("since=2026-01-31T12:00:00+02:00", &["since"]),
        ("limit=0", &["limit"]),
        ("limit=1001", &["limit"]),
        ("limit=-1", &["limit"]),
        ("limit=99999999999999999999999", &["limit"]),
        ("offset=-1", &["offset"]),
        ("offset=1&cursor=x", &["offset"]),
        ("group=a&group=b", &["group"]),
        ("colour=red", &["colour"]),
        ("Status=failed", &["Status"]),
        ("=", &[""]),
        ("limit=many&colour=red&status=done&limit=0", &["status", "limit", "limit", "colour"]),
    ];
    for (query, names) in table {
        let service = Fake::healthy();
        let answer = get(&service, &format!("/tasks?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["code"], "malformed", "{query}");
        let problems = body["details"]["parameters"].as_array().unwrap();
        let named: Vec<_> = problems.iter().map(|problem| problem["parameter"].as_str().unwrap()).collect();
        assert_eq!(named, names, "{query}: {body}");
        assert_eq!(service.asked(), [], "{query}");
    }
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    insta::assert_snapshot!(get(&Fake::healthy(), "/tasks?limit=many&colour=red&status=done").await.shown());
}

#[tokio::test]
async fn a_query_where_none_is_taken() {
    let service = Fake::healthy();
    for path in ["/health?verbose=1".to_owned(), format!("/tasks/{}/explain?limit=1", id(1))] {
        let answer = get(&service, &path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("takes none"), "{answer:?}");
    }
    assert_eq!(service.asked(), []);
}

#[tokio::test]
async fn what_the_engine_finds_wrong_with_a_list_is_wrong_with_the_query() {
    let service = Fake::new(|_| Err(Error::invalid("'x' is not a cursor").with_field("cursor")));
    let answer = get(&service, "/tasks?cursor=x").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["code"], "malformed");
    assert_eq!(answer.json()["details"]["field"], "cursor");
}
