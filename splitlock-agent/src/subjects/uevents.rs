//! KVM's word of a VM's creation and end: uevents.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{KOBJECT_UEVENT, SocketAddrNetlink},
        recvfrom, socket_with,
        sockopt::set_socket_recv_buffer_size_force,
    },
};

/// The multicast group that the kernel sends to; udev sends its own to group 2
/// (`uevent_net_broadcast_untagged`, lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;
/// `UEVENT_BUFFER_SIZE` (linux/kobject.h, 2048) and the header `ACTION@PATH` before it.
const MESSAGE_LIMIT: usize = 8 << 10;
/// KVM's device, below `/sys`.
const KVM: &[u8] = b"/devices/virtual/misc/kvm";
/// Bytes that the kernel holds for this socket: some thousand messages. A host that starts its guests sends
/// many at once.
const RECEIVE_BUFFER: usize = 2 << 20;

/// A VM came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmEvent {
    /// Which.
    pub kind: VmEventKind,
    /// Thread that created the VM, in the initial pid namespace: the VMM's first thread or another
    /// of its threads (`kvm_uevent_notify_change` takes `task_pid_nr(current)`). At a VM's end it
    /// may be another's by now.
    pub tid: u32,
}

/// What happened to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmEventKind {
    /// It was created.
    Create,
    /// Its last descriptor was closed.
    Destroy,
    /// KVM itself came: its module was loaded. Of no thread.
    Kvm,
}

/// A message of the kernel's, if it is of a VM: `change@/devices/virtual/misc/kvm`, then `KEY=VALUE`
/// each with a NUL behind it (`kvm_uevent_notify_change`, virt/kvm/kvm_main.c, 4.14+;
/// `kobject_uevent_env`).
pub fn parse(message: &[u8]) -> Option<VmEvent> {
    let mut fields = message.split(|byte| *byte == 0);
    let (action, device) = split_once(fields.next()?, b'@')?;
    // Sent as the last thing when a processor's module is loaded (`kvm_init`: `misc_register`).
    if action == b"add" && device == KVM {
        let kind = VmEventKind::Kvm;
        return Some(VmEvent { kind, tid: 0 });
    }
    if action != b"change" || device != KVM {
        return None;
    }
    let mut kind = None;
    let mut tid = None;
    for field in fields {
        match split_once(field, b'=') {
            Some((b"EVENT", b"create")) => kind = Some(VmEventKind::Create),
            Some((b"EVENT", b"destroy")) => kind = Some(VmEventKind::Destroy),
            Some((b"PID", number)) => tid = std::str::from_utf8(number).ok()?.parse().ok(),
            _ => {}
        }
    }
    Some(VmEvent {
        kind: kind?,
        tid: tid?,
    })
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The kernel's uevents of VMs. Readable when there are some; it sees those of the whole host only
/// in a network namespace of the initial user namespace, as all are that no unprivileged user made.
#[derive(Debug)]
pub struct VmEvents(OwnedFd);

/// What a reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A VM's event.
    Event(VmEvent),
    /// Events were lost, as they were not read in time: look for VMs anew.
    Overrun,
}

impl VmEvents {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel has no uevents, or refuses the socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        // Needs CAP_NET_ADMIN; without it the default has room for some hundred messages, and what
        // is lost is told.
        let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// The next event of a VM, if one is there. Other devices' are passed over, and so is whatever
    /// the kernel did not send itself: any process with CAP_NET_ADMIN may send to the group, but
    /// not from port 0.
    ///
    /// # Errors
    /// The socket fails.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0; MESSAGE_LIMIT];
        loop {
            let (message, sender) = match recvfrom(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((filled, _, sender)) => (filled, sender),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => return Ok(Some(Received::Overrun)),
                Err(error) => return Err(error.into()),
            };
            let is_kernels = sender
                .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                .is_some_and(|sender| sender.pid() == 0 && sender.groups() == KERNEL_GROUP);
            if is_kernels && let Some(event) = parse(&buffer[..message]) {
                return Ok(Some(Received::Event(event)));
            }
        }
    }
}

