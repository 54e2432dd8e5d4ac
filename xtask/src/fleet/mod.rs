//! `cargo xtask fleet`: a small fleet, from the trap in a kernel to the notification.
//!
//! An emulated hypervisor ([`hypervisor`], booted by [`vm`]) whose guest locks the bus, the agent of
//! this machine ([`this_machine`]), a real Prometheus and a real Alertmanager ([`monitoring`]) with the
//! files of `dashboards/` ([`files`], [`quick`]), and what Alertmanager notifies ([`receiver`]). All
//! of it ends with xtask.

mod files;
mod folder;
mod hypervisor;
mod interrupt;
mod monitoring;
mod notification;
mod ports;
mod prometheus;
mod queries;
mod quick;
mod receiver;
mod server;
mod simulate;
mod this_machine;
mod watch;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};

use self::{
    files::Target,
    folder::Folder,
    interrupt::{Interrupt, Interrupted},
    monitoring::Monitoring,
    ports::Ports,
    queries::Asked,
    receiver::Receiver,
    server::Server,
    watch::Until,
};
use crate::{
    build::{self, BuildOptions},
    steps::Steps,
    test::Skipping,
    tools::Tools,
    vm::{self, Emulated, Prepared},
    workspace::Workspace,
};

/// How long a check waits for the notification: half a minute to a minute and a half on two cores.
const PATIENCE: &str = "180";

#[derive(clap::Args)]
pub struct FleetOptions {
    /// Succeed as soon as a notification names the guest, fail after so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = PATIENCE)]
    check: Option<u64>,
    /// The emulated hypervisor's kernel, as for `cargo xtask vm`
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: String,
    /// Prometheus on port 9090, Alertmanager on 9093, this machine's agent on 9839, the hypervisor's on
    /// 9840; by default free ports are taken
    #[arg(long)]
    usual_ports: bool,
    /// Instead, have Prometheus scrape so many hosts that do not exist, and tell what that costs it
    #[arg(long, value_name = "HOSTS", conflicts_with_all = ["check", "kernel", "usual_ports"])]
    simulate: Option<u32>,
    /// For so long
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 8,
        requires = "simulate"
    )]
    minutes: u64,
    /// Put the table of the simulation into docs/scale.md
    #[arg(long, requires = "simulate")]
    update_docs: bool,
}

impl FleetOptions {
    /// Those of a check with a kernel that is there anyway.
    pub fn check_with(kernel: &str) -> Self {
        Self {
            check: PATIENCE.parse().ok(),
            kernel: kernel.to_owned(),
            usual_ports: false,
            simulate: None,
            minutes: 0,
            update_docs: false,
        }
    }
}

/// A fleet that runs. Who asks ends before who answers, and the folder goes last.
struct Fleet {
    monitoring: Monitoring,
    this_machine: Option<Server>,
    hypervisor: Emulated,
    _folder: Folder,
}

/// Builds all that it needs, and runs it.
pub fn fleet(workspace: &Workspace, steps: &mut Steps, options: &FleetOptions) -> Result<()> {
    let FleetOptions {
        check,
        kernel,
        usual_ports,
        simulate,
        minutes,
        update_docs,
    } = options;
    if let Some(hosts) = simulate {
        return simulate::simulate(workspace, steps, *hosts, *minutes, *update_docs);
    }
    let ports = if *usual_ports {
        Ports::usual().context("without --usual-ports free ones are taken")?
    } else {
        Ports::free()?
    };
    let agent = build::build(workspace, steps, &BuildOptions { release: false })?;
    let tools = steps.run("get Prometheus and Alertmanager", || {
        Tools::find(workspace, Skipping::Refused)
    })?;
    let hypervisor = vm::prepare_hypervisor(workspace, steps, kernel)?;
    // From here on Ctrl-C is an end like any other.
    let interrupt = Interrupt::watch()?;
    let parts = Parts {
        root: &workspace.root,
        agent: &agent,
        tools: &tools,
        hypervisor: &hypervisor,
        ports: &ports,
        interrupt: &interrupt,
    };
    let result = match check {
        Some(seconds) => {
            let limit = Duration::from_secs(*seconds);
            steps.run("a fleet, and the notification that names the guest", || {
                parts.run(&workspace.build_dir, Until::Proof(limit))
            })
        }
        None => parts.run(&workspace.build_dir, Until::Interrupted),
    };
    match result {
        Err(error) if check.is_none() && error.is::<Interrupted>() => Ok(()),
        result => result,
    }
}

