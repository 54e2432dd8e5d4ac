//! Each query of each dashboard, put to a real Prometheus.

use std::collections::BTreeMap;

use serde_json::Value;

use super::listing::{Asked, Choice, queries};

mod agents;
mod history;
mod pictures;
mod server;

use self::{
    agents::{AGENTS, BUSY, GAPS, LENGTH, MIGRATION, QUIET, WEB1},
    server::Server,
};

fn choice(job: &str) -> Choice {
    Choice {
        job: job.to_owned(),
        rate_interval: "2m".to_owned(),
        ..Choice::default()
    }
}

impl Server {
    fn answer(&self, asked: &Asked) -> Vec<Value> {
        if asked.over_range {
            self.over_the_last_hour(&asked.expr)
        } else {
            self.at_the_end(&asked.expr)
        }
    }

    /// The series of a panel's query.
    fn shown(&self, choice: &Choice, dashboard: &str, panel: &str, index: usize) -> Vec<Value> {
        let of_panel: Vec<Asked> = queries(choice)
            .into_iter()
            .filter(|asked| asked.dashboard == dashboard && asked.panel == panel)
            .collect();
        let asked = of_panel.get(index);
        self.answer(asked.unwrap_or_else(|| panic!("{dashboard} has no {panel} {index}")))
    }

    /// The number of a panel that shows one.
    fn number(&self, choice: &Choice, dashboard: &str, panel: &str) -> f64 {
        let series = self.shown(choice, dashboard, panel, 0);
        assert_eq!(series.len(), 1, "{panel}: {series:?}");
        value(&series[0])
    }
}

fn value(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

#[test]
fn every_query_has_its_answer() {
    let programs = match server::programs() {
        Ok(programs) => programs,
        Err(why) => return server::skip("dashboards::every_query_has_its_answer", why),
    };
    let server = Server::start(programs);
    a_busy_fleet_fills_every_panel(&server);
    a_quiet_host_leaves_only_the_panels_empty_that_say_so(&server);
    a_column_is_alone_only_if_it_is_the_first(&server);
    numbers_are_right(&server);
    what_is_born_in_the_range_counts_from_0(&server);
    who_trapped_is_named(&server);
    pictures::show_every_dashboard(&server);
}

fn a_busy_fleet_fills_every_panel(server: &Server) {
    for asked in queries(&choice(BUSY)) {
        assert!(!server.answer(&asked).is_empty(), "{asked:#?}");
    }
}

fn a_quiet_host_leaves_only_the_panels_empty_that_say_so(server: &Server) {
    for asked in queries(&choice(QUIET)) {
        if asked.may_be_empty.is_none() {
            assert!(!server.answer(&asked).is_empty(), "{asked:#?}");
        }
    }
}

/// Grafana names the values of a table's only answer differently, which the first column expects.
fn a_column_is_alone_only_if_it_is_the_first(server: &Server) {
    for agent in AGENTS {
        let choice = Choice {
            instance: agent.instance.to_owned(),
            ..choice(agent.job)
        };
        let mut tables: BTreeMap<(&str, &str), Vec<bool>> = BTreeMap::new();
        for asked in queries(&choice) {
            let table = tables.entry((asked.dashboard, asked.panel)).or_default();
            table.push(asked.is_column && !server.answer(&asked).is_empty());
        }
        for (table, answered) in tables {
            let answers = answered.iter().filter(|answered| **answered).count();
            let instance = agent.instance;
            assert!(
                answers != 1 || answered[0],
                "{instance} {table:?}: {answered:?}"
            );
        }
    }
}

fn numbers_are_right(server: &Server) {
    let busy = choice(BUSY);
    let fleet = |panel| server.number(&busy, "splitlock-fleet", panel);
    assert_eq!(fleet("Agents"), 4.0);
    assert_eq!(fleet("Agents down"), 1.0, "hv4");
    assert_eq!(fleet("Blind to guests"), 2.0, "hv3 and hv5");
    assert_eq!(fleet("Blind to processes"), 1.0, "hv5");
    assert_eq!(fleet("Hosts with traps"), 3.0);
    assert_eq!(fleet("Lossy agents"), 1.0, "hv2");
    let quiet = choice(QUIET);
    for panel in [
        "Agents down",
        "Blind to guests",
        "Blind to processes",
        "Traps",
        "Lossy agents",
    ] {
        assert_eq!(
            server.number(&quiet, "splitlock-fleet", panel),
            0.0,
            "{panel}"
        );
    }

    let web1 = Choice {
        vm: "web1".to_owned(),
        id: WEB1.to_owned(),
        ..choice(BUSY)
    };
    let traps = server.number(&web1, "splitlock-vm", "Traps");
    // Two each second on hv1 until it left, of the last hour only; then two on hv2.
    let before = (MIGRATION - (LENGTH - 3600)) * 2;
    let expected = before as f64 + 2.0;
    assert!(
        (traps - expected).abs() < expected * 0.02,
        "{traps}, {expected}"
    );
    assert_eq!(
        server.number(&web1, "splitlock-vm", "SIGBUS"),
        2.0,
        "born in range"
    );
    let once = Choice {
        vm: "once".to_owned(),
        ..choice(BUSY)
    };
    assert_eq!(server.number(&once, "splitlock-vm", "Traps"), 1.0);
}

fn what_is_born_in_the_range_counts_from_0(server: &Server) {
    for (vm, expected, why) in [
        ("gone", 3.0, "killed, and its series has ended"),
        ("old", 0.0, "its agent was not scraped as the range began"),
        ("early", 7.0, "its agent started in the range"),
    ] {
        let choice = Choice {
            vm: vm.to_owned(),
            ..choice(GAPS)
        };
        let traps = server.number(&choice, "splitlock-vm", "Traps");
        assert_eq!(traps, expected, "{vm}: {why}");
    }
}

fn who_trapped_is_named(server: &Server) {
    let named = |dashboard, panel, label: &str| {
        let mut named: Vec<(String, String)> = server
            .shown(&choice(BUSY), dashboard, panel, 0)
            .iter()
            .map(|series| {
                let of = |label: &str| series["metric"][label].as_str().unwrap_or("").to_owned();
                (of(label), of("instance"))
            })
            .collect();
        named.sort();
        named
    };
    let pair = |name: &str, host: &str| (name.to_owned(), host.to_owned());
    for dashboard in ["splitlock-fleet", "splitlock-host"] {
        assert_eq!(
            named(dashboard, "Top offending VMs", "vm"),
            [
                // It trapped once only, which no rate shows.
                pair("once", "hv1:9839"),
                pair("web1", "hv1:9839"),
                pair("web1", "hv2:9839"),
            ],
        );
        assert_eq!(
            named(dashboard, "Top offending processes", "comm"),
            [pair("lame", "hv1:9839")]
        );
    }
    assert_eq!(
        named("splitlock-fleet", "Which agents are down", "job"),
        [pair(BUSY, "hv4:9839")]
    );
    let blind = named("splitlock-fleet", "Hosts with blind spots", "mode");
    assert_eq!(
        blind,
        [pair("ratelimit", "hv3:9839"), pair("unknown", "hv5:9839")]
    );
}
