//! Ranges of IPv4 addresses, and whether two of them share one.

use std::net::Ipv4Addr;

/// Whether two subnets, such as `172.30.0.0/16`, have an address in common. What is no IPv4 subnet has none.
pub fn overlap(one: &str, other: &str) -> bool {
    match (range(one), range(other)) {
        (Some((first, last)), Some((other_first, other_last))) => first <= other_last && other_first <= last,
        _ => false,
    }
}

/// The first and the last address of a subnet.
fn range(subnet: &str) -> Option<(u32, u32)> {
    let (address, length) = subnet.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let length = length.parse::<u32>().ok().filter(|length| *length <= 32)?;
    let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
    Some((address & !hosts, address | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_share_an_address_overlap() {
        let cases = [
            ("172.30.0.0/16", "172.30.0.0/16", true),
            ("172.30.0.0/16", "172.16.0.0/12", true),
            ("172.30.5.0/24", "172.30.0.0/16", true),
            ("172.30.0.0/16", "172.31.0.0/16", false),
            ("10.0.0.0/25", "10.0.0.128/25", false),
            ("10.0.0.127/32", "10.0.0.0/25", true),
            ("0.0.0.0/0", "203.0.113.9/32", true),
            ("fd00::/64", "fd00::/64", false),
            ("10.0.0.0/33", "10.0.0.0/8", false),
            ("10.0.0.0", "10.0.0.0/8", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }
}
