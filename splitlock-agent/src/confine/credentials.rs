//! User, groups and capabilities: given up for good. All of it belongs to the calling thread, which is
//! to be the only one.

use std::io;

use rustix::{
    process::{DumpableBehavior, geteuid, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::user::User;

/// What could not be given up, in words.
pub type Kept = Vec<String>;

/// Becomes `user` where this is root, with these capabilities alone, as far as it has them. A program
/// that it executes has none.
pub fn give_up(user: User, capabilities: CapabilitySet) -> Kept {
    let mut kept = Kept::new();
    let mut note = |what: &str, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            kept.push(format!("{what}: {error}"));
        }
    };
    let is_root = geteuid().is_root();
    let has_bounds = effective().contains(CapabilitySet::SETPCAP);
    note(
        "clearing ambient capabilities",
        clear_ambient_capability_set(),
    );
    // Without the right to, no_new_privs is left: what is executed gains nothing.
    if has_bounds {
        for capability in all().filter(|capability| !capabilities.contains(*capability)) {
            note("bounding capabilities", forget(capability));
        }
    }
    if is_root {
        let (uid, gid) = user.ids();
        note("keeping capabilities", set_keep_capabilities(true));
        note("leaving supplementary groups", set_thread_groups(&[]));
        note("changing the group", set_thread_res_gid(gid, gid, gid));
        note("changing the user", set_thread_res_uid(uid, uid, uid));
    }
    let left = permitted() & capabilities;
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    note("giving up capabilities", set_capabilities(None, sets));
    note("no_new_privs", set_no_new_privs(true));
    // Others of this user may not look into this process, and it leaves no core.
    note(
        "closing the memory",
        set_dumpable_behavior(DumpableBehavior::NotDumpable),
    );
    kept
}

/// Does something without any capability in force, and takes them again.
///
/// # Errors
/// The kernel refuses the change.
pub fn without<T>(act: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        ..before
    };
    set_capabilities(None, none)?;
    let result = act();
    set_capabilities(None, before)?;
    Ok(result)
}

/// In force now.
pub fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

fn permitted() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

/// Also those that this crate has no name for.
fn all() -> impl Iterator<Item = CapabilitySet> {
    (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit))
}

/// One that the kernel does not know cannot be had.
fn forget(capability: CapabilitySet) -> rustix::io::Result<()> {
    match remove_capability_from_bounding_set(capability) {
        Err(rustix::io::Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// Whether the kernel has this capability.
pub fn knows(capability: CapabilitySet) -> bool {
    rustix::thread::capability_is_in_bounding_set(capability).is_ok()
}

/// What is in force now: `none`, `all`, or names with commas between them.
pub fn names() -> String {
    let effective = effective();
    if effective.is_empty() {
        return "none".to_owned();
    }
    if all()
        .filter(|capability| knows(*capability))
        .all(|capability| effective.contains(capability))
    {
        return "all".to_owned();
    }
    let names: Vec<String> = effective
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.join(",")
}
