//! Where the kernel keeps the mode of detection.

use std::{fs::File, thread};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::host::symbols;

/// The kernel's variable with the mode of detection, static in arch/x86/kernel/cpu/bus_lock.c
/// (before 6.14 intel.c).
const SYMBOL: &str = "sld_state";

/// Looks the variable up beside everything else, as the kernel takes its time to list its symbols.
pub fn look_up(symbols: Option<File>) -> oneshot::Receiver<u64> {
    let (sender, address) = oneshot::channel();
    let Some(symbols) = symbols else {
        return address;
    };
    let look = move || match symbols::data_address(symbols, SYMBOL) {
        Ok(Some(found)) => {
            // The agent may have ended meanwhile.
            let _ = sender.send(found);
        }
        Ok(None) => debug!("the kernel does not tell where {SYMBOL} is"),
        Err(error) => debug!(%error, "/proc/kallsyms"),
    };
    let started = thread::Builder::new()
        .name("symbols".to_owned())
        .spawn(look);
    if let Err(error) = started {
        warn!(%error, "no thread to look for {SYMBOL}");
    }
    address
}