impl AsRawFd for VmEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use kvm_ioctls::Kvm;

    use super::*;

    const CREATE: &[u8] = b"change@/devices/virtual/misc/kvm\0ACTION=change\0\
        DEVPATH=/devices/virtual/misc/kvm\0SUBSYSTEM=misc\0CREATED=5\0COUNT=2\0EVENT=create\0\
        PID=4711\0STATS_PATH=/kvm/4711-12\0MAJOR=10\0MINOR=232\0DEVNAME=kvm\0SEQNUM=999\0";

    #[test]
    fn messages() {
        let event = VmEvent {
            kind: VmEventKind::Create,
            tid: 4711,
        };
        assert_eq!(parse(CREATE), Some(event));
        let text = String::from_utf8(CREATE.to_vec()).unwrap();
        let destroy = text.replace("EVENT=create", "EVENT=destroy");
        let kind = parse(destroy.as_bytes()).map(|event| event.kind);
        assert_eq!(kind, Some(VmEventKind::Destroy));
        for (from, to) in [
            ("change@", "remove@"),
            ("misc/kvm\0", "misc/kvm2\0"),
            ("EVENT=create", "EVENT=other"),
            ("PID=4711", "PID=-1"),
            ("PID=4711", "PID="),
            ("\0", "\n"),
        ] {
            assert_eq!(
                parse(text.replacen(from, to, 1).as_bytes()),
                None,
                "{from:?} {to:?}"
            );
        }
        let added = text.replacen("change@", "add@", 1);
        let kind = parse(added.as_bytes()).map(|event| event.kind);
        assert_eq!(kind, Some(VmEventKind::Kvm));
        // What udev sends on begins otherwise.
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }

    #[test]
    fn fuzz_uevent() {
        bolero::check!(name = "uevent").for_each(|message: &[u8]| {
            if parse(message).is_some() {
                let device = b"@/devices/virtual/misc/kvm\0";
                assert!(message.windows(device.len()).any(|part| part == device));
            }
            // Whatever stands behind a whole message changes at most its values.
            let mut longer = CREATE.to_vec();
            longer.extend(message);
            let _ = parse(&longer);
        });
    }

    /// The next event of this very thread's.
    fn own(events: &VmEvents) -> Option<VmEventKind> {
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        while let Some(received) = events.next().unwrap() {
            match received {
                Received::Event(event) if event.tid == tid => return Some(event.kind),
                Received::Event(_) | Received::Overrun => {}
            }
        }
        None
    }

    #[test]
    fn a_real_vm() {
        let events = match VmEvents::open() {
            Ok(events) => events,
            Err(error) => {
                eprintln!("skipped: uevents: {error}");
                return;
            }
        };
        let vm = match Kvm::new().and_then(|kvm| kvm.create_vm()) {
            Ok(vm) => vm,
            Err(error) => {
                eprintln!("skipped: /dev/kvm: {error}");
                return;
            }
        };
        // Sent before the system call returns.
        assert_eq!(own(&events), Some(VmEventKind::Create));
        drop(vm);
        assert_eq!(own(&events), Some(VmEventKind::Destroy));
        assert_eq!(own(&events), None);
    }

    #[test]
    fn a_process_cannot_speak_for_the_kernel() {
        let Ok(events) = VmEvents::open() else {
            eprintln!("skipped: no uevents");
            return;
        };
        let sender = VmEvents::open().unwrap();
        let group = SocketAddrNetlink::new(0, KERNEL_GROUP);
        let forged = String::from_utf8(CREATE.to_vec()).unwrap().replace(
            "PID=4711",
            &format!("PID={}", rustix::thread::gettid().as_raw_nonzero()),
        );
        let flags = rustix::net::SendFlags::empty();
        match rustix::net::sendto(&sender.0, forged.as_bytes(), flags, &group) {
            Ok(_) => assert_eq!(own(&events), None),
            Err(error) => eprintln!("skipped: this user may not send to the group: {error}"),
        }
    }
}
