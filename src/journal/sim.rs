//! A disk in memory with the vices of real ones: without a sync any sector may be lost or half
//! written, and any name; and now and then it fails. A process that uses it may stop between any two
//! changes it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use super::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 64;

/// A rule broken on purpose: a test that does not notice proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTamper {
    /// What is written counts as safe at once.
    AcknowledgeBeforeSync,
    /// Names are never made safe.
    ForgetNames,
}

/// The disk of a machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    rng: Rng,
    files: Vec<Content>,
    /// Names as processes see them, and as they would survive.
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    /// Changes to names since they were last made safe.
    renames: Vec<Rename>,
    room: u64,
    /// How many syncs until one fails.
    fails_in: Option<u32>,
    /// How many changes until the process stops, and what was there then.
    stops_in: Option<u32>,
    stopped: Option<Box<State>>,
    tamper: Option<DiskTamper>,
}

/// A name that a file got, or that is no more.
#[derive(Clone, Debug)]
struct Rename {
    name: String,
    file: Option<usize>,
    /// It happens only if the one before it does.
    needs_last: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    safe: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl SimDisk {
    /// An empty disk whose faults follow from the seed.
    pub fn new(seed: u64, tamper: Option<DiskTamper>) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::with_seed(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            renames: Vec::new(),
            room: u64::MAX,
            fails_in: None,
            stops_in: None,
            stopped: None,
            tamper,
        })))
    }

    /// Another disk with the same content.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The machine loses power: any part of what was not synced may survive, in any order.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// Limits the bytes of all files.
    pub fn limit(&self, room: u64) {
        self.state().room = room;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Makes the sync after this many fail, and lose what it was to make safe.
    pub fn fail_in(&self, syncs: Option<u32>) {
        self.state().fails_in = syncs;
    }

    /// The process will stop after this many changes, wherever it is then.
    pub fn stop_in(&self, changes: u32) {
        self.state().stops_in = Some(changes);
    }

    /// Whether it has stopped: then nothing it did afterwards has happened.
    pub fn has_stopped(&self) -> bool {
        self.state().has_stopped()
    }

    /// Flips a bit of a file. Returns whether there was one to flip.
    pub fn flip_bit(&self) -> bool {
        self.state().flip_bit()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread")
    }
}

impl State {
    fn lose_power(&mut self) {
        self.fails_in = None;
        self.room = u64::MAX;
        let mut is_kept = true;
        for Rename { name, file, needs_last } in self.renames.drain(..) {
            is_kept = self.rng.bool() && (is_kept || !needs_last);
            if is_kept {
                set_name(&mut self.safe_names, name, file);
            }
        }
        self.names = self.safe_names.clone();
        for content in &mut self.files {
            content.lose_power(&mut self.rng);
        }
    }

    fn flip_bit(&mut self) -> bool {
        let files: Vec<usize> = self
            .names
            .values()
            .copied()
            .filter(|file| !self.files[*file].bytes.is_empty())
            .collect();
        if files.is_empty() {
            return false;
        }
        let content = &mut self.files[files[self.rng.usize(..files.len())]];
        let at = self.rng.usize(..content.bytes.len());
        let bit = 1 << self.rng.u8(..8);
        content.bytes[at] ^= bit;
        if let Some(byte) = content.safe.get_mut(at) {
            *byte ^= bit;
        }
        true
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].bytes.len() as u64).sum()
    }

    fn grow(&self, file: usize, length: usize) -> io::Result<()> {
        let more = length.saturating_sub(self.files[file].bytes.len()) as u64;
        match more > 0 && self.used() + more > self.room {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn rename(&mut self, name: &str, file: Option<usize>, needs_last: bool) {
        set_name(&mut self.names, name.into(), file);
        self.renames.push(Rename { name: name.into(), file, needs_last });
    }

    /// The process is about to change something.
    fn change(&mut self) {
        match self.stops_in {
            Some(0) => {
                self.stops_in = None;
                self.stopped = Some(Box::new(self.clone()));
            }
            Some(left) => self.stops_in = Some(left - 1),
            None => {}
        }
    }

    fn has_stopped(&mut self) -> bool {
        self.stops_in = None;
        let stopped = self.stopped.take();
        let has_stopped = stopped.is_some();
        if let Some(then) = stopped {
            *self = *then;
        }
        has_stopped
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        self.change();
        if let Some(left) = &mut self.fails_in {
            if *left == 0 {
                // The kernel considers the pages clean from here on.
                self.files[file].dirty.clear();
                return Err(io::Error::other("simulated EIO"));
            }
            *left -= 1;
        }
        if self.tamper != Some(DiskTamper::AcknowledgeBeforeSync) {
            self.files[file].sync();
        }
        Ok(())
    }
}

fn set_name(names: &mut BTreeMap<String, usize>, name: String, file: Option<usize>) {
    match file {
        Some(file) => drop(names.insert(name, file)),
        None => drop(names.remove(&name)),
    }
}

impl Content {
    /// Writes what is dirty and nothing else: after a failed sync that is less than what is not
    /// safe.
    fn sync(&mut self) {
        self.safe.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.bytes.len());
            if from < to {
                self.safe[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        if rng.bool() {
            self.safe.resize(self.bytes.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR_BYTES;
            let mut to = (from + SECTOR_BYTES).min(self.bytes.len()).min(self.safe.len());
            match rng.u8(..4) {
                0 | 1 => continue,
                2 if to > from => to = rng.usize(from..to),
                _ => {}
            }
            if from < to {
                self.safe[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
        self.bytes.clone_from(&self.safe);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let file = self.state().find(name)?;
        Ok(SimFile { disk: self.clone(), file })
    }

    fn open_to_read(&self, name: &str) -> io::Result<SimFile> {
        self.open(name)
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.change();
        let file = state.files.len();
        state.files.push(Content::default());
        state.rename(name, Some(file), false);
        Ok(SimFile { disk: self.clone(), file })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change();
        let file = state.find(from)?;
        // After a crash it may have either name, or both.
        state.rename(to, Some(file), false);
        state.rename(from, None, true);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change();
        state.find(name)?;
        state.rename(name, None, false);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change();
        if state.tamper != Some(DiskTamper::ForgetNames) {
            state.safe_names = state.names.clone();
            state.renames.clear();
        }
        Ok(())
    }
}

/// An open file of the disk; it keeps its bytes whatever becomes of its name.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let there = state.files[self.file].bytes.get(at as usize..).unwrap_or_default();
        let count = there.len().min(bytes.len());
        bytes[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.change();
        let is_short = state.rng.u8(..8) == 0;
        let count = if is_short { state.rng.usize(1..=bytes.len()) } else { bytes.len() };
        let (from, to) = (at as usize, at as usize + count);
        state.grow(self.file, to)?;
        let content = &mut state.files[self.file];
        if content.bytes.len() < to {
            content.bytes.resize(to, 0);
        }
        content.bytes[from..to].copy_from_slice(&bytes[..count]);
        content.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change();
        state.grow(self.file, length as usize)?;
        state.files[self.file].bytes.resize(length as usize, 0);
        Ok(())
    }

    fn make_room(&mut self, length: u64) -> io::Result<()> {
        let longer = length.max(self.length()?);
        self.set_length(longer)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.state().sync(self.file)
    }
}
