//! One contract, three drivers: each behaviour is stated once and holds on the in-memory network
//! and on real sockets, over io_uring and over epoll. What a simulation shows about a worker is
//! worth as much as this test.

#[path = "../common/skip.rs"]
mod skip;
#[path = "../common/sockets.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod sockets;

/// Makes each behaviour a test of each driver.
macro_rules! on_all_drivers {
    ($($behaviour:ident),* $(,)?) => {
        mod sim {
            $(#[test] fn $behaviour() { super::$behaviour::<crate::worlds::SimWorld>(); })*
        }
        on_sockets! { $($behaviour),* }
    };
}

/// The same for what the in-memory network does not have.
macro_rules! on_sockets {
    ($($behaviour:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $behaviour() { super::$behaviour::<crate::worlds::EpollWorld>(); })*
        }
        on_uring!(uring, 1024, $($behaviour)*);
        on_uring!(uring_with_one_multishot, 1, $($behaviour)*);
        on_uring!(uring_by_poll, 0, $($behaviour)*);
    };
}

macro_rules! on_uring {
    ($name:ident, $multishots:literal, $($behaviour:ident)*) => {
        mod $name {
            $(#[test] fn $behaviour() {
                if crate::worlds::has_io_uring() {
                    super::$behaviour::<crate::worlds::UringWorld<$multishots>>();
                }
            })*
        }
    };
}

mod accepting;
mod closing;
mod epoll_alone;
mod receiving;
mod resets;
mod rig;
mod sending;
mod sharing;
mod sleeper;
mod waking;
mod worlds;

const SLOTS: u32 = 2;
const RECV_BUFFERS: u16 = 4;
const RECV_BUFFER_BYTES: usize = 64;
/// The content of all buffers.
const IN_BUFFERS: usize = RECV_BUFFERS as usize * RECV_BUFFER_BYTES;
/// Small, so that a slow reader is noticed soon.
const CLIENT_RECV_BYTES: usize = 32 * 1024;
/// More than all socket buffers on the way can hold.
const LONG_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
