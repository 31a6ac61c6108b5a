//! Whether a journal is worth anything in a folder: on what file system it is, and what a sync costs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FsWord, statfs};

use super::{Finding, Verdict};

/// File systems that forget: what they are called, and what becomes of what is written to them.
const FORGETFUL: [(FsWord, &str, &str); 3] = [
    (0x0102_1994, "tmpfs", "it is gone when the machine stops"),
    (0x8584_58f6, "ramfs", "it is gone when the machine stops"),
    (0x794c_7630, "overlayfs", "it lives as long as its container"),
];

/// The file that is written to find out what a sync costs; gone afterwards.
const TRIED_NAME: &str = "pushline-doctor.tmp";
/// As much as a small commit.
const TRIED_BYTES: usize = 4096;
const TRIED_TIMES: u64 = 21;

/// A disk of a data centre takes a fraction of this, one that turns some ten milliseconds.
const SYNC_TIME_MAX: Duration = Duration::from_millis(3);

/// What there is to say of the folder a journal is to be in.
pub(crate) fn findings(dir: &Path) -> Vec<Finding> {
    vec![file_system(dir), sync(dir)]
}

fn file_system(dir: &Path) -> Finding {
    let wanted = "one that keeps what is written".to_owned();
    let check = format!("file system of {}", dir.display());
    let (found, verdict, cure) = match statfs(dir) {
        Err(error) => (format!("{error}"), Verdict::Note, String::new()),
        Ok(found) => match FORGETFUL.iter().find(|(magic, ..)| *magic == found.f_type) {
            None => (format!("type {:x}", found.f_type), Verdict::Ok, String::new()),
            Some((_, name, fate)) => {
                let cure = format!("{fate}: put data_dir on a disk (in a container: on a volume)");
                ((*name).to_owned(), Verdict::Weak, cure)
            }
        },
    };
    Finding { check, found, wanted, verdict, cure }
}

fn sync(dir: &Path) -> Finding {
    let wanted = format!("at most {:.1} ms", SYNC_TIME_MAX.as_secs_f64() * 1e3);
    let (found, verdict, cure) = match median_sync(dir) {
        Err(error) => {
            let cure = "the server's user must be able to write there".to_owned();
            (format!("{error}"), Verdict::Weak, cure)
        }
        Ok(took) => {
            let found = format!("{:.2} ms", took.as_secs_f64() * 1e3);
            match took > SYNC_TIME_MAX {
                false => (found, Verdict::Ok, String::new()),
                true => (
                    found,
                    Verdict::Weak,
                    "each publish waits that long; use a disk of its \
                         own, or durability = \"os\" if a loss of power may lose events"
                        .to_owned(),
                ),
            }
        }
    };
    Finding { check: "fdatasync of 4 KiB, median".into(), found, wanted, verdict, cure }
}

fn median_sync(dir: &Path) -> io::Result<Duration> {
    let path = dir.join(TRIED_NAME);
    let file = File::create(&path)?;
    let took = time_syncs(&file);
    drop(fs::remove_file(&path));
    let mut took = took?;
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

fn time_syncs(file: &File) -> io::Result<Vec<Duration>> {
    let bytes = [b'x'; TRIED_BYTES];
    (0..TRIED_TIMES)
        .map(|number| {
            file.write_all_at(&bytes, number * TRIED_BYTES as u64)?;
            let began = Instant::now();
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_warned_of() {
        let found = file_system(Path::new("/dev/shm"));
        assert_eq!((found.found.as_str(), found.verdict), ("tmpfs", Verdict::Weak));
        assert!(found.cure.contains("data_dir"), "{found:?}");
    }

    #[test]
    fn a_sync_is_measured_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let [_, measured] = findings(folder.path()).try_into().expect("two findings");
        assert!(measured.found.ends_with(" ms"), "{measured:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
        let [missing, untried] = findings(&folder.path().join("no")).try_into().expect("two");
        assert_eq!((missing.verdict, untried.verdict), (Verdict::Note, Verdict::Weak));
    }
}
