//! Which addresses an environment has.
//!
//! Every node has a fixed one: Docker gives a container that is started again another address than
//! before, and its peers would look for it in vain. A container's address can be fixed only on a network
//! whose range was chosen by whoever made it, so a free range is chosen here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use orchestrator_protocol::environment::NodeConfig;
use uuid::Uuid;

/// Where networks are that did not ask for a range: `10.208.0.0/12`, of which each takes a /24. Docker's
/// own ranges and the usual ones of Kubernetes and of home routers are elsewhere.
const POOL_START: u32 = u32::from_be_bytes([10, 208, 0, 0]);
const POOL_NETWORKS: u32 = 1 << 12;

/// The addresses of a range such as `10.0.0.0/8`.
pub(super) fn range(subnet: &str) -> Option<RangeInclusive<u32>> {
    let (address, bits) = subnet.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let bits = bits.parse::<u32>().ok().filter(|bits| *bits <= 32)?;
    let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
    Some(address & !hosts..=address | hosts)
}

/// Free ranges, in the order in which they should be tried. Which comes first depends on the environment, so
/// that environments that are made at the same time seldom try the same.
pub(super) fn free_ranges(id: Uuid, taken: &[RangeInclusive<u32>]) -> impl Iterator<Item = String> {
    let [.., high, low] = *id.as_bytes();
    let first = u32::from(u16::from_be_bytes([high, low]));
    let overlaps =
        |start: u32| taken.iter().any(|taken| start <= *taken.end() && *taken.start() <= start + 255);
    let starts = (0..POOL_NETWORKS).map(move |step| POOL_START + ((first + step) % POOL_NETWORKS) * 256);
    let free: Vec<u32> = starts.filter(|start| !overlaps(*start)).collect();
    free.into_iter().map(|start| format!("{}/24", Ipv4Addr::from(start)))
}

/// What the host's own routes lead to, from the text of `/proc/net/route`, but for the default route. A
/// network there would hide what is behind a VPN. Of a daemon on another machine nothing is known.
pub(super) fn routes(table: &str) -> Vec<RangeInclusive<u32>> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let destination = number(fields.nth(1)?)?;
        let mask = number(fields.nth(5)?)?;
        (mask != 0).then_some(destination & mask..=destination | !mask)
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The address of each node: its own, or the next free one. The first is the gateway's; `None` where the
/// range is too small.
pub(super) fn assign(subnet: &str, nodes: &[&NodeConfig]) -> Option<BTreeMap<String, Ipv4Addr>> {
    let range = range(subnet)?;
    let asked: BTreeSet<Ipv4Addr> = nodes.iter().filter_map(|node| node.address).collect();
    let mut free =
        (range.start() + 2..*range.end()).map(Ipv4Addr::from).filter(|address| !asked.contains(address));
    let assigned = nodes.iter().map(|node| Some((node.name.clone(), node.address.or_else(|| free.next())?)));
    assigned.collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_routes_of_a_host_are_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t0000D00A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routes(table), [range("10.208.0.0/16").unwrap()]);
        assert_eq!(routes(""), []);
    }

    #[test]
    fn every_node_has_an_address_of_its_own() {
        let node = |name: &str, address: Option<[u8; 4]>| NodeConfig {
            name: name.into(),
            address: address.map(Ipv4Addr::from),
            ..NodeConfig::default()
        };
        let nodes = [node("a", None), node("b", Some([10, 1, 0, 2])), node("c", None)];
        let nodes: Vec<_> = nodes.iter().collect();
        let assigned = assign("10.1.0.0/29", &nodes).unwrap();
        let listed: Vec<String> = assigned.values().map(Ipv4Addr::to_string).collect();
        assert_eq!(listed, ["10.1.0.3", "10.1.0.2", "10.1.0.4"]);
        // 10.1.0.1 is the gateway, .0 and .3 are the network's own.
        assert_eq!(assign("10.1.0.0/30", &nodes[..2]), None);
    }

    proptest! {
        #[test]
        fn free_ranges_overlap_nothing(id in any::<u128>(), networks in prop::collection::vec(0u32..4096, 0..50)) {
            let taken: Vec<_> = networks.iter().map(|at| POOL_START + at * 256..=POOL_START + at * 256 + 300).collect();
            let free: Vec<_> = free_ranges(Uuid::from_u128(id), &taken).collect();
            let distinct: BTreeSet<_> = free.iter().collect();
            prop_assert_eq!(distinct.len(), free.len());
            prop_assert!(free.len() >= 4096 - 2 * networks.len());
            for subnet in &free {
                let range = range(subnet).unwrap();
                prop_assert!(taken.iter().all(|taken| range.end() < taken.start() || taken.end() < range.start()));
                prop_assert!(range.start() >= &POOL_START);
            }
        }
    }
}
