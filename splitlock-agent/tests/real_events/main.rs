//! Tests on real kernel events: what a program made is what the agent, a process of its own,
//! shows. Both sides are counted, exactly.
//!
//! Every agent sees the whole host, so a test looks at its own processes alone.

mod agent;
mod brake;
mod browser;
mod cgroup;
mod clients;
mod crowds;
mod doctor;
mod event_log;
mod events;
mod exit_records;
mod exits;
mod faults;
mod faults_of_the_machine;
mod figures;
mod firmware;
mod guests;
mod http_fuzz;
mod hypervisor;
mod joins;
mod kernel_count;
mod libvirt;
mod measures;
mod modes;
mod names;
mod openapi;
mod own_cost;
mod owners;
mod page;
mod page_crowd;
mod page_figures;
mod page_pictures;
mod privileges;
mod processes;
mod prometheus;
mod prometheus_server;
mod pseudo_terminal;
mod qemu;
mod requirements;
mod selftest;
mod service;
mod service_manager;
mod sites;
mod stand_in;
mod storm;
mod top;
mod traps;
mod vmms;
mod web;
mod web_attacks;
mod web_clients;
mod web_setup;
mod web_sockets;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

use requirements::Requirement;

/// A test and what it needs of the machine.
struct Test {
    name: &'static str,
    needs: &'static [Requirement],
    run: fn(),
}

fn main() -> ExitCode {
    let orders = env::var(events::ORDERS).ok();
    let words: Vec<String> = match &orders {
        Some(orders) => orders.lines().map(str::to_owned).collect(),
        None => env::args().skip(1).collect(),
    };
    let mut args = words.into_iter().peekable();
    if args.next_if_eq("event").is_some() {
        return events::main(args);
    }
    if args.next_if_eq("measure").is_some() {
        return measures::main(&args.collect::<Vec<_>>());
    }
    if args.next_if_eq("hypervisor").is_some() {
        return hypervisor::main(&args.collect::<Vec<_>>());
    }
    if args.next_if_eq("act").is_some() {
        return privileges::acts::main(&args.collect::<Vec<_>>());
    }
    if args.next_if_eq("become").is_some() {
        return events::become_program(env::args_os().skip(2));
    }
    let mut arguments = Arguments::from_args();
    let mut tests = vec![
        processes::TESTS,
        crowds::TESTS,
        guests::TESTS,
        names::TESTS,
        owners::TESTS,
        exit_records::TESTS,
        service::TESTS,
        service_manager::TESTS,
        selftest::TESTS,
        doctor::TESTS,
        clients::TESTS,
        brake::TESTS,
        http_fuzz::TESTS,
        event_log::TESTS,
        sites::TESTS,
        storm::TESTS,
        own_cost::TESTS,
        privileges::TESTS,
        prometheus::TESTS,
        joins::TESTS,
        top::TESTS,
        web::TESTS,
        web_attacks::TESTS,
        web_clients::TESTS,
        web_sockets::TESTS,
    ];
    tests.extend(faults::TESTS);
    if requirements::in_rig() {
        tests.extend([
            traps::TESTS,
            crowds::LOCK_TESTS,
            owners::LOCK_TESTS,
            modes::TESTS,
            selftest::MODE_TESTS,
            doctor::MODE_TESTS,
            exits::TESTS,
            qemu::TESTS,
            vmms::TESTS,
            libvirt::TESTS,
        ]);
        if requirements::may_change_the_machine() {
            tests.extend(faults_of_the_machine::TESTS);
        }
        // The mode of detection is the machine's, and the host's totals are compared.
        arguments.test_threads = Some(1);
    } else {
        tests.extend([
            openapi::TESTS,
            page::TESTS,
            page_crowd::TESTS,
            page_pictures::TESTS,
        ]);
        eprintln!("tests of the kernel's split-lock functions need the rig: cargo xtask vm");
    }
    let trials = tests.into_iter().flatten().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test whose needs are not met is shown as ignored, with the reason, or fails where no test may
/// skip.
fn trial(test: &'static Test) -> Trial {
    let Test { name, needs, run } = test;
    let missing: Vec<String> = needs.iter().filter_map(|need| need.check().err()).collect();
    if missing.is_empty() {
        return Trial::test(*name, move || {
            run();
            Ok(())
        });
    }
    let missing = missing.join("; ");
    if requirements::must_run() {
        return Trial::test(*name, move || Err(missing.into()));
    }
    eprintln!("{name} skips: {missing}");
    Trial::test(*name, || Ok(())).with_ignored_flag(true)
}
