//! Who may read the pages that tell more than "alive" and "ready": this machine, the cluster's
//! members, and the networks named in `security.scrape_from` (DESIGN §7).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use monitoring::status::Member;

/// A network such as `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no network: {reason}; write it as an address and a prefix, for example 10.0.0.0/8"
)]
pub struct CidrError {
    text: String,
    reason: &'static str,
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let error = |reason| CidrError { text: text.to_owned(), reason };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error("not an IP address"))?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(prefix) => prefix.parse().map_err(|_| error("the prefix is no number"))?,
        };
        if prefix_bits > bits_max {
            return Err(error("the prefix is longer than the address"));
        }
        Ok(Cidr { network: address, prefix_bits })
    }
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            _ => false,
        }
    }
}

/// The rule, with the members' addresses as they were last looked up.
#[derive(Default)]
pub struct Access {
    pub scrape_from: Vec<Cidr>,
    pub members: BTreeSet<IpAddr>,
}

impl Access {
    pub fn allows(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        from.is_loopback()
            || self.members.contains(&from)
            || self.scrape_from.iter().any(|network| network.contains(from))
    }
}

/// The hosts of the members' addresses, without their ports.
pub fn member_hosts(members: &[Member]) -> BTreeSet<String> {
    let addresses = members.iter().flat_map(|member| [&member.peer, &member.client, &member.http]);
    let host = |address: &String| {
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    };
    addresses.map(host).filter(|host| !host.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use monitoring::status::MemberRole;

    use super::*;

    fn check(network: &str, address: &str, expect: bool) {
        let cidr: Cidr = network.parse().unwrap();
        assert_eq!(cidr.contains(address.parse().unwrap()), expect, "{address} in {network}");
    }

    #[test]
    fn networks_contain_their_addresses() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("192.0.2.128/25", "192.0.2.127", false);
        check("192.0.2.128/25", "192.0.2.129", true);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for (text, reason) in [
            ("office", "not an IP address"),
            ("10.0.0.0/33", "the prefix is longer than the address"),
            ("10.0.0.0/x", "the prefix is no number"),
            ("10.0.0.0/", "the prefix is no number"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert_eq!((error.reason, error.text.as_str()), (reason, text));
        }
    }

    #[test]
    fn hosts_of_members_in_every_notation() {
        let member = Member {
            id: 1,
            name: "n1".into(),
            role: MemberRole::Voter,
            peer: "10.0.0.1:7380".into(),
            client: "[fd00::1]:7379".into(),
            http: "n1.example:7381".into(),
        };
        let hosts: Vec<String> = member_hosts(&[member]).into_iter().collect();
        assert_eq!(hosts, ["10.0.0.1", "fd00::1", "n1.example"]);
    }
}
