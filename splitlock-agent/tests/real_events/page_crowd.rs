//! The page with as many subjects as an agent may have.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Test,
    browser::Browser,
    page::WIDE,
    page_figures::{Row, detail, offending_code, site, snapshot},
    requirements::Requirement::Chromium,
    stand_in,
};

pub const TESTS: &[Test] = &[Test {
    name: "page_crowd::five_thousand_subjects_are_shown_in_time",
    needs: &[Chromium],
    run: five_thousand_subjects_are_shown_in_time,
}];

/// Until the first figures are there, on a machine that is busy otherwise.
const SHOWN: Duration = Duration::from_secs(20);
/// For the drawing of one update, likewise.
const UPDATED_MS: f64 = 1500.0;

fn five_thousand_subjects_are_shown_in_time() {
    static ASKED: Mutex<Vec<Instant>> = Mutex::new(vec![]);
    let ticks = AtomicU64::new(0);
    let address = stand_in::serve(move |path| {
        if path != "/snapshot" {
            return Some(detail().to_string());
        }
        ASKED.lock().expect("no reader panics").push(Instant::now());
        let tick = ticks.fetch_add(1, Ordering::Relaxed);
        let process = |number: u64| {
            let name = format!("worker-{number:04}");
            let unit = format!("worker-{}.service", number % 50);
            // Each has another rate, and others are ahead in turn by a burst.
            Row {
                pid: 10_000 + number,
                name: &name,
                unit: &unit,
                is_alive: !number.is_multiple_of(9),
            }
            .process(
                number + tick * (number * 7919 % 500) + (tick + number) / 5 * 1000,
                1,
                &[site(
                    "user_split_lock_warned",
                    "0x7f31d2004a7c",
                    1,
                    Some(offending_code()),
                )],
            )
        };
        let mut processes: Vec<Value> = (0..2500).map(process).collect();
        processes.push(
            Row {
                pid: 9,
                name: "<img src=x onerror=document.title='ran'>",
                unit: "<script>alert(1)</script>",
                is_alive: true,
            }
            .process(9_999_999, 0, &[]),
        );
        let vm = |number: u64| {
            let name = format!("guest-{number:04}");
            Row {
                pid: 20_000 + number,
                name: &name,
                unit: "machine.slice",
                is_alive: true,
            }
            .vm(number * tick, 100 * tick + number, &[])
        };
        Some(snapshot(tick, processes, (0..2500).map(vm).collect(), vec![]).to_string())
    });
    let began = Instant::now();
    let mut browser = Browser::open(&format!("http://{address}/"), WIDE);
    browser.wait_for("document.querySelectorAll('#processes-table tr.subject').length === 50");
    let shown = began.elapsed();
    assert!(shown < SHOWN, "{shown:?} until it was shown");
    assert_eq!(
        browser.eval("document.querySelectorAll('#vms-table tr.subject').length"),
        json!(50)
    );
    assert_eq!(
        browser.eval("document.querySelector('#processes-count').textContent"),
        json!("50 of 2,501")
    );

    // What was opened and what has the focus stays there, whoever passes it.
    browser.eval("document.querySelectorAll('#vms-table tr.subject button')[20].click()");
    browser.eval("document.querySelectorAll('#processes-table tr.subject button')[30].focus()");
    let state = "JSON.stringify([document.activeElement.textContent,\
                 Math.round(document.activeElement.getBoundingClientRect().top),\
                 document.querySelector('[aria-expanded=true].open')?.textContent])";
    browser.wait_for("document.querySelector('.detail:not([hidden]) .recent td')");
    let before = browser.eval(state);
    // How long the script holds the browser up: the longest of its tasks.
    browser.eval(
        "window.longest = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) \
         window.longest = Math.max(window.longest, entry.duration); }).observe({type: 'longtask'}); 0",
    );
    let asked = || ASKED.lock().expect("no writer panics").len();
    let start = (asked(), Instant::now());
    while asked() < start.0 + 3 {
        assert!(
            start.1.elapsed() < Duration::from_secs(120),
            "no more updates"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let longest = browser.eval("window.longest").as_f64().expect("a time");
    eprintln!("{shown:?} until 5,000 subjects were shown, {longest} ms for an update at most");
    assert!(longest < UPDATED_MS, "{longest} ms for an update");
    assert_eq!(browser.eval(state), before);
    // A large answer is not asked for every two seconds.
    let gaps: Vec<Duration> = ASKED
        .lock()
        .expect("no writer panics")
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        gaps.iter().skip(1).all(|gap| *gap > Duration::from_secs(3)),
        "{gaps:?}"
    );

    browser.eval("document.querySelector('#processes .more').click()");
    assert_eq!(
        browser.eval("document.querySelectorAll('#processes-table tr.subject').length"),
        json!(100)
    );
    browser.eval(
        "{ const filter = document.querySelector('#processes-filter'); filter.value = 'onerror';\
         filter.dispatchEvent(new Event('input')); }",
    );
    assert_eq!(
        browser.eval("document.querySelector('#processes-table tr.subject th').textContent"),
        json!("<img src=x onerror=document.title='ran'>")
    );
    assert_eq!(
        browser.eval("document.querySelectorAll('img, #processes script').length"),
        json!(0)
    );
    assert_eq!(browser.complaints(), &[] as &[String]);
}
