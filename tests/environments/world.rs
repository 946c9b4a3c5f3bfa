//! What the tests of environments work with: an engine with a taskserv of its own, and what there is in Docker.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::process::Command;

use orchestrator_protocol::environment::{
    Environment, EnvironmentConfig, EnvironmentRequest, EnvironmentStatus, EnvironmentTask, GetEnvironment,
    NodeConfig, NodeResources, RunOptions, Topology,
};
use orchestrator_protocol::task::Task;
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;

pub const ENGINE: &str = env!("CARGO_BIN_EXE_orchestrator-under-test");

/// The image of nodes; `None`, and a word about it, where there is none.
pub fn image() -> Option<String> {
    let image =
        std::env::var("ORCHESTRATOR_TEST_IMAGE").unwrap_or_else(|_| "orchestrator-base:bookworm".into());
    if docker(&["image", "inspect", "--format", "{{.Id}}", &image]).is_some() {
        return Some(image);
    }
    assert!(
        std::env::var_os("ORCHESTRATOR_CI").is_none(),
        "this test needs Docker and the image {image}: ./setup makes it"
    );
    eprintln!("not tested: there is no Docker with the image {image}");
    None
}

pub fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The containers, networks and volumes that carry a label.
pub fn things(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    let lists: [&[&str]; 3] = [
        &["ps", "--all", "--format", "{{.Names}}"],
        &["network", "ls", "--format", "{{.Name}}"],
        &["volume", "ls", "--format", "{{.Name}}"],
    ];
    let list = |arguments: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--filter", &filter]).collect();
        docker(&arguments).unwrap().lines().map(String::from).collect::<Vec<_>>()
    };
    lists.into_iter().flat_map(list).collect()
}

/// An engine that takes the things of its environments with it, also when its test fails, unless
/// `ORCHESTRATOR_KEEP` is set.
pub struct World(pub TestEngine);

impl Deref for World {
    type Target = TestEngine;

    fn deref(&self) -> &TestEngine {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut TestEngine {
        &mut self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.kill();
        if std::env::var_os("ORCHESTRATOR_KEEP").is_some() {
            return;
        }
        let Ok(owner) = fs::read_to_string(self.data_dir().join("owner")) else { return };
        let filter = format!("label=orchestrator.data={owner}");
        let kinds: [(&[&str], &[&str]); 4] = [
            (&["ps", "--all", "--quiet"], &["rm", "--force", "--volumes"]),
            (&["network", "ls", "--quiet"], &["network", "rm"]),
            (&["volume", "ls", "--quiet"], &["volume", "rm"]),
            (&["images", "--quiet"], &["rmi", "--force"]),
        ];
        for (list, remove) in kinds {
            let list: Vec<&str> = list.iter().copied().chain(["--filter", &filter]).collect();
            for id in docker(&list).unwrap_or_default().lines() {
                docker(&remove.iter().copied().chain([id]).collect::<Vec<_>>());
            }
        }
    }
}

/// An engine with a taskserv `clock` of its own, which does what files in its folder say.
pub fn world() -> Option<(World, String)> {
    let image = image()?;
    let mut engine = World(TestEngine::new(ENGINE).with_arguments(&["--max-parallel", "12"]));
    add_clock(&engine);
    engine.start();
    Some((engine, image))
}

/// Gives the engine a taskserv `clock`, which does what files in its folder say.
pub fn add_clock(engine: &TestEngine) {
    let folder = engine.directory().join("taskservs/clock");
    fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    file("taskserv.toml", "description = 'Says the time'\n[ready]\nwithin_sec = 20\n");
    file("install.sh", "date >/etc/clock.installed\n");
    file("start.sh", "date >/run/clock\n");
    file("ready.sh", "test -s /run/clock\n");
    file(
        "verify.sh",
        "test -s /etc/clock.installed && test -s /run/clock || { echo stopped >&2; exit 1; }\n",
    );
}

pub fn change(engine: &TestEngine, script: &str, text: &str) {
    fs::write(engine.directory().join("taskservs/clock").join(script), text).unwrap();
}

pub fn node(name: &str, image: &str) -> NodeConfig {
    NodeConfig {
        name: name.into(),
        taskservs: vec!["clock".into()],
        base_image: Some(image.to_owned()),
        resources: NodeResources { memory_mb: Some(64), ..NodeResources::default() },
        ..NodeConfig::default()
    }
}

pub fn request(engine: &TestEngine, image: &str, nodes: &[&str]) -> EnvironmentRequest {
    let nodes = nodes.iter().map(|name| node(name, image)).collect();
    EnvironmentRequest {
        config: EnvironmentConfig::ClusterTopology {
            cluster_type: "clocks".into(),
            topology: Topology { nodes, ..Topology::default() },
        },
        infra: None,
        auto_start: true,
        auto_cleanup: true,
        keep_on_failure: true,
        run: RunOptions::default(),
        disk_policy: Default::default(),
        use_prepared: true,
        pull: false,
        expires_after_ms: None,
        cwd: Some(engine.directory().to_str().unwrap().to_owned()),
        priority: 0,
        idempotency_key: None,
    }
}

pub fn environment(engine: &TestEngine, made: EnvironmentTask) -> Environment {
    *engine.ask(GetEnvironment { id: made.environment })
}

pub fn wait_for(engine: &TestEngine, made: EnvironmentTask, status: EnvironmentStatus) -> Environment {
    let deadline = std::time::Instant::now() + wait::PATIENCE;
    loop {
        let environment = environment(engine, made);
        if environment.status == status {
            return environment;
        }
        let tasks = tasks_of(engine, made);
        assert!(
            std::time::Instant::now() < deadline,
            "not {status}: {environment:#?}\n{tasks:#?}\n{}",
            engine.log()
        );
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

pub fn nothing_is_left(engine: &TestEngine) {
    let owner = fs::read_to_string(engine.data_dir().join("owner")).unwrap();
    assert_eq!(things(&format!("orchestrator.data={owner}")), Vec::<String>::new());
}

pub fn tasks_of(engine: &TestEngine, made: EnvironmentTask) -> BTreeMap<String, Task> {
    let id = made.environment.to_string();
    let about = engine.tasks().into_iter().filter(|task| task.labels.get("environment") == Some(&id));
    about.map(|task| (task.name.clone(), task)).collect()
}
