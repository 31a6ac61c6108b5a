//! Plain epoll, and one `send(2)` per subscriber and event.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::job::{PUBLISHED, Post, REQUEST_BYTES_MAX, Request, Seat, request, stream_head};

const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const EVENTS_PER_TURN: usize = 1024;

/// Not in the list of subscribers.
const NOWHERE: u32 = u32::MAX;

struct Worker {
    epoll: OwnedFd,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// Descriptors.
    subscribers: Vec<u32>,
    head: Vec<u8>,
    post: Post,
}

struct Connection {
    socket: OwnedFd,
    /// Place among the subscribers.
    place: u32,
    /// What a request has so far; empty for a subscriber.
    carry: Vec<u8>,
}

pub fn serve(seat: Seat) -> io::Result<()> {
    let Seat { listener, bell, post } = seat;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
    let (connections, subscribers) = (Vec::new(), Vec::new());
    let mut worker = Worker { epoll, connections, subscribers, head: stream_head(), post };
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_TURN);
    loop {
        events.clear();
        match epoll::wait(&worker.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => worker.accept(&listener)?,
                BELL => {
                    rustix::io::read(&bell, &mut [0; 64])?;
                    for event in worker.post.collect() {
                        worker.fan_out(&event);
                    }
                }
                fd => worker.receive(fd as u32)?,
            }
        }
    }
}

impl Worker {
    fn accept(&mut self, listener: &std::net::TcpListener) -> io::Result<()> {
        loop {
            let socket = match rustix::net::accept_with(listener, SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let fd = socket.as_raw_fd() as usize;
            let interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &socket, EventData::new_u64(fd as u64), interest)?;
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + 1, || None);
            }
            let connection = Connection { socket, place: NOWHERE, carry: Vec::new() };
            self.connections[fd] = Some(connection);
        }
    }

    fn receive(&mut self, fd: u32) -> io::Result<()> {
        let mut bytes = [0; REQUEST_BYTES_MAX];
        loop {
            let Some(connection) = &mut self.connections[fd as usize] else { return Ok(()) };
            match rustix::net::recv(&connection.socket, &mut bytes, RecvFlags::empty()) {
                Ok((0, _)) => self.close(fd),
                Ok((length, _)) => {
                    connection.carry.extend_from_slice(&bytes[..length]);
                    self.take_requests(fd)?;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => self.close(fd),
            }
        }
    }

    fn take_requests(&mut self, fd: u32) -> io::Result<()> {
        while let Some(connection) = &mut self.connections[fd as usize] {
            let event = match request(&connection.carry) {
                Request::Partial => return Ok(()),
                Request::Subscribe => {
                    connection.carry = Vec::new();
                    connection.place = self.subscribers.len() as u32;
                    self.subscribers.push(fd);
                    send_whole(&connection.socket, &self.head);
                    return Ok(());
                }
                Request::Publish { body, end } => {
                    let event = self.post.publish(body)?;
                    connection.carry.drain(..end);
                    send_whole(&connection.socket, PUBLISHED);
                    event
                }
            };
            self.fan_out(&event);
        }
        Ok(())
    }

    fn fan_out(&mut self, event: &[u8]) {
        let mut fallen = Vec::new();
        for &fd in &self.subscribers {
            if let Some(connection) = &self.connections[fd as usize]
                && !send_whole(&connection.socket, event)
            {
                fallen.push(fd);
            }
        }
        for fd in fallen {
            self.close(fd);
        }
    }

    fn close(&mut self, fd: u32) {
        let Some(connection) = self.connections[fd as usize].take() else { return };
        if connection.place == NOWHERE {
            return;
        }
        self.subscribers.swap_remove(connection.place as usize);
        if let Some(&moved) = self.subscribers.get(connection.place as usize)
            && let Some(other) = &mut self.connections[moved as usize]
        {
            other.place = connection.place;
        }
    }
}

fn send_whole(socket: &OwnedFd, bytes: &[u8]) -> bool {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, bytes, flags) == Ok(bytes.len())
}
