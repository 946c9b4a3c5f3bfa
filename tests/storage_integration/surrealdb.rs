//! The backends on SurrealDB: in this process, and on the real server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_storage::Store;
use orchestrator_storage::StoreError;
use orchestrator_storage::chaos::{ChaosPlan, ChaosStore};
use orchestrator_storage::conformance::{Harness, run_all};
use orchestrator_storage::surrealdb::{EmbeddedOptions, ServerOptions, SurrealStore};
use orchestrator_tests::surrealdb::SurrealServer;

use super::is_asked_for;

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;

/// Opens a store, again and again.
struct Open<F>(F);

#[async_trait::async_trait]
impl<F: Fn() -> Opening + Send + Sync + 'static> Harness for Open<F> {
    async fn open(&self) -> Arc<dyn Store> {
        (self.0)().await
    }
}

fn embedded() -> Arc<dyn Harness> {
    let directory = tempfile::tempdir().unwrap();
    Arc::new(Open(move || {
        let options = EmbeddedOptions::new(directory.path());
        Box::pin(
            async move { Arc::new(SurrealStore::open_embedded(options).await.unwrap()) as Arc<dyn Store> },
        ) as Opening
    }))
}

fn server() -> SurrealServer {
    SurrealServer::start(env!("CARGO_BIN_EXE_surrealdb-server-for-tests"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_database_keeps_the_contract() {
    if is_asked_for("surrealdb-embedded") {
        run_all(embedded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opening_of_a_directory_is_refused() {
    if !is_asked_for("surrealdb-embedded") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = || EmbeddedOptions::new(directory.path());
    let first = SurrealStore::open_embedded(options()).await.unwrap();
    let refused = SurrealStore::open_embedded(options()).await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::InUse { path } if path.starts_with(directory.path())),
        "{refused}"
    );
    first.close().await.unwrap();
    SurrealStore::open_embedded(options()).await.unwrap().close().await.unwrap();
}

/// The suite over one transport.
async fn on_server(scheme: &'static str) {
    if !is_asked_for("surrealdb-server") {
        return;
    }
    let server = server();
    let databases = orchestrator_storage::conformance::CASES.len();
    let mut options = Vec::new();
    for _ in 0..databases {
        options.push(server.database(scheme).await);
    }
    run_all(|| on(options.pop().unwrap())).await;
}

/// A store in a database of its own.
fn on(options: ServerOptions) -> Arc<dyn Harness> {
    Arc::new(Open(move || {
        let options = options.clone();
        Box::pin(async move { Arc::new(SurrealStore::open_server(options).await.unwrap()) as Arc<dyn Store> })
            as Opening
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_the_contract_over_web_sockets() {
    on_server("ws").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_the_contract_over_http() {
    on_server("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_keeps_the_contract_while_it_only_delays() {
    if !is_asked_for("surrealdb-embedded") {
        return;
    }
    let plan = ChaosPlan { delay: 0.2, max_delay: Duration::from_micros(300), ..ChaosPlan::calm(7) };
    run_all(|| {
        let directory = tempfile::tempdir().unwrap();
        Arc::new(Open(move || {
            let options = EmbeddedOptions::new(directory.path());
            Box::pin(async move {
                let store = SurrealStore::open_embedded(options).await.unwrap();
                Arc::new(ChaosStore::new(Arc::new(store), plan)) as Arc<dyn Store>
            }) as Opening
        })) as Arc<dyn Harness>
    })
    .await;
}
