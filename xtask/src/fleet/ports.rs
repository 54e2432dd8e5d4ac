//! Ports of the loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Where everything listens.
#[derive(Debug)]
pub struct Ports {
    /// Prometheus.
    pub prometheus: u16,
    /// Alertmanager.
    pub alertmanager: u16,
    /// The agent of this machine.
    pub this_machine: u16,
    /// The agent of the emulated hypervisor.
    pub hypervisor: u16,
}

/// Those that the programs have by default, and the one after the agent's.
const USUAL: [u16; 4] = [9090, 9093, 9839, 9840];

impl Ports {
    /// Ports that are free, of the kernel's choice.
    pub fn free() -> Result<Self> {
        Self::bound([0; 4])
    }

    /// The usual ones.
    ///
    /// # Errors
    /// One is taken.
    pub fn usual() -> Result<Self> {
        Self::bound(USUAL)
    }

    /// All are held until all are known, so that they differ.
    fn bound(wanted: [u16; 4]) -> Result<Self> {
        let mut held = vec![];
        for port in wanted {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .with_context(|| format!("port {port} of 127.0.0.1"))?;
            held.push(listener);
        }
        let mut ports = [0; 4];
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr().context("a port")?.port();
        }
        let [prometheus, alertmanager, this_machine, hypervisor] = ports;
        Ok(Self {
            prometheus,
            alertmanager,
            this_machine,
            hypervisor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let ports = Ports::free().unwrap();
        let all = [
            ports.prometheus,
            ports.alertmanager,
            ports.this_machine,
            ports.hypervisor,
        ];
        for (index, port) in all.iter().enumerate() {
            assert!(*port != 0 && !all[..index].contains(port), "{all:?}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports::bound([port; 4]).unwrap_err();
        assert!(format!("{error:#}").contains(&port.to_string()));
    }
}
