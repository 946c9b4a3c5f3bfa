//! Folders are written, read and changed; and read beside the provisioning program's reader, which must
//! agree.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const MINIMAL: &str = "description = 'd'\n";

/// A place for taskservs, with these: a name and a `taskserv.toml` each.
fn place(taskservs: &[(&str, &str)]) -> (TempDir, Library) {
    let place = tempfile::tempdir().unwrap();
    for (name, text) in taskservs {
        write(&place.path().join(name), text);
    }
    let library = Library { places: vec![place.path().to_owned()] };
    (place, library)
}

fn write(folder: &Path, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("taskserv.toml"), text).unwrap();
    for script in ["install.sh", "verify.sh", "ready.sh"] {
        fs::write(folder.join(script), "true\n").unwrap();
    }
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nulib/taskservs").canonicalize().unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn everything_is_read_or_filled_in() {
    let whole = "description = 'A clock'\ndepends_on = ['b']\nports = [80, 'port']\nroles = ['first', 'second']\n\
                 [needs]\nmemory_mb = 64\ncapabilities = ['SYS_ADMIN']\nprivileged = true\n\
                 [parameters.port]\ntype = 'integer 1 9'\ndefault = 3\nabout = 'p'\n\
                 [ready]\nwithin_sec = 5\n[timeouts]\nstart_sec = 7\n";
    let (place, library) = place(&[("a", whole), ("b", MINIMAL)]);
    fs::write(place.path().join("a/start.sh"), "").unwrap();
    let a = library.load("a").unwrap();
    assert_eq!(
        (a.name.as_str(), a.description.as_str(), &a.folder),
        ("a", "A clock", &place.path().join("a"))
    );
    assert_eq!((&a.depends_on, &a.roles), (&names(&["b"]), &names(&["first", "second"])));
    assert_eq!(
        a.needs,
        Needs { memory_mb: Some(64), capabilities: names(&["SYS_ADMIN"]), privileged: true, systemd: false }
    );
    let port = Parameter { kind: "integer 1 9".into(), default: Some(json!(3)) };
    assert_eq!(a.parameters, BTreeMap::from([("port".to_owned(), port)]));
    assert_eq!((a.ready_within, a.has_start), (Some(Duration::from_secs(5)), true));
    assert_eq!(
        (a.timeouts.install.as_secs(), a.timeouts.start.as_secs(), a.timeouts.verify.as_secs()),
        (900, 7, 60)
    );
    let b = library.load("b").unwrap();
    assert_eq!((b.needs, b.ready_within, b.has_start), (Needs::default(), None, false));
    assert!(b.depends_on.is_empty() && b.roles.is_empty() && b.parameters.is_empty());
}

#[test]
fn the_first_place_that_has_one_counts() {
    let (first, mut library) = place(&[("a", "description = 'first'\n"), ("Not_A_Name", MINIMAL)]);
    let (second, _) = place(&[("a", MINIMAL), ("b", MINIMAL)]);
    fs::create_dir(second.path().join("empty")).unwrap();
    library.places.push(second.path().to_owned());
    library.places.push("/nowhere".into());
    let found: Vec<String> = library.available().into_keys().collect();
    assert_eq!(found, ["a", "b"]);
    assert_eq!(library.available()["a"], first.path().join("a"));
    assert_eq!(library.load("a").unwrap().description, "first");
    let error = library.load("c").unwrap_err();
    assert_eq!(error.message, "there is no taskserv 'c': there is a, b");
    assert!(library.load("../a").unwrap_err().message.starts_with("there is no taskserv '../a'"));
}

#[test]
fn what_is_depended_on_comes_first() {
    let on = |names: &str| format!("{MINIMAL}depends_on = [{names}]\n");
    let (_place, library) = place(&[
        ("a", &on("'b', 'c'")),
        ("b", &on("'c'")),
        ("c", MINIMAL),
        ("x", &on("'y'")),
        ("y", &on("'z'")),
        ("z", &on("'y'")),
        ("lost", &on("'gone'")),
    ]);
    let order = |wanted: &[&str]| -> Result<Vec<String>, String> {
        let found = library.in_order(&names(wanted)).map_err(|error| error.message)?;
        Ok(found.iter().map(|taskserv| taskserv.name.clone()).collect())
    };
    assert_eq!(order(&["a"]).unwrap(), ["c", "b", "a"]);
    assert_eq!(order(&["c", "a", "c"]).unwrap(), ["c", "b", "a"]);
    assert_eq!(order(&["x"]).unwrap_err(), "taskservs depend on each other in a circle: y → z → y");
    assert!(
        order(&["lost"])
            .unwrap_err()
            .starts_with("there is no taskserv 'gone', which 'lost' depends on: there is a,")
    );
}

