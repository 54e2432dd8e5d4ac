//! Instructions per exit, on `kvm_exit` of a machine that QEMU emulates with `-icount shift=0`: its
//! time-stamp counter then counts instructions, the guest's and its VMM's included. What a program
//! adds is the difference to nothing attached.

use anyhow::Result;
use serde_json::json;

use super::{
    contenders::{self, Contender, Hook},
    guest,
};

/// Prints one line for each program and round, and one for nothing attached. Programs are attached
/// one at a time.
pub fn measure(rounds: usize, count: u64) -> Result<()> {
    let mut contenders = contenders::load(Hook::Exit);
    for round in 0..rounds {
        print("nothing attached", round, per_exit(count)?);
        for contender in &mut contenders {
            let instructions = with(contender, count)?;
            print(contender.name, round, instructions);
        }
    }
    for contender in &contenders {
        if let Some(counted) = contender.counted() {
            eprintln!("{} counted {counted}", contender.name);
        }
    }
    Ok(())
}

fn with(contender: &mut Contender, count: u64) -> Result<f64> {
    contender.attach(Hook::Exit)?;
    let result = per_exit(count);
    contender.detach()?;
    result
}

fn per_exit(count: u64) -> Result<f64> {
    let before = time_stamp();
    guest::write_to_port(count)?;
    Ok((time_stamp() - before) as f64 / count as f64)
}

fn time_stamp() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

fn print(name: &str, round: usize, instructions: f64) {
    println!(
        "{}",
        json!({"name": name, "round": round, "instructions": instructions})
    );
}
