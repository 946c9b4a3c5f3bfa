//! A client that somebody else's generator makes from `/openapi.json`, and nothing else, works.
//!
//! The generator is openapi-python-client, a package of Python's, which reads OpenAPI 3.1; `generator.txt`
//! has its version. Whatever of the document it does not understand fails the test, and so does an answer
//! with a member that the document does not have. What is done with the client is in
//! `generated_client.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::door::{Door, docker, image, needed, program};

/// What stands in for Nushell: it is called as `STUB -n --no-std-lib WORKER taskserv plan …`.
const STUB: &str = r#"
case "$5" in
  plan) echo '::result {"infra": "production", "tasks": [
    {"name": "redis on web-01", "operation": "taskserv verify", "names": ["redis", "web-01"], "after": [], "labels": {}}]}' | tr -d '\n'
    echo ;;
  *) echo '::result {"servers": []}' ;;
esac
"#;

#[test]
fn a_client_generated_from_the_document_works() {
    let python = needed("Python with openapi-python-client (ORCHESTRATOR_TEST_PYTHON)", python());
    let (Some(python), Some(_)) = (python, needed("Docker", docker())) else { return };
    let mut door = Door::closed(&["--nu-path", "./stub"]);
    door.engine.script("stub", STUB);
    door.engine.script("hello", "cat; echo; echo hello; echo '::result {\"answer\": 42}'");
    door.engine.script("fails", "echo '::fail permanent it never works'; exit 1");
    door.engine.script("gate", "while [ ! -e go ]; do sleep 0.01; done");
    fs::write(door.engine.directory().join("settings.yaml"), "infra: production\n").unwrap();
    door.engine.start();

    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("openapi.json"), door.get("/openapi.json").body).unwrap();
    // Formatting what was generated is nobody's need here.
    fs::write(place.path().join("generator.yaml"), "post_hooks: []\n").unwrap();
    let generate = ["-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"];
    let files =
        ["--path", "openapi.json", "--output-path", "orchestrator_client", "--config", "generator.yaml"];
    run(&python, place.path(), &[&generate[..], &files[..]].concat()).unwrap();

    let user = Path::new(env!("CARGO_MANIFEST_DIR")).join("rest/generated_client.py");
    let address = format!("http://{}", door.address);
    let used = run(&python, place.path(), &[user.to_str().unwrap(), &address, &image()]);
    used.unwrap_or_else(|told| {
        remove_environments(&door);
        panic!("{told}\n{}", door.engine.log())
    });
    assert!(door.engine.wait_ended().success(), "its last request stops the engine");
}

/// A Python that has the generator.
fn python() -> Option<PathBuf> {
    let python =
        std::env::var_os("ORCHESTRATOR_TEST_PYTHON").map(PathBuf::from).or_else(|| program("python3"))?;
    let has_it =
        Command::new(&python).args(["-c", "import openapi_python_client"]).stderr(Stdio::null()).status();
    has_it.is_ok_and(|status| status.success()).then_some(python)
}

/// Removes the environments that a user who failed has left.
fn remove_environments(door: &Door) {
    for environment in door.get("/test/environments").json()["data"].as_array().into_iter().flatten() {
        let path = format!("/test/environments/{}?wait=true", environment["id"].as_str().unwrap());
        door.talk(door.request("DELETE", &path, &[], ""));
    }
}

/// Runs a program of Python's; an error is what it said.
fn run(python: &Path, directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(python);
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.env("PYTHONPATH", directory).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    let told = || [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    if output.status.success() { Ok(()) } else { Err(format!("{arguments:?}\n{}", told())) }
}
