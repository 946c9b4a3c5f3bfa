//! Requests that are sent again with their key.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::door::Door;

#[test]
fn a_request_is_the_same_whatever_has_become_of_its_files() {
    let door = Door::open(&[]);
    let base = door.engine.directory().to_owned();
    assert_eq!(door.post("/queue/pause", "{}").status, 200);
    for release in ["first", "second"] {
        fs::create_dir(base.join(release)).unwrap();
        fs::write(base.join(release).join("settings.yaml"), "infra: production\nservers: []\n").unwrap();
        fs::write(base.join(release).join("task.nu"), "").unwrap();
    }
    let current = base.join("current");
    symlink("first", &current).unwrap();
    let settings =
        json!({"infra": "production", "settings": "./current/settings.yaml", "servers": ["web-01"]});
    let graph = json!({"tasks": [{"script": "current/task.nu"}]});
    let requests = [("/workflows/servers/create", settings), ("/workflows", graph)];
    let send = || {
        requests.each_ref().map(|(path, body)| {
            let key = format!("Idempotency-Key: key of {path}");
            let answer = door.post_with(path, &[&key], &body.to_string());
            assert_eq!(answer.status, 202, "{answer:?}");
            (answer.json()["data"].clone(), answer.header("idempotent-replayed").is_some())
        })
    };
    let made = send();
    assert!(made.iter().all(|(_, is_replayed)| !is_replayed));
    let replayed = made.map(|(id, _)| (id, true));
    assert_eq!(send(), replayed);
    fs::remove_file(&current).unwrap();
    assert_eq!(send(), replayed, "its files are gone");
    symlink("second", &current).unwrap();
    assert_eq!(send(), replayed, "its files are others");
}
