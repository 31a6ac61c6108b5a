//! Accepting: into the table, out of room, with addresses, and until told to stop.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use pushline::ring::uring::{UringDriver, UringSettings, probe};
use pushline::ring::{Completion, Driver, Op, PeerAddresses, StartError, Wait, listen};
use socket2::{Domain, Socket, Type};

use crate::skip::skip;
use crate::sockets::await_established;
use crate::{PATIENCE, Rig, read_one, settings};

const BOTH_WAYS: [PeerAddresses; 2] = [PeerAddresses::Unknown, PeerAddresses::Wanted];

fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn is_accept_end(completion: &Completion) -> bool {
    matches!(completion, Completion::AcceptEnded { .. })
}

#[test]
fn this_kernel_has_what_it_takes() {
    let report = probe().unwrap_or_else(|error| panic!("{error}"));
    println!("{report:?}");
    assert!(report.release.starts_with(&report.version.major.to_string()));
}

#[test]
fn wanted_addresses_are_the_right_ones() {
    let wanted = UringSettings { peers: PeerAddresses::Wanted, ..settings() };
    let mut rig = Rig::new(&wanted);
    for round in 0..3u8 {
        // More at once than accepts are in flight.
        let sources: Vec<Ipv4Addr> = (1..=20).map(|i| Ipv4Addr::new(127, 0, round, i)).collect();
        let _peers: Vec<TcpStream> =
            sources.iter().map(|&source| connect_from(source, rig.address)).collect();
        let mut seen: Vec<IpAddr> = Vec::new();
        for _ in &sources {
            let accepted = rig.await_one(|c| matches!(c, Completion::Accepted { .. }));
            let Completion::Accepted { slot, peer, .. } = accepted else { unreachable!() };
            seen.push(peer.expect("an address was wanted"));
            let token = rig.next_token(slot);
            rig.turn(&[Op::Close(token)], Wait::No);
        }
        seen.sort();
        assert_eq!(seen, sources.iter().map(|&s| IpAddr::V4(s)).collect::<Vec<_>>());
    }
}

#[test]
fn wanted_addresses_work_on_ipv6_and_mapped_ones_are_told_as_ipv4() {
    let wanted = UringSettings { peers: PeerAddresses::Wanted, ..settings() };
    let any: SocketAddr = "[::]:0".parse().unwrap();
    let listener = match listen(any, &Default::default()) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            return skip("IPv6", "a kernel with IPv6");
        }
        other => other.unwrap(),
    };
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let mut rig = Rig::on(&wanted, listener);
    for address in [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()] {
        let Ok(_peer) = TcpStream::connect((address, port)) else {
            skip(&format!("a route to {address}"), "bring the loopback interface up");
            continue;
        };
        let accepted = rig.await_one(|c| matches!(c, Completion::Accepted { .. }));
        assert!(
            matches!(accepted, Completion::Accepted { peer: Some(peer), .. } if peer == address)
        );
    }
}

#[test]
fn a_full_table_ends_accepting_and_a_close_lets_it_go_on() {
    for peers in BOTH_WAYS {
        let two = UringSettings { slots: 2, peers, ..settings() };
        let mut rig = Rig::new(&two);
        let (_first, token) = rig.connect();
        let (_second, _) = rig.connect();
        let mut turned_away = TcpStream::connect(rig.address).unwrap();
        let end = rig.await_one(is_accept_end);
        assert_eq!(end, Completion::AcceptEnded { errno: libc::ENFILE }, "{peers:?}");
        turned_away.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(read_one(&mut turned_away).is_ok_and(|n| n == 0), "the kernel closed it");
        rig.turn(&[Op::Close(token), Op::AcceptStart], Wait::No);
        let (_third, again) = rig.connect();
        assert_eq!(again.slot, token.slot);
        assert!(!rig.heard.iter().any(is_accept_end), "told once");
    }
}

#[test]
fn stopped_accepting_leaves_connections_in_the_backlog() {
    for peers in BOTH_WAYS {
        let mut rig = Rig::new(&UringSettings { peers, ..settings() });
        rig.turn(&[Op::AcceptStop], Wait::No);
        assert_eq!(rig.await_one(is_accept_end), Completion::AcceptEnded { errno: 0 });
        let waiting = TcpStream::connect(rig.address).unwrap();
        await_established(rig.address, waiting.local_addr().unwrap());
        assert_eq!(rig.turn(&[Op::AcceptStop], Wait::No), []);
        assert_eq!(rig.turn(&[Op::AcceptStart], Wait::No).len(), 1);
        rig.accept();
    }
}

#[test]
fn a_listener_that_left_its_port_refuses_and_ends_accepting() {
    for peers in BOTH_WAYS {
        let mut rig = Rig::new(&UringSettings { peers, ..settings() });
        let (mut peer, token) = rig.connect();
        rig.turn(&[Op::ListenStop], Wait::No);
        let refused = TcpStream::connect(rig.address).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(rig.await_one(is_accept_end), Completion::AcceptEnded { errno: 0 });
        assert_eq!(rig.send(token, b"!"), [], "connections go on");
        peer.read_exact(&mut [0; 1]).unwrap();
    }
}

#[test]
fn dropping_the_driver_closes_connections_and_port_at_once() {
    for peers in BOTH_WAYS {
        let mut rig = Rig::new(&UringSettings { peers, ..settings() });
        let (mut idle, _) = rig.connect();
        let (mut armed, token) = rig.connect();
        rig.turn(&[Op::RecvStart(token)], Wait::No);
        let Rig { driver, target, address, .. } = rig;
        drop(driver);
        let refused = TcpStream::connect(address).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        for peer in [&mut idle, &mut armed] {
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(read_one(peer).unwrap(), 0);
        }
        drop(target);
    }
}

#[test]
fn a_table_beyond_the_limit_names_limit_and_cure() {
    let many = UringSettings { slots: 1 << 21, ..settings() };
    let listener = listen("127.0.0.1:0".parse().unwrap(), &Default::default()).unwrap();
    let Err(error) = UringDriver::new(&many, [listener]) else {
        panic!("more than a ring can have")
    };
    assert!(matches!(error, StartError::DescriptorLimit { wanted, .. } if wanted == 1 << 21));
    let message = error.to_string();
    assert!(message.contains("2097152") && message.contains("LimitNOFILE"), "{message}");
}

#[test]
fn capacity_is_the_size_of_the_table_and_time_goes_on() {
    let rig = Rig::new(&settings());
    assert_eq!(rig.driver.capacity(), 64);
    let before = rig.driver.now();
    assert!(rig.driver.now() >= before);
}
