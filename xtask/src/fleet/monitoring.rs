//! A real Prometheus and a real Alertmanager, with the files of `dashboards/`.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::Result;

use super::{
    files::{self, Target},
    folder::Folder,
    interrupt::Interrupt,
    ports::Ports,
    prometheus::Prometheus,
    server::Server,
};
use crate::tools::{Program, Tools};

/// The two of them. Prometheus, which sends to the other, ends first.
pub struct Monitoring {
    /// To be asked.
    pub prometheus: Prometheus,
    prometheus_server: Server,
    alertmanager_server: Server,
}

impl Monitoring {
    /// Starts both and waits until they serve. What is notified goes to the port `receiver`.
    pub fn start(
        root: &Path,
        tools: &Tools,
        folder: &Folder,
        (targets, ports, receiver): (&[Target], &Ports, u16),
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let files = folder.path();
        let address = |port: u16| format!("127.0.0.1:{port}");
        let ready = |port: u16| format!("http://{}/-/ready", address(port));

        let listens = address(ports.alertmanager);
        let routing = files::alertmanager(root, folder, receiver)?;
        let mut alertmanager = Command::new(tools.path(Program::Alertmanager)?);
        alertmanager
            .arg(option("config.file", &routing))
            .arg(option("storage.path", &files.join("alertmanager")))
            .arg(format!("--web.listen-address={listens}"))
            // It has no peers.
            .arg("--cluster.listen-address=")
            // Links in notifications lead there.
            .arg(format!("--web.external-url=http://{listens}"));
        let mut alertmanager_server = start("alertmanager", &mut alertmanager, files)?;
        alertmanager_server.wait_for(&ready(ports.alertmanager), interrupt)?;

        let listens = address(ports.prometheus);
        let configuration = files::prometheus(root, folder, targets, ports.alertmanager)?;
        let mut prometheus = Command::new(tools.path(Program::Prometheus)?);
        prometheus
            .arg(option("config.file", &configuration))
            .arg(option("storage.tsdb.path", &files.join("prometheus")))
            .arg(format!("--web.listen-address={listens}"))
            .arg(format!("--web.external-url=http://{listens}"));
        let mut prometheus_server = start("prometheus", &mut prometheus, files)?;
        prometheus_server.wait_for(&ready(ports.prometheus), interrupt)?;
        Ok(Self {
            prometheus: Prometheus {
                port: ports.prometheus,
            },
            prometheus_server,
            alertmanager_server,
        })
    }

    /// An error if one of them has ended.
    pub fn check(&mut self) -> Result<()> {
        self.prometheus_server.check()?;
        self.alertmanager_server.check()
    }

    /// Prints what may tell why something did not come about.
    pub fn explain(&self) {
        let question = [("query", "up or {__name__=~\".+traps.*rate5m\"}")];
        match self.prometheus.ask("query", &question) {
            Ok(answer) => eprintln!("\nPrometheus has {answer:#}"),
            Err(error) => eprintln!("\nPrometheus does not answer: {error:#}"),
        }
        for (name, server) in [
            ("Prometheus", &self.prometheus_server),
            ("Alertmanager", &self.alertmanager_server),
        ] {
            eprintln!("\n{name} says last:\n{}", server.words());
        }
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Server> {
    // Ctrl-C is for xtask, which ends one after the other.
    Server::start(name, command.process_group(0), folder)
}
