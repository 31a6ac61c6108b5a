//! Options of listeners that neither `rustix` nor `socket2` has. They have nothing to do with
//! rings, but need a raw `setsockopt`, and only this folder may contain `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// `TCP_DEFER_ACCEPT`, which counts in whole seconds.
///
/// # Errors
/// As for `setsockopt`.
pub(in crate::ring) fn set_defer_accept(socket: &impl AsFd, time: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// Sends each connection to the listener whose index in its `SO_REUSEPORT` group is the CPU that
/// handled the SYN, modulo `workers`. With worker `i` pinned to CPU `i`, the packets of a
/// connection and its worker then share a core. One call serves the whole group once all listeners
/// are open; the index is the order in which they began to listen.
///
/// # Errors
/// As for `setsockopt`.
pub fn steer_by_cpu(socket: &impl AsFd, workers: u16) -> io::Result<()> {
    assert!(workers > 0);
    // Classic BPF: A = cpu; A %= workers; return A.
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, cpu),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, u32::from(workers)),
        statement(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Undoes [`steer_by_cpu`]: the kernel spreads connections by their addresses again.
///
/// # Errors
/// As for `setsockopt`; `ENOENT` if nothing was attached.
pub fn stop_steering(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, &0)
}

/// `T` is the type the option takes.
fn set_option<T>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the kernel copies as many bytes as `value` has, while this borrows it. What a
    // `sock_fprog` points to is borrowed by its caller.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
