//! The direction of dependencies, as `docs/architecture.md` has it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The packages of this workspace that each of them needs to be built.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let needs = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().unwrap());
        names.filter(|name| ours.contains(name)).map(String::from).collect()
    };
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), needs(package))).collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 6] = [
        ("orchestrator-protocol", &[]),
        ("orchestrator-storage", &[]),
        ("orchestrator-runner", &[]),
        ("orchestrator-api", &["orchestrator-protocol"]),
        ("nu_plugin_orchestrator", &["orchestrator-protocol"]),
        (
            "orchestrator-engine",
            &["orchestrator-api", "orchestrator-protocol", "orchestrator-runner", "orchestrator-storage"],
        ),
    ];
    let dependencies = dependencies();
    for (package, allowed) in allowed {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(dependencies[package], allowed, "{package}");
    }
    let others: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(others.len(), allowed.len() + 2, "a new package needs a place in this test: {others:?}");
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_one_file_knows_each_foreign_engine() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 50);
    for (library, place) in
        [("bollard", "engine/src/container_manager.rs"), ("surrealdb", "engine/storage/src/surrealdb")]
    {
        let user = format!("{library}{}", "::");
        let others: Vec<_> = files
            .iter()
            .filter(|path| {
                let text = fs::read_to_string(path).unwrap();
                // Modules of ours that bear the library's name.
                let ours = ["orchestrator_storage::", "orchestrator_tests::"];
                let text = ours.iter().fold(text, |text, ours| text.replace(&format!("{ours}{user}"), ""));
                text.contains(&user)
            })
            // The file of that name, or a folder.
            .filter(|path| !path.to_str().unwrap().starts_with(root().join(place).to_str().unwrap()))
            .collect();
        assert_eq!(others, Vec::<&PathBuf>::new(), "only {place} may use {library}");
    }
}
