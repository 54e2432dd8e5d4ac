//! Connections: how long each may take, and which goes where there is no room for all.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::{self, IoSlice},
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
    select,
    task::{AbortHandle, Id},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{gate::Gate, peer::Peer, refusals::Cause, stream::Stream};

/// From the connection, or the last answer, to the whole head of a request. A scraper whose
/// connection was closed meanwhile makes a new one.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For a TLS handshake, from the connection on.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// For a client that neither reads nor writes while the agent waits for it.
pub const STALL_TIME: Duration = Duration::from_secs(10);
/// The same, where another client needs its place or the memory of its answer.
const SHORT_STALL_TIME: Duration = Duration::from_secs(1);
/// The same, where the client itself needs it for one more connection: a crowd of one client's is
/// gone through faster than the client can make it.
const OWN_STALL_TIME: Duration = Duration::from_millis(20);
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
    peer: Peer,
}

impl Clients {
    /// Enters a connection that `task` serves.
    pub fn add(&self, task: AbortHandle, progress: Arc<Progress>, peer: Peer) {
        let client = Client {
            task,
            progress,
            peer,
        };
        lock(&self.0).insert(client.task.id(), client);
    }

    /// Forgets a connection whose task has ended.
    pub fn remove(&self, id: Id) {
        lock(&self.0).remove(&id);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// How many a client has.
    pub fn count_of(&self, peer: Peer) -> usize {
        let clients = lock(&self.0);
        clients.values().filter(|one| one.peer == peer).count()
    }

    /// Closes the one of a client's own connections that has stalled for longest.
    pub fn evict_own(&self, peer: Peer) -> bool {
        self.evict(OWN_STALL_TIME, |client| {
            (client.peer == peer)
                .then(|| client.progress.since())
                .flatten()
        })
    }

    /// Closes the connection whose client has stalled for longest.
    pub fn evict_stalled(&self) -> bool {
        self.evict(SHORT_STALL_TIME, |client| client.progress.since())
    }

    /// The same among those that do not read their answer.
    pub fn evict_unread(&self) -> bool {
        self.evict(SHORT_STALL_TIME, |client| match client.progress.get() {
            Waits::Reading(since) => Some(since),
            Waits::Agent | Waits::Request(_) => None,
        })
    }

    fn evict(&self, least: Duration, since: impl Fn(&Client) -> Option<Instant>) -> bool {
        let mut clients = lock(&self.0);
        let longest = clients
            .iter()
            .filter_map(|(id, client)| Some((since(client)?, *id)))
            .filter(|(since, _)| since.elapsed() >= least)
            .min_by_key(|(since, _)| *since);
        let Some((since, id)) = longest else {
            return false;
        };
        if let Some(client) = clients.remove(&id) {
            debug!(client = %client.peer, stalled = ?since.elapsed(), "a connection makes room for others");
            client.task.abort();
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a connection until its end.
pub fn serve(
    stream: Stream,
    peer: Peer,
    gate: Arc<Gate>,
    router: Router,
) -> (Arc<Progress>, impl Future<Output = ()>) {
    let progress = Arc::new(Progress(Mutex::new(Waits::Request(Instant::now()))));
    let watched = Watched {
        stream,
        progress: Arc::clone(&progress),
    };
    let served = async move {
        if let Err(reason) = serve_watched(watched, peer, gate, router).await {
            debug!(client = %peer, reason, "connection");
        }
    };
    (progress, served)
}

async fn serve_watched(
    watched: Watched,
    peer: Peer,
    gate: Arc<Gate>,
    router: Router,
) -> Result<(), String> {
    let progress = Arc::clone(&watched.progress);
    let Some(tls) = gate.tls(peer) else {
        return serve_http(watched, &progress, peer, gate, router).await;
    };
    let accepting = TlsAcceptor::from(Arc::clone(&tls.config)).accept(watched);
    let accepted = timeout(HANDSHAKE_TIME, accepting).await;
    match accepted {
        Ok(Ok(stream)) => serve_http(stream, &progress, peer, gate, router).await,
        Ok(Err(error)) => {
            gate.refuse(Cause::Handshake);
            Err(format!("TLS: {error}"))
        }
        Err(_) => {
            gate.refuse(Cause::Handshake);
            Err("TLS: no handshake in time".to_owned())
        }
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    progress: &Arc<Progress>,
    peer: Peer,
    gate: Arc<Gate>,
    router: Router,
) -> Result<(), String> {
    let router = TowerToHyperService::new(router.into_service::<Incoming>());
    let asked = Arc::clone(progress);
    let service = service_fn(move |request| {
        asked.set(Waits::Agent);
        let asked = Arc::clone(&asked);
        let gate = Arc::clone(&gate);
        let router = router.clone();
        async move {
            let answer = gate
                .answer(peer, request, |request| router.call(request))
                .await;
            asked.set(Waits::Request(Instant::now()));
            Ok::<_, Infallible>(answer)
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
            .serve_connection(TokioIo::new(stream), service)
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
    stream: Stream,
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
            self.stream.forget_unread();
        }
    }
}
