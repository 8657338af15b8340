//! Connections: how many there are, and how long each may keep us waiting.
//!
//! A client that opens a connection and says nothing, or half a header, is let go after the patience for heads; one that takes
//! nothing of what is sent to it after the patience for sending, wherever the bytes come from: an answer, an event stream or a
//! socket. A connection of HTTP/2, which may carry many requests at once, is ended in order when it has carried none for as long.
//! HTTP/2 is spoken where a client agrees on it in the handshake of TLS; a plain connection is HTTP/1.1. When all places are taken new connections wait in the queue of the operating system. A connection that became a
//! socket gives its place back; sockets have their own limits.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::{
    Request, Uri,
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Peer, assets::Bare, tls::Certificate};
use crate::config::Limits;

/// How long nothing is accepted when the operating system has nothing to give.
const EXHAUSTED_FOR: Duration = Duration::from_secs(1);

/// Requests of one connection of HTTP/2 at a time.
const STREAMS: u32 = 128;
/// Bytes of the headers of one request of HTTP/2.
const HEADERS: u32 = 64 * 1024;

/// What every connection is served with.
#[derive(Clone)]
pub(super) struct House {
    pub(super) router: Router,
    pub(super) limits: Limits,
    /// Spoken in by all connections, if there is one.
    pub(super) certificate: Option<Certificate>,
    /// The path under which the service stands behind a proxy, without the slash at its end; empty for none.
    pub(super) base: Arc<str>,
    /// How long requests that are under way at the shutdown may take to end.
    pub(super) patience: Duration,
}

/// Accepts connections until `stop`, then lets what is under way end, for a bounded time.
pub(super) async fn accept(listener: TcpListener, house: House, stop: CancellationToken) {
    let limits = &house.limits;
    let room = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let under_way = TaskTracker::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok((listener.accept().await?, place))
        };
        let accepted: io::Result<_> = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(((stream, address), place)) => {
                let speaking = speak(stream, address, house.clone(), stop.clone());
                under_way.spawn(async move {
                    speaking.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                sleep(EXHAUSTED_FOR).await;
            }
        }
    }
    drop(listener);
    under_way.close();
    if timeout(house.patience, under_way.wait()).await.is_err() {
        tracing::warn!("requests were still under way at the end of the shutdown");
    }
}

/// Whether the error is about the connection that was about to be accepted, and not about accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// The whole life of a connection, up to its upgrade if it has one.
async fn speak(stream: TcpStream, address: SocketAddr, house: House, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps waiting for more to send");
    }
    let ended = match &house.certificate {
        None => speak_http1(stream, address, &house, stop).await,
        Some(certificate) => match timeout(house.limits.head_patience, certificate.shake_hands(stream)).await {
            Ok(Ok((stream, true))) => speak_http2(stream, address, &house, stop).await,
            Ok(Ok((stream, false))) => speak_http1(stream, address, &house, stop).await,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(()),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn speak_http1<S>(stream: S, address: SocketAddr, house: &House, stop: CancellationToken) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(house.router.clone());
    let base = Arc::clone(&house.base);
    let service = service_fn(move |request| router.call(arrived(request, address, &base)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(house.limits.head_patience)
        .serve_connection(TokioIo::new(Patient::new(stream, house.limits.send_patience)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => Ok(ended?),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            Ok(connection.await?)
        }
    }
}

async fn speak_http2<S>(stream: S, address: SocketAddr, house: &House, stop: CancellationToken) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(house.router.clone());
    let base = Arc::clone(&house.base);
    // Requests that came, and that are answered up to the beginning of their body.
    let (came, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (coming, answering) = (Arc::clone(&came), Arc::clone(&answered));
    let service = service_fn(move |request| {
        coming.fetch_add(1, Ordering::Relaxed);
        let answering = Arc::clone(&answering);
        let answer = router.call(arrived(request, address, &base));
        async move {
            let answer = answer.await;
            answering.fetch_add(1, Ordering::Relaxed);
            answer
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(house.limits.ping)
        .keep_alive_timeout(house.limits.send_patience)
        .serve_connection(TokioIo::new(Patient::new(stream, house.limits.send_patience)), service);
    let mut connection = pin!(connection);
    let mut before = 0;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stop.cancelled() => break,
            () = sleep(house.limits.head_patience) => {
                let now = came.load(Ordering::Relaxed);
                if now == before && answered.load(Ordering::Relaxed) == now {
                    break;
                }
                before = now;
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

/// A request with what is known of its connection, and its path as the routes have it.
fn arrived(mut request: Request<Incoming>, address: SocketAddr, base: &Arc<str>) -> Request<Incoming> {
    request.extensions_mut().insert(Peer(address.ip()));
    if !base.is_empty() && request.uri().path() == &**base {
        request.extensions_mut().insert(Bare(Arc::clone(base)));
    }
    if let Some(uri) = below(request.uri(), base) {
        *request.uri_mut() = uri;
    }
    request
}

/// An address without the path under which the service stands; nothing where the proxy has taken that off, or there is none.
fn below(uri: &Uri, base: &str) -> Option<Uri> {
    let path =
        uri.path().strip_prefix(base).filter(|path| !base.is_empty() && (path.is_empty() || path.starts_with('/')))?;
    let path = if path.is_empty() { "/" } else { path };
    let mut parts = uri.clone().into_parts();
    let target = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A connection whose other side has to take what is sent to it within bounded time.
struct Patient<S> {
    stream: S,
    limit: Duration,
    /// Runs while the other side takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, stalled: None }
    }

    fn bound<T>(&mut self, context: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bound(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_flush(cx);
        self.bound(cx, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_service_is_taken_off_once() {
        let at = |uri: &str, base: &str| below(&uri.parse().unwrap(), base).map(|uri| uri.to_string());
        assert_eq!(at("/zs/graphql?query=%7Ba%7D", "/zs").as_deref(), Some("/graphql?query=%7Ba%7D"));
        assert_eq!(at("/zs", "/zs").as_deref(), Some("/"));
        assert_eq!(at("/zs/", "/zs").as_deref(), Some("/"));
        assert_eq!(at("https://example.com/zs/health", "/zs").as_deref(), Some("https://example.com/health"));
        for (uri, base) in [("/graphql", "/zs"), ("/zsx/graphql", "/zs"), ("/graphql", "")] {
            assert_eq!(at(uri, base), None, "{uri}");
        }
    }
}
