//! A process that ends at any commit of a migration, before or after it, leaves one truth; a rerun
//! finishes.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use orchestrator_engine::config::{Arguments, Config};
use orchestrator_engine::storage::{open_truth, place as place_of};
use orchestrator_storage::Store;
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::{MigrationError, Steering, migrate};

use crate::stores::{Content, Mortal, Power, content, fill, open, place, plan};

pub fn config(directory: &Path) -> Config {
    let arguments = ["orchestrator", "--no-http", "--data-dir", directory.to_str().unwrap()];
    Config::load(Arguments::parse_from(arguments)).unwrap()
}

/// Where an engine that is started there works, and on what; or why it refuses.
async fn start(directory: &Path) -> Result<(String, Content), String> {
    match open_truth(config(directory)).await {
        Ok((config, store)) => {
            let found = content(&*store).await;
            store.close().await.unwrap();
            Ok((place_of(&config).location, found))
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Moves records with power for so many commits; returns whether it lasted to the end.
async fn move_with(commits: i64, made: bool, is_live: bool, from: &Path, to: &Path) -> bool {
    let (source, target) = (open(from), open(to));
    let power = Power::for_commits(commits, made);
    let mortal = |inner: &Arc<_>| -> Arc<dyn Store> {
        let (inner, power) = (Arc::clone(inner), Arc::clone(&power));
        Arc::new(Mortal { inner: inner as Arc<dyn Store>, power })
    };
    let plan = plan(&format!("m{commits}{made}"), from, to);
    let result = match is_live {
        true => {
            let store = Arc::new(SwitchingStore::new(mortal(&source)));
            store.migrate(mortal(&target), plan, Arc::default()).await
        }
        false => migrate(&*mortal(&source), &*mortal(&target), &plan, &Steering::default()).await,
    };
    let lasted = !power.is_out();
    // What could not be written after the moment of change is a warning and no failure.
    match &result {
        Ok(report) => assert_eq!(report.warning.is_some(), !lasted, "{report:?}"),
        Err(error) => assert!(!lasted, "{error}"),
    }
    source.close().await.unwrap();
    target.close().await.unwrap();
    lasted
}

async fn one_truth_whenever_it_ends(made: bool, is_live: bool) {
    let (mut stayed, mut moved) = (0, 0);
    for commits in 0.. {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (from.path(), to.path());
        let source = open(from);
        fill(&*source, 120).await;
        let expected = content(&*source).await;
        source.close().await.unwrap();
        drop(source);
        let lasted = move_with(commits, made, is_live, from, to).await;
        // Asked first: to ask the source may finish what was broken off.
        let at_target = start(to).await;
        let (truth, found) = start(from).await.unwrap();
        assert!(found == expected, "after {commits} commits");
        if truth == place(to).location {
            moved += 1;
            let (there, found) = at_target.unwrap();
            assert_eq!(there, truth, "after {commits} commits");
            assert!(found == expected);
        } else {
            stayed += 1;
            assert_eq!(truth, place(from).location);
            assert!(!lasted);
            // Whoever starts there works where the records are, unless it was not marked yet and is an empty store
            // of its own.
            let (there, found) = at_target.unwrap();
            let is_unmarked = commits + i64::from(made) < 2 && found.is_empty();
            assert!(is_unmarked || (there == truth && found == expected), "after {commits} commits: {there}");
            // Whatever was left there, the next one finishes.
            assert!(move_with(i64::MAX, made, is_live, from, to).await);
            let (truth, found) = start(from).await.unwrap();
            assert_eq!(truth, place(to).location);
            assert!(found == expected, "after {commits} commits and a rerun");
            assert_eq!(start(to).await.unwrap().0, truth);
        }
        if lasted {
            break;
        }
    }
    // The source's name, the mark, the records, the mark, the seal; and the last mark.
    assert!(stayed >= 6 && moved >= 2, "{stayed} {moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_before_any_commit_leaves_one_truth() {
    one_truth_whenever_it_ends(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_after_any_commit_leaves_one_truth() {
    one_truth_whenever_it_ends(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_migration_that_ends_before_any_commit_leaves_one_truth() {
    one_truth_whenever_it_ends(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_migration_that_ends_after_any_commit_leaves_one_truth() {
    one_truth_whenever_it_ends(true, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_back_that_ends_early_leaves_the_way_to_the_records() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(from.path());
    fill(&*source, 3).await;
    let expected = content(&*source).await;
    source.close().await.unwrap();
    assert!(move_with(i64::MAX, true, false, from.path(), to.path()).await);
    for commits in 0..2 {
        assert!(!move_with(commits, true, false, to.path(), from.path()).await);
        let (truth, found) = start(from.path()).await.unwrap();
        assert!(truth == place(to.path()).location && found == expected, "after {commits} commits: {truth}");
    }
}

/// The way back from a target that is whole, and whose source was lost and made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_target_does_not_lead_to_an_empty_source() {
    let mut refusals = 0;
    for commits in 0.. {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = open(from.path());
        fill(&*source, 3).await;
        source.close().await.unwrap();
        drop(source);
        let lasted = move_with(commits, true, false, from.path(), to.path()).await;
        std::fs::remove_dir_all(from.path().join("queue.rkvs")).unwrap();
        open(from.path()).close().await.unwrap();
        match start(to.path()).await {
            // It was not marked yet, nothing of it was there, or all.
            Ok((truth, found)) => {
                let is_unmarked = commits == 0 && found.is_empty();
                assert!(is_unmarked || found.is_empty() != (truth == place(to.path()).location), "{commits}")
            }
            Err(refusal) => {
                assert!(refusal.contains("made anew since"), "{refusal}");
                refusals += 1;
            }
        }
        if lasted {
            break;
        }
    }
    assert!(refusals >= 1);
}

/// Another one of the same name, which has moved as often: on another machine, say.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_not_followed_to_another_store() {
    let (from, other, to) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (directory, made) in [(&from, true), (&other, false)] {
        let _ = std::fs::remove_dir_all(to.path().join("queue.rkvs"));
        let source = open(directory.path());
        fill(&*source, 3).await;
        source.close().await.unwrap();
        drop(source);
        assert!(move_with(i64::MAX, made, false, directory.path(), to.path()).await);
    }
    let refusal = start(from.path()).await.unwrap_err();
    assert!(refusal.contains("made anew since"), "{refusal}");
    assert_eq!(start(other.path()).await.unwrap().0, place(to.path()).location);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_refuses_where_it_cannot_follow_and_says_what_to_do() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(from.path());
    fill(&*source, 3).await;
    source.close().await.unwrap();
    assert!(move_with(i64::MAX, true, false, from.path(), to.path()).await);
    let there = place(to.path()).location;
    std::fs::rename(to.path().join("queue.rkvs"), to.path().join("moved-by-hand")).unwrap();
    let refusal = start(from.path()).await.unwrap_err();
    assert!(refusal.contains(&format!("storage_dir = \"{there}\"")), "{refusal}");
    assert!(refusal.contains("there is no storage"), "{refusal}");
    // Nothing is made by asking.
    assert!(!to.path().join("queue.rkvs").exists());
    // An empty one in its place is not the one that was meant, for whoever follows and whoever moves back.
    let (source, target) = (open(from.path()), open(to.path()));
    let back = plan("back", to.path(), from.path());
    let refused = migrate(&*target, &*source, &back, &Steering::default()).await;
    assert!(matches!(refused, Err(MigrationError::SourceReplaced { .. })), "{refused:?}");
    assert!(content(&*source).await.len() > 3, "what was left there is kept");
    source.close().await.unwrap();
    target.close().await.unwrap();
    drop((source, target));
    let refusal = start(from.path()).await.unwrap_err();
    assert!(refusal.contains("it was made anew since"), "{refusal}");
}