#[test]
fn values_are_chosen_or_refused() {
    let text = format!(
        "{MINIMAL}roles = ['first', 'second']\n[parameters.port]\ntype = 'integer 1 9'\ndefault = 3\nabout = 'p'\n\
         [parameters.secure]\ntype = 'boolean'\ndefault = true\nabout = 's'\n\
         [parameters.word]\ntype = 'text'\nabout = 'w'\n"
    );
    let (_place, library) = place(&[("a", &text), ("plain", MINIMAL)]);
    let a = library.load("a").unwrap();
    let choose = |options: Value, role: Option<&str>| {
        let options: BTreeMap<String, Value> = serde_json::from_value(options).unwrap();
        a.choose("n1", &options, role).map_err(|error| (error.field.unwrap(), error.message))
    };
    let chosen = choose(json!({"word": "w", "port": 4}), None).unwrap();
    assert_eq!(chosen.role, "first");
    let parameters = [("port", "4"), ("secure", "true"), ("word", "w")];
    assert_eq!(chosen.parameters, parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let role = |options: Value, role: &str| choose(options, Some(role)).unwrap().role;
    assert_eq!(role(json!({"word": "w"}), "second"), "second");
    assert_eq!(role(json!({"word": "w"}), "unknown"), "first");
    assert_eq!(role(json!({"word": "w", "role": "first"}), "second"), "first");
    assert_eq!(
        library.load("plain").unwrap().choose("n1", &BTreeMap::new(), Some("second")).unwrap(),
        Choices::default()
    );
    for (options, field, message) in [
        (
            json!({}),
            "word",
            "node 'n1': the parameter `word` of taskserv 'a' must be said: it has no default",
        ),
        (
            json!({"word": null}),
            "word",
            "node 'n1': the parameter `word` of taskserv 'a' must be said: it has no default",
        ),
        (
            json!({"word": "w", "port": 10}),
            "port",
            "node 'n1': the parameter `port` of taskserv 'a' must be a whole number from 1 to 9, not the number 10",
        ),
        (
            json!({"word": "w", "prot": 1}),
            "prot",
            "node 'n1': taskserv 'a' has no parameter `prot`: it has port, secure, word, role",
        ),
        (
            json!({"word": "w", "role": "third"}),
            "role",
            "node 'n1': the parameter `role` of taskserv 'a' must be one of first, second, not the text 'third'",
        ),
    ] {
        assert_eq!(choose(options, None).unwrap_err(), (field.to_owned(), message.to_owned()));
    }
}

#[test]
fn an_archive_is_what_the_digest_is_of() {
    let (place, library) = place(&[("a", MINIMAL)]);
    let folder = place.path().join("a");
    fs::create_dir_all(folder.join("files/empty")).unwrap();
    fs::write(folder.join("files/data"), b"\0\xff").unwrap();
    std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
    let a = library.load("a").unwrap();
    let bytes = a.archive().unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["files/data", "install.sh", "link", "ready.sh", "taskserv.toml", "verify.sh"]);
    let target = tempfile::tempdir().unwrap();
    tar::Archive::new(&bytes[..]).unpack(target.path()).unwrap();
    assert_eq!(fs::read(target.path().join("files/data")).unwrap(), b"\0\xff");
    assert_eq!(fs::read_link(target.path().join("link")).unwrap(), Path::new("../outside"));
    assert_eq!(a.archive().unwrap(), bytes);
    // A copy elsewhere, with other times and modes, is the same.
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("a");
    tar::Archive::new(&bytes[..]).unpack(&copy).unwrap();
    let copied = Library { places: vec![copies.path().to_owned()] }.load("a").unwrap();
    assert_eq!((&copied.digest, copied.archive().unwrap()), (&a.digest, bytes));
    fs::write(folder.join("install.sh"), "false\n").unwrap();
    assert!(a.archive().unwrap_err().to_string().ends_with("has changed since it was read"));
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert!(
        library.load("a").unwrap_err().message.ends_with("neither a file nor a folder nor a symbolic link")
    );
}

