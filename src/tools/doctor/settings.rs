//! The kernel settings that a given number of connections needs. This table is the only owner of
//! the values: the doctor and `pushline tune` judge by it, `tuning/99-pushline.conf` is printed
//! from it, and `tests/tools/tune.rs` compares `tuning/README.md` with it.

use crate::host::Host;
use crate::limits::SLOTS_PER_WORKER_MAX;
use crate::tools::numbers::grouped;

/// Seconds over which every client is expected to reconnect after a restart: the default drain ends
/// streams over the same time.
pub(crate) const STORM_SECS: u64 = 20;

/// How long a pause of a worker the accept queue survives, in seconds. Nothing in a turn may take
/// longer; this is at least ten times the worst we allow ourselves.
pub(crate) const ACCEPT_PAUSE_SECS: u64 = 1;

/// The largest direct descriptor table that a worker has.
pub(crate) const SLOTS_PER_RING_MAX: u64 = SLOTS_PER_WORKER_MAX as u64;

/// Open files left to everything else on the host.
pub(crate) const FILES_ELSEWHERE: u64 = 65_536;

/// Tracked flows left to everything else on the host.
pub(crate) const FLOWS_ELSEWHERE: u64 = 65_536;

/// Packets a core may find waiting: 250,000 deliveries a second and core (4 us each), acknowledged
/// one by one, during 20 ms in which its softirq does not run.
pub(crate) const BACKLOG_PACKETS: u64 = 250_000 * 20 / 1000;

/// `net.core.netdev_max_backlog` as the kernel sets it at boot.
pub(crate) const BACKLOG_DEFAULT: u64 = 1000;

const CONNTRACK: &str = "net.netfilter.nf_conntrack_max";
const CONNTRACK_COUNT: &str = "net.netfilter.nf_conntrack_count";

/// What happens below the wanted value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The connections cannot all be held.
    Blocks,
    /// They are held, but a storm or a broadcast loses time or goodbyes.
    Hurts,
}

/// How the value can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By `sysctl`, at run time; the kernel starts with a fixed value.
    Sysctl,
    /// By `sysctl`, at run time; the kernel or systemd starts with a value that depends on the
    /// host's memory. A file that sets it would lower it on a large host.
    SysctlByHost,
    /// Only on the kernel's command line, by this parameter.
    Boot(&'static str),
}

/// One kernel setting: we ask for `current >= wanted`, number by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted sysctl name.
    pub key: &'static str,
    /// The least value (`tcp_mem` has three numbers).
    pub wanted: Vec<u64>,
    /// What happens with a lower value.
    pub effect: Effect,
    /// By `sysctl`, or on the kernel's command line.
    pub change: Change,
    /// The arithmetic, in words.
    pub why: &'static str,
}

/// A setting compared with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// This kernel or namespace has no such key.
    Absent,
    /// The key exists but cannot be read.
    Unreadable,
    /// At least what is wanted.
    Enough {
        /// The present value.
        current: Vec<u64>,
    },
    /// Less than wanted, but it does not matter: loaded, but no rule uses it.
    Unused {
        /// The present value.
        current: Vec<u64>,
    },
    /// Less than wanted.
    Low {
        /// The present value.
        current: Vec<u64>,
        /// What to write: see [`Setting::raised`].
        raised: Vec<u64>,
    },
}

impl Setting {
    /// Compares the host with this setting.
    pub(crate) fn judge(&self, host: &Host) -> Judged {
        let current = match host.sysctl(self.key) {
            Ok(current) => current,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Judged::Absent,
            Err(_) => return Judged::Unreadable,
        };
        let counts_nothing = || host.sysctl(CONNTRACK_COUNT).is_ok_and(|count| count == [0]);
        match self.raised(&current) {
            None => Judged::Enough { current },
            Some(_) if self.key == CONNTRACK && counts_nothing() => Judged::Unused { current },
            Some(raised) => Judged::Low { current, raised },
        }
    }

