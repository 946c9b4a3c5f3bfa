//! Whether the tasks of a submission can be run in some order.
//!
//! A submission names its dependencies; this module resolves the names, refuses unknown and doubled
//! ones, and finds a cycle and names its members. It is pure.

use std::collections::HashMap;

/// Why a submission cannot be run in any order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two tasks have one name.
    #[error("two tasks are named '{name}'")]
    Duplicate {
        /// The name.
        name: String,
        /// The second one's place.
        index: usize,
    },
    /// A dependency names no task of the submission.
    #[error("task '{task}' comes after '{after}', which is not a task of this submission")]
    Unknown {
        /// Who depends.
        task: String,
        /// On what.
        after: String,
        /// Who depends, by place.
        index: usize,
        /// Which of its dependencies, by place.
        position: usize,
    },
    /// Tasks wait for each other.
    #[error("the tasks wait for each other: {}", names.join(" -> "))]
    Cycle {
        /// The members, each after the one that follows it; the first again at the end.
        names: Vec<String>,
    },
}

/// For each task the places of those it comes after, without repetitions.
pub fn resolve<'a>(
    tasks: impl Iterator<Item = (&'a str, &'a [String])>,
) -> Result<Vec<Vec<usize>>, GraphError> {
    let tasks: Vec<_> = tasks.collect();
    let mut index_by_name = HashMap::new();
    for (index, (name, _)) in tasks.iter().enumerate() {
        if index_by_name.insert(*name, index).is_some() {
            return Err(GraphError::Duplicate { name: (*name).to_owned(), index });
        }
    }
    let mut edges = Vec::with_capacity(tasks.len());
    for (index, (name, after)) in tasks.iter().enumerate() {
        let mut places = Vec::with_capacity(after.len());
        for (position, dependency) in after.iter().enumerate() {
            let Some(place) = index_by_name.get(dependency.as_str()) else {
                let (task, after) = ((*name).to_owned(), dependency.clone());
                return Err(GraphError::Unknown { task, after, index, position });
            };
            places.push(*place);
        }
        places.sort_unstable();
        places.dedup();
        edges.push(places);
    }
    match find_cycle(&edges) {
        None => Ok(edges),
        Some(cycle) => {
            Err(GraphError::Cycle { names: cycle.iter().map(|index| tasks[*index].0.to_owned()).collect() })
        }
    }
}

/// The members of a cycle, the first again at the end. Without recursion: a chain may be long.
fn find_cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Visit {
        Never,
        Open,
        Done,
    }
    let mut visits = vec![Visit::Never; edges.len()];
    for start in 0..edges.len() {
        if visits[start] != Visit::Never {
            continue;
        }
        let mut path = vec![(start, 0)];
        visits[start] = Visit::Open;
        while let Some((node, next)) = path.last_mut() {
            let Some(target) = edges[*node].get(*next).copied() else {
                visits[*node] = Visit::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match visits[target] {
                Visit::Done => {}
                Visit::Never => {
                    visits[target] = Visit::Open;
                    path.push((target, 0));
                }
                Visit::Open => {
                    let from = path.iter().position(|(node, _)| *node == target).unwrap_or(0);
                    return Some(path[from..].iter().map(|(node, _)| *node).chain([target]).collect());
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn check(tasks: &[(&str, &[&str])]) -> Result<Vec<Vec<usize>>, GraphError> {
        let owned: Vec<(&str, Vec<String>)> = tasks
            .iter()
            .map(|(name, after)| (*name, after.iter().map(|a| (*a).to_owned()).collect()))
            .collect();
        resolve(owned.iter().map(|(name, after)| (*name, after.as_slice())))
    }

    #[test]
    fn refusals_name_the_culprits() {
        assert_eq!(check(&[("a", &[]), ("b", &["a", "a"])]), Ok(vec![vec![], vec![0]]));
        let unknown = check(&[("a", &["ghost"])]).unwrap_err().to_string();
        assert_eq!(unknown, "task 'a' comes after 'ghost', which is not a task of this submission");
        assert_eq!(check(&[("a", &[]), ("a", &[])]).unwrap_err().to_string(), "two tasks are named 'a'");
        let cycle = check(&[("x", &[]), ("a", &["b", "x"]), ("b", &["c"]), ("c", &["a"])]).unwrap_err();
        assert_eq!(cycle.to_string(), "the tasks wait for each other: a -> b -> c -> a");
        assert_eq!(check(&[("a", &["a"])]).unwrap_err().to_string(), "the tasks wait for each other: a -> a");
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_is_no_problem() {
        let edges: Vec<Vec<usize>> =
            (0..100_000).map(|index| if index > 0 { vec![index - 1] } else { vec![] }).rev().collect();
        let count = edges.len();
        let forward: Vec<Vec<usize>> =
            (0..count).map(|index| if index + 1 < count { vec![index + 1] } else { vec![] }).collect();
        assert_eq!(find_cycle(&forward), None);
    }

    proptest! {
        /// A cycle is found exactly when repeated removal of what waits for nothing gets stuck.
        #[test]
        fn a_cycle_is_found_exactly_when_there_is_one(
            edges in (1..12_usize).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 0..3), n)),
        ) {
            let mut left: Vec<usize> = (0..edges.len()).collect();
            loop {
                let before = left.len();
                let current = left.clone();
                left.retain(|node| edges[*node].iter().any(|target| current.contains(target)));
                if left.len() == before { break }
            }
            match find_cycle(&edges) {
                None => prop_assert!(left.is_empty()),
                Some(cycle) => {
                    prop_assert!(!left.is_empty());
                    prop_assert_eq!(cycle.first(), cycle.last());
                    for pair in cycle.windows(2) { prop_assert!(edges[pair[0]].contains(&pair[1])); }
                }
            }
        }
    }
}