type Files = BTreeMap<String, Vec<u8>>;

fn digest_of(files: &Files) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder::digest(folder.path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_folders_have_one_digest_only_if_they_hold_the_same(
        one in prop::collection::btree_map("[ab]/?[cd]", prop::collection::vec(0_u8..3, 0..3), 0..3),
        other in prop::collection::btree_map("[ab]/?[cd]", prop::collection::vec(0_u8..3, 0..3), 0..3),
    ) {
        prop_assert_eq!(digest_of(&one) == digest_of(&other), one == other);
        prop_assert_eq!(digest_of(&one), digest_of(&one));
    }
}

/// The Nushell that the provisioning program runs in, where there is one.
fn nu() -> Option<Command> {
    let nu = std::env::var_os("ORCHESTRATOR_TEST_NU");
    let may_be_without = std::env::var_os("ORCHESTRATOR_CI").is_none();
    assert!(nu.is_some() || may_be_without, "CI must name nu in ORCHESTRATOR_TEST_NU");
    let Some(nu) = nu else {
        eprintln!("not tested: ORCHESTRATOR_TEST_NU names no nu");
        return None;
    };
    let mut command = Command::new(nu);
    command.args(["-n", "--no-std-lib"]);
    Some(command)
}

/// What the provisioning program says of the taskservs beside a settings file: the records of `taskserv
/// list`, or the message with which it refuses.
fn told(settings: &Path, names: &[&str]) -> Option<Result<Vec<Value>, String>> {
    let worker = own().join("../worker/worker.nu");
    let output = nu()?
        .arg(worker)
        .args(["taskserv", "list"])
        .args(names)
        .arg("--settings")
        .arg(settings)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if let Some(failure) = text.lines().find_map(|line| line.strip_prefix("::fail permanent ")) {
        return Some(Err(failure.to_owned()));
    }
    let result = text.lines().find_map(|line| line.strip_prefix("::result "));
    let result = result.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let result: Value = serde_json::from_str(result).unwrap();
    Some(Ok(result["taskservs"].as_array().unwrap().clone()))
}

/// A taskserv in the words of `taskserv list`, but for `ports` and `about`, which the engine only checks.
fn in_words_of_list(taskserv: &Taskserv) -> Value {
    let parameters: BTreeMap<&String, Value> = taskserv
        .parameters
        .iter()
        .map(|(name, it)| (name, json!({"type": it.kind, "default": it.default})))
        .collect();
    let needs = &taskserv.needs;
    json!({
        "name": taskserv.name,
        "description": taskserv.description,
        "depends_on": taskserv.depends_on,
        "needs": {"memory_mb": needs.memory_mb, "capabilities": needs.capabilities, "privileged": needs.privileged, "systemd": needs.systemd},
        "roles": taskserv.roles,
        "parameters": parameters,
        "where": taskserv.folder.to_str().unwrap(),
    })
}

#[test]
fn both_readers_say_the_same_of_the_projects_own() {
    let elsewhere = tempfile::tempdir().unwrap();
    let Some(told) = told(&elsewhere.path().join("settings.yaml"), &[]) else { return };
    let told: Vec<Value> = told
        .unwrap()
        .into_iter()
        .map(|mut record| {
            record.as_object_mut().unwrap().remove("ports");
            for (_, parameter) in record["parameters"].as_object_mut().unwrap() {
                parameter.as_object_mut().unwrap().remove("about");
                parameter.as_object_mut().unwrap().entry("default").or_insert(Value::Null);
            }
            record
        })
        .collect();
    let library = Library { places: vec![own()] };
    let read: Vec<Value> =
        library.available().keys().map(|name| in_words_of_list(&library.load(name).unwrap())).collect();
    assert!(read.len() >= 2);
    assert_eq!(read, told);
}

