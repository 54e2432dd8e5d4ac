//! Ctrl-C, and whatever else asks xtask to end.

use std::{
    fmt::{self, Display, Formatter},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// Whether somebody asked.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

/// The error of what was cut short.
#[derive(Debug)]
pub struct Interrupted;

impl Interrupt {
    /// From now on the first signal only sets this; a second one ends xtask at once.
    pub fn watch() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag not yet set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .with_context(|| format!("cannot watch for signal {signal}"))?;
        }
        Ok(Self(asked))
    }

    /// An error, [`Interrupted`], once somebody has.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }
}

impl Display for Interrupted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_noticed() {
        let interrupt = Interrupt::watch().unwrap();
        assert!(interrupt.check().is_ok());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(interrupt.check().unwrap_err().is::<Interrupted>());
    }
}
