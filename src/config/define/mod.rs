//! Every key, defined once: a file for each group.

mod channels;
mod cluster;
mod connections;
mod journal;
mod limits;
mod listen;
mod logs;
mod streams;
mod times;
mod tls;
mod workers;

use super::keys::Key;

/// In the order in which help and the file show them.
const GROUPS: &[&[Key]] = &[
    listen::KEYS,
    tls::KEYS,
    workers::KEYS,
    connections::KEYS,
    times::KEYS,
    channels::KEYS,
    limits::KEYS,
    journal::KEYS,
    logs::KEYS,
    cluster::KEYS,
    streams::KEYS,
];

const COUNT: usize = {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

/// All keys in one list.
pub(super) const fn all() -> [Key; COUNT] {
    let mut all = [GROUPS[0][0]; COUNT];
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut place = 0;
        while place < GROUPS[group].len() {
            all[count] = GROUPS[group][place];
            (count, place) = (count + 1, place + 1);
        }
        group += 1;
    }
    all
}
