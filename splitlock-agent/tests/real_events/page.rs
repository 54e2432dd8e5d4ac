//! The page in a real browser: what it shows of real events, and whether one can work with it.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use super::{
    Test,
    agent::Agent,
    browser::Browser,
    events::{Child, Event, kvm_guest::Guest},
    requirements::Requirement::{AlignmentChecks, Chromium, Kvm, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "page::it_shows_a_process_with_its_count_and_its_function",
        needs: &[Root, AlignmentChecks, Chromium],
        run: it_shows_a_process_with_its_count_and_its_function,
    },
    Test {
        name: "page::it_shows_a_vm_with_its_counts_and_its_exits",
        needs: &[Root, AlignmentChecks, Kvm, Chromium],
        run: it_shows_a_vm_with_its_counts_and_its_exits,
    },
    Test {
        name: "page::it_can_be_used_by_keyboard_alone",
        needs: &[Root, AlignmentChecks, Chromium],
        run: it_can_be_used_by_keyboard_alone,
    },
    Test {
        name: "page::a_hostile_name_is_text",
        needs: &[Root, AlignmentChecks, Chromium],
        run: a_hostile_name_is_text,
    },
    Test {
        name: "page::the_agent_may_go_and_start_again",
        needs: &[Root, AlignmentChecks, Chromium],
        run: the_agent_may_go_and_start_again,
    },
    Test {
        name: "page::all_that_one_can_use_has_a_name",
        needs: &[Root, AlignmentChecks, Kvm, Chromium],
        run: all_that_one_can_use_has_a_name,
    },
    Test {
        name: "page::nothing_foreign_may_run_in_it",
        needs: &[Root, Chromium],
        run: nothing_foreign_may_run_in_it,
    },
];

/// A laptop's window.
pub const WIDE: (u32, u32) = (1280, 800);

fn open(agent: &Agent) -> Browser {
    let mut browser = Browser::open(&format!("http://{}/", agent.address()), WIDE);
    browser.wait_for("document.querySelector('[data-state=live]')");
    browser
}

/// An expression: the row of a process id in the table of a section.
fn row(section: &str, pid: u32) -> String {
    format!(
        "[...document.querySelectorAll('#{section}-table tbody tr.subject')]\
         .find((row) => row.cells[1].textContent === '{pid}')"
    )
}

/// An expression: the exact value in the column with this title.
fn exact(section: &str, pid: u32, title: &str) -> String {
    format!(
        "{}?.cells[[...document.querySelectorAll('#{section}-table thead th')]\
         .findIndex((head) => head.textContent.startsWith('{title}'))].title",
        row(section, pid)
    )
}

fn alignment_checks(count: u64, comm: &str) -> Child {
    let mut child = Child::spawn(&Event::AlignmentCheck { count, threads: 1 }, comm);
    assert_eq!(child.run().get("bus_adraln"), count);
    child
}

#[track_caller]
fn assert_quiet(browser: &mut Browser) {
    assert_eq!(browser.complaints(), &[] as &[String]);
}

fn it_shows_a_process_with_its_count_and_its_function() {
    let agent = Agent::start(&[]);
    let mut browser = open(&agent);
    let child = alignment_checks(123_456, "page-exact");
    let checks = exact("processes", child.pid(), "Alignment checks");
    browser.wait_for(&format!("{checks} === '123456'"));

    // The instruction, by the function that it is in, and what it did.
    let row = row("processes", child.pid());
    browser.eval(&format!("{row}.querySelector('button').click()"));
    let detail = format!("{row}.nextElementSibling");
    browser.wait_for(&format!(
        "{detail}.querySelector('.sites strong')?.textContent.includes('alignment_check')"
    ));
    let told = browser.eval(&format!("{detail}.querySelector('.sites').textContent"));
    let told = told.as_str().expect("a text");
    for word in ["Instruction", "Operand", "of its cache line", "real_events"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    // Its own newest events; those of the host may be another test's crowd by now.
    browser.wait_for(&format!(
        "{detail}.querySelector('.recent').textContent.includes('page-exact')"
    ));
    browser.wait_for("document.querySelectorAll('#events tbody tr').length > 0");

    // What is over is said to be.
    let pid = child.pid();
    child.end();
    browser.wait_for(&format!("{}.textContent.includes('ended')", row));
    assert_eq!(
        browser.eval(&exact("processes", pid, "Alignment checks")),
        json!("123456")
    );
    assert_quiet(&mut browser);
}

fn it_shows_a_vm_with_its_counts_and_its_exits() {
    let agent = Agent::start(&[]);
    let mut browser = open(&agent);
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 321,
        vcpus: 2,
    };
    let mut child = Child::spawn(&event, "page-guest");
    let results = child.run();
    let injected = exact("vms", child.pid(), "#AC injected");
    browser.wait_for(&format!("{injected} === '321'"));
    let row = row("vms", child.pid());
    browser.eval(&format!("{row}.querySelector('button').click()"));
    let exits = format!("{row}.nextElementSibling.querySelector('.exits')");
    let shutdowns = format!(
        "[...{exits}.querySelectorAll('tbody tr')].find((line) => \
         line.cells[0].textContent === 'shutdown' && line.cells[1].textContent !== 'exit')\
         ?.cells[2].title"
    );
    let expected = results.get("shutdown").to_string();
    browser.wait_for(&format!("{shutdowns} === '{expected}'"));
    assert_quiet(&mut browser);
}

