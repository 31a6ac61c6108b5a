//! What the journal needs from a disk: a flat folder of files. The simulated one tears writes,
//! loses what was not synced, and fails.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// Only the server's user may read events, whatever the umask.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// The folder of a journal, and what is done with its files by name.
pub trait Disk: Debug + Send {
    /// An open file of the folder.
    type File: DiskFile;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading only.
    fn open_to_read(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file, replacing an older one of this name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing the one that had the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; its name may come back until [`Disk::sync_names`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns once the names of all files are safe.
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file of a journal.
pub trait DiskFile: Debug + Send {
    /// Reads its bytes from `at` on; fewer than asked for at its end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes some of these bytes, and returns how many.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Cuts it, or extends it with zeros.
    fn set_length(&mut self, length: u64) -> io::Result<()>;

    /// Reserves room for this many bytes without changing those that exist; new ones are zeros.
    fn make_room(&mut self, length: u64) -> io::Result<()>;

    /// Returns once its bytes and its length are safe.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of this machine.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A folder that must exist.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Disk for Folder {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.0.join(name))
    }

    fn open_to_read(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.mode(OWNER_ONLY).open(self.0.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, at)
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn make_room(&mut self, length: u64) -> io::Result<()> {
        match fallocate(&*self, FallocateFlags::empty(), 0, length) {
            // Not every file system can; then a full disk is only noticed when writing.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(length),
            made => Ok(made?),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length counts as data, as it is needed to read the file.
        self.sync_data()
    }
}

/// Reads a whole file.
pub(super) fn read_all(file: &impl DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let count = read_some(file, &mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads as much as there is room for, or until the file ends.
pub(super) fn read_some(file: &impl DiskFile, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], from + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Writes all of it.
pub(super) fn write_all(file: &mut impl DiskFile, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