    /// The parameter of the kernel's command line, if that is the only way.
    pub(crate) fn boot_parameter(&self) -> Option<&'static str> {
        match self.change {
            Change::Boot(parameter) => Some(parameter),
            Change::Sysctl | Change::SysctlByHost => None,
        }
    }

    /// Whether it can be changed at run time.
    pub(crate) fn is_writable(&self) -> bool {
        self.boot_parameter().is_none()
    }

    /// The wanted numbers as `sysctl` writes them.
    pub(crate) fn wanted_text(&self) -> String {
        text(&self.wanted)
    }

    /// What to write over `current`: never lower than it, number by number. `None` if nothing needs
    /// to be done.
    pub fn raised(&self, current: &[u64]) -> Option<Vec<u64>> {
        let at = |i: usize| current.get(i).copied().unwrap_or(0);
        let raised: Vec<u64> =
            self.wanted.iter().enumerate().map(|(i, wanted)| at(i).max(*wanted)).collect();
        (raised != current).then_some(raised)
    }
}

/// Numbers separated by single spaces.
pub fn text(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// What this many connections need from the kernel, in the order it is shown.
pub fn settings(connections: u64) -> Vec<Setting> {
    use Change::{Boot, Sysctl, SysctlByHost};
    use Effect::{Blocks, Hurts};
    let per_sec = connections.div_ceil(STORM_SECS);
    let queue = (per_sec * ACCEPT_PAUSE_SECS).next_power_of_two().max(4096);
    // The kernel's own value suffices for the acknowledgements of this many connections.
    let backlog = match connections.min(BACKLOG_PACKETS) {
        few if few <= BACKLOG_DEFAULT => BACKLOG_DEFAULT,
        many => many.next_power_of_two(),
    };
    let pages = vec![connections, connections + connections / 2, connections * 2];
    let setting = |key, wanted, effect, change, why| Setting { key, wanted, effect, change, why };
    vec![
        setting(
            "fs.nr_open",
            vec![SLOTS_PER_RING_MAX],
            Hurts,
            SysctlByHost,
            "the ceiling of RLIMIT_NOFILE, which bounds the descriptors of each ring; 2^20 is the \
             most the kernel gives to a ring, more does nothing",
        ),
        setting(
            "fs.file-max",
            vec![connections + FILES_ELSEWHERE],
            Blocks,
            SysctlByHost,
            "one struct file a connection, direct descriptor or not, and 65,536 for the rest of \
             the host",
        ),
        setting(
            "net.core.somaxconn",
            vec![queue],
            Hurts,
            Sysctl,
            "accept queue of each listener: all clients come back within 20 s (N/20 a second), a \
             worker may look away for 1 s; up to a power of two, at least the kernel's 4096",
        ),
        setting(
            "net.ipv4.tcp_syncookies",
            vec![1],
            Hurts,
            Sysctl,
            "a full SYN queue answers with cookies instead of dropping; with it the SYN queue is \
             as long as the accept queue and tcp_max_syn_backlog does not matter",
        ),
        setting(
            "net.ipv4.tcp_mem",
            pages,
            Hurts,
            SysctlByHost,
            "pages; the kernel charges a socket a page at a time and an idle one nothing, so one \
             event on its way to everybody is N pages: calm up to N, pressure at 1.5 N, end at 2 N",
        ),
        setting(
            "net.core.netdev_max_backlog",
            vec![backlog],
            Hurts,
            Sysctl,
            "packets waiting per core (loopback and RPS): an acknowledgement a connection, but no \
             more than 250,000 a second and core during 20 ms; up to a power of two",
        ),
        setting(
            "net.ipv4.tcp_max_orphans",
            vec![connections / 4],
            Hurts,
            SysctlByHost,
            "sockets we closed whose goodbye is not acknowledged yet: a drain closes N/20 a \
             second, 5 s each for slow links; above it the kernel resets and the goodbye is lost",
        ),
        setting(
            CONNTRACK,
            vec![connections * 2 + FLOWS_ELSEWHERE],
            Hurts,
            SysctlByHost,
            "only where rules track the port: a flow a connection, and as many dying ones after all \
             came back (120 s in TIME_WAIT); better still: notrack",
        ),
        setting(
            "net.ipv4.tcp_ehash_entries",
            vec![connections.next_power_of_two()],
            Hurts,
            Boot("thash_entries"),
            "buckets of the table every packet looks its socket up in: one a connection keeps the \
             chain at one cache miss",
        ),
    ]
}

/// `tuning/99-pushline.conf` for `connections`, with the values for `larger` beside them.
pub(crate) fn sysctl_conf(connections: u64, larger: u64) -> String {
    let mut conf = format!(
        "# Pushline, {} connections (in brackets: {}). tuning/README.md has the reasons.\n\
         # Printed by `pushline doctor --sysctl --connections {connections}`; tests compare.\n\
         # A file here also lowers what was higher. So what a host sizes by its own memory is only\n\
         # a comment: uncomment what `pushline tune check` finds too low.\n",
        grouped(connections),
        grouped(larger),
    );
    for (setting, large) in settings(connections).iter().zip(settings(larger)) {
        let (key, wanted, large) = (setting.key, setting.wanted_text(), large.wanted_text());
        conf.push('\n');
        for line in wrapped(setting.why, 97) {
            conf.push_str(&format!("# {line}\n"));
        }
        // A leading minus: sysctl continues if the key does not exist (containers, conntrack).
        conf.push_str(&match setting.change {
            Change::Sysctl => format!("# [{large}]\n-{key} = {wanted}\n"),
            Change::SysctlByHost => format!("# [{large}]\n#-{key} = {wanted}\n"),
            Change::Boot(parameter) => format!(
                "# {key} is read-only; on the kernel's command line:\n\
                 # {parameter}={wanted} [{large}]\n"
            ),
        });
    }
    conf
}

fn wrapped(sentence: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let full = lines.last().is_some_and(|l| l.len() + 1 + word.len() > columns);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(connections: u64, key: &str) -> Vec<u64> {
        settings(connections).into_iter().find(|s| s.key == key).expect(key).wanted
    }

    #[test]
    fn a_million_connections_get_the_values_the_readme_derives() {
        assert_eq!(wanted(1_000_000, "fs.file-max"), [1_065_536]);
        assert_eq!(wanted(1_000_000, "net.core.somaxconn"), [65_536]);
        assert_eq!(wanted(1_000_000, "net.ipv4.tcp_mem"), [1_000_000, 1_500_000, 2_000_000]);
        assert_eq!(wanted(1_000_000, "net.core.netdev_max_backlog"), [8192]);
        assert_eq!(wanted(1_000, "net.core.netdev_max_backlog"), [1000], "the kernel's own");
        assert_eq!(wanted(1_000_000, "net.ipv4.tcp_ehash_entries"), [1 << 20]);
    }

    #[test]
    fn no_value_shrinks_when_connections_grow() {
        let sizes = [1, 2, 1000, 81_921, 100_000, 1_000_000, 10_000_000];
        for pair in sizes.windows(2) {
            for (less, more) in settings(pair[0]).iter().zip(settings(pair[1])) {
                assert!(less.wanted.iter().zip(&more.wanted).all(|(a, b)| a <= b), "{}", less.key);
            }
        }
    }

    #[test]
    fn raising_keeps_each_number_that_is_higher_already() {
        let tcp_mem = settings(100).into_iter().find(|s| s.key.ends_with("tcp_mem")).expect("key");
        assert_eq!(tcp_mem.raised(&[50, 900, 150]), Some(vec![100, 900, 200]));
        assert_eq!(tcp_mem.raised(&[100, 150, 200]), None);
        assert_eq!(tcp_mem.raised(&[u64::MAX, 151, 200]), None);
    }
}
