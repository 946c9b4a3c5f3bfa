//! A world of a test's own: records in memory, taskservs in a directory, and an orchestrator of its own on a
//! container engine, of which nothing is left at the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use futures::{FutureExt, StreamExt};
use orchestrator_engine::container_manager::DockerManager;
use orchestrator_engine::containers::{ContainerManager, ExecSpec, Labels, Output};
use orchestrator_engine::test_orchestrator::{Change, Context, Environments, Options, TestOrchestrator};
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    Environment, EnvironmentId, EnvironmentLogs, EnvironmentStatus, NodeLine, RunOptions,
};
use orchestrator_protocol::event::Item;
use orchestrator_protocol::task::TaskId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Records in memory.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<EnvironmentId, Environment>>);

#[async_trait]
impl Environments for Memory {
    async fn get(&self, id: EnvironmentId) -> Result<Option<Environment>, Error> {
        Ok(self.0.lock().unwrap().get(&id).cloned())
    }

    async fn update(&self, id: EnvironmentId, change: Change<'_>) -> Result<Environment, Error> {
        let mut all = self.0.lock().unwrap();
        let environment = all.get_mut(&id).ok_or_else(|| Error::not_found("no such environment"))?;
        change(environment);
        Ok(environment.clone())
    }

    async fn all(&self) -> Result<Vec<Environment>, Error> {
        Ok(self.0.lock().unwrap().values().cloned().collect())
    }
}

pub struct World {
    pub docker: Arc<dyn ContainerManager>,
    pub records: Arc<Memory>,
    pub orchestrator: Arc<TestOrchestrator>,
    pub options: Options,
    pub directory: TempDir,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The image of tests.
pub fn image() -> String {
    std::env::var("ORCHESTRATOR_TEST_IMAGE").unwrap_or_else(|_| "orchestrator-base:bookworm".into())
}

/// A taskserv that installs a file and starts nothing; what the test does not say is added.
pub fn small(world: &World, name: &str, files: &[(&str, &str)]) {
    let install = "echo installing on $TASKSERV_SERVER\n\
        if [ -e /opt/$TASKSERV_NAME ]; then echo '::result {\"changed\": false}'; exit 0; fi\n\
        echo $TASKSERV_NAME >/opt/$TASKSERV_NAME\n";
    let mut all = BTreeMap::from([
        ("taskserv.toml", "description = \"A small one\"\n"),
        ("install.sh", install),
        ("verify.sh", "grep -qx $TASKSERV_NAME /opt/$TASKSERV_NAME\n"),
    ]);
    all.extend(files.iter().copied());
    let folder = world.directory.path().join("taskservs").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (file, content) in all {
        std::fs::write(folder.join(file), content).unwrap();
    }
}

/// A request for nodes of a topology.
pub fn cluster(nodes: Value) -> Value {
    json!({"config": {"type": "cluster_topology", "cluster_type": "test", "topology": {"nodes": nodes}}})
}

impl World {
    pub fn new(docker: Arc<dyn ContainerManager>) -> Self {
        let directory = TempDir::new().unwrap();
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nulib/taskservs");
        let options = Options {
            engine: "test".into(),
            owner: Uuid::new_v4().simple().to_string(),
            places: vec![directory.path().join("taskservs"), own],
            base_image: image(),
            logs_dir: directory.path().join("logs"),
            prepared_max_bytes: u64::MAX,
        };
        let records = Arc::new(Memory::default());
        let orchestrator = Arc::new(TestOrchestrator::new(docker.clone(), records.clone(), options.clone()));
        Self { docker, records, orchestrator, options, directory, lines: Arc::default() }
    }

