//! The plugin's program. All of it is in the library, so that the end-to-end suite can build it too.

fn main() {
    orchestrator_plugin::serve();
}
