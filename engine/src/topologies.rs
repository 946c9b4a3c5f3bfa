//! Topologies by name: the project's own, which the engine carries, and the user's in `topologies/*.toml`.
//!
//! All of a file is checked when it is read, but for what only the taskservs know: whether there are such
//! ones, and their roles and parameters. That is checked when an environment is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orchestrator_protocol::environment::{NamedTopology, NetworkConfig, NodeConfig, Topology};
use orchestrator_protocol::{Error, name};
use serde::Deserialize;

use crate::test_environment::topology;
use crate::toml_text::TomlText;

/// The project's own.
const OWN: &str = include_str!("../../topologies/test-topologies.toml");

/// What the project's own are called in messages.
const OWN_FILE: &str = "topologies/test-topologies.toml";

/// Where a user's are, below the directory of a request.
const DIRECTORY: &str = "topologies";

/// A topology as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    description: String,
    cluster_type: String,
    #[serde(default)]
    network: NetworkConfig,
    nodes: Vec<NodeConfig>,
}

/// All topologies, sorted by name. A user's takes the place of one of the project's own of the same name.
///
/// # Errors
/// A file is wrong: the message names its line and column, and the key.
pub fn list(cwd: Option<&Path>) -> Result<Vec<NamedTopology>, Error> {
    let mut topology_by_name = BTreeMap::new();
    for topology in read(OWN_FILE, OWN)? {
        topology_by_name.insert(topology.name.clone(), NamedTopology { file: None, ..topology });
    }
    for path in cwd.map(files).transpose()?.unwrap_or_default() {
        let file = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        for topology in read(&file, &text)? {
            let name = topology.name.clone();
            let other = topology_by_name.insert(name.clone(), topology).and_then(|other| other.file);
            if let Some(other) = other {
                let message =
                    format!("the topology '{name}' is in {other} and in {file}: remove one of them");
                return Err(Error::invalid(message));
            }
        }
    }
    Ok(topology_by_name.into_values().collect())
}

/// The user's files, sorted by name.
fn files(cwd: &Path) -> Result<Vec<PathBuf>, Error> {
    let directory = cwd.join(DIRECTORY);
    let entries = match directory.read_dir() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(|error| unreadable(&directory, &error))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&directory, &error))?.path();
        // What is no file, such as a pipe, would be waited for.
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::invalid(format!("{} cannot be read: {error}", path.display()))
}

/// The topologies in a file.
fn read(file: &str, text: &str) -> Result<Vec<NamedTopology>, Error> {
    let toml = TomlText::parse(file, text)?;
    let entries: BTreeMap<String, Entry> = toml.read()?;
    let mut topologies = Vec::new();
    for (name, Entry { description, cluster_type, network, nodes }) in entries {
        let topology = Topology { nodes, network };
        check(&name, &description, &cluster_type, &topology)
            .map_err(|(field, problem)| toml.refuse(&format!("{name}{field}"), &problem))?;
        let file = Some(file.to_owned());
        topologies.push(NamedTopology { name, description, cluster_type, file, topology });
    }
    Ok(topologies)
}

