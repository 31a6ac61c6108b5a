//! `monoio`: a task per connection.
//!
//! A subscriber's task writes and does not read, because a read in flight would own a buffer: a
//! subscriber that left is noticed when an event is written to it. That favours the rival.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream, UnixStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::hub::Hub;
use crate::job::{PUBLISHED, Post, REQUEST_BYTES_MAX, Request, Seat, request, stream_head};

/// As many as are worthwhile: fewer would mean more system calls per fan-out.
const ENTRIES: u32 = 4096;

pub fn serve(seat: Seat) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).build()?;
    runtime.block_on(async {
        let Seat { listener, bell, post } = seat;
        let hub = Hub::default();
        bell.set_nonblocking(true)?;
        monoio::spawn(answer_bell(UnixStream::from_std(bell)?, post.clone(), hub.clone()));
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(connection(stream, post.clone(), hub.clone()));
        }
    })
}

async fn answer_bell(mut bell: UnixStream, post: Post, hub: Hub) {
    let mut bytes = vec![0; 64];
    loop {
        let (read, buffer) = bell.read(bytes).await;
        bytes = buffer;
        if !matches!(read, Ok(1..)) {
            return;
        }
        post.collect().into_iter().for_each(|event| hub.publish(event));
    }
}

async fn connection(mut stream: TcpStream, post: Post, hub: Hub) -> io::Result<()> {
    if take_requests(&mut stream, &post, &hub).await?.is_none() {
        return Ok(());
    }
    drop(post);
    let mut seen = hub.count();
    stream.write_all(stream_head()).await.0?;
    loop {
        let event = hub.next(seen).await;
        seen += 1;
        stream.write_all(event).await.0?;
    }
}

/// Takes publishes until the connection subscribes (`Some`) or ends.
async fn take_requests(stream: &mut TcpStream, post: &Post, hub: &Hub) -> io::Result<Option<()>> {
    let (mut carry, mut bytes) = (Vec::new(), vec![0; REQUEST_BYTES_MAX]);
    loop {
        let (read, buffer) = stream.read(bytes).await;
        bytes = buffer;
        match read? {
            0 => return Ok(None),
            length => carry.extend_from_slice(&bytes[..length]),
        }
        loop {
            match request(&carry) {
                Request::Partial => break,
                Request::Subscribe => return Ok(Some(())),
                Request::Publish { body, end } => {
                    hub.publish(post.publish(body)?);
                    carry.drain(..end);
                    stream.write_all(PUBLISHED).await.0?;
                }
            }
        }
    }
}
