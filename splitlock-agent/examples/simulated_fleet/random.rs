//! Numbers that look random, and are the same for the same thing.

/// What a thing is by: a host, a VM's place on it, which VM it is there.
pub fn number(of: &[u64]) -> u64 {
    of.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        mix(state ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    })
}

/// The finalizer of `SplitMix64`.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
