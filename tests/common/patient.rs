//! Connecting where tests that run side by side share few descriptors.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How soon to try again.
const PAUSE: Duration = Duration::from_millis(1);

/// Connects; if the process has no descriptor left, waits until another test has given some back.
pub fn connect(address: SocketAddr, patience: Duration) -> TcpStream {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect(address) {
            Err(error) if is_out_of_files(&error) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            connected => return connected.expect("the server accepts"),
        }
    }
}

fn is_out_of_files(error: &std::io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MFILE)
}
