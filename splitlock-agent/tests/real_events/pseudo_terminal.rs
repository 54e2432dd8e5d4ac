//! A terminal without a person: a program runs in it, and its screen can be read.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    num::NonZeroU16,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use vt100::Parser;

/// For anything that the program is to do.
const DEADLINE: Duration = Duration::from_secs(60);

/// The terminal, and the program in it, which is killed when this value is dropped.
pub struct PseudoTerminal {
    program: Child,
    /// The person's side.
    master: File,
    /// The program's side, which stays open so that it can be looked at.
    slave: OwnedFd,
    screen: Arc<Mutex<Parser>>,
    /// How the program found it.
    settings: Settings,
}

/// What a program may change of a terminal, and has to put back.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    flags: [libc::tcflag_t; 4],
    characters: [libc::cc_t; libc::NCCS],
}

impl PseudoTerminal {
    /// Starts a program in a terminal of so many columns and rows.
    #[track_caller]
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let (master, slave) = open(&size(columns, rows)).expect("a free terminal");
        let copy = || slave.try_clone().expect("a free descriptor");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        command.env("TERM", "xterm-256color");
        // SAFETY: between fork and exec only these two system calls are made.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let settings = settings(&slave);
        let program = command.spawn().expect("the program starts");
        // The command has copies of the slave's descriptor.
        drop(command);
        let screen = Arc::new(Mutex::new(Parser::new(some(rows), some(columns), 0)));
        let mut output = master.try_clone().expect("a free descriptor");
        let seen = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock()
                    .expect("no reader panics")
                    .process(&bytes[..count]);
            }
        });
        Self {
            program,
            master,
            slave,
            screen,
            settings,
        }
    }

    /// Types.
    #[track_caller]
    pub fn keys(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("it takes keys");
    }

    /// Gives it another size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let mut screen = self.screen.lock().expect("no writer panics");
        screen.screen_mut().set_size(some(rows), some(columns));
        let size = size(columns, rows);
        // SAFETY: the kernel reads one winsize.
        let status =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(status, 0, "TIOCSWINSZ");
    }

    /// What is to be read on it.
    pub fn text(&self) -> String {
        let screen = self.screen.lock().expect("no writer panics");
        screen.screen().contents()
    }

    /// Waits until all these texts are on it at once.
    #[track_caller]
    pub fn wait_for(&mut self, texts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if texts.iter().all(|part| text.contains(part)) {
                return text;
            }
            let ended = self.program.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && start.elapsed() < DEADLINE,
                "{texts:?} did not come ({ended:?}):\n{text}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is this value's child and was not waited for, so its pid is its own.
        let status = unsafe { libc::kill(self.program.id().cast_signed(), signal) };
        assert_eq!(status, 0, "kill");
    }

    /// Waits until the program is on the alternate screen, or off it.
    #[track_caller]
    pub fn wait_for_screen(&mut self, is_alternate: bool) {
        let start = Instant::now();
        while self.is_alternate() != is_alternate {
            assert!(start.elapsed() < DEADLINE, "{}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the program has put everything back as it was.
    #[track_caller]
    pub fn assert_restored(&mut self) {
        // What it wrote last may still be under way.
        self.wait_for_screen(false);
        assert_eq!(settings(&self.slave), self.settings);
        let screen = self.screen.lock().expect("no writer panics");
        assert!(!screen.screen().hide_cursor(), "the cursor is hidden");
    }

    /// Whether the program has changed how the terminal works.
    pub fn is_raw(&self) -> bool {
        settings(&self.slave) != self.settings
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.program.try_wait().expect("it is our child") {
                return status;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "it did not end:\n{}",
                self.text()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_alternate(&self) -> bool {
        let screen = self.screen.lock().expect("no writer panics");
        screen.screen().alternate_screen()
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Whether this machine has any.
pub fn available() -> Result<(), String> {
    open(&size(80, 24))
        .map(|_| ())
        .map_err(|error| format!("openpty: {error}"))
}

fn some(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a terminal has columns and rows")
}

const fn size(columns: u16, rows: u16) -> libc::winsize {
    libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn open(size: &libc::winsize) -> io::Result<(File, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: two descriptors are written to locals, one winsize is read; the name and the settings
    // are left out.
    let status = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::from_ref(size),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so both are open and nobody else's.
    let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for descriptor in [master.as_raw_fd(), slave.as_raw_fd()] {
        // SAFETY: it sets a flag of a descriptor that is open.
        let status = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        assert_eq!(status, 0, "F_SETFD");
    }
    Ok((master, slave))
}

fn settings(terminal: &OwnedFd) -> Settings {
    let mut termios = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: one termios is written to a local.
    let status = unsafe { libc::tcgetattr(terminal.as_raw_fd(), termios.as_mut_ptr()) };
    assert_eq!(status, 0, "tcgetattr: {}", io::Error::last_os_error());
    // SAFETY: the call succeeded, so it is written.
    let termios = unsafe { termios.assume_init() };
    Settings {
        flags: [
            termios.c_iflag,
            termios.c_oflag,
            termios.c_cflag,
            termios.c_lflag,
        ],
        characters: termios.c_cc,
    }
}