/// Files that are right, and files with one mistake each: the key that it is about.
const FILES: &[(&str, Result<(), &str>)] = &[
    ("description = 'd'", Ok(())),
    ("description = 'd'\nroles = ['a']\nports = [1, 65535]\n[timeouts]\n[needs]\n[parameters]", Ok(())),
    ("description = 'd'\n[parameters.role]\ntype = 'text'\nabout = 'a'", Ok(())),
    ("description = 'd'\n[parameters.a_1]\ntype = 'choice a b'\ndefault = 'b'\nabout = 'a'", Ok(())),
    ("description = 'd'\n[parameters.a]\ntype = 'address'\ndefault = '010.0.0.1'\nabout = 'a'", Ok(())),
    ("description = 'd'\n[parameters.a]\ntype = 'integer 5 1'\nabout = 'a'", Ok(())),
    ("description = 'd", Err("not TOML")),
    ("", Err("description")),
    ("description = ''", Err("description")),
    ("description = \"a\\nb\"", Err("description")),
    ("description = 1", Err("description")),
    ("description = 'd'\ndepend_on = []", Err("depend_on")),
    ("description = 'd'\ndepends_on = 'b'", Err("depends_on")),
    ("description = 'd'\ndepends_on = ['B']", Err("depends_on[0]")),
    ("description = 'd'\ndepends_on = ['t']", Err("depends_on")),
    ("description = 'd'\nroles = ['a b']", Err("roles[0]")),
    ("description = 'd'\nports = [0]", Err("ports[0]")),
    ("description = 'd'\nports = [1.0]", Err("ports[0]")),
    ("description = 'd'\nports = ['port']", Err("ports[0]")),
    ("description = 'd'\nports = ['port']\n[parameters.port]\ntype = 'text'\nabout = 'a'", Err("ports[0]")),
    ("description = 'd'\nneeds = 1", Err("needs")),
    ("description = 'd'\n[needs]\nmemory_mb = 0", Err("needs.memory_mb")),
    ("description = 'd'\n[needs]\nmemory_mb = 16777217", Err("needs.memory_mb")),
    ("description = 'd'\n[needs]\ncapabilities = ['SYSLOG', 'NET_ADMIN']", Ok(())),
    ("description = 'd'\n[needs]\ncapabilities = ['SYSLOG', 'CAP_NET_ADMIN']", Err("needs.capabilities[1]")),
    ("description = 'd'\n[needs]\ncapabilities = ['']", Err("needs.capabilities[0]")),
    ("description = 'd'\n[needs]\ncapabilities = 'SYSLOG'", Err("needs.capabilities")),
    ("description = 'd'\n[needs]\nsystemd = 'yes'", Err("needs.systemd")),
    ("description = 'd'\n[needs]\ndisk_mb = 1", Err("needs.disk_mb")),
    ("description = 'd'\n[ready]", Err("ready")),
    ("description = 'd'\n[ready]\nwithin_sec = 3601", Err("ready.within_sec")),
    ("description = 'd'\n[timeouts]\ninstall_sec = 86401", Err("timeouts.install_sec")),
    ("description = 'd'\n[timeouts]\nverify_sec = -1", Err("timeouts.verify_sec")),
    ("description = 'd'\n[parameters.A]\ntype = 'text'\nabout = 'a'", Err("parameters.A")),
    ("description = 'd'\n[parameters.a]\ntype = 'number'\nabout = 'a'", Err("parameters.a.type")),
    ("description = 'd'\n[parameters.a]\ntype = 'text'", Err("parameters.a")),
    ("description = 'd'\n[parameters.a]\ntype = 'text'\nabout = ''", Err("parameters.a.about")),
    (
        "description = 'd'\n[parameters.a]\ntype = 'text'\nabout = 'a'\ndefault = 1",
        Err("parameters.a.default"),
    ),
    (
        "description = 'd'\n[parameters.a]\ntype = 'text'\nabout = 'a'\ndefault = 2020-01-01",
        Err("parameters.a.default"),
    ),
    (
        "description = 'd'\n[parameters.a]\ntype = 'integer 1 3'\nabout = 'a'\ndefault = 4",
        Err("parameters.a.default"),
    ),
    (
        "description = 'd'\n[parameters.a]\ntype = 'integer 1 3'\nabout = 'a'\ndefault = inf",
        Err("parameters.a.default"),
    ),
    (
        "description = 'd'\nroles = ['x']\n[parameters.role]\ntype = 'text'\nabout = 'a'",
        Err("parameters.role"),
    ),
];

