//! Looking at a journal without changing it: what a start would read and report.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, DiskFile, Folder};
use super::feed::Each;
use super::record::Record;
use super::recover::{JournalError, Recovered, recover};
use super::writer::{Durability, JournalSettings};

/// Reads the journal in a folder as a start does, and leaves it unchanged.
///
/// # Errors
/// What would keep a server from starting.
pub fn view(
    dir: &Path,
    feed: impl FnMut(Record),
) -> Result<Recovered<ReadOnly<Folder>>, JournalError> {
    let settings = JournalSettings {
        durability: Durability::Sync,
        segment_bytes: 0,
        bytes_max: u64::MAX,
        clock_began: Duration::ZERO,
        // It does not matter which boot of the machine this is.
        boot: 0,
        fresh: [0; 2],
        accept_loss: false,
    };
    recover(ReadOnly(Folder::new(dir)), settings, &mut Each(feed))
}

/// A disk that skips everything that would change it.
#[derive(Debug)]
pub struct ReadOnly<D>(pub D);

/// A file of it; `None` if it was to be created.
#[derive(Debug)]
pub struct ReadOnlyFile<F>(Option<F>);

impl<D: Disk> Disk for ReadOnly<D> {
    type File = ReadOnlyFile<D::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(ReadOnlyFile(Some(self.0.open_to_read(name)?)))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Self::File> {
        self.open(name)
    }

    fn create(&self, _name: &str) -> io::Result<Self::File> {
        Ok(ReadOnlyFile(None))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: DiskFile> DiskFile for ReadOnlyFile<F> {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.as_ref().map_or(Ok(0), |file| DiskFile::read_at(file, bytes, at))
    }

    fn write_at(&mut self, bytes: &[u8], _at: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn length(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), DiskFile::length)
    }

    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn make_room(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
