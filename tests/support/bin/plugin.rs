//! The plugin under test: the same `main` as that of the real program.

fn main() {
    orchestrator_plugin::serve();
}
