//! Tools that the agent is compared with.

use std::path::PathBuf;

use crate::{apt::Apt, command};

/// Where a program is, installed from its package if it is missing and can be.
pub fn find(program: &str, package: &str) -> Option<PathBuf> {
    if command::on_path(program).is_none()
        && let Some(apt) = Apt::find().filter(Apt::can_install)
    {
        eprintln!("Installing {package}, to compare with.");
        if let Err(error) = apt.install(&[package]) {
            eprintln!("{error:#}");
        }
    }
    let found = command::on_path(program);
    match &found {
        Some(path) => eprintln!("{}", path.display()),
        None => eprintln!("{program} is not measured: neither on PATH nor to be installed"),
    }
    found
}
