//! The terminal: taken, drawn on, and given back however it ends.

use std::{
    io::{self, IsTerminal as _, Stdout, stdout},
    panic,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event as Input},
        execute,
        style::force_color_output,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::{
    runtime::Builder,
    select,
    signal::unix::{SignalKind, signal},
};

use super::{
    answer::Detail,
    app::App,
    keys::{self, Next},
    looks,
    order::Sort,
    picture::Picture,
    screen,
    source::Source,
    theme::Theme,
};
use crate::{cli::top::TopOptions, subjects::SubjectId};

/// What the screen waits for.
pub enum Event {
    /// A key, or another size.
    Input(Input),
    /// A new picture, and the time to the next.
    Picture {
        /// It.
        picture: Arc<Picture>,
        /// Until the next.
        pace: Duration,
    },
    /// No picture, and why.
    Failure(String),
    /// One subject in full.
    Detail(SubjectId, Option<Box<Detail>>),
    /// A signal to end.
    End,
    /// Something without which there is nothing to do ended.
    Broken(String),
}

/// Shows what a source has until somebody has seen enough.
///
/// # Errors
/// There is no terminal, or no answer to the first look.
pub fn show(options: &TopOptions, source: Source) -> Result<()> {
    ensure!(
        stdout().is_terminal(),
        "standard output is no terminal; --once prints a plain table, --json the same for scripts"
    );
    if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        bail!("TERM names no terminal that can be drawn on; --once prints a plain table");
    }
    let answer = source.snapshot().map_err(anyhow::Error::msg)?;
    let first = Picture::new(answer, Instant::now(), None);
    let sort = Sort {
        column: options.sort,
        reversed: options.reverse,
    };
    let theme = Theme::of(options.color);
    let mut app = App::new(source.name(), theme, options.interval, sort, first);
    app.filter_by(&options.filter);
    let (sender, events) = mpsc::channel();
    wait_for_signals(sender.clone())?;
    let first = Arc::clone(app.picture());
    let wishes = looks::start(source, options.interval, first, sender.clone())?;
    force_color_output(theme.has_colour());
    let mut taken = Taken::take()?;
    read_input(sender)?;
    let ended = watch(&mut app, &mut taken, &events, &wishes);
    drop(taken);
    ended
}

fn watch(
    app: &mut App,
    taken: &mut Taken,
    events: &Receiver<Event>,
    wishes: &Sender<looks::Wanted>,
) -> Result<()> {
    let mut wanted = None;
    loop {
        taken
            .terminal
            .draw(|frame| screen::draw(frame, app))
            .context("drawing on the terminal")?;
        let first = events.recv().context("all that there is to show ended")?;
        // What came meanwhile, too: a screen between would be seen by nobody.
        for event in std::iter::once(first).chain(events.try_iter()) {
            match event {
                Event::Input(Input::Key(key)) => match keys::press(app, key) {
                    Next::Draw => {}
                    Next::Quit => return Ok(()),
                    Next::Suspend => taken.suspend()?,
                },
                Event::Input(_) => {}
                Event::Picture { picture, pace } => app.take_picture(picture, pace),
                Event::Failure(why) => app.take_failure(why),
                Event::Detail(key, detail) => app.take_detail(key, detail.map(|detail| *detail)),
                Event::End => return Ok(()),
                Event::Broken(what) => bail!("{what} ended"),
            }
        }
        if app.wanted() != wanted {
            wanted = app.wanted();
            wishes.send(wanted).context("nobody looks any more")?;
        }
    }
}

/// A terminal in raw mode, on its alternate screen.
struct Taken {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Taken {
    fn take() -> Result<Self> {
        let print = panic::take_hook();
        // The message belongs on the screen that stays.
        panic::set_hook(Box::new(move |info| {
            give_back();
            print(info);
        }));
        let taken = Self {
            terminal: new_terminal()?,
        };
        enter().context("taking the terminal")?;
        Ok(taken)
    }

    /// Stops this process as a shell expects it, and takes the terminal again when it goes on. Without
    /// a shell that could bring it back the kernel ignores the signal.
    fn suspend(&mut self) -> Result<()> {
        give_back();
        // SAFETY: raising a signal touches no memory; SIGTSTP stops all threads until SIGCONT.
        unsafe { libc::raise(libc::SIGTSTP) };
        // Not cleared but made anew: ratatui's `clear` asks for the place of the cursor, and the
        // answer goes to the thread that reads keys.
        self.terminal = new_terminal()?;
        enter().context("taking the terminal again")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn new_terminal() -> Result<Terminal<CrosstermBackend<Stdout>>> {
    Terminal::new(CrosstermBackend::new(stdout())).context("asking the terminal for its size")
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

/// As much as can be given back: a terminal that is gone takes nothing.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// SIGINT comes from elsewhere: in raw mode Ctrl-C is a key.
fn wait_for_signals(events: Sender<Event>) -> Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build()
        .context("starting a runtime for signals")?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let mut quit = signal(SignalKind::quit()).context("waiting for SIGQUIT")?;
    drop(guard);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                    _ = quit.recv() => {}
                }
            });
            // The screen may be gone already.
            let _ = events.send(Event::End);
        })
        .context("starting a thread for signals")?;
    Ok(())
}

fn read_input(events: Sender<Event>) -> Result<()> {
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            loop {
                let event = match event::read() {
                    Ok(input) => Event::Input(input),
                    Err(error) => Event::Broken(format!("the terminal's input ({error})")),
                };
                let is_last = matches!(event, Event::Broken(_));
                if events.send(event).is_err() || is_last {
                    return;
                }
            }
        })
        .context("starting a thread for the input")?;
    Ok(())
}
