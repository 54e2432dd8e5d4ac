//! Who is on the other side of a connection, as far as limits and the log have to tell.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// One client: an address, or a user of this host. Whoever has an IPv6 network has all addresses of a
/// /64, which therefore are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Of a TCP connection.
    Address(IpAddr),
    /// Of a Unix socket's connection, by uid; `None` where the kernel does not tell.
    User(Option<u32>),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from(network).into())
            }
            v4 => Self::Address(v4),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(network)) => write!(formatter, "{network}/64"),
            Self::Address(address) => write!(formatter, "{address}"),
            Self::User(Some(uid)) => write!(formatter, "uid {uid}"),
            Self::User(None) => formatter.write_str("a local user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_one_client() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:0:0:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        // As a socket for both protocols has it.
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(peer("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