/// Presses Tab until the element that has the focus fulfils a condition.
#[track_caller]
fn tab_to(browser: &mut Browser, condition: &str) {
    for _ in 0..200 {
        browser.press("Tab");
        let found = browser.eval(&format!(
            "((element) => Boolean({condition}))(document.activeElement)"
        ));
        if found == json!(true) {
            // What has the focus shows it.
            let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle");
            assert_ne!(outline, json!("none"), "{condition}");
            return;
        }
    }
    panic!("no Tab leads to {condition}");
}

fn it_can_be_used_by_keyboard_alone() {
    let agent = Agent::start(&[]);
    let children = [
        alignment_checks(5, "page-key-low"),
        alignment_checks(50, "page-key-high"),
        alignment_checks(7, "page-other"),
    ];
    let mut browser = open(&agent);
    tab_to(&mut browser, "element.id === 'processes-filter'");
    browser.type_text("page-key");
    let names = "[...document.querySelectorAll('#processes-table tr.subject th')]\
                 .map((cell) => cell.textContent)";
    browser.wait_for(&format!("{names}.length === 2"));

    let by_checks = "element.textContent.startsWith('Alignment checks')";
    tab_to(&mut browser, by_checks);
    browser.press("Enter");
    assert_eq!(
        browser.eval(names),
        json!(["page-key-high", "page-key-low"])
    );
    let order = "document.activeElement.closest('th').getAttribute('aria-sort')";
    assert_eq!(browser.eval(order), json!("descending"));
    browser.press("Enter");
    assert_eq!(
        browser.eval(names),
        json!(["page-key-low", "page-key-high"])
    );
    assert_eq!(browser.eval(order), json!("ascending"));

    tab_to(&mut browser, "element.textContent === 'page-key-high'");
    browser.press("Enter");
    let expanded = "document.activeElement.getAttribute('aria-expanded')";
    assert_eq!(browser.eval(expanded), json!("true"));
    browser.wait_for("document.querySelector('.detail:not([hidden]) .sites li')");

    // Two updates later focus and detail are where they were, and the count is a new one.
    let figures = "document.querySelector('#connection-text').textContent";
    for _ in 0..2 {
        let before = browser.eval(figures);
        browser.wait_for(&format!("{figures} !== {before}"));
    }
    assert_eq!(
        browser.eval("document.activeElement.textContent"),
        json!("page-key-high")
    );
    assert_eq!(browser.eval(expanded), json!("true"));
    browser.press("Enter");
    assert_eq!(browser.eval(expanded), json!("false"));

    // A page that was stopped stays as it is.
    browser.eval("document.querySelector('#pause').focus()");
    browser.press("Enter");
    browser.wait_for("document.querySelector('[data-state=paused]')");
    let late = alignment_checks(3, "page-key-late");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(
        browser.eval(&format!("{names}.includes('page-key-late')")),
        json!(false)
    );
    browser.press("Enter");
    browser.wait_for(&format!("{names}.includes('page-key-late')"));
    assert_quiet(&mut browser);
    drop((children, late));
}

