//! What a program must not change blindly, and suggests instead: where a network card's interrupts
//! go, and how its packets are spread.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use crate::host::Host;

/// Most flows worth steering: beyond it the table costs more cache than it saves.
const FLOWS_MAX: u64 = 1 << 20;

/// Lines about the descriptor limit and each card.
pub(super) fn hints(host: &Host, root: &Path, connections: u64) -> String {
    let hard = match host.limit("Max open files").map(|limit| limit.hard) {
        None => "unknown".to_owned(),
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(hard) => hard.to_string(),
    };
    let mut text = format!(
        "\nRLIMIT_NOFILE of this shell (hard): {hard} connections, of each worker on io_uring, of all \
         together on epoll\n"
    );
    let cards = entries(&root.join("sys/class/net"));
    // Only hardware: not lo, bridges or tunnels.
    let cards: Vec<_> = cards.into_iter().filter(|card| card.join("device").exists()).collect();
    if cards.is_empty() {
        text += "No NIC here, loopback only: no interrupts to place, no RPS or RFS.\n";
    }
    for card in cards {
        text += &of_card(&card, root, connections);
    }
    text
}

fn of_card(card: &Path, root: &Path, connections: u64) -> String {
    let name = file_name(card);
    let cores = available_parallelism().map_or(1, usize::from);
    let queues = entries(&card.join("queues"));
    let queues = queues.iter().filter(|queue| file_name(queue).starts_with("rx-")).count();
    let irqs = interrupts(card, &name, root);
    let irqs = if irqs.is_empty() { "none found".to_owned() } else { irqs.join(" ") };
    let mut text =
        format!("\nNIC {name}: {queues} receive queue(s), {cores} cores, interrupts: {irqs}\n");
    if queues >= cores {
        text += "  A queue a core: stop irqbalance and give queue i to core i, where worker i runs:\n    \
                 echo <core> >/proc/irq/<irq>/smp_affinity_list\n";
        return text;
    }
    let flows = connections.next_power_of_two().min(FLOWS_MAX);
    let (mask, each) = (core_mask(cores), flows / queues.max(1) as u64);
    let _ = write!(
        text,
        "  Fewer queues than cores: first try  ethtool -L {name} combined {cores}\n  \
         If the hardware has no more, spread in software (RPS), to the flow's worker (RFS):\n    \
         echo {flows} >/proc/sys/net/core/rps_sock_flow_entries\n    \
         for q in /sys/class/net/{name}/queues/rx-*; do\n      \
         echo {mask} >$q/rps_cpus; echo {each} >$q/rps_flow_cnt; done\n"
    );
    text
}

/// The card's own interrupts or, for virtio, its parent's message-signalled vectors; otherwise
/// those the kernel lists under its name.
fn interrupts(card: &Path, name: &str, root: &Path) -> Vec<String> {
    let device = fs::canonicalize(card.join("device")).unwrap_or_default();
    for vectors in [device.join("msi_irqs"), device.join("../msi_irqs")] {
        let mut numbers: Vec<u32> =
            entries(&vectors).iter().filter_map(|of| file_name(of).parse().ok()).collect();
        if !numbers.is_empty() {
            numbers.sort_unstable();
            return numbers.iter().map(u32::to_string).collect();
        }
    }
    let listed = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    let of_card = listed
        .lines()
        .filter(|line| line.split_whitespace().last().is_some_and(|device| device.contains(name)));
    of_card.filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Hexadecimal mask of the first cores, in the comma-separated words the kernel expects.
fn core_mask(cores: usize) -> String {
    let whole = ",ffffffff".repeat(cores / 32);
    let first = (1u64 << (cores % 32)) - 1;
    format!("{first:x}{whole}")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_masks_are_words_of_32_cores() {
        let masks = [1, 4, 32, 36, 64].map(core_mask);
        assert_eq!(masks, ["1", "f", "0,ffffffff", "f,ffffffff", "0,ffffffff,ffffffff"]);
    }

    #[test]
    fn a_card_with_few_queues_is_told_how_to_spread() {
        let folder = tempfile::tempdir().expect("a folder");
        let card = folder.path().join("sys/class/net/eth0");
        for part in ["device/msi_irqs", "queues/rx-0", "queues/tx-0"] {
            fs::create_dir_all(card.join(part)).expect("made");
        }
        fs::write(card.join("device/msi_irqs/37"), "").expect("written");
        let text = of_card(&card, folder.path(), 100_000);
        assert!(text.contains("NIC eth0: 1 receive queue(s)") && text.contains("interrupts: 37"));
    }
}
