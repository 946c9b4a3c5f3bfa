//! What is asked of a daemon, in its words.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Ipam,
    IpamConfig, Mount as DockerMount, MountType, MountVolumeOptions, NetworkCreateRequest, NetworkingConfig,
};

use crate::containers::{ContainerSpec, Labels, NetworkSpec};

/// The period over which the kernel shares out processor time, in microseconds: its own default.
const CPU_PERIOD_US: i64 = 100_000;

const MIB: i64 = 1024 * 1024;

/// A repository and a tag. Without a tag a daemon would fetch all of them.
pub(super) fn split_reference(name: &str) -> (&str, &str) {
    if name.contains('@') {
        return (name, "");
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

pub(super) fn filters(labels: &Labels) -> HashMap<String, Vec<String>> {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { HashMap::new() } else { HashMap::from([("label".to_owned(), pairs)]) }
}

pub(super) fn variables(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn network_request(spec: &NetworkSpec) -> NetworkCreateRequest {
    let ipam = spec.subnet.as_ref().map(|subnet| Ipam {
        config: Some(vec![IpamConfig { subnet: Some(subnet.clone()), ..IpamConfig::default() }]),
        ..Ipam::default()
    });
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".into()),
        internal: Some(spec.internal),
        ipam,
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// The request that makes a container.
pub(super) fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let endpoint = EndpointSettings {
        aliases: Some(spec.aliases.clone()),
        ipam_config: spec.address.map(|address| EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    let mut env = spec.env.clone();
    if spec.systemd {
        // How systemd knows that it is in a container (<https://systemd.io/CONTAINER_INTERFACE>).
        env.entry("container".into()).or_insert_with(|| "docker".into());
    }
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        env: Some(variables(&env)),
        // As the entry point it is all that runs: an image's own entry point would come before a command.
        entrypoint: (!spec.command.is_empty()).then(|| spec.command.clone()),
        image: Some(spec.image.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        // SIGTERM means something else to systemd.
        stop_signal: spec.systemd.then(|| "SIGRTMIN+3".to_owned()),
        host_config: Some(host_config(spec)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(spec.network.clone(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let memory = spec.memory_mb.map(|size| signed(size).saturating_mul(MIB));
    let mounts = spec.mounts.iter().map(|mount| DockerMount {
        target: Some(mount.path.clone()),
        source: Some(mount.volume.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(mount.read_only),
        // A volume that is not there is made on the way, and must be found again like all else.
        volume_options: Some(MountVolumeOptions {
            labels: Some(spec.labels.clone().into_iter().collect()),
            ..MountVolumeOptions::default()
        }),
        ..DockerMount::default()
    });
    let mut config = HostConfig {
        network_mode: Some(spec.network.clone()),
        extra_hosts: Some(spec.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        mounts: Some(mounts.collect()),
        // A quota and not a number of processors: the daemon refuses more of those than the machine has,
        // while a limit above that is kept by itself.
        cpu_period: spec.cpu_millicores.map(|_| CPU_PERIOD_US),
        cpu_quota: spec.cpu_millicores.map(|share| signed(share).saturating_mul(CPU_PERIOD_US / 1000)),
        memory,
        // Memory and swap together.
        memory_swap: memory,
        pids_limit: spec.max_processes.map(signed),
        storage_opt: spec.disk_mb.map(|size| HashMap::from([("size".to_owned(), format!("{size}M"))])),
        privileged: Some(spec.privileged),
        cap_add: Some(spec.capabilities.clone()),
        security_opt: Some(security(spec)),
        init: Some(!spec.systemd),
        ..HostConfig::default()
    };
    if spec.systemd {
        // systemd makes control groups below the one that it finds, so it must see its own as the root.
        config.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
        // It wants both to be empty at its start (<https://systemd.io/CONTAINER_INTERFACE>). Scripts are run
        // from there too, which the default options of such a mount forbid.
        let options = |mode: &str| format!("rw,nosuid,nodev,exec,mode={mode}");
        config.tmpfs = Some(HashMap::from([
            ("/run".to_owned(), options("755")),
            ("/run/lock".to_owned(), options("1777")),
        ]));
    }
    config
}

/// The profiles that Docker puts containers under forbid what `SYS_ADMIN` is for: mounts the one of
/// AppArmor, keys of the kernel, which a container inside is given, the one of seccomp.
fn security(spec: &ContainerSpec) -> Vec<String> {
    let is_free = spec.capabilities.iter().any(|capability| capability == "SYS_ADMIN");
    let profiles = ["apparmor=unconfined", "seccomp=unconfined"];
    if is_free { profiles.map(String::from).to_vec() } else { Vec::new() }
}
