//! What the user chooses in the plan's stead: `--probe NAME=VIA` and `--kvm-exits`.

use std::str::FromStr;

use clap::ValueEnum;
use splitlock_common::Hook;

use super::catalogue::{LADDERS, Via};

/// A choice that the user makes for the agent: the one way to attach a hook, `None` for not at
/// all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The hook.
    pub hook: Hook,
    /// The way.
    pub via: Option<Via>,
}

/// Which exits of guests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvmExits {
    /// Every one, per VM and reason.
    #[default]
    All,
    /// Those that tell of a bus lock, as traps. The programs look at every exit still.
    Locks,
    /// None: nothing is attached to exits, and guests' bus locks are not seen.
    Off,
}

impl KvmExits {
    /// The hooks that are there for exits.
    pub const HOOKS: [Hook; 2] = [Hook::KvmUserspaceExit, Hook::KvmExit];

    /// The value of the programs' global `EXIT_COUNTED`; [`Self::Off`] attaches none that reads it.
    pub const fn global(self) -> u32 {
        match self {
            Self::All | Self::Off => 0,
            Self::Locks => 1,
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    /// Reads `NAME=VIA`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, via) = text
            .split_once('=')
            .ok_or("a hook and a way, such as kvm_exit=tracepoint or kvm_exit=none")?;
        let ladder = LADDERS
            .iter()
            .find(|ladder| ladder.hook.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Hook::ALL.iter().map(|hook| hook.name()).collect();
                format!("no hook {name}; there are {}", names.join(", "))
            })?;
        if via == "none" {
            return Ok(Self {
                hook: ladder.hook,
                via: None,
            });
        }
        let ways: Vec<Via> = ladder.rungs.iter().map(|rung| rung.via).collect();
        match ways.iter().find(|way| way.name() == via) {
            Some(way) => Ok(Self {
                hook: ladder.hook,
                via: Some(*way),
            }),
            None => {
                let names: Vec<&str> = ways.iter().map(|way| way.name()).collect();
                Err(format!(
                    "{name} has no way {via}; there are {}, none",
                    names.join(", ")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_by_the_names_of_the_metrics() {
        let read = |text: &str| text.parse::<Choice>();
        let choice = |hook, via| Ok(Choice { hook, via });
        assert_eq!(
            read("signal_generate=tracepoint"),
            choice(Hook::SignalGenerate, Some(Via::Tracepoint))
        );
        assert_eq!(read("kernel_log=none"), choice(Hook::KernelLog, None));
        for (text, part) in [
            ("kvm_exit", "kvm_exit=tracepoint"),
            ("kvm=none", "no hook kvm"),
            (
                "kvm_exit=kprobe",
                "no way kprobe; there are raw_tracepoint, tracepoint, none",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for ladder in &LADDERS {
            for rung in ladder.rungs {
                let text = format!("{}={}", ladder.hook.name(), rung.via.name());
                assert_eq!(read(&text), choice(ladder.hook, Some(rung.via)));
            }
        }
    }

    #[test]
    fn fuzz_probe_choice() {
        bolero::check!(name = "probe_choice").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            if let Ok(Choice { hook, via }) = text.parse::<Choice>() {
                assert_eq!(
                    text,
                    format!("{}={}", hook.name(), via.map_or("none", Via::name))
                );
            }
        });
    }
}
