//! A firmware for QEMU whose exits are known.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// Bytes of a firmware: QEMU wants whole 64 KiB and puts the last byte below 4 GiB, and once more
/// below 1 MiB.
const SIZE: usize = 0x1_0000;
/// Where the other vCPUs begin: at the page of the vector that wakes them, here 0xff000.
const OTHERS: usize = 0xf000;
/// Where the code is in it.
const CODE: usize = 0xff00;
/// Where a vCPU begins.
const RESET: usize = 0xfff0;

/// The file of a firmware with which every vCPU writes to port 0x80 `count` times and halts for
/// ever. It goes with this value.
pub struct Firmware(PathBuf);

impl Firmware {
    /// Writes it.
    #[track_caller]
    pub fn write(count: u32) -> Self {
        let name = format!("firmware-{count}-{}", process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, code(count)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Firmware {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::remove_file(&self.0);
    }
}

/// 16-bit code. The first vCPU wakes the others by its interrupt controller, whose registers are
/// MSRs in x2APIC mode (Intel SDM 3, 11.12), and all of them come to `work`.
fn code(count: u32) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    #[rustfmt::skip]
    let wake = [
        0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, IA32_APIC_BASE
        0x0f, 0x32,                         // rdmsr
        0x66, 0x0d, 0x00, 0x0c, 0x00, 0x00, // or eax, x2APIC mode
        0x0f, 0x30,                         // wrmsr
        0x66, 0xb9, 0x30, 0x08, 0x00, 0x00, // mov ecx, interrupt command
        0x66, 0x31, 0xd2,                   // xor edx, edx
        0x66, 0xb8, 0x00, 0x45, 0x0c, 0x00, // mov eax, INIT to all others
        0x0f, 0x30,                         // wrmsr
        0x66, 0xb8, 0xff, 0x46, 0x0c, 0x00, // mov eax, start at page 0xff to all others
        0x0f, 0x30,                         // wrmsr
    ];
    let [a, b, c, d] = count.to_le_bytes();
    #[rustfmt::skip]
    let work = [
        0x66, 0xb9, a, b, c, d, // mov ecx, count
        0xe6, 0x80,             // again: out 0x80, al
        0x66, 0x49,             // dec ecx
        0x75, 0xfa,             // jnz again
        0xfa,                   // cli
        0xf4,                   // halt: hlt
        0xeb, 0xfd,             // jmp halt
    ];
    let start_of_work = CODE + wake.len();
    bytes[CODE..start_of_work].copy_from_slice(&wake);
    bytes[start_of_work..start_of_work + work.len()].copy_from_slice(&work);
    for (from, to) in [(RESET, CODE), (OTHERS, start_of_work)] {
        // jmp, from behind these three bytes.
        let [low, high] = (to.wrapping_sub(from + 3) as u16).to_le_bytes();
        bytes[from..from + 3].copy_from_slice(&[0xe9, low, high]);
    }
    bytes
}
