//! `docs/benchmarks.md`: each section between marks, with its picture in `docs/images`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{chart, results::Section};

/// Replaces the sections; each has to have its marks in the page.
pub fn update(docs: &Path, sections: &[Section]) -> Result<()> {
    let page = docs.join("benchmarks.md");
    let mut text =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    for section in sections {
        text = replaced(&text, section)?;
        if has_picture(section) {
            let file = docs.join(picture(section));
            fs::write(&file, chart::svg(section))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// Bars of milliseconds beside mebibytes would say nothing.
fn has_picture(section: &Section) -> bool {
    section.rows.iter().any(|row| row.over_base.is_some())
}

fn picture(section: &Section) -> String {
    format!("images/bench-{}.svg", section.key)
}

fn replaced(text: &str, section: &Section) -> Result<String> {
    let begin = format!("<!-- {} begin -->\n", section.key);
    let end = format!("<!-- {} end -->\n", section.key);
    let (Some(from), Some(to)) = (text.find(&begin), text.find(&end)) else {
        bail!("benchmarks.md lacks the marks {}", begin.trim());
    };
    let picture = if has_picture(section) {
        format!("\n![{}]({})\n", section.title, picture(section))
    } else {
        String::new()
    };
    Ok(format!(
        "{}{section}{picture}{}",
        &text[..from + begin.len()],
        &text[to..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(key: &str) -> Section {
        Section {
            key: key.to_owned(),
            title: "Title".to_owned(),
            command: "cargo xtask bench".to_owned(),
            machine: "a machine".to_owned(),
            unit: "figures".to_owned(),
            rows: vec![],
        }
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "before\n<!-- k begin -->\nold\n<!-- k end -->\nafter\n";
        let new = replaced(text, &section("k")).unwrap();
        assert!(new.starts_with("before\n<!-- k begin -->\n### Title\n"));
        assert!(new.ends_with("\n<!-- k end -->\nafter\n") && !new.contains("old"));
        assert!(replaced(text, &section("other")).is_err());
    }
}
