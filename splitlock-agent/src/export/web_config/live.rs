//! The configuration that holds now: read again as its files change, at a connection or a request and
//! not by a timer.

use std::{
    path::{Path, PathBuf, absolute},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use tracing::{info, warn};

use super::{
    WebConfig,
    files::{Files, open},
};
use crate::subjects::names::printable;

/// The configuration of a server.
#[derive(Default)]
pub struct Live {
    /// Without a file nothing is ever read.
    path: Option<PathBuf>,
    state: Mutex<State>,
    failures: AtomicU64,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct State {
    config: Arc<WebConfig>,
    files: Files,
    /// What `config` was made from.
    content: [u8; 32],
    /// The last failure, told once.
    failure: Option<String>,
}

impl Live {
    /// Plain HTTP for everybody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the file, where there is one.
    ///
    /// # Errors
    /// What is wrong in it, or with a file that it names.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::none());
        };
        // Whoever reads it again may be in another folder.
        let path = absolute(path).context("--web.config.file")?;
        let mut files = Files::default();
        let config = WebConfig::read(&path, &mut files).context("--web.config.file")?;
        Ok(Self {
            path: Some(path),
            state: Mutex::new(State {
                config: Arc::new(config),
                content: files.content(),
                files,
                failure: None,
            }),
            ..Self::default()
        })
    }

    /// What holds now.
    pub fn get(&self) -> Arc<WebConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path
            && state.files.may_have_changed()
        {
            self.read_again(path, &mut state);
        }
        Arc::clone(&state.config)
    }

    fn read_again(&self, path: &Path, state: &mut State) {
        let mut files = Files::default();
        let read = WebConfig::read(path, &mut files);
        let content = files.content();
        state.files = files;
        let read = read.and_then(|config| match config.laxer_than(&state.config) {
            // Most likely somebody is still writing it.
            Some(what) => bail!("{what}: that takes a restart of the agent"),
            None => Ok(config),
        });
        match read {
            Ok(config) => {
                self.has_failed.store(false, Ordering::Relaxed);
                let had_failed = state.failure.take().is_some();
                if content != state.content || had_failed {
                    info!(file = %path.display(), "the web configuration was read again");
                    state.content = content;
                    state.config = Arc::new(config);
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                self.has_failed.store(true, Ordering::Relaxed);
                let failure = printable(format!("{error:#}").as_bytes());
                if state.failure.as_ref() != Some(&failure) {
                    warn!(
                        error = failure,
                        "the web configuration cannot be read again; the last one goes on"
                    );
                    state.failure = Some(failure);
                }
            }
        }
    }

    /// Whether there is a file.
    pub fn has_file(&self) -> bool {
        self.path.is_some()
    }

    /// How often reading it again has failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether the last reading gave what holds now.
    pub fn is_current(&self) -> bool {
        !self.has_failed.load(Ordering::Relaxed)
    }

    /// The folders that have to be readable for it to be read again: those of the names, and those that
    /// links lead to.
    pub fn folders(&self) -> Vec<PathBuf> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders: Vec<PathBuf> = state
            .files
            .paths()
            .flat_map(|path| [Some(path.to_owned()), path.canonicalize().ok()])
            .flatten()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Files that this process cannot open, with the reason. To be asked with the rights that the agent
    /// keeps.
    pub fn unreadable(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .files
            .paths()
            .filter_map(|path| {
                let error = open(path).err()?;
                Some(format!("{}: {error}", path.display()))
            })
            .collect()
    }
}