fn a_hostile_name_is_text() {
    let agent = Agent::start(&[]);
    let name = "<img src=x>\u{1b}\n";
    let child = alignment_checks(5, name);
    let mut browser = open(&agent);
    let row = row("processes", child.pid());
    browser.wait_for(&row);
    browser.eval(&format!("{row}.querySelector('button').click()"));
    browser.wait_for("document.querySelector('.detail:not([hidden]) .recent td')");
    let shown = browser.eval(&format!("{row}.cells[0].textContent"));
    assert_eq!(shown, json!(r"<img src=x>\x1b\x0a"));
    assert_eq!(
        browser.eval("document.querySelectorAll('img').length"),
        json!(0)
    );
    assert_quiet(&mut browser);
}

/// An address for an agent that is to come back to it.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

fn the_agent_may_go_and_start_again() {
    let address = free_address();
    let agent = Agent::start_at(address);
    let before = alignment_checks(1000, "page-before");
    let mut browser = open(&agent);
    let checks = exact("processes", before.pid(), "Alignment checks");
    browser.wait_for(&format!("{checks} === '1000'"));
    assert_quiet(&mut browser);

    agent.end(libc::SIGTERM);
    browser.wait_for("document.querySelector('[data-state=gone]')");
    let said = browser.eval("document.querySelector('#announcement').textContent");
    assert!(said.as_str().unwrap().contains("is gone"), "{said}");
    // The last figures stay.
    assert_eq!(browser.eval(&checks), json!("1000"));

    let agent = Agent::start_at(address);
    let after = alignment_checks(10, "page-after");
    browser.wait_for("document.querySelector('[data-state=live]')");
    let checks = exact("processes", after.pid(), "Alignment checks");
    browser.wait_for(&format!("{checks} === '10'"));
    // One more answer, so that there are rates.
    let rates = "[...document.querySelectorAll('td.with-line, .tile p .quiet')]\
                 .map((cell) => cell.title)";
    browser.wait_for(&format!(
        "{rates}.every((title) => title.includes('per second'))"
    ));
    let rates = browser.eval(rates);
    for rate in rates.as_array().expect("a list") {
        assert!(!rate.as_str().unwrap().contains('-'), "{rates}");
    }
    // The browser itself tells of requests that nobody answered.
    browser.forget_complaints();
    drop((agent, after, before));
}

fn all_that_one_can_use_has_a_name() {
    let agent = Agent::start(&[]);
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 3,
        vcpus: 1,
    };
    let mut guest = Child::spawn(&event, "page-ax-guest");
    guest.run();
    let process = alignment_checks(3, "page-ax");
    let mut browser = open(&agent);
    for (section, pid) in [("vms", guest.pid()), ("processes", process.pid())] {
        let row = row(section, pid);
        browser.wait_for(&row);
        browser.eval(&format!("{row}.querySelector('button').click()"));
    }
    browser.wait_for("document.querySelectorAll('.detail:not([hidden]) .recent td').length > 0");
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().expect("a list");
    let with_role = |role: &str| -> Vec<&Value> {
        nodes
            .iter()
            .filter(|node| node["ignored"] == false && node["role"]["value"] == role)
            .collect()
    };
    for (role, at_least) in [
        ("button", 20),
        ("table", 6),
        ("link", 3),
        ("searchbox", 2),
        ("checkbox", 2),
        ("combobox", 1),
        ("navigation", 1),
        ("region", 8),
        ("meter", 5),
        ("heading", 9),
        ("columnheader", 30),
    ] {
        let found = with_role(role);
        assert!(found.len() >= at_least, "{role}: {}", found.len());
        for node in found {
            let name = node["name"]["value"].as_str().unwrap_or("");
            assert!(!name.trim().is_empty(), "a {role} without a name: {node:#}");
        }
    }
    for role in ["main", "banner", "contentinfo", "status"] {
        assert_eq!(with_role(role).len(), 1, "{role}");
    }
    assert_quiet(&mut browser);
}

fn nothing_foreign_may_run_in_it() {
    let agent = Agent::start(&[]);
    let mut browser = open(&agent);
    assert_quiet(&mut browser);
    // As if a name had become markup after all.
    browser.eval(
        "window.ran = false;\
         const script = document.createElement('script');\
         script.textContent = 'window.ran = true';\
         document.body.append(script);\
         document.body.insertAdjacentHTML('beforeend', '<i onclick=\"window.ran = true\">x</i>');\
         document.body.lastChild.click();",
    );
    assert_eq!(browser.eval("window.ran"), json!(false));
    let complaints = browser.complaints().join("\n");
    assert!(
        complaints.contains("Content Security Policy"),
        "{complaints}"
    );

    let answer = ureq::get(format!("http://{}/", agent.address()))
        .call()
        .expect("the page");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
}
