//! Reading a hash map many entries at a time: two system calls for each would be most of a scrape.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use aya::Pod;

/// Entries in one call at first; a bucket that holds more is asked for again with more room.
const BATCH: usize = 256;
/// Against a kernel that wants ever more room.
const LARGEST: usize = 1 << 20;

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h; hash maps 5.6+).
const LOOKUP_BATCH: libc::c_int = 24;

/// The part of `union bpf_attr` that batch commands take.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands all entries of a hash map out, in no order; its keys and values have to have these types.
/// One that is added meanwhile may be missing.
///
/// # Errors
/// The kernel refuses the reading.
pub fn for_each<K: Pod, V: Pod>(map: impl AsFd, mut each: impl FnMut(K, V)) -> io::Result<()> {
    let mut room = BATCH;
    let mut keys: Vec<K> = Vec::with_capacity(room);
    let mut values: Vec<V> = Vec::with_capacity(room);
    // The bucket to go on at.
    let mut position: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        let mut attributes = Attributes {
            in_batch: position
                .as_ref()
                .map_or(0, |position| &raw const *position as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).map_err(io::Error::other)?,
            map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are the command's, and the kernel writes at most `count` keys and
        // values into the rooms for as many, and one position.
        let status = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let error = (status != 0).then(io::Error::last_os_error);
        let code = error.as_ref().and_then(io::Error::raw_os_error);
        if code == Some(libc::ENOSPC) && room < LARGEST {
            room *= 2;
            keys.reserve_exact(room);
            values.reserve_exact(room);
            continue;
        }
        // ENOENT comes with the last entries.
        if let Some(error) = error.filter(|_| code != Some(libc::ENOENT)) {
            return Err(error);
        }
        let count = (attributes.count as usize).min(room);
        // SAFETY: the kernel has written so many, of types for which any bytes are a value.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.drain(..).zip(values.drain(..)) {
            each(key, value);
        }
        if code == Some(libc::ENOENT) {
            return Ok(());
        }
        position = Some(next);
    }
}
