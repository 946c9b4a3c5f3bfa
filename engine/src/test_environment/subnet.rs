//! IPv4 networks of environments.

use std::fmt;
use std::net::Ipv4Addr;

/// A network with room for nodes: 8 to 28 bits are the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    first: u32,
    bits: u32,
}

/// Networks that cannot be a node's, and what they are.
const TAKEN: [(Ipv4Addr, u32, &str); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this machine's own"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "every machine's loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "for machines without a configured address"),
    (Ipv4Addr::new(224, 0, 0, 0), 3, "no addresses of machines"),
];

impl Subnet {
    /// Reads a network such as `172.30.0.0/16`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is no IPv4 network such as 172.30.0.0/16");
        let (address, bits) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let is_number = (1..=2).contains(&bits.len()) && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u32 = bits.parse().ok().filter(|_| is_number).ok_or_else(form)?;
        if !(8..=28).contains(&bits) {
            return Err(format!("the network {text} must be of /8 to /28"));
        }
        let subnet = Self { first: u32::from(address) & (u32::MAX << (32 - bits)), bits };
        if u32::from(address) != subnet.first {
            return Err(format!("{text} is an address within a network: the network is {subnet}"));
        }
        for (taken, taken_bits, meaning) in TAKEN {
            let common = u32::MAX << (32 - bits.min(taken_bits));
            if subnet.first & common == u32::from(taken) & common {
                return Err(format!("the network {text} cannot be used: {taken}/{taken_bits} is {meaning}"));
            }
        }
        Ok(subnet)
    }

    fn last(self) -> u32 {
        self.first | (u32::MAX >> self.bits)
    }

    /// How many nodes have room.
    pub(super) fn room(self) -> u32 {
        self.last() - self.first - 2
    }

    /// Why a node cannot have an address, if it cannot. The first two addresses are the network's own and
    /// its gateway's, the last is for all nodes at once.
    pub(super) fn objection(self, address: Ipv4Addr) -> Option<String> {
        let number = u32::from(address);
        if !(self.first..=self.last()).contains(&number) {
            return Some(format!("the address {address} is outside of the network {self}"));
        }
        let (first, last) = (Ipv4Addr::from(self.first + 2), Ipv4Addr::from(self.last() - 1));
        let is_reserved = number < u32::from(first) || number > u32::from(last);
        is_reserved
            .then(|| format!("the address {address} is reserved: nodes in {self} have {first} to {last}"))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_networks_with_room_for_machines_are_taken() {
        for good in ["172.30.0.0/16", "10.0.0.0/8", "192.168.7.16/28", "100.64.0.0/10", "169.128.0.0/10"] {
            assert_eq!(Subnet::parse(good).unwrap().to_string(), good);
        }
        for (bad, word) in [
            ("172.30.0.0", "no IPv4 network"),
            ("172.30.0.0/", "no IPv4 network"),
            ("172.30.0.0/+8", "no IPv4 network"),
            ("172.30.0/16", "no IPv4 network"),
            ("fd00::/64", "no IPv4 network"),
            ("172.0.0.0/7", "/8 to /28"),
            ("172.30.0.0/29", "/8 to /28"),
            ("172.30.0.1/16", "the network is 172.30.0.0/16"),
            ("127.0.0.0/8", "loopback"),
            ("127.9.0.0/16", "loopback"),
            ("0.0.0.0/8", "own"),
            ("169.254.1.0/24", "without a configured"),
            ("169.0.0.0/8", "without a configured"),
            ("224.0.0.0/8", "no addresses"),
            ("255.255.255.0/24", "no addresses"),
        ] {
            let problem = Subnet::parse(bad).unwrap_err();
            assert!(problem.contains(word), "{bad}: {problem}");
        }
    }

    #[test]
    fn what_is_reserved_is_no_nodes() {
        let subnet = Subnet::parse("10.1.2.16/28").unwrap();
        let taken = (0..=255).filter(|last| subnet.objection(Ipv4Addr::new(10, 1, 2, *last)).is_none());
        assert_eq!(taken.collect::<Vec<_>>(), (18..=30).collect::<Vec<_>>());
        assert_eq!(subnet.room(), 13);
    }

    proptest! {
        #[test]
        fn as_many_addresses_are_free_as_there_is_room(first in any::<u32>(), bits in 20_u32..=28) {
            let subnet = Subnet { first: first & (u32::MAX << (32 - bits)), bits };
            let all = subnet.first.saturating_sub(3)..=subnet.last().saturating_add(3);
            let free = all.filter(|&address| subnet.objection(address.into()).is_none()).count();
            prop_assert_eq!(free as u32, subnet.room());
        }
    }
}
