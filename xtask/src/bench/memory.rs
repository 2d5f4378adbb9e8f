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
    let all_bytes = meminfo("MemTotal")?;
    let mut buffer = vec![0; 4 << 20];
    let start = *position;
    // At most as much as there is: on some systems more than we think stays free.
    while meminfo("MemFree")? > FREE_BYTES && *position < start + all_bytes {
        for _ in 0..STEP_BYTES / buffer.len() as u64 {
            let read = file.read_at(&mut buffer, *position % LENGTH_BYTES);
            *position += read.map_err(|error| format!("cannot fill the memory: {error}"))? as u64;
        }
    }
    Ok(())
}

/// Reads all files in `folder` and below, or the file that it is.
///
/// # Errors
/// What the system says.
pub(super) fn warm(folder: &Path) -> Result {
    let fail = |error: std::io::Error| format!("cannot read `{}`: {error}", folder.display());
    let metadata = folder.symlink_metadata().map_err(fail)?;
    if metadata.is_dir() {
        for entry in folder.read_dir().map_err(fail)? {
            warm(&entry.map_err(fail)?.path())?;
        }
    } else if metadata.is_file() {
        let mut file = File::open(folder).map_err(fail)?;
        std::io::copy(&mut file, &mut std::io::sink()).map_err(fail)?;
    }
    Ok(())
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
    fn everything_below_a_folder_is_read_and_what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        warm(folder.path()).unwrap();
        warm(&folder.path().join("sub/file")).unwrap();
        let error = warm(&folder.path().join("nothing")).unwrap_err();
        assert!(error.contains("nothing"), "{error}");
    }
}
