//! What a daemon answers, in our words.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse, ContainerSummary,
    ContainerSummaryStateEnum, EndpointSettings, Ipam,
};

use crate::containers::{Container, ContainerState, Usage};

pub(super) fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn first_subnet(ipam: Option<Ipam>) -> Option<String> {
    let subnets = ipam?.config?.into_iter().filter_map(|config| config.subnet);
    subnets.into_iter().find(|subnet| !subnet.contains(':'))
}

fn addresses(networks: Option<HashMap<String, EndpointSettings>>) -> BTreeMap<String, Ipv4Addr> {
    let networks = networks.into_iter().flatten();
    // A container that does not run has an empty address.
    networks.filter_map(|(name, endpoint)| Some((name, endpoint.ip_address?.parse().ok()?))).collect()
}

/// The state of a container of a list; `None` where the list does not tell enough.
pub(super) fn listed_state(summary: &ContainerSummary) -> Option<ContainerState> {
    match summary.state? {
        ContainerSummaryStateEnum::CREATED => Some(ContainerState::Created),
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING => {
            Some(ContainerState::Running)
        }
        ContainerSummaryStateEnum::PAUSED => Some(ContainerState::Paused),
        ContainerSummaryStateEnum::REMOVING => Some(ContainerState::Removing),
        _ => None,
    }
}

pub(super) fn listed_container(summary: ContainerSummary, state: ContainerState) -> Container {
    let names = summary.names.into_iter().flatten();
    Container {
        id: summary.id.unwrap_or_default(),
        // A legacy link would be a name with two slashes.
        name: names.map(|name| own_name(&name)).find(|name| !name.contains('/')).unwrap_or_default(),
        image: summary.image_id.unwrap_or_default(),
        state,
        addresses: addresses(summary.network_settings.and_then(|settings| settings.networks)),
        labels: summary.labels.into_iter().flatten().collect(),
    }
}

/// What a container uses, out of what was measured and of the container as it is.
pub(super) fn usage(stats: ContainerStatsResponse, container: &ContainerInspectResponse) -> Usage {
    let is_running = container.state.as_ref().is_some_and(|state| state.running == Some(true));
    let memory = stats.memory_stats.unwrap_or_default();
    // What can be given up at once is no use of the container's, as `docker stats` has it. Both versions of
    // control groups have a word for it.
    let kept = memory.stats.unwrap_or_default();
    let cached = kept.get("total_inactive_file").or_else(|| kept.get("inactive_file")).copied().unwrap_or(0);
    // A daemon that fails to measure a container answers as it does for one that does not run: with nothing.
    let known = |number: Option<u64>| number.or((!is_running).then_some(0));
    let is_measured = memory.usage.is_some();
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
    Usage {
        cpu_ns: known(cpu.filter(|_| is_measured)),
        memory_bytes: known(memory.usage.map(|bytes| bytes.saturating_sub(cached))),
        processes: known(stats.pids_stats.and_then(|pids| pids.current)),
        disk_bytes: container.size_rw.and_then(|bytes| u64::try_from(bytes).ok()),
    }
}

fn own_name(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

pub(super) fn inspected(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: own_name(&found.name.unwrap_or_default()),
        image: found.image.unwrap_or_default(),
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => {
                ContainerState::Running
            }
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            Some(ContainerStateStatusEnum::REMOVING) => ContainerState::Removing,
            // One that is `dead` has ended too: its removal did not succeed, and can be asked for again.
            _ => ContainerState::Exited {
                code: state.exit_code.unwrap_or_default(),
                out_of_memory: state.oom_killed.unwrap_or_default(),
            },
        },
        addresses: addresses(found.network_settings.and_then(|settings| settings.networks)),
        labels: found.config.and_then(|config| config.labels).into_iter().flatten().collect(),
    }
}