/// What a fleet is made of.
struct Parts<'a> {
    root: &'a Path,
    agent: &'a Path,
    tools: &'a Tools,
    hypervisor: &'a Prepared,
    ports: &'a Ports,
    interrupt: &'a Interrupt,
}

impl Parts<'_> {
    fn run(&self, build_dir: &Path, until: Until) -> Result<()> {
        let receiver = Receiver::start()?;
        let mut fleet = self.start(Folder::make(build_dir)?, &receiver)?;
        let result = watch::watch(&mut fleet, &receiver, until, self.interrupt)
            .and_then(|()| queries::ask_all(&fleet.monitoring.prometheus, self.interrupt))
            .inspect_err(|error| {
                if !error.is::<Interrupted>() {
                    fleet.monitoring.explain();
                }
            });
        eprintln!("The fleet ends.");
        let Asked {
            rules,
            queries,
            answered,
        } = result?;
        eprintln!(
            "{rules} rules and {queries} queries of the dashboards are no errors there; \
             {answered} queries have an answer already."
        );
        Ok(())
    }

    fn start(&self, folder: Folder, receiver: &Receiver) -> Result<Fleet> {
        let Ports {
            this_machine,
            hypervisor,
            ..
        } = *self.ports;
        let mut hosts = vec![Target {
            instance: hypervisor::NAME.to_owned(),
            port: hypervisor,
        }];
        let local = self.start_this_machine(this_machine, folder.path())?;
        if local.is_some() {
            hosts.push(Target {
                instance: rustix::system::uname().nodename().to_string_lossy().into(),
                port: this_machine,
            });
        }
        eprintln!(
            "Booting {} with Linux {}.",
            hypervisor::NAME,
            self.hypervisor.release()
        );
        let emulated = self.hypervisor.boot(
            hypervisor::NAME,
            hypervisor::tenants(),
            hypervisor,
            folder.path(),
            &|| self.interrupt.check(),
        )?;
        let monitoring = Monitoring::start(
            self.root,
            self.tools,
            &folder,
            (&hosts, self.ports, receiver.port),
            self.interrupt,
        )?;
        self.tell(&hosts, receiver);
        Ok(Fleet {
            monitoring,
            this_machine: local,
            hypervisor: emulated,
            _folder: folder,
        })
    }

    /// Nothing if it cannot run here, which it has said then.
    fn start_this_machine(&self, port: u16, folder: &Path) -> Result<Option<Server>> {
        match this_machine::start(self.agent, port, folder, self.interrupt) {
            Ok(server) => Ok(Some(server)),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                eprintln!("Going on without an agent of this machine: {error:#}");
                Ok(None)
            }
        }
    }

    fn tell(&self, hosts: &[Target], receiver: &Receiver) {
        let line = |what: &str, port: u16, more: &str| {
            eprintln!("  {what:14} http://127.0.0.1:{port:<7}{more}");
        };
        eprintln!();
        line("Prometheus", self.ports.prometheus, "alerts are at /alerts");
        line(
            "Alertmanager",
            self.ports.alertmanager,
            "inhibits and routes",
        );
        for Target { instance, port } in hosts {
            let more = if instance == hypervisor::NAME {
                hypervisor::story()
            } else {
                "this machine".to_owned()
            };
            line(instance, *port, &more);
        }
        line("webhook", receiver.port, "what arrives there is told here");
        eprintln!(
            "\nThe rules and the routing are those of dashboards/, with waits {} times as short. Rates \
             are over their own\nfive minutes, and rise for so long. Ctrl-C ends everything.\n",
            quick::TIMES
        );
    }
}

impl Fleet {
    /// An error if a part that nothing goes on without has ended. The agent of this machine is none.
    fn check(&mut self, say: &dyn Fn(&str)) -> Result<()> {
        self.hypervisor.check().context(hypervisor::NAME)?;
        self.monitoring.check()?;
        if let Some(Err(error)) = self.this_machine.as_mut().map(Server::check) {
            say(&format!("going on without this machine: {error:#}"));
            self.this_machine = None;
        }
        Ok(())
    }
}
