//! The instruction that ends at an address, as a debug exception tells of it: code cannot be read
//! backwards, so this looks from where reading it forwards leads there.

use super::{
    LONGEST_INSTRUCTION,
    instruction::{Width, decode_one, is_locked},
};

/// How many bytes before the address are worth reading: enough that reading from most of them falls
/// into step with the code, as reading x86 code does after a few instructions.
pub const BYTES: usize = 128;
/// Starts from which reading must have led somewhere, for a vote.
const VOTERS: usize = 16;

/// The length of the locked instruction that ends at `ip`; `before` are the bytes that end there.
/// `None` where it is not certain enough.
pub fn length(width: Width, ip: u64, before: &[u8]) -> Option<usize> {
    let lasts = last_starts(width, ip, before);
    let early = before.len().saturating_sub(LONGEST_INSTRUCTION);
    let start = if early >= VOTERS {
        elected(&lasts[..early])?
    } else {
        // Too few to fall into step: the only one there can be.
        let mut locked =
            (0..before.len()).filter(|start| is_last_and_locked(width, ip, before, *start));
        let only = locked.next()?;
        if locked.next().is_some() {
            return None;
        }
        only
    };
    is_last_and_locked(width, ip, before, start).then(|| before.len() - start)
}

/// The same where `function` holds the bytes from the function's begin up to `ip`, so that no start
/// is guessed.
pub fn length_in_function(width: Width, ip: u64, function: &[u8]) -> Option<usize> {
    let start = (*last_starts(width, ip, function).first()?)?;
    is_last_and_locked(width, ip, function, start).then(|| function.len() - start)
}

/// For each byte: where the last instruction begins if reading begins at that byte; `None` if that
/// does not end at the end.
fn last_starts(width: Width, ip: u64, before: &[u8]) -> Vec<Option<usize>> {
    let mut lasts = vec![None; before.len()];
    for start in (0..before.len()).rev() {
        let at = ip.wrapping_sub((before.len() - start) as u64);
        let Some(decoded) = decode_one(width, at, &before[start..]) else {
            continue;
        };
        let next = start + decoded.len();
        lasts[start] = if next == before.len() {
            Some(start)
        } else {
            lasts[next]
        };
    }
    lasts
}

/// What at least three quarters of those lead to that lead anywhere.
fn elected(lasts: &[Option<usize>]) -> Option<usize> {
    let votes: Vec<usize> = lasts.iter().copied().flatten().collect();
    if votes.len() < VOTERS {
        return None;
    }
    votes.iter().copied().find(|start| {
        let for_it = votes.iter().filter(|vote| *vote == start).count();
        4 * for_it >= 3 * votes.len()
    })
}

fn is_last_and_locked(width: Width, ip: u64, before: &[u8], start: usize) -> bool {
    let at = ip.wrapping_sub((before.len() - start) as u64);
    decode_one(width, at, &before[start..])
        .is_some_and(|decoded| start + decoded.len() == before.len() && is_locked(&decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: u64 = 0x40_2000;
    /// What a compiler makes: push rbp; mov rbp, rsp; sub rsp, 0x20; mov [rbp-0x18], rdi;
    /// mov rax, [rbp-0x18]; mov edx, 1; add rax, 0x3e; test edx, edx; je +4; xor ecx, ecx; nop; nop;
    /// mov esi, [rax]; mov [rbp-4], esi; lea rdi, [rax+4]; mov r8, rdi; add r8, 0x10
    const CODE: &[u8] = b"\x55\x48\x89\xe5\x48\x83\xec\x20\x48\x89\x7d\xe8\x48\x8b\x45\xe8\
        \xba\x01\x00\x00\x00\x48\x83\xc0\x3e\x85\xd2\x74\x04\x31\xc9\x90\x90\x8b\x30\x89\x75\xfc\
        \x48\x8d\x78\x04\x49\x89\xf8\x49\x83\xc0\x10";
    const LOCKED: [&[u8]; 7] = [
        b"\xf0\x48\x0f\xc1\x07",
        b"\xf0\xff\x00",
        b"\xf0\x83\x45\xf8\x01",
        b"\xf0\x48\x0f\xb1\x15\x20\x00\x00\x00",
        // xchg without a prefix, and with one that could be the end of another instruction.
        b"\x87\x07",
        b"\x48\x87\x07",
        b"\x66\xf0\xff\x00",
    ];

    #[test]
    fn what_ends_there_is_found() {
        for locked in LOCKED {
            let before = [CODE, locked].concat();
            assert_eq!(
                length(Width::Bits64, IP, &before),
                Some(locked.len()),
                "{locked:x?}"
            );
            assert_eq!(
                length_in_function(Width::Bits64, IP, &before),
                Some(locked.len())
            );
            // Reading from inside an instruction falls into step as well.
            assert_eq!(
                length(Width::Bits64, IP, &before[2..]),
                Some(locked.len()),
                "{locked:x?}"
            );
        }
    }

    #[test]
    fn what_is_not_locked_is_not_it() {
        assert_eq!(length(Width::Bits64, IP, CODE), None);
        assert_eq!(length_in_function(Width::Bits64, IP, CODE), None);
        assert_eq!(length(Width::Bits64, IP, b""), None);
        assert_eq!(length_in_function(Width::Bits64, IP, b""), None);
    }

    #[test]
    fn with_few_bytes_only_what_is_certain() {
        assert_eq!(length(Width::Bits64, IP, b"\xf0\xff\x00"), Some(3));
        assert_eq!(
            length(Width::Bits64, IP, b"\x31\xc9\xf0\x48\x0f\xc1\x07"),
            Some(5)
        );
        // `xchg [rdi], eax` as well as `xchg [rdi], rax`.
        assert_eq!(length(Width::Bits64, IP, b"\x48\x87\x07"), None);
    }

    #[test]
    fn fuzz_behind() {
        bolero::check!(name = "behind")
            .with_type::<(bool, Vec<u8>, u8)>()
            .for_each(|(wide, bytes, which)| {
                let width = if *wide { Width::Bits64 } else { Width::Bits32 };
                let locked = LOCKED[usize::from(*which) % LOCKED.len()];
                for before in [bytes.clone(), [bytes, locked].concat()] {
                    for found in [
                        length(width, IP, &before),
                        length_in_function(width, IP, &before),
                    ]
                    .into_iter()
                    .flatten()
                    {
                        let start = before.len() - found;
                        assert!(is_last_and_locked(width, IP, &before, start));
                    }
                }
            });
    }
}
