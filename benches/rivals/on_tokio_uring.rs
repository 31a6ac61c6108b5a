//! `tokio-uring`: a task per connection. What `on_monoio` says about reading applies here too.

use std::io;

use tokio_uring::net::{TcpListener, TcpStream, UnixStream};

use crate::hub::Hub;
use crate::job::{PUBLISHED, Post, REQUEST_BYTES_MAX, Request, Seat, request, stream_head};

/// As many as are worthwhile: fewer would mean more system calls per fan-out.
const ENTRIES: u32 = 4096;

pub fn serve(seat: Seat) -> io::Result<()> {
    tokio_uring::builder().entries(ENTRIES).start(async {
        let Seat { listener, bell, post } = seat;
        let hub = Hub::default();
        tokio_uring::spawn(answer_bell(UnixStream::from_std(bell), post.clone(), hub.clone()));
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(connection(stream, post.clone(), hub.clone()));
        }
    })
}

async fn answer_bell(bell: UnixStream, post: Post, hub: Hub) {
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

async fn connection(stream: TcpStream, post: Post, hub: Hub) -> io::Result<()> {
    if take_requests(&stream, &post, &hub).await?.is_none() {
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
async fn take_requests(stream: &TcpStream, post: &Post, hub: &Hub) -> io::Result<Option<()>> {
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
