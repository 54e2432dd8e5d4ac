//! Interfaces, which a kernel starts with down.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Error, Result, ensure};

/// Sets an interface up.
pub fn up(interface: &str) -> Result<()> {
    set(interface, libc::SIOCSIFFLAGS, |request| {
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    })
    .with_context(|| format!("cannot set {interface} up"))
}

/// Gives an interface an address in a network of 24 bits, and sets it up.
pub fn up_with(interface: &str, address: Ipv4Addr) -> Result<()> {
    let settings = [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
    ];
    for (what, address) in settings {
        set(interface, what, |request| {
            request.ifr_ifru.ifru_addr = socket_address(address);
        })
        .with_context(|| format!("cannot give {interface} {address}"))?;
    }
    up(interface)
}

fn set(interface: &str, what: libc::c_ulong, fill: impl FnOnce(&mut libc::ifreq)) -> Result<()> {
    // An ioctl on interfaces wants any socket.
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    // SAFETY: `ifreq` is plain old data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(
        interface.len() < request.ifr_name.len(),
        "{interface} is too long a name"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    fill(&mut request);
    // SAFETY: the requests of this file read an ifreq, with what `fill` has set for them.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &request) };
    if status == 0 {
        Ok(())
    } else {
        Err(Error::new(std::io::Error::last_os_error()))
    }
}

/// A `sockaddr_in`, without a port, where the kernel wants a `sockaddr`.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // The port is before the address: two bytes.
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}
