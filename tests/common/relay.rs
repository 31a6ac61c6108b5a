//! A TCP relay whose connections a test can cut, so that a third-party client loses its connection
//! in the middle of things.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

/// Takes what a server sends to its client, until either has gone.
type Down = dyn Fn(&TcpStream, &TcpStream) + Send + Sync;

/// Both connections of a client: the one it made, and the one to the server.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

/// A relay to one address.
pub struct Relay {
    pub addr: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    to: SocketAddr,
    /// Those that still relay something.
    pairs: Mutex<Vec<Weak<Pair>>>,
    accepted: AtomicUsize,
    /// Bytes that went from the server to clients.
    passed: AtomicUsize,
    /// Connections before this one no longer receive anything.
    silenced: AtomicUsize,
    stop: AtomicBool,
    /// None: all of it goes through.
    down: Option<Box<Down>>,
}

impl Relay {
    pub fn start(to: SocketAddr) -> Self {
        Self::start_with(to, None)
    }

    /// What the server sends goes this way.
    pub fn through(
        to: SocketAddr,
        down: impl Fn(&TcpStream, &TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(to, Some(Box::new(down)))
    }

    fn start_with(to: SocketAddr, down: Option<Box<Down>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            to,
            pairs: Mutex::default(),
            accepted: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            silenced: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            down,
        });
        let of_thread = state.clone();
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                of_thread.relay(client.expect("a client"));
            }
        });
        Self { addr, state, thread: Some(thread) }
    }

    /// Ends every connection, wherever in the stream it is. Returns how many there were.
    pub fn cut(&self) -> usize {
        let pairs = std::mem::take(&mut *self.state.pairs.lock().expect("not poisoned"));
        let open = pairs.iter().filter_map(Weak::upgrade);
        open.inspect(|pair| pair.cut()).count()
    }

    /// From now on, what the server sends on existing connections is lost, without an end being
    /// seen.
    pub fn silence(&self) {
        self.state.silenced.store(self.accepted(), Ordering::SeqCst);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Bytes that went from the server to clients so far.
    pub fn passed(&self) -> usize {
        self.state.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pair {
    fn cut(&self) {
        for end in [&self.client, &self.server] {
            // It may be gone already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn relay(self: &Arc<Self>, client: TcpStream) {
        // The server is gone: the client sees its connection end.
        let Ok(server) = TcpStream::connect(self.to) else { return };
        let place = self.accepted.fetch_add(1, Ordering::SeqCst);
        let pair = Arc::new(Pair { client, server });
        self.keep(Arc::downgrade(&pair));
        let (state, up) = (self.clone(), pair.clone());
        thread::spawn(move || copy(&up.client, &up.server, |_| true));
        thread::spawn(move || state.relay_down(&pair, place));
    }

    fn keep(&self, pair: Weak<Pair>) {
        let mut pairs = self.pairs.lock().expect("not poisoned");
        pairs.retain(|pair| pair.strong_count() > 0);
        pairs.push(pair);
    }

    fn relay_down(&self, Pair { client, server }: &Pair, place: usize) {
        match &self.down {
            Some(down) => down(server, client),
            None => copy(server, client, |count| {
                self.passed.fetch_add(count, Ordering::SeqCst);
                place >= self.silenced.load(Ordering::SeqCst)
            }),
        }
    }
}

/// `passes` gets each piece and returns whether to carry on.
fn copy(mut from: &TcpStream, mut to: &TcpStream, passes: impl Fn(usize) -> bool) {
    let mut piece = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if passes(count) && to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
