//! The page's pictures in the documentation, drawn by a real browser from figures that are made up.
//!
//! `SPLITLOCK_UPDATE_DOCS=1` writes them. `SPLITLOCK_PAGE_PICTURES=FOLDER` writes all widths of both
//! themes there, to be looked at.

use std::{
    env, fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Test,
    browser::Browser,
    page::WIDE,
    page_figures::{detail, host},
    requirements::Requirement::Chromium,
    stand_in,
};

pub const TESTS: &[Test] = &[Test {
    name: "page_pictures::they_fit_the_screen_and_tell_the_instruction",
    needs: &[Chromium],
    run: they_fit_the_screen_and_tell_the_instruction,
}];

/// Of the pictures: down to the newest events.
const HEIGHT: u32 = 1400;

fn they_fit_the_screen_and_tell_the_instruction() {
    let ticks = AtomicU64::new(0);
    let address = stand_in::serve(move |path| match path {
        "/snapshot" => Some(host(ticks.fetch_add(1, Ordering::Relaxed)).to_string()),
        "/subjects/2214-22140" => Some(detail().to_string()),
        _ => None,
    });
    let mut browser = Browser::open(&format!("http://{address}/"), WIDE);
    browser.wait_for("document.querySelector('[data-state=live]')");
    // Two minutes of figures, without waiting for them.
    browser.eval(
        "(async () => { const pause = document.querySelector('#pause');\
         for (let i = 0; i < 70; i += 1) { pause.click(); pause.click();\
         const text = document.querySelector('#connection-text').textContent;\
         while (document.querySelector('#connection-text').textContent === text ||\
         document.querySelector('[data-state=paused]')) await new Promise((done) => setTimeout(done, 2)); } })()",
    );
    browser.eval(
        "[...document.querySelectorAll('#processes-table tr.subject button')]\
         .find((button) => button.textContent === 'telemetryd').click()",
    );
    browser.wait_for("document.querySelector('.detail:not([hidden]) .recent td')");
    let told = browser.eval("document.querySelector('.detail:not([hidden])').textContent");
    for words in [
        "ring_publish+0x5c",
        "ring.c:212",
        "lock xadd [rdi],rax",
        "byte 60 of its cache line",
        "crosses the line",
        "libringbuf.so.2 at 0x4a7c",
    ] {
        assert!(
            told.as_str().is_some_and(|told| told.contains(words)),
            "{words}: {told}"
        );
    }
    browser.eval("document.activeElement.blur()");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    for (theme, file) in [("light", "page.png"), ("dark", "page-dark.png")] {
        browser.eval(&format!(
            "{{ const theme = document.querySelector('#theme'); theme.value = '{theme}';\
             theme.dispatchEvent(new Event('change')); }}"
        ));
        for width in [320, 390, WIDE.0] {
            browser.resize(width, HEIGHT);
            // Nothing but a table may need more than the screen has.
            let spare = browser.eval("innerWidth - document.documentElement.scrollWidth");
            assert!(spare.as_f64() >= Some(0.0), "{width}: {spare}");
            if let Some(all) = env::var_os("SPLITLOCK_PAGE_PICTURES") {
                let picture = STANDARD.decode(browser.picture()).expect("base64");
                let name = format!("page-{theme}-{width}.png");
                fs::write(Path::new(&all).join(name), &picture).expect("the picture is written");
            }
        }
        let picture = STANDARD.decode(browser.picture()).expect("base64");
        let path = folder.join(file);
        if env::var_os("SPLITLOCK_UPDATE_DOCS").is_some() {
            fs::write(&path, &picture).expect("the picture is written");
        }
        let there = fs::read(&path).unwrap_or_default();
        // Fonts differ by machine, and pixels with them.
        assert_eq!(
            size(&there),
            size(&picture),
            "{} is no picture of the page: SPLITLOCK_UPDATE_DOCS=1 cargo xtask test -- page_pictures",
            path.display()
        );
    }
    assert_eq!(browser.complaints(), &[] as &[String]);
}

/// Width and height of a PNG: the first two fields of its first chunk.
fn size(png: &[u8]) -> (u32, u32) {
    let field = |begin: usize| {
        let bytes = png.get(begin..begin + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    (field(16).unwrap_or(0), field(20).unwrap_or(0))
}
