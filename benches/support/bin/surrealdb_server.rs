//! The real SurrealDB server, for the benchmarks of the backend that speaks to one.
#![recursion_limit = "512"]

fn main() -> std::process::ExitCode {
    surrealdb_server::init(surrealdb_server::core::CommunityComposer())
}
