//! The calls that a container engine is asked for, counted by kind.
//!
//! One call is one request to the daemon. What an operation costs is told by their number, which is the
//! same on every machine, and not by a time: tests and benchmarks hold on to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Asks for the daemon's release and the version of its interface.
    Version,
    /// Asks how the daemon is set up.
    Info,
    /// Looks at one image.
    InspectImage,
    /// Lists images.
    ListImages,
    /// Fetches an image.
    PullImage,
    /// Makes an image out of a container.
    Commit,
    /// Removes an image.
    RemoveImage,
    /// Makes a network.
    CreateNetwork,
    /// Looks at one network.
    InspectNetwork,
    /// Lists networks.
    ListNetworks,
    /// Removes a network.
    RemoveNetwork,
    /// Makes a volume.
    CreateVolume,
    /// Lists volumes.
    ListVolumes,
    /// Removes a volume.
    RemoveVolume,
    /// Makes a container.
    CreateContainer,
    /// Starts a container.
    Start,
    /// Stops a container.
    Stop,
    /// Kills a container.
    Kill,
    /// Freezes a container.
    Pause,
    /// Lets a frozen container go on.
    Unpause,
    /// Looks at one container.
    InspectContainer,
    /// Lists containers.
    ListContainers,
    /// Removes a container.
    RemoveContainer,
    /// Waits until a container is gone.
    WaitRemoved,
    /// Prepares a program to run in a container.
    CreateExec,
    /// Runs it.
    StartExec,
    /// Asks for its exit status.
    InspectExec,
    /// Reads a container's log.
    Logs,
    /// Unpacks an archive in a container.
    Upload,
    /// Asks how much a container uses.
    Stats,
}

/// How many calls of each kind there were.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<Call, u64>>);

impl Calls {
    /// Counts one call, and returns how many of its kind there are now.
    pub fn count(&self, call: Call) -> u64 {
        let mut calls = self.lock();
        let count = calls.entry(call).or_default();
        *count += 1;
        *count
    }

    /// How many calls of one kind there were.
    pub fn of(&self, call: Call) -> u64 {
        self.lock().get(&call).copied().unwrap_or_default()
    }

    /// How many calls there were.
    pub fn total(&self) -> u64 {
        self.lock().values().sum()
    }

    /// The calls by kind. Kinds without a call are not in it.
    pub fn by_kind(&self) -> BTreeMap<Call, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Call, u64>> {
        // A count is right after each statement: nothing is half done where a thread has panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
