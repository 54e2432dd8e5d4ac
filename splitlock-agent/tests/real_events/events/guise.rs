//! Another program's file name and arguments for a child.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// What a child looks like in `/proc`. Its orders come by the environment then.
#[derive(Clone, Debug, Default)]
pub struct Guise {
    /// The name of the file that it runs.
    pub program: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
}

impl Guise {
    /// A program with arguments that are separated by spaces.
    pub fn new(program: &str, arguments: &str) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
        }
    }
}

/// This binary under another name, as long as this value lives.
pub struct Disguised {
    folder: PathBuf,
    program: PathBuf,
}

impl Disguised {
    /// Links this binary, beside it, as links do not lead to other file systems.
    pub fn as_program(name: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = env::current_exe()?;
        let number = COUNT.fetch_add(1, Relaxed);
        let beside = own.parent().unwrap_or_else(|| Path::new("/"));
        let folder = beside.join(format!("guise-{}-{number}", process::id()));
        fs::create_dir(&folder)?;
        let program = folder.join(name);
        fs::hard_link(&own, &program)?;
        Ok(Self { folder, program })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for Disguised {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