#[test]
fn a_mistake_is_named_with_its_file_and_key() {
    for (text, expected) in FILES {
        let (place, library) = place(&[("t", text)]);
        let read = library.load("t");
        let Err(key) = expected else {
            assert!(read.is_ok(), "{text}: {read:?}");
            continue;
        };
        let message = read.unwrap_err().message;
        let file = place.path().join("t/taskserv.toml");
        assert!(
            message.starts_with(&format!("{}:", file.display())) && message.contains(key),
            "{text}: {message}"
        );
    }
    let (place, library) = place(&[("t", "description = 'd'\n[ready]\nwithin_sec = 1")]);
    fs::remove_file(place.path().join("t/ready.sh")).unwrap();
    assert!(library.load("t").unwrap_err().message.ends_with("/t has no ready.sh"));
    fs::remove_file(place.path().join("t/install.sh")).unwrap();
    assert!(library.load("t").unwrap_err().message.ends_with("/t has no install.sh, ready.sh"));
}

#[test]
fn both_readers_refuse_the_same() {
    for (text, expected) in FILES {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("taskservs/t"), text);
        let Some(told) = told(&directory.path().join("settings.yaml"), &["t"]) else { return };
        match (told, expected) {
            (Ok(_), Ok(())) => {}
            (Err(message), Err(key)) => assert!(message.contains(key), "{text}: {message}"),
            (told, _) => panic!("{text}: {told:?}"),
        }
    }
}

#[test]
fn both_readers_choose_the_same() {
    let parameter = |name: &str, kind: &str, default: &str| {
        format!("[parameters.{name}]\ntype = '{kind}'\n{default}\nabout = 'a'\n")
    };
    let text = [
        "description = 'd'\nroles = ['first', 'second']\n".to_owned(),
        parameter("word", "text", ""),
        parameter("on", "boolean", "default = true"),
        parameter("port", "integer -5 9", "default = 3"),
        parameter("place", "address", "default = '10.0.0.1'"),
        parameter("host", "label", "default = 'h'"),
        parameter("mode", "choice a b", "default = 'b'"),
    ];
    let (place, library) = place(&[("t", &text.concat())]);
    let with = |name: &str, values: &[Value]| -> Vec<Value> {
        values.iter().map(|value| json!({"word": "w", name: value})).collect()
    };
    let cases: Vec<Value> = [
        vec![json!({}), json!({"word": "w"}), json!({"word": "w", "other": 1})],
        with(
            "word",
            &[json!("a b"), json!(""), json!("a\nb"), json!(1), json!(true), json!(null), json!([1])],
        ),
        with("on", &[json!(false), json!("true"), json!(0), json!(null)]),
        with("port", &[json!(-5), json!(9), json!(10), json!("3"), json!(3.0), json!(null)]),
        with("place", &[json!("1.2.3.4"), json!("01.2.3.4"), json!("1.2.3"), json!("256.1.1.1"), json!(1)]),
        with("host", &[json!("a-1"), json!("A"), json!("a."), json!("")]),
        with("mode", &[json!("a"), json!("c"), json!("a b")]),
        with("role", &[json!("first"), json!("second"), json!("third"), json!(1)]),
    ]
    .concat();
    let program = "use taskservs.nu
        let taskserv = taskservs load t [$env.PLACE]
        $env.CASES | from json | each --keep-empty {|options| try { $taskserv | taskservs choices n1 $options } catch { null } } | to json --raw";
    let Some(mut nu) = nu() else { return };
    let output = nu
        .args(["-I".as_ref(), own().join("../worker").as_os_str(), "-c".as_ref(), program.as_ref()])
        .env("PLACE", place.path())
        .env("CASES", json!(cases).to_string())
        .output()
        .unwrap();
    let told: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let taskserv = library.load("t").unwrap();
    let choose = |options: &Value| {
        let options: BTreeMap<String, Value> = serde_json::from_value(options.clone()).unwrap();
        let chosen = taskserv.choose("n1", &options, None).ok()?;
        Some(json!({"parameters": chosen.parameters, "role": chosen.role}))
    };
    assert!(told.iter().any(Value::is_null) && told.iter().any(Value::is_object));
    assert_eq!(told.len(), cases.len());
    for (options, told) in cases.iter().zip(told) {
        assert_eq!(choose(options).unwrap_or_default(), told, "{options}");
    }
}
