//! Connections: how long each may take, and which goes where there is no room for all.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    select,
    task::{AbortHandle, Id},
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

/// From the connection, or the last answer, to the whole head of a request. A scraper whose
/// connection was closed meanwhile makes a new one.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For a client that neither reads nor writes while the agent waits for it.
pub const STALL_TIME: Duration = Duration::from_secs(10);
/// The same, where another client needs its place or the memory of its answer.
const SHORT_STALL_TIME: Duration = Duration::from_secs(1);
/// From the connection to the last request.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// For the answer to that, however steadily the client reads.
const LAST_ANSWER_TIME: Duration = Duration::from_secs(30);
/// The longest head of a request. hyper's own default is 400 KiB.
const HEAD_BYTES: usize = 16 * 1024;

/// Whom a connection waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// The agent.
    Agent,
    /// The client, to ask, since it was last heard of.
    Request(Instant),
    /// The client, to read, since it last did.
    Reading(Instant),
}

/// Who makes a connection wait, and since when.
pub struct Progress(Mutex<Waits>);

impl Progress {
    fn get(&self) -> Waits {
        *lock(&self.0)
    }

    fn set(&self, waits: Waits) {
        *lock(&self.0) = waits;
    }

    /// The client has sent something, which is no reason to give it more time for reading.
    fn heard(&self) {
        if let Waits::Request(since) = &mut *lock(&self.0) {
            *since = Instant::now();
        }
    }

    /// The kernel takes no more of the answer.
    fn blocked(&self) {
        let mut waits = lock(&self.0);
        if let Waits::Request(since) = *waits {
            *waits = Waits::Reading(since);
        }
    }

    fn since(&self) -> Option<Instant> {
        match self.get() {
            Waits::Agent => None,
            Waits::Request(since) | Waits::Reading(since) => Some(since),
        }
    }

    /// Waits until the client has stalled.
    async fn has_stalled(&self) {
        loop {
            let end = self.since().unwrap_or_else(Instant::now) + STALL_TIME;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// All connections.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<Id, Client>>>);

struct Client {
    task: AbortHandle,
    progress: Arc<Progress>,
}

impl Clients {
    /// Enters a connection that `task` serves.
    pub fn add(&self, task: AbortHandle, progress: Arc<Progress>) {
        lock(&self.0).insert(task.id(), Client { task, progress });
    }

    /// Forgets a connection whose task has ended.
    pub fn remove(&self, id: Id) {
        lock(&self.0).remove(&id);
    }

    /// Closes the connection whose client has stalled for longest.
    pub fn evict_stalled(&self) {
        self.evict(Progress::since);
    }

    /// The same among those that do not read their answer.
    pub fn evict_unread(&self) {
        self.evict(|progress| match progress.get() {
            Waits::Reading(since) => Some(since),
            Waits::Agent | Waits::Request(_) => None,
        });
    }

    fn evict(&self, since: impl Fn(&Progress) -> Option<Instant>) {
        let mut clients = lock(&self.0);
        let longest = clients
            .iter()
            .filter_map(|(id, client)| Some((since(&client.progress)?, *id)))
            .filter(|(since, _)| since.elapsed() >= SHORT_STALL_TIME)
            .min_by_key(|(since, _)| *since);
        if let Some((since, id)) = longest
            && let Some(client) = clients.remove(&id)
        {
            debug!(stalled = ?since.elapsed(), "a connection makes room for others");
            client.task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a connection until its end.
pub fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
) -> (Arc<Progress>, impl Future<Output = ()>) {
    let progress = Arc::new(Progress(Mutex::new(Waits::Request(Instant::now()))));
    let watched = Watched {
        stream,
        progress: Arc::clone(&progress),
    };
    let served = async move {
        if let Err(reason) = serve_watched(watched, router).await {
            debug!(%peer, reason, "connection");
        }
    };
    (progress, served)
}

async fn serve_watched(watched: Watched, router: Router) -> Result<(), String> {
    let progress = Arc::clone(&watched.progress);
    let router = TowerToHyperService::new(router.into_service::<Incoming>());
    let asked = Arc::clone(&progress);
    let service = service_fn(move |request| {
        asked.set(Waits::Agent);
        let answer = router.call(request);
        let asked = Arc::clone(&asked);
        async move {
            let answer = answer.await;
            asked.set(Waits::Request(Instant::now()));
            answer
        }
    });
    // A request that was sent before the last one's answer is read waits: hyper reads a head only
    // once it has written what it has (Conn::poll_flush calls try_keep_alive).
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES)
            // Answers are shared, not copied.
            .writev(true)
            .serve_connection(TokioIo::new(watched), service)
    );
    select! {
        result = connection.as_mut() => return result.map_err(|error| error.to_string()),
        () = progress.has_stalled() => return Err("stalled".to_owned()),
        () = sleep(CONNECTION_TIME) => connection.as_mut().graceful_shutdown(),
    }
    select! {
        result = connection => result.map_err(|error| error.to_string()),
        () = progress.has_stalled() => Err("stalled".to_owned()),
        () = sleep(LAST_ANSWER_TIME) => Err("slow".to_owned()),
    }
}

/// A connection that notes what moves.
struct Watched {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl Watched {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(_) => self.progress.set(Waits::Request(Instant::now())),
            Poll::Pending => self.progress.blocked(),
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.progress.heard();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The client cannot make anything of half an answer, which the kernel would keep for it.
        if matches!(self.progress.get(), Waits::Reading(_)) {
            // Without this the kernel gives up later.
            let _ = self.stream.set_zero_linger();
        }
    }
}
