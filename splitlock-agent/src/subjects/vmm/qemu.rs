//! QEMU's command line: `-name`, `-uuid`, `-smbios`, and Proxmox's `-id`.

use super::{Evidence, Told, uuid};

/// Options without a value, of all versions (qemu-options.hx). Any other is followed by its value.
const FLAGS: &[&str] = &[
    "S",
    "alt-grab",
    "async-teardown",
    "audio-help",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-hax",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "jitdump",
    "localtime",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-frame",
    "no-hpet",
    "no-kvm",
    "no-kvm-irqchip",
    "no-kvm-pit",
    "no-kvm-pit-reinjection",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nodefconfig",
    "nographic",
    "nouserconfig",
    "old-param",
    "only-migratable",
    "perfmap",
    "portrait",
    "preconfig",
    "rtc-td-hack",
    "s",
    "sdl",
    "semihosting",
    "show-cursor",
    "singlestep",
    "snapshot",
    "std-vga",
    "tdf",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-create",
];

/// What the arguments behind the program's name tell.
///
/// libvirt, OpenStack and KubeVirt give `-name guest=NAME,debug-threads=on -uuid UUID`, Proxmox
/// `-id 100 -name NAME,debug-threads=on -smbios type=1,uuid=UUID`, Kata `-name sandbox-ID -uuid UUID`.
pub fn told(arguments: &[&[u8]]) -> Told {
    let mut guest = None;
    let mut vmid = None;
    let mut given = None;
    let mut smbios = None;
    for (option, value) in options(arguments) {
        match option {
            // All `-name` are one list, whose last value of a key counts: `merge_lists` of
            // `qemu_name_opts` (system/vl.c), `qemu_opt_find` (util/qemu-option.c), 8.2.
            b"name" => guest = last_of(value, Some("guest"), b"guest").or(guest),
            b"uuid" => given = uuid::normalise(value).or(given),
            b"smbios" if last_of(value, None, b"type").as_deref() == Some(b"1") => {
                let uuid = last_of(value, None, b"uuid");
                smbios = uuid.and_then(|text| uuid::normalise(&text)).or(smbios);
            }
            b"id" => vmid = Some(value.to_vec()),
            _ => {}
        }
    }
    let name = guest.filter(|name| !name.is_empty()).or(vmid);
    Told {
        name: name.map(|name| (name, Evidence::CommandLine)),
        uuid: given.or(smbios),
    }
}

/// Options and their values, as `lookup_opt` (system/vl.c) finds them: one dash or two; what begins
/// with none is a disk image.
fn options<'a>(arguments: &'a [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let mut rest = arguments.iter().copied().peekable();
    std::iter::from_fn(move || {
        loop {
            let argument = rest.next()?;
            let Some(option) = name_of(argument) else {
                continue;
            };
            if FLAGS.iter().any(|flag| flag.as_bytes() == option) {
                continue;
            }
            // A flag of a version not known here is not to swallow the option behind it. A kernel's
            // command line can be a tenant's, though, and is always a value.
            let next_is_option = rest
                .peek()
                .and_then(|next| name_of(next))
                .is_some_and(|next| matches!(next, b"name" | b"uuid" | b"smbios" | b"id"));
            if next_is_option && option != b"append" {
                continue;
            }
            return Some((option, rest.next()?));
        }
    })
}

fn name_of(argument: &[u8]) -> Option<&[u8]> {
    let option = argument.strip_prefix(b"-")?;
    Some(option.strip_prefix(b"-").unwrap_or(option))
}

/// The last value of a key in an option list, by the rules of `get_opt_name_value`
/// (util/qemu-option.c, 8.2): `,,` in a value is a comma, and a first item without a `=` is the
/// value of the implied key.
fn last_of(list: &[u8], implied: Option<&str>, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    let mut rest = list;
    let mut implied = implied;
    while !rest.is_empty() {
        let stop = rest
            .iter()
            .position(|byte| matches!(byte, b'=' | b','))
            .unwrap_or(rest.len());
        let (name, value_from) = match (rest.get(stop), implied) {
            (Some(b'='), _) => (&rest[..stop], stop + 1),
            (_, Some(implied)) => (implied.as_bytes(), 0),
            // A flag: `foo`, `nofoo`.
            (_, None) => {
                rest = rest.get(stop + 1..).unwrap_or_default();
                continue;
            }
        };
        let (value, end) = unescaped_value(&rest[value_from..]);
        if name == key {
            found = Some(value);
        }
        rest = rest.get(value_from + end + 1..).unwrap_or_default();
        implied = None;
    }
    found
}

