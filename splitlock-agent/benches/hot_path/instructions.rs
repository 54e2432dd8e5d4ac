//! Instructions per exit, on `kvm_exit` of a machine that QEMU emulates with `-icount shift=0`: one
//! instruction is then one nanosecond of its clocks. CPU time leaves out what the machine idles
//! while a VM is made. What a program adds is the difference to nothing attached.

use std::time::Duration;

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
    let before = cpu_time();
    guest::write_to_port(count)?;
    Ok((cpu_time() - before).as_nanos() as f64 / count as f64)
}

/// CPU time of this process, which is guest and VMM in one.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "this clock is always there");
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn print(name: &str, round: usize, instructions: f64) {
    println!(
        "{}",
        json!({"name": name, "round": round, "instructions": instructions})
    );
}
