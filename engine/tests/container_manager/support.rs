//! A place on a container engine of a test's own, of which nothing is left.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use orchestrator_engine::container_manager::DockerManager;
use orchestrator_engine::containers::{
    ContainerError, ContainerManager, ContainerSpec, ExecSpec, Labels, NetworkSpec, Output,
};
use orchestrator_protocol::event::OutputStream;
use uuid::Uuid;

/// The label by which a test finds what it has made.
const LABEL: &str = "orchestrator.test";

/// Names and labels of one test.
pub struct Place {
    pub name: String,
    pub image: String,
}

/// What a program has printed, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i64>,
}

impl Place {
    pub fn labels(&self) -> Labels {
        Labels::from([(LABEL.to_owned(), self.name.clone())])
    }

    pub fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    pub fn network(&self, subnet: Option<&str>) -> NetworkSpec {
        NetworkSpec {
            name: self.name("net"),
            subnet: subnet.map(str::to_owned),
            internal: true,
            labels: self.labels(),
        }
    }

    /// A container that waits.
    pub fn container(&self, part: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.name(part),
            image: self.image.clone(),
            hostname: part.to_owned(),
            command: vec!["sleep".into(), "infinity".into()],
            labels: self.labels(),
            network: self.name("net"),
            aliases: vec![part.to_owned()],
            ..ContainerSpec::default()
        }
    }
}

/// The image of tests.
pub fn image() -> String {
    std::env::var("ORCHESTRATOR_TEST_IMAGE").unwrap_or_else(|_| "orchestrator-base:bookworm".into())
}

/// Runs a test in a place of its own on the real daemon, and removes what is left of it, also when it fails.
pub async fn on_docker<T, F: Future<Output = T>>(
    test: impl FnOnce(Arc<DockerManager>, Arc<Place>) -> F,
) -> T {
    let manager = Arc::new(DockerManager::from_env().unwrap());
    let place = Arc::new(Place { name: format!("manager-{}", Uuid::new_v4().simple()), image: image() });
    assert!(
        manager.image(&place.image).await.unwrap().is_some(),
        "these tests need the image {}",
        place.image
    );
    let result = std::panic::AssertUnwindSafe(test(manager.clone(), place.clone())).catch_unwind().await;
    remove_all(&*manager, &place).await;
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Removes all that has the labels of a place.
pub async fn remove_all(manager: &dyn ContainerManager, place: &Place) {
    let labels = place.labels();
    for container in manager.containers(&labels).await.unwrap() {
        manager.remove_container(&container.id).await.unwrap();
    }
    for network in manager.networks(&labels).await.unwrap() {
        manager.remove_network(&network.id).await.unwrap();
    }
    for volume in manager.volumes(&labels).await.unwrap() {
        manager.remove_volume(&volume.name).await.unwrap();
    }
    for image in manager.images(&labels).await.unwrap() {
        manager.remove_image(&image.id).await.unwrap();
    }
}

/// Makes and starts a container.
pub async fn started(manager: &dyn ContainerManager, spec: &ContainerSpec) -> String {
    let id = manager.create_container(spec).await.unwrap();
    manager.start(&id).await.unwrap();
    id
}

/// Runs a program to its end.
pub async fn run(manager: &dyn ContainerManager, id: &str, spec: &ExecSpec) -> Result<Ran, ContainerError> {
    collect(manager.exec(id, spec).await?).await
}

/// Reads a stream to its end.
pub async fn collect(
    mut output: futures::stream::BoxStream<'static, Result<Output, ContainerError>>,
) -> Result<Ran, ContainerError> {
    let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
    while let Some(item) = output.next().await {
        match item? {
            Output::Bytes(OutputStream::Stdout, bytes) => stdout.extend(bytes),
            Output::Bytes(_, bytes) => stderr.extend(bytes),
            Output::Exit(status) => {
                assert_eq!(code.replace(status), None, "a program ends once");
            }
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok(Ran { stdout: text(stdout), stderr: text(stderr), code })
}

/// A script for `sh`.
pub fn script(text: &str) -> ExecSpec {
    ExecSpec { command: ["sh", "-c", text].map(String::from).to_vec(), ..ExecSpec::default() }
}

/// The output of a script that must succeed, without the end of its last line.
pub async fn sh(manager: &dyn ContainerManager, id: &str, text: &str) -> String {
    let ran = run(manager, id, &script(text)).await.unwrap();
    assert_eq!(ran.code, Some(0), "{text}: {ran:?}");
    ran.stdout.trim_end().to_owned()
}

/// Waits until something is so.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