/// What is wrong with a topology: where in it, and how.
fn check(
    name: &str,
    description: &str,
    cluster_type: &str,
    topology: &Topology,
) -> Result<(), (String, String)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_part);
    if !is_name || name.len() > 63 {
        let rule = "use 1 to 63 of letters, digits, '_' and '-', beginning with a letter or a digit";
        return Err((String::new(), format!("'{name}' cannot be the name of a topology: {rule}")));
    }
    if description.is_empty() || description.contains(char::is_control) {
        return Err((".description".into(), "it must be a text on one line".into()));
    }
    name::word("cluster type", cluster_type)
        .map_err(|invalid| (".cluster_type".to_owned(), invalid.to_string()))?;
    topology::check(topology, "").map_err(|error| {
        let field = error.field.map_or_else(String::new, |field| format!(".{field}"));
        (field, error.message)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const SMALL: &str = "description = 'd'\ncluster_type = 't'\n";

    fn mistake(text: &str) -> String {
        read("t.toml", text).unwrap_err().message
    }

    #[test]
    fn the_projects_own_are_there() {
        let names: Vec<String> = list(None).unwrap().into_iter().map(|topology| topology.name).collect();
        assert_eq!(
            names,
            ["containerd_test", "etcd_cluster", "kubernetes_3node", "kubernetes_single", "postgres_redis"]
        );
    }

    #[test]
    fn a_users_topology_takes_the_place_of_the_projects_own() {
        let cwd = tempfile::tempdir().unwrap();
        assert_eq!(list(Some(cwd.path())).unwrap(), list(None).unwrap());
        let directory = cwd.path().join("topologies");
        fs::create_dir(&directory).unwrap();
        let file = |name: &str, topology: &str| {
            fs::write(directory.join(name), format!("[{topology}]\n{SMALL}nodes = [{{name = 'n1'}}]"))
                .unwrap();
        };
        file("mine.toml", "mine");
        file("etcd.toml", "etcd_cluster");
        file("notes.txt", "not TOML");
        let all = list(Some(cwd.path())).unwrap();
        assert_eq!(all.len(), 6);
        let etcd = all.iter().find(|topology| topology.name == "etcd_cluster").unwrap();
        assert_eq!(etcd.topology.nodes[0].name, "n1");
        assert_eq!(etcd.file.as_deref(), directory.join("etcd.toml").to_str());
        file("other.toml", "mine");
        let message = list(Some(cwd.path())).unwrap_err().message;
        assert!(message.contains("mine.toml and in ") && message.contains("other.toml"), "{message}");
    }

    /// The documentation of topologies.
    const PAGE: &str = include_str!("../../docs/user/test-environment-usage.md");

    #[test]
    fn the_documentation_is_right() {
        let example = PAGE.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let file = "topologies/shop.toml";
        assert_eq!(read(file, example).unwrap()[0].topology.nodes.len(), 3);
        let wrong = example.replace("10.99.0.10", "10.98.0.10");
        assert!(PAGE.contains(&format!("`{}`", read(file, &wrong).unwrap_err().message)));
        for NamedTopology { name, description, topology, .. } in list(None).unwrap() {
            let nodes: Vec<String> = topology.nodes.iter().map(|node| format!("`{}`", node.name)).collect();
            let row = format!("| `{name}` | {} | {description} |", nodes.join(", "));
            assert!(PAGE.contains(&row), "{row}");
        }
        for (what, _, bounds) in topology::BOUNDS {
            let row = format!("| `{what}` | a whole number from {} to {} |", bounds.start(), bounds.end());
            assert!(PAGE.contains(&row), "{row}");
        }
    }

    #[test]
    fn every_key_that_may_be_said_is_documented() {
        let allowed = |text: &str| {
            let message = mistake(text);
            let keys =
                message.split("expected one of ").nth(1).or(message.split("expected ").nth(1)).unwrap();
            keys.split('`').skip(1).step_by(2).map(String::from).collect::<Vec<_>>()
        };
        // The sections after it have tables of other things.
        let topologies = PAGE.split("\n## ").nth(1).unwrap();
        let mut tables = topologies.split("\n### ").skip(1);
        for (title, text) in [
            ("A topology", "[a]\nx = 1"),
            ("A node", "[a]\nnodes = [{x = 1}]"),
            ("Resources", "[a]\nnodes = [{resources = {x = 1}}]"),
            ("A volume", "[a]\nnodes = [{volumes = [{x = 1}]}]"),
            ("A network", "[a]\nnetwork = {x = 1}"),
        ] {
            let table = tables.next().unwrap();
            assert!(table.starts_with(title));
            let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            let (mut documented, mut allowed) = (rows.map(String::from).collect::<Vec<_>>(), allowed(text));
            documented.sort();
            allowed.sort();
            assert_eq!(documented, allowed, "{title}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_file_line_column_and_what_is_allowed() {
        for (text, expected) in [
            ("[a\n", "t.toml:1:3: this is not TOML"),
            ("a = 1", "t.toml:1:5: a: invalid type: integer `1`"),
            ("[a]\ndescription = 'd'\nnodes = []", "t.toml:1:1: a: missing field `cluster_type`"),
            (
                "[a]\ncolour = 'red'",
                "t.toml:2:1: a.colour: unknown field `colour`, expected one of `description`",
            ),
            ("['a b']\n{S}nodes = [{name = 'n'}]", "t.toml:1:1: a b: 'a b' cannot be the name of a topology"),
            ("[a]\n{S}nodes = []", "t.toml:4:9: a.nodes: there are no nodes"),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'N'",
                "t.toml:5:8: a.nodes[0].name: 'N' is not a valid node name: use 1 to 63",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\n[[a.nodes]]\nname = 'n'",
                "t.toml:7:8: a.nodes[1].name: there are two nodes 'n'",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\nresources = {memory_mb = 2, disk_mb = 20}",
                "t.toml:6:26: a.nodes[0].resources.memory_mb: memory_mb must be a whole number from 6 to",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\nresources = {memory = 2}",
                "t.toml:6:14: a.nodes[0].resources.memory: unknown field `memory`, expected one of `cpu_millicores`",
            ),
            (
                "[a]\n{S}network = {subnet = '10.0.0.1/24'}\nnodes = [{name = 'n'}]",
                "t.toml:4:21: a.network.subnet: 10.0.0.1/24 is an address within a network",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\naddress = '10.0.0.2'",
                "t.toml:6:11: a.nodes[0].address: node 'n' has an address, so the network needs a `subnet`",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\naddress = 'ten'",
                "t.toml:6:11: a.nodes[0].address: invalid IPv4 address syntax",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\nenvironment = {'1A' = 'x'}",
                "t.toml:6:23: a.nodes[0].environment.1A: '1A' is not a valid environment variable",
            ),
            (
                "[a]\n{S}[[a.nodes]]\nname = 'n'\nvolumes = [{name = 'v', path = 'data'}]",
                "t.toml:6:32: a.nodes[0].volumes[0].path: 'data' must be an absolute path",
            ),
            (
                "[a]\ndescription = ''\ncluster_type = 't'\nnodes = []",
                "t.toml:2:15: a.description: it must be a text",
            ),
            (
                "[a]\ndescription = 'd'\ncluster_type = '-'\nnodes = []",
                "t.toml:3:16: a.cluster_type: '-' is not a valid",
            ),
        ] {
            let message = mistake(&text.replace("{S}", SMALL));
            assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        }
    }
}
