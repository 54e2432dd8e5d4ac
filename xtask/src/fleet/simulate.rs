//! `cargo xtask fleet --simulate HOSTS`: what many hosts cost a Prometheus. The hosts do not exist,
//! their expositions are written by the agent's own code; Prometheus and the rules are real.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    files::JOB, folder::Folder, interrupt::Interrupt, ports::Ports, prometheus::Prometheus,
    server::Server,
};
use crate::{
    bench,
    dashboards::{Choice, queries},
    executables::Executables,
    setup,
    steps::Steps,
    test::Skipping,
    tools::{Program, Tools},
    workspace::Workspace,
};

const EXAMPLE: &str = "simulated_fleet";
/// Seconds between two scrapes, as in the examples of scrape configurations.
const INTERVAL: u64 = 30;
/// Of the rules, as of most of the dashboards' panels.
const WINDOW: &str = "2m";
/// Of the dashboards' queries: what one of the fleet shows when it is opened.
const RANGE: u64 = 3600;
/// The dashboard that shows all hosts.
const FLEET: &str = "splitlock-fleet";
const PAGE: &str = "docs/scale.md";

/// A figure and what it is.
type Figure = (String, String);

/// Runs the simulation and prints its table.
pub fn simulate(
    workspace: &Workspace,
    steps: &mut Steps,
    hosts: u32,
    minutes: u64,
    update_docs: bool,
) -> Result<()> {
    setup::setup(workspace, steps)?;
    let program = steps.run("build the simulated hosts", || {
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--release", "--package", "splitlock-agent"]);
        cargo.args(["--example", EXAMPLE]);
        Executables::build(&mut cargo)?.named(EXAMPLE)
    })?;
    let tools = steps.run("get Prometheus", || {
        Tools::find(workspace, Skipping::Refused)
    })?;
    let interrupt = Interrupt::watch()?;
    let folder = Folder::make(&workspace.build_dir)?;
    let figures = steps.run(&format!("{hosts} hosts for {minutes} minutes"), || {
        let ports = Ports::free()?;
        let _hosts = Server::start(
            "hosts",
            Command::new(&program)
                .arg(format!("127.0.0.1:{}", ports.hypervisor))
                .arg(hosts.to_string()),
            folder.path(),
        )?;
        let configuration = configure(&workspace.root, &folder, &ports, hosts)?;
        let asked = Prometheus {
            port: ports.prometheus,
        };
        let data = folder.path().join("prometheus");
        let mut server = Server::start(
            "prometheus",
            Command::new(tools.path(Program::Prometheus)?)
                .arg(format!("--config.file={}", configuration.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address=127.0.0.1:{}", asked.port)),
            folder.path(),
        )?;
        server.wait_for(&format!("{}/-/ready", asked.url()), &interrupt)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60 * minutes) {
            interrupt.check()?;
            server.check()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        let mut figures = of_prometheus(&asked, hosts)?;
        figures.extend(of_dashboards(&asked, &interrupt)?);
        server.check()?;
        Ok(figures)
    })?;
    let table = table(hosts, minutes, &figures);
    println!("\n{table}");
    if update_docs {
        let page = workspace.root.join(PAGE);
        let text =
            fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        fs::write(&page, replaced(&text, &table)?)
            .with_context(|| format!("cannot write {}", page.display()))?;
    }
    Ok(())
}

/// Writes Prometheus's configuration, with the rules as they are.
fn configure(
    root: &Path,
    folder: &Folder,
    ports: &Ports,
    hosts: u32,
) -> Result<std::path::PathBuf> {
    folder.write("hosts.json", &targets(ports.hypervisor, hosts))?;
    let rules = root.join("dashboards/rules");
    let text = format!(
        "global: {{scrape_interval: {INTERVAL}s, evaluation_interval: {INTERVAL}s}}\n\
         rule_files: ['{}/*.yaml']\n\
         scrape_configs:\n\
         - job_name: {JOB}\n  file_sd_configs: [{{files: [hosts.json]}}]\n\
         - job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
        rules.display(),
        ports.prometheus
    );
    folder.write("prometheus.yaml", &text)
}

/// Each host is a path of one server.
fn targets(port: u16, hosts: u32) -> String {
    let groups: Vec<Value> = (0..hosts)
        .map(|number| {
            json!({
                "targets": [format!("127.0.0.1:{port}")],
                "labels": {
                    "instance": format!("hv{number}"),
                    "__metrics_path__": format!("/hosts/{number}/metrics"),
                },
            })
        })
        .collect();
    Value::from(groups).to_string()
}

fn of_prometheus(asked: &Prometheus, hosts: u32) -> Result<Vec<Figure>> {
    let up = value(asked, &format!("sum(up{{job=\"{JOB}\"}})"))?;
    ensure!(up == f64::from(hosts), "{up} of {hosts} hosts are up");
    let agents = format!("{{job=\"{JOB}\"}}");
    let own = "{job=\"prometheus\"}";
    let questions = [
        (
            "series of a host",
            format!("avg(scrape_samples_post_metric_relabeling{agents})"),
            1.0,
            "",
        ),
        (
            "series in memory, recorded ones included",
            format!("prometheus_tsdb_head_series{own}"),
            1.0,
            "",
        ),
        (
            "of these, recorded by the rules",
            "count({__name__=~\".+:.+\"})".to_owned(),
            1.0,
            "",
        ),
        (
            "samples per second",
            format!("rate(prometheus_tsdb_head_samples_appended_total{own}[{WINDOW}])"),
            1.0,
            "",
        ),
        (
            "a scrape, mean",
            format!("avg(scrape_duration_seconds{agents})"),
            1000.0,
            " ms",
        ),
        (
            "a scrape, longest",
            format!("max(scrape_duration_seconds{agents})"),
            1000.0,
            " ms",
        ),
        (
            "resident memory of Prometheus",
            format!("process_resident_memory_bytes{own}"),
            1.0 / f64::from(1 << 20),
            " MiB",
        ),
        (
            "CPUs of Prometheus",
            format!("rate(process_cpu_seconds_total{own}[{WINDOW}])"),
            1.0,
            "",
        ),
        (
            "alerts that fire",
            "count(ALERTS{alertstate=\"firing\"}) or vector(0)".to_owned(),
            1.0,
            "",
        ),
    ];
    let mut figures = vec![];
    for (what, query, factor, unit) in questions {
        let figure = value(asked, &query)? * factor;
        figures.push((what.to_owned(), rounded(figure, unit)));
    }
    let groups = format!("prometheus_rule_group_last_duration_seconds{own}");
    let answer = asked.ask("query", &[("query", &groups)])?;
    let mut groups: Vec<(String, f64)> = answer["result"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|series| {
            let group = series["metric"]["rule_group"].as_str()?;
            let (_, name) = group.rsplit_once(';')?;
            Some((name.to_owned(), number(series)?))
        })
        .collect();
    groups.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, seconds) in groups {
        let what = format!("evaluating the rules `{name}`");
        figures.push((what, rounded(seconds * 1000.0, " ms")));
    }
    Ok(figures)
}

/// How long the panels' queries take, over an hour: of the fleet those of all hosts, else of one.
fn of_dashboards(asked: &Prometheus, interrupt: &Interrupt) -> Result<Vec<Figure>> {
    let end = value(asked, "vector(time())")? as u64;
    let (start, end) = ((end - RANGE).to_string(), end.to_string());
    let of_all = Choice {
        range: format!("{RANGE}s"),
        ..Choice::default()
    };
    let of_one = Choice {
        instance: "hv1".to_owned(),
        ..of_all.clone()
    };
    let of_fleet = |dashboard: &str| dashboard == FLEET;
    let asked_queries = queries(&of_all)
        .into_iter()
        .filter(|query| of_fleet(query.dashboard))
        .chain(
            queries(&of_one)
                .into_iter()
                .filter(|query| !of_fleet(query.dashboard)),
        );
    let mut dashboards: Vec<(&str, f64, f64, String)> = vec![];
    for query in asked_queries {
        interrupt.check()?;
        let begin = Instant::now();
        let expr = ("query", query.expr.as_str());
        if query.over_range {
            let times = [expr, ("start", &start), ("end", &end), ("step", "60")];
            asked.ask("query_range", &times)
        } else {
            asked.ask("query", &[expr, ("time", &end)])
        }
        .with_context(|| format!("panel {:?} of {}", query.panel, query.dashboard))?;
        let took = begin.elapsed().as_secs_f64() * 1000.0;
        match dashboards.last_mut() {
            Some((name, all, most, panel)) if *name == query.dashboard => {
                *all += took;
                if took > *most {
                    (*most, *panel) = (took, query.panel.to_owned());
                }
            }
            _ => dashboards.push((query.dashboard, took, took, query.panel.to_owned())),
        }
    }
    let figures = dashboards.into_iter().flat_map(|(name, all, most, panel)| {
        [
            (
                format!("all queries of the dashboard {name}, one after the other"),
                rounded(all, " ms"),
            ),
            (
                format!("the slowest of them, of the panel *{panel}*"),
                rounded(most, " ms"),
            ),
        ]
    });
    Ok(figures.collect())
}

fn value(asked: &Prometheus, query: &str) -> Result<f64> {
    let answer = asked.ask("query", &[("query", query)])?;
    number(&answer["result"][0]).with_context(|| format!("no answer to {query}: {answer}"))
}

fn number(series: &Value) -> Option<f64> {
    series["value"][1].as_str()?.parse().ok()
}

/// With three digits that count, or all before the point.
fn rounded(figure: f64, unit: &str) -> String {
    let digits = match figure.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{figure:.digits$}{unit}")
}

fn table(hosts: u32, minutes: u64, figures: &[Figure]) -> String {
    let mut table = format!(
        "`cargo xtask fleet --simulate {hosts} --minutes {minutes}`\n\n\
         {}. {hosts} hosts with 30 VMs each, scraped every {INTERVAL} s, after {minutes} minutes.\n\n\
         | | |\n|---|---:|\n",
        bench::this_machine()
    );
    for (what, figure) in figures {
        writeln!(table, "| {what} | {figure} |").expect("a String takes all");
    }
    table
}

fn replaced(page: &str, table: &str) -> Result<String> {
    let (begin, end) = ("<!-- simulated begin -->\n", "<!-- simulated end -->\n");
    let from = page.find(begin).context("the page lacks its marks")? + begin.len();
    let to = page.find(end).context("the page lacks its marks")?;
    Ok(format!("{}{table}{}", &page[..from], &page[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_a_target_of_its_own_name() {
        let targets: Value = serde_json::from_str(&targets(1234, 3)).unwrap();
        assert_eq!(targets.as_array().map(Vec::len), Some(3));
        assert_eq!(targets[2]["targets"][0], "127.0.0.1:1234");
        assert_eq!(targets[2]["labels"]["instance"], "hv2");
        assert_eq!(targets[2]["labels"]["__metrics_path__"], "/hosts/2/metrics");
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        for (figure, expected) in [
            (0.1234, "0.123 s"),
            (1.234, "1.23 s"),
            (12.34, "12.3 s"),
            (123_456.7, "123457 s"),
        ] {
            assert_eq!(rounded(figure, " s"), expected);
        }
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = "a\n<!-- simulated begin -->\nold\n<!-- simulated end -->\nz\n";
        let new = replaced(page, "new\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- simulated begin -->\nnew\n<!-- simulated end -->\nz\n"
        );
        assert!(replaced("a", "b").is_err());
    }
}
