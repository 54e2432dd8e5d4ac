//! The test's side of a child that makes events.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::guise::{Disguised, Guise};
use super::{COMM_MAX, Event, ORDERS, Results};

/// How long the test waits for any one step of a child before it kills it and fails. On an idle
/// machine the longest takes seconds, under emulation two minutes: a crowd of 10,000.
const DEADLINE: Duration = Duration::from_secs(150);

/// A child process that makes one kind of event, or becomes another program.
///
/// It is killed when this value is dropped, and by the kernel when the *thread* that called
/// [`spawn`](Self::spawn) ends (`PR_SET_PDEATHSIG` goes by threads), so a child must not outlive
/// the test that started it. Every method panics with what the child was to do if it fails or
/// takes longer than a minute.
pub struct Child {
    process: process::Child,
    /// `None` once the child was told to end.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it was started as, for messages.
    what: String,
    /// Its file, if that is another's.
    disguised: Option<Disguised>,
}

impl Child {
    /// Starts a child called `comm`, at most 15 bytes, and waits until it is ready. It has made no
    /// event yet.
    #[track_caller]
    pub fn spawn(event: &Event, comm: &str) -> Self {
        Self::start(event, comm, false, None)
    }

    /// Starts a child that looks like another program.
    #[track_caller]
    pub fn spawn_as(event: &Event, comm: &str, guise: &Guise) -> Self {
        Self::start(event, comm, false, Some(guise))
    }

    /// Starts a child that makes its events and exits without waiting for anything:
    /// [`results`](Self::results) and [`end`](Self::end) follow, [`go`](Self::go) does not.
    #[track_caller]
    pub fn spawn_exit_at_once(event: &Event, comm: &str) -> Self {
        Self::start(event, comm, true, None)
    }

    /// Its process id (tgid).
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What became of it, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(status) => status.map(|status| format!("{}: {status}", self.what)),
            Err(error) => Some(format!("{}: {error}", self.what)),
        }
    }

    /// Lets it make its events, and does not wait for them.
    #[track_caller]
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("go comes before the end");
        if let Err(error) = stdin.write_all(b"go\n") {
            self.fail(&format!("did not take go: {error}"));
        }
    }

    /// Waits until it has made its events, and returns what it counted. The child lives on.
    #[track_caller]
    pub fn results(&mut self) -> Results {
        let results = self.expect_line("done");
        match results.parse() {
            Ok(results) => results,
            Err(error) => self.fail(&format!("gave unreadable results: {error:#}")),
        }
    }

    /// [`go`](Self::go), then [`results`](Self::results).
    #[track_caller]
    pub fn run(&mut self) -> Results {
        self.go();
        self.results()
    }

    /// Stops all of its threads, and waits until they stand still.
    #[track_caller]
    pub fn stop(&mut self) {
        let pid = self.pid().cast_signed();
        // SAFETY: the process is this value's child and was not waited for, so its pid is its own.
        let status = unsafe { libc::kill(pid, libc::SIGSTOP) };
        assert_eq!(status, 0, "SIGSTOP: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: as above; the status is written to a local.
        let stopped = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
        if stopped != pid || !libc::WIFSTOPPED(status) {
            self.fail("did not stop");
        }
    }

    /// Gives it another comm, after its results.
    #[track_caller]
    pub fn rename(&mut self, comm: &str) {
        let stdin = self.stdin.as_mut().expect("it has not been let go");
        if let Err(error) = writeln!(stdin, "{comm}") {
            self.fail(&format!("did not take a new comm: {error}"));
        }
        self.expect_line("renamed");
    }

    /// Lets it exit, waits for that, and reaps it.
    #[track_caller]
    pub fn end(mut self) -> ExitStatus {
        self.stdin = None;
        let start = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return status,
                Ok(None) if start.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(2)),
                Ok(None) => self.fail(&format!("did not exit within {DEADLINE:?}")),
                Err(error) => self.fail(&format!("cannot be waited for: {error}")),
            }
        }
    }

    /// Starts a process that becomes another program when it is let [`go`](Self::go). Until then it
    /// has one thread, and nothing of it has happened.
    #[track_caller]
    pub fn spawn_program(program: &Path, args: &[&OsStr], environment: &[(&str, &OsStr)]) -> Self {
        let mut command = Command::new(this_program());
        command.args(["become", "--parent", &process::id().to_string()]);
        command.arg(program).args(args);
        command.envs(environment.iter().copied());
        Self::wait_until_ready(command, &program.display().to_string())
    }

    #[track_caller]
    fn start(event: &Event, comm: &str, exit_at_once: bool, guise: Option<&Guise>) -> Self {
        assert!(
            comm.len() <= COMM_MAX,
            "{comm}: a comm has at most {COMM_MAX} bytes"
        );
        let mut orders = vec!["event".to_owned(), "--comm".to_owned(), comm.to_owned()];
        orders.extend(["--parent".to_owned(), process::id().to_string()]);
        orders.extend(exit_at_once.then(|| "--exit-at-once".to_owned()));
        orders.extend(event.words());
        let what = format!("{comm}, {}", event.words().join(" "));
        let Some(guise) = guise else {
            let mut command = Command::new(this_program());
            command.args(orders);
            return Self::wait_until_ready(command, &what);
        };
        let disguised = Disguised::as_program(&guise.program).expect("a link to the test binary");
        let mut command = Command::new(disguised.program());
        command
            .args(&guise.arguments)
            .env(ORDERS, orders.join("\n"));
        let mut child = Self::wait_until_ready(command, &what);
        child.disguised = Some(disguised);
        child
    }

    #[track_caller]
    fn wait_until_ready(mut command: Command, what: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        // A thread, as a pipe has no read with a deadline. It ends with the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut child = Self {
            what: format!("{what} (pid {})", process.id()),
            process,
            stdin,
            lines,
            disguised: None,
        };
        let pid = child.expect_line("ready");
        assert_eq!(
            pid,
            child.pid().to_string(),
            "{} is in another pid namespace",
            child.what
        );
        child
    }

    /// The rest of the next line, which has to begin with `word`.
    #[track_caller]
    fn expect_line(&mut self, word: &str) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => match line.split_once(' ') {
                Some((first, rest)) if first == word => rest.to_owned(),
                _ => self.fail(&format!("wrote {line:?} instead of {word:?}")),
            },
            Err(RecvTimeoutError::Timeout) => {
                self.fail(&format!("did not write {word:?} within {DEADLINE:?}"))
            }
            Err(RecvTimeoutError::Disconnected) => self.fail(&format!(
                "ended before it wrote {word:?}; its standard error says why"
            )),
        }
    }

    /// Kills the child and panics.
    #[track_caller]
    fn fail(&mut self, how: &str) -> ! {
        let status = self.kill();
        panic!("{} {how} ({status})", self.what)
    }

    /// What became of the child, in words.
    fn kill(&mut self) -> String {
        // Fails for a child that was reaped, which is as good.
        let _ = self.process.kill();
        match self.process.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

fn this_program() -> PathBuf {
    env::current_exe().expect("a test binary knows its own path")
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
