//! Which kernel this is.

/// The oldest kernel whose io_uring has all we use (`IORING_SETUP_DEFER_TASKRUN` came last).
pub(crate) const URING_SINCE: KernelVersion = KernelVersion { major: 6, minor: 1 };

/// A kernel's version, as far as we compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.1.
    pub major: u32,
    /// The 1 of 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The running kernel's.
    pub fn running() -> Self {
        Self::of(&release())
    }

    /// The leading numbers of `uname -r`; anything that is not a number counts as 0.
    pub(crate) fn of(release: &str) -> Self {
        let numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
        let major = numbers.next().unwrap_or(0);
        let minor = numbers.next().unwrap_or(0);
        Self { major, minor }
    }
}

/// `uname -r`.
pub(super) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_by_their_leading_numbers() {
        let version = |major, minor| KernelVersion { major, minor };
        assert_eq!(KernelVersion::of("6.1.0-18-amd64"), version(6, 1));
        assert_eq!(KernelVersion::of("6.18.44-fc-v595"), version(6, 18));
        assert_eq!(KernelVersion::of("5.15.167.4-microsoft-standard-WSL2"), version(5, 15));
        assert_eq!(KernelVersion::of("7"), version(7, 0));
        assert_eq!(KernelVersion::of("next"), version(0, 0));
        assert!(version(5, 19) < URING_SINCE && version(6, 1) >= URING_SINCE);
        assert!(version(10, 0) >= URING_SINCE);
    }
}
