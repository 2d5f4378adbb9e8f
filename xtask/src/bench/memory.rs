//! The same memory for every run: none of it free.
//!
//! A virtual machine may give back to its host what is free in it (`virtio_balloon`, free page reporting). Who writes next pays
//! for having it again, about 1 s a GB here, and how much is free depends on what ran before and how long ago that was: on
//! the same machine, the same restore took 4.5 and 6.5 s. A machine that has been up for a while has no free memory: its files are
//! cached. So before the clock starts, what is free is filled with pages of a file that nobody needs; then what the run will read is
//! read, so that it is in memory whatever was pushed out.

use crate::dist::target_dir;
use crate::sh::{self, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;

/// So much stays free; the system keeps some itself.
const FREE_BYTES: u64 = 512 << 20;
/// So much is read between two looks at what is free.
const STEP_BYTES: u64 = 64 << 20;
/// The filler's length: all holes, and never read twice.
const LENGTH_BYTES: u64 = 1 << 40;

/// The filler, which has no name, and up to where it was read.
static FILLER: Mutex<Option<(File, u64)>> = Mutex::new(None);

/// Fills what is free with cached pages.
///
/// # Errors
/// What the system says.
pub(super) fn fill() -> Result {
    let mut filler = FILLER.lock().map_err(|_| "another measurement panicked".to_owned())?;
    if filler.is_none() {
        let folder = Path::new(&target_dir()?).join("bench");
        sh::make_dir(&folder)?;
        let make = || {
            let file = tempfile::tempfile_in(&folder)?;
            file.set_len(LENGTH_BYTES).map(|()| (file, 0))
        };
        *filler = Some(make().map_err(|error| format!("cannot fill the memory: {error}"))?);
    }
    let Some((file, position)) = filler.as_mut() else { return Ok(()) };
    *position = read_on(file, *position, meminfo("MemTotal")?, || meminfo("MemFree"))?;
    Ok(())
}

/// Reads on in `file` until little is free, and at most `limit_bytes`: on some systems more than we think stays free. Gives where it
/// ended.
fn read_on(file: &File, start: u64, limit_bytes: u64, free_bytes: impl Fn() -> Result<u64>) -> Result<u64> {
    let mut buffer = vec![0; 4 << 20];
    let mut position = start;
    while free_bytes()? > FREE_BYTES && position < start + limit_bytes {
        for _ in 0..STEP_BYTES / buffer.len() as u64 {
            let read = file.read_at(&mut buffer, position % LENGTH_BYTES);
            position += read.map_err(|error| format!("cannot fill the memory: {error}"))? as u64;
        }
    }
    Ok(position)
}

/// Reads all files in `folder` and below; how many bytes they have. What goes away meanwhile is passed over: a server works there.
///
/// # Errors
/// What the system says.
pub(super) fn warm(folder: &Path) -> Result<u64> {
    let fail = |error: io::Error| format!("cannot read `{}`: {error}", folder.display());
    let mut bytes = 0;
    for entry in folder.read_dir().map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            bytes += warm(&entry.path())?;
        } else if kind.is_file() {
            bytes += match File::open(entry.path()) {
                Ok(mut file) => io::copy(&mut file, &mut io::sink()).map_err(fail)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(fail(error)),
            };
        }
    }
    Ok(bytes)
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> Result<u64> {
    parse(&sh::read(Path::new("/proc/meminfo"))?, name)
}

fn parse(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.map(|value| value << 10).ok_or_else(|| format!("`/proc/meminfo` has no `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_read_by_its_whole_name() {
        let text = "MemTotal:       24684 kB\nMemFree:  1024 kB\nMemAvailable: 2 kB\nHugePages_Total: 7\n";
        assert_eq!(parse(text, "MemFree"), Ok(1 << 20));
        assert_eq!(parse(text, "MemTotal"), Ok(24684 << 10));
        for bad in ["Mem", "HugePages_Total", "SwapFree"] {
            assert!(parse(text, bad).is_err(), "{bad}");
        }
        assert!(meminfo("MemTotal").unwrap() > meminfo("MemFree").unwrap());
    }

    #[test]
    fn reading_goes_on_until_little_is_free_and_never_beyond_what_there_is() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LENGTH_BYTES).unwrap();
        let left = std::cell::Cell::new(3 * STEP_BYTES);
        let free = || {
            left.set(left.get() - STEP_BYTES);
            Ok(FREE_BYTES + left.get())
        };
        assert_eq!(read_on(&file, 7, u64::MAX >> 1, free), Ok(7 + 2 * STEP_BYTES));
        assert_eq!(read_on(&file, 7, STEP_BYTES + 1, || Ok(u64::MAX)), Ok(7 + 2 * STEP_BYTES));
        assert_eq!(read_on(&file, 7, STEP_BYTES, || Ok(FREE_BYTES)), Ok(7));
        assert!(read_on(&file, 7, STEP_BYTES, || Err("no".to_owned())).is_err());
    }

    #[test]
    fn everything_below_a_folder_is_read_and_what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sub/sub")).unwrap();
        std::fs::write(folder.path().join("sub/sub/file"), vec![1; 100_000]).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert_eq!(warm(folder.path()), Ok(100_001));
        let error = warm(&folder.path().join("nothing")).unwrap_err();
        assert!(error.contains("nothing"), "{error}");
    }
}
