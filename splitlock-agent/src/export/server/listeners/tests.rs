//! Sockets as an operator's system may have them.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("listeners-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> ListenAddress {
        ListenAddress::Unix(self.0.join("a.sock"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_socket_is_for_its_user_and_group() {
    let folder = Folder::new("mode");
    let listener = Listener::open(&folder.socket()).unwrap();
    assert_eq!(listener.address().unwrap(), folder.socket());
    let mode = fs::metadata(folder.0.join("a.sock")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o660);
}

#[test]
fn a_socket_is_taken_over_only_where_nobody_listens() {
    let folder = Folder::new("stale");
    let first = Listener::open(&folder.socket()).unwrap();
    let error = Listener::open(&folder.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(StdUnixStream::connect(folder.0.join("a.sock")).is_ok());
    // Its owner ended without removing it.
    drop(first);
    let second = Listener::open(&folder.socket()).unwrap();
    assert!(StdUnixStream::connect(folder.0.join("a.sock")).is_ok());
    drop(second);
    // What is no socket is nobody's to remove.
    fs::remove_file(folder.0.join("a.sock")).unwrap();
    fs::write(folder.0.join("a.sock"), "precious").unwrap();
    let error = Listener::open(&folder.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(folder.0.join("a.sock")).unwrap(), b"precious");
}

#[test]
fn what_is_handed_over_has_to_be_listened_on() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listening.local_addr().unwrap();
    let taken = Listener::of(listening.into()).unwrap();
    assert_eq!(taken.address().unwrap(), ListenAddress::Tcp(address));
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (one, _other) = StdUnixStream::pair().unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    for (other, reason) in [
        (OwnedFd::from(datagrams), "ListenStream"),
        (OwnedFd::from(one), "ListenStream"),
        (OwnedFd::from(file), "no socket"),
    ] {
        let error = format!("{:#}", Listener::of(other).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
}
