//! Where the records are, and moving them.

use orchestrator_protocol::request::Request;
use orchestrator_protocol::storage::{
    CancelMigration, GetMigration, MigrationId, StartMigration, StorageTarget, ValidateMigration,
};

use crate::fake::{Fake, get, migration, post};

fn id() -> MigrationId {
    migration().id
}

#[tokio::test]
async fn the_storage_its_migrations_and_one_of_them() {
    let service = Fake::healthy();
    let one = get(&service, &format!("/storage/migrations/{}", id())).await;
    let seen = [get(&service, "/storage").await, get(&service, "/storage/migrations").await, one];
    insta::assert_snapshot!(seen.map(|seen| seen.shown()).join("\n"));
    assert_eq!(service.asked()[0], Request::from(GetMigration { id: id() }));
}

#[tokio::test]
async fn a_migration_is_checked_started_and_called_off() {
    let body = r#"{"storage_type": "filesystem", "dir": "/srv/new"}"#;
    let to = || StorageTarget {
        storage_type: "filesystem".into(),
        dir: Some("/srv/new".into()),
        ..StorageTarget::default()
    };
    let service = Fake::healthy();
    let checked = post(&service, "/storage/migrations/validate", body).await;
    insta::assert_snapshot!(checked.shown());
    let started = post(&service, "/storage/migrations", body).await;
    assert_eq!((started.status, &started.json()["data"]["phase"]), (202, &"done".into()));
    let cancelled = post(&service, &format!("/storage/migrations/{}/cancel", id()), "{}").await;
    assert_eq!(cancelled.status, 200);
    let asked: [Request; 3] = [
        ValidateMigration { to: to() }.into(),
        StartMigration { to: to() }.into(),
        CancelMigration { id: id() }.into(),
    ];
    assert_eq!(service.asked().as_slice(), asked);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_by_name() {
    let service = Fake::healthy();
    let unknown =
        post(&service, "/storage/migrations", r#"{"storage_type": "filesystem", "dri": "x"}"#).await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (422, &"invalid".into()));
    assert!(unknown.text.contains("unknown field `dri`"), "{}", unknown.text);
    let bad = get(&service, "/storage/migrations/redis").await;
    assert_eq!((bad.status, &bad.json()["code"]), (400, &"malformed".into()));
    assert!(bad.text.contains("'redis' is not a migration id"), "{}", bad.text);
    assert!(service.asked().is_empty());
}