/// A value up to a comma that is not doubled, and where it ends.
fn unescaped_value(text: &[u8]) -> (Vec<u8>, usize) {
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == b',' {
            if text.get(at + 1) != Some(&b',') {
                break;
            }
            at += 1;
        }
        value.push(*byte);
        at += 1;
    }
    (value, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(arguments: &[&str]) -> (Option<String>, Option<String>) {
        let arguments: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
        let told = told(&arguments);
        let name = told.name.map(|(name, _)| String::from_utf8(name).unwrap());
        (name, told.uuid)
    }

    fn name(arguments: &[&str]) -> Option<String> {
        of(arguments).0
    }

    const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
    const OTHER: &str = "aaaaaaaa-1d52-d8f3-2516-782e98ab3fa0";

    #[test]
    fn forms_of_a_name() {
        for (list, expected) in [
            ("web1", Some("web1")),
            ("guest=web1,debug-threads=on", Some("web1")),
            ("web1,debug-threads=on", Some("web1")),
            ("web1,process=vm", Some("web1")),
            ("debug-threads=on,guest=web1", Some("web1")),
            ("a,,b,,,,c,debug-threads=on", Some("a,b,,c")),
            ("guest=a=b,,c", Some("a=b,c")),
            ("guest=a,guest=b", Some("b")),
            ("a,guest=b", Some("b")),
            // Only the first item can go without its key.
            ("debug-threads=on,web1", None),
            ("process=vm", None),
            ("", None),
            ("guest=", None),
            (",", None),
        ] {
            assert_eq!(name(&["-name", list]).as_deref(), expected, "{list}");
            assert_eq!(name(&["--name", list]).as_deref(), expected, "{list}");
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        assert_eq!(name(&["-name", "a", "-name", "b"]).as_deref(), Some("b"));
        assert_eq!(
            name(&["-name", "a", "-name", "debug-threads=on"]).as_deref(),
            Some("a")
        );
        assert_eq!(
            of(&["-uuid", OTHER, "-uuid", UUID]).1.as_deref(),
            Some(UUID)
        );
    }

    #[test]
    fn a_value_is_no_option() {
        // A tenant's kernel command line.
        assert_eq!(
            name(&["-append", "-name", "-name", "web1", "-append", "-uuid"]).as_deref(),
            Some("web1")
        );
        assert_eq!(of(&["-append", "-uuid", UUID]).1, None);
        assert_eq!(
            name(&["disk.img", "-snapshot", "-name", "a"]).as_deref(),
            Some("a")
        );
        // A flag of the future.
        assert_eq!(name(&["-brand-new", "-name", "a"]).as_deref(), Some("a"));
        assert_eq!(name(&["-name"]), None);
    }

    #[test]
    fn uuids() {
        assert_eq!(
            of(&["-uuid", &UUID.to_uppercase()]).1.as_deref(),
            Some(UUID)
        );
        assert_eq!(of(&["-uuid", "no"]).1, None);
        let smbios = format!("type=1,manufacturer=a,,b,uuid={UUID}");
        assert_eq!(of(&["-smbios", &smbios]).1.as_deref(), Some(UUID));
        assert_eq!(of(&["-smbios", &format!("type=2,uuid={UUID}")]).1, None);
        assert_eq!(
            of(&["-smbios", &format!("type=1,serial=x,,uuid={UUID}")]).1,
            None
        );
        let both = ["-smbios", &format!("type=1,uuid={OTHER}"), "-uuid", UUID];
        assert_eq!(of(&both).1.as_deref(), Some(UUID));
    }

    #[test]
    fn proxmox_has_a_number() {
        assert_eq!(
            name(&["-id", "100", "-name", "web1,debug-threads=on"]).as_deref(),
            Some("web1")
        );
        assert_eq!(name(&["-id", "100"]).as_deref(), Some("100"));
    }

    proptest! {
        #[test]
        fn commas_come_back(name: Vec<u8>, implied: bool) {
            prop_assume!(!name.is_empty());
            // QEMU takes a first item with a `=` before any comma for a key and its value.
            prop_assume!(!implied || !name.contains(&b'='));
            let mut list = if implied { vec![] } else { b"guest=".to_vec() };
            for byte in &name {
                list.push(*byte);
                if *byte == b',' {
                    list.push(b',');
                }
            }
            list.extend(b",debug-threads=on");
            let arguments: [&[u8]; 2] = [b"-name", &list];
            prop_assert_eq!(told(&arguments).name.map(|(name, _)| name), Some(name));
        }
    }
}