    /// Another life of the engine: nothing is known but what is stored.
    pub fn another(&self) -> TestOrchestrator {
        TestOrchestrator::new(self.docker.clone(), self.records.clone(), self.options.clone())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the record of what is asked for.
    pub fn ask(&self, request: Value) -> EnvironmentId {
        let id = EnvironmentId::generate();
        let now = Utc::now();
        let environment = Environment {
            id,
            name: "test".into(),
            status: EnvironmentStatus::Creating,
            request: serde_json::from_value(request).unwrap(),
            engine: "test".into(),
            owner: None,
            network: None,
            nodes: Vec::new(),
            docker: None,
            partitions: Vec::new(),
            runs: 0,
            run_task: None,
            results: Vec::new(),
            task: None,
            error: None,
            created_at: now,
            ready_at: None,
            cleaned_at: None,
            expires_at: now + TimeDelta::hours(1),
        };
        self.records.0.lock().unwrap().insert(id, environment);
        id
    }

    pub fn record(&self, id: EnvironmentId) -> Environment {
        self.records.0.lock().unwrap()[&id].clone()
    }

    pub fn change(&self, id: EnvironmentId, change: impl FnOnce(&mut Environment)) {
        change(self.records.0.lock().unwrap().get_mut(&id).unwrap());
    }

    /// Loses a record.
    pub fn forget(&self, id: EnvironmentId) {
        self.records.0.lock().unwrap().remove(&id);
    }

    pub fn context(&self) -> Context {
        let lines = self.lines.clone();
        Context {
            cancel: CancellationToken::new(),
            progress: Arc::new(|_| {}),
            log: Arc::new(move |line| lines.lock().unwrap().push(line.to_owned())),
        }
    }

    /// What the tasks' logs have.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Asks for an environment and makes it.
    pub async fn made(&self, request: Value) -> EnvironmentId {
        let id = self.ask(request);
        if let Err(failure) = self.orchestrator.create(id, &self.context()).await {
            panic!("{failure}\n{}", self.log().join("\n"));
        }
        id
    }

    pub async fn run(&self, id: EnvironmentId, options: Value) -> Result<Value, String> {
        let options: RunOptions = serde_json::from_value(options).unwrap();
        let cwd = self.directory.path();
        let done = self.orchestrator.run(id, TaskId::generate(), &options, Some(cwd), &self.context()).await;
        done.map_err(|failure| {
            assert!(failure.permanent, "{failure}");
            failure.error.message
        })
    }

    /// Runs a command on a node: its exit status, and what it has printed.
    pub async fn on(&self, id: EnvironmentId, node: &str, command: &str) -> (i64, String) {
        let node = self.record(id).nodes.into_iter().find(|there| there.config.name == node).unwrap();
        let command = ["sh", "-c", command].map(String::from).to_vec();
        let spec = ExecSpec { command, ..ExecSpec::default() };
        let mut output = self.docker.exec(&node.container.unwrap(), &spec).await.unwrap();
        let mut printed = Vec::new();
        while let Some(item) = output.next().await {
            match item.unwrap() {
                Output::Bytes(_, bytes) => printed.extend(bytes),
                Output::Exit(code) => return (code, String::from_utf8(printed).unwrap().trim().to_owned()),
            }
        }
        panic!("the program has no exit status");
    }

    pub async fn logs(&self, id: EnvironmentId, node: Option<&str>, tail: Option<u64>) -> Vec<NodeLine> {
        let request = EnvironmentLogs { id, node: node.map(String::from), tail, follow: false };
        let items: Vec<_> = self.orchestrator.logs(&request).await.unwrap().collect().await;
        let line = |item| match item {
            Ok(Item::Node(line)) => line,
            other => panic!("{other:?}"),
        };
        items.into_iter().map(line).collect()
    }

    /// The names of all things of this world's owner: containers, networks, volumes.
    pub async fn things(&self) -> Vec<String> {
        let labels = self.labels();
        let containers = self.docker.containers(&labels).await.unwrap().into_iter().map(|it| it.name);
        let networks = self.docker.networks(&labels).await.unwrap().into_iter().map(|it| it.name);
        let volumes = self.docker.volumes(&labels).await.unwrap().into_iter().map(|it| it.name);
        containers.chain(networks).chain(volumes).collect()
    }

    fn labels(&self) -> Labels {
        Labels::from([("orchestrator.data".to_owned(), self.options.owner.clone())])
    }

    async fn remove_all(&self) {
        let labels = self.labels();
        for container in self.docker.containers(&labels).await.unwrap() {
            self.docker.remove_container(&container.id).await.unwrap();
        }
        for network in self.docker.networks(&labels).await.unwrap() {
            self.docker.remove_network(&network.id).await.unwrap();
        }
        for volume in self.docker.volumes(&labels).await.unwrap() {
            self.docker.remove_volume(&volume.name).await.unwrap();
        }
        for image in self.docker.images(&labels).await.unwrap() {
            self.docker.remove_image(&image.id).await.unwrap();
        }
    }
}

/// Runs a test on the real daemon, and removes what is left of it, also when it fails.
pub async fn on_docker<T, F: Future<Output = T>>(test: impl FnOnce(Arc<World>) -> F) -> T {
    let docker = Arc::new(DockerManager::from_env().unwrap());
    let image = image();
    assert!(docker.image(&image).await.unwrap().is_some(), "these tests need the image {image}");
    let world = Arc::new(World::new(docker));
    let result = std::panic::AssertUnwindSafe(test(world.clone())).catch_unwind().await;
    world.remove_all().await;
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
