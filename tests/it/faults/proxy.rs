//! Small TCP proxies between a client and a server: one that knows HTTP requests and spoils them, and one that passes bytes on and
//! can be cut and pointed elsewhere.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::some_millis;

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It goes through.
    Nothing,
    /// The connection is cut before the server sees anything of it.
    CutBeforeRequest,
    /// The server sees half of it.
    CutInRequest,
    /// The server sees all of it, and its connection is gone while it works.
    CutAfterRequest,
    /// The server answers, and nobody hears it.
    CutBeforeAnswer,
    /// Half of the answer arrives.
    CutInAnswer,
    /// It arrives late, perhaps when its client does not wait any more.
    StallRequest,
    /// The answer arrives late.
    StallAnswer,
    /// The same bytes arrive on two connections at once.
    Twice,
}

/// All that go wrong.
pub const FAULTS: [Fault; 8] = [
    Fault::CutBeforeRequest,
    Fault::CutInRequest,
    Fault::CutAfterRequest,
    Fault::CutBeforeAnswer,
    Fault::CutInAnswer,
    Fault::StallRequest,
    Fault::StallAnswer,
    Fault::Twice,
];

/// A proxy for one request per connection.
pub struct Spoiler {
    pub address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

struct State {
    target: SocketAddr,
    dice: Mutex<StdRng>,
    counts: Mutex<BTreeMap<Fault, u64>>,
}

impl Spoiler {
    /// A proxy in front of `target` that lets one request in three through as it is.
    pub async fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { target, dice: Mutex::new(StdRng::seed_from_u64(seed)), counts: Mutex::default() });
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let (shared, stopped, connections) = (Arc::clone(&state), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let state = Arc::clone(&shared);
                // A connection that breaks is what this is for.
                connections.spawn(async move { state.pass(client).await.ok() });
            }
        });
        Self { address, state, stop }
    }

    /// How often each fault happened.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.state.counts.lock().unwrap().clone()
    }
}

impl Drop for Spoiler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn draw(&self) -> (Fault, Duration) {
        let mut dice = self.dice.lock().unwrap();
        let at = dice.random_range(0..FAULTS.len() * 3 / 2);
        let fault = FAULTS.get(at).copied().unwrap_or(Fault::Nothing);
        *self.counts.lock().unwrap().entry(fault).or_default() += 1;
        (fault, some_millis(&mut dice, 20..1_600))
    }

    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let (fault, stall) = self.draw();
        let request = message(&mut client).await?;
        match fault {
            Fault::CutBeforeRequest => return Ok(()),
            Fault::CutInRequest => {
                let mut server = TcpStream::connect(self.target).await?;
                return server.write_all(&request[..request.len() / 2]).await;
            }
            Fault::CutAfterRequest => {
                let mut server = TcpStream::connect(self.target).await?;
                server.write_all(&request).await?;
                tokio::time::sleep(stall / 100).await;
                return Ok(());
            }
            Fault::StallRequest => tokio::time::sleep(stall).await,
            Fault::Nothing | Fault::CutBeforeAnswer | Fault::CutInAnswer | Fault::StallAnswer | Fault::Twice => {}
        }
        let answer = if fault == Fault::Twice {
            let (one, two) = tokio::join!(self.ask(&request), self.ask(&request));
            one.or(two)?
        } else {
            self.ask(&request).await?
        };
        let heard = match fault {
            Fault::CutBeforeAnswer => 0,
            Fault::CutInAnswer => answer.len() / 2,
            Fault::StallAnswer => {
                tokio::time::sleep(stall).await;
                answer.len()
            }
            Fault::Nothing
            | Fault::Twice
            | Fault::StallRequest
            | Fault::CutBeforeRequest
            | Fault::CutInRequest
            | Fault::CutAfterRequest => answer.len(),
        };
        client.write_all(&answer[..heard]).await
    }

    async fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.target).await?;
        server.write_all(request).await?;
        message(&mut server).await
    }
}

/// One request or answer with its body, whose length is in its head.
async fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let whole = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            break end + 4 + length.map_or(0, |length| length.trim().parse().unwrap());
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes)
}

/// A proxy that passes bytes on, and whose target can be changed.
pub struct Switch {
    pub address: SocketAddr,
    way: Arc<Mutex<(SocketAddr, CancellationToken)>>,
    stop: CancellationToken,
}

impl Switch {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Mutex::new((target, CancellationToken::new())));
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let (shared, stopped, connections) = (Arc::clone(&way), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            while let Some(Ok((mut client, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (target, cut) = shared.lock().unwrap().clone();
                let stopped = stopped.clone();
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = cut.cancelled() => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Self { address, way, stop }
    }

    /// Cuts every connection and leads new ones elsewhere.
    pub fn lead_to(&self, target: SocketAddr) {
        let mut way = self.way.lock().unwrap();
        way.1.cancel();
        *way = (target, CancellationToken::new());
    }

    /// Leads new connections elsewhere and leaves those that are there to their ends.
    pub fn lead_new_to(&self, target: SocketAddr) {
        self.way.lock().unwrap().0 = target;
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
