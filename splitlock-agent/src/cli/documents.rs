//! Flags of what the command line can tell about itself: `completions` and `man`.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use super::{command, manual};

/// The program's name.
const NAME: &str = "splitlock-agent";

/// Options of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsOptions {
    /// The shell that is to read it.
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: ShellName,
}

/// A shell that has completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// For `/usr/share/bash-completion/completions/splitlock-agent`.
    Bash,
    /// For `_splitlock-agent` in a folder of `fpath`.
    Zsh,
    /// For `/usr/share/fish/vendor_completions.d/splitlock-agent.fish`.
    Fish,
}

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManOptions {
    /// Print the page of this command instead of the main one.
    #[arg(value_name = "COMMAND")]
    pub page: Option<String>,

    /// Write all pages into this folder instead, such as `/usr/local/share/man/man8`.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Prints completions for a shell.
///
/// # Errors
/// What standard output refused.
pub fn completions(options: &CompletionsOptions) -> Result<()> {
    let shell = match options.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = vec![];
    clap_complete::generate(shell, &mut shown(&command()), NAME, &mut text);
    if shell == Shell::Bash {
        text = with_reachable_subcommands(&String::from_utf8(text)?).into_bytes();
    }
    print(&text)
}

/// The command line without what is hidden, which the generators would offer.
fn shown(all: &Command) -> Command {
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommands(
            all.get_subcommands()
                .filter(|below| !below.is_hide_set())
                .cloned(),
        )
}

/// Bash's script as `clap_complete` 4.6 means it: in the names of the states that tell what to offer after a
/// subcommand it takes the hyphen of the program's name for the start of one, so that nothing comes to
/// them (<https://github.com/clap-rs/clap/issues/6421>).
fn with_reachable_subcommands(script: &str) -> String {
    script.replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__"))
}

/// Prints a man page, or writes all of them.
///
/// # Errors
/// The page that there is not, or the file that cannot be written.
pub fn man(options: &ManOptions) -> Result<()> {
    let ManOptions { page, folder } = options;
    let Some(folder) = folder else {
        return print(&manual::page(page.as_deref())?.text);
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for manual::Page { file, text } in manual::pages()? {
        let path = folder.join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        print(format!("{}\n", path.display()).as_bytes())?;
    }
    Ok(())
}

/// A reader that has read enough, such as `head`, is no error.
fn print(text: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}
