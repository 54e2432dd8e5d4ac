//! The man pages: what the command line says of itself, and [`facts`] that it does not.

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use super::{command, environment};

pub mod facts;

use self::facts::Facts;

/// The manual's section of system administration.
const SECTION: &str = "8";

/// One man page.
pub struct Page {
    /// Name of its file.
    pub file: String,
    /// In the language of troff's `man` macros.
    pub text: Vec<u8>,
}

/// All pages: the main one first, then one for each command.
///
/// # Errors
/// None that this machine could cause.
pub fn pages() -> Result<Vec<Page>> {
    let main = built();
    let mut pages = vec![render(&main, None)?];
    for below in shown(&main) {
        pages.push(render(below, Some(below.get_name()))?);
    }
    Ok(pages)
}

/// The page of a command, or the main one.
///
/// # Errors
/// There is no such command.
pub fn page(name: Option<&str>) -> Result<Page> {
    let main = built();
    let Some(name) = name else {
        return render(&main, None);
    };
    let below = shown(&main)
        .find(|below| below.get_name() == name)
        .with_context(|| {
            let names: Vec<&str> = shown(&main).map(Command::get_name).collect();
            format!("no page {name}; there are {}", names.join(", "))
        })?;
    render(below, Some(name))
}

fn built() -> Command {
    let mut main = command();
    main.build();
    main
}

fn shown(main: &Command) -> impl Iterator<Item = &Command> {
    main.get_subcommands().filter(|below| !below.is_hide_set())
}

fn render(command: &Command, name: Option<&str>) -> Result<Page> {
    // The help's own sections come again below, and better.
    let described = command.clone().after_long_help(None::<&str>);
    let man = Man::new(described)
        .section(SECTION)
        .source(concat!("splitlock-agent ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = vec![];
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if name.is_none() {
        man.render_subcommands_section(&mut text)?;
    }
    sections(command, name)?.to_writer(&mut text)?;
    let text = String::from_utf8(text).context("the page")?;
    Ok(Page {
        file: man.get_filename(),
        text: in_ascii(&text).into_bytes(),
    })
}

/// troff itself reads no UTF-8: it has names for characters, `\[u2026]`.
fn in_ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_ascii() {
            true => c.to_string(),
            false => format!("\\[u{:04X}]", u32::from(c)),
        })
        .collect()
}

/// What clap does not know.
fn sections(command: &Command, name: Option<&str>) -> Result<Roff> {
    let Facts {
        exit_status,
        files,
        examples,
        see_also,
    } = match name {
        Some(name) => facts::of_command(name)
            .with_context(|| format!("the manual lacks facts about {name}"))?,
        None => &facts::MAIN,
    };
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in *exit_status {
        roff.control("TP", []);
        roff.text([bold(*status)]);
        roff.text([roman(*meaning)]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(facts::ENVIRONMENT)]);
    for (variable, flag) in environment::variables(command) {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([bold(flag)]);
    }
    if !files.is_empty() {
        roff.control("SH", ["FILES"]);
    }
    for (path, what) in *files {
        roff.control("TP", []);
        roff.text([italic(*path)]);
        roff.text([roman(*what)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    for (line, what) in *examples {
        roff.control("TP", []);
        roff.text([bold(*line)]);
        roff.text([roman(*what)]);
    }
    if !see_also.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(*see_also)]);
    }
    Ok(roff)
}

/// What `--help` says below the flags.
pub fn add_to_help(command: Command) -> Command {
    let main = with_facts(command, &facts::MAIN);
    main.mut_subcommands(|below| match facts::of_command(below.get_name()) {
        Some(facts) => with_facts(below, facts),
        None => below,
    })
}

fn with_facts(command: Command, facts: &Facts) -> Command {
    let mut text = "Exit status:\n".to_owned();
    for (status, meaning) in facts.exit_status {
        text += &format!("  {status}  {meaning}\n");
    }
    text += "\nExamples:\n";
    for (line, what) in facts.examples {
        text += &format!("  {line}\n      {what}\n");
    }
    command.after_long_help(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command as Process, Stdio},
    };

    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_with_all_sections() {
        let main = built();
        let pages = pages().unwrap();
        assert_eq!(pages.len(), 1 + shown(&main).count());
        assert_eq!(pages[0].file, "splitlock-agent.8");
        for page in &pages {
            let text = String::from_utf8(page.text.clone()).unwrap();
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "\"EXIT STATUS\"",
                "ENVIRONMENT",
                "EXAMPLES",
            ] {
                let heading = format!(".SH {section}\n");
                assert_eq!(text.matches(&heading).count(), 1, "{} {section}", page.file);
            }
        }
        assert!(page(Some("nonesuch")).is_err());
    }

    #[test]
    fn examples_are_command_lines_that_are_understood() {
        let all = facts::MAIN
            .examples
            .iter()
            .chain(facts::COMMANDS.iter().flat_map(|(_, facts)| facts.examples));
        for (line, _) in all {
            // The agent's own part: after `sudo`, up to a pipe or a redirection.
            let words: Vec<&str> = line
                .split_whitespace()
                .skip_while(|word| *word != "splitlock-agent")
                .take_while(|word| !["|", ">"].contains(word))
                .collect();
            assert!(words.len() > 1, "{line}");
            let result = command().try_get_matches_from(&words);
            assert!(result.is_ok(), "{line}: {}", result.unwrap_err());
        }
    }

    #[test]
    fn no_facts_are_about_nothing() {
        let main = built();
        for (name, _) in facts::COMMANDS {
            assert!(
                shown(&main).any(|below| below.get_name() == *name),
                "{name}"
            );
        }
    }

    #[test]
    fn other_characters_have_names() {
        assert_eq!(in_ascii("a… ä"), "a\\[u2026] \\[u00E4]");
    }

    #[test]
    fn groff_has_nothing_to_complain_of() {
        let groff = || {
            let mut groff = Process::new("groff");
            groff.args(["-man", "-Tutf8", "-ww", "-rLL=100n"]);
            groff
        };
        if groff().stdin(Stdio::null()).output().is_err() {
            eprintln!(
                "groff is not installed, so the man pages are checked for their sections only"
            );
            return;
        }
        for page in pages().unwrap() {
            let mut process = groff()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            process.stdin.take().unwrap().write_all(&page.text).unwrap();
            let output = process.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{}: {said}",
                page.file
            );
            // The lines are justified.
            let shown = String::from_utf8_lossy(&output.stdout);
            let words: Vec<&str> = shown.split_whitespace().collect();
            assert!(
                words.join(" ").contains("Every flag can also be set"),
                "{shown}"
            );
        }
    }
}
