//! Which server a data directory belongs to.

use retoma_core::postgres::SegmentHeader;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The beginning of `pg_control` (`ControlFileData` in `pg_control.h`): system identifier, version.
const CONTROL_BYTES: usize = 12;

/// `global/pg_control` of the data directory that `path`, a file in its `pg_wal`, lies in. The way is that of the words:
/// `pg_wal` may be a link to another disk.
fn control_file(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let data = match folder.parent()? {
        data if data.as_os_str().is_empty() => Path::new("."),
        data => data,
    };
    (folder.file_name()? == "pg_wal").then(|| data.join("global/pg_control"))
}

/// The system identifier of the server in whose `pg_wal` the file `path` is or will be; `None` without a data directory.
///
/// # Errors
/// What the file system says; `Corrupt` with `R0420` for a file that is no `pg_control` of this machine's byte order.
pub fn of_data_directory(path: &Path) -> Result<Option<u64>> {
    let Some(control) = control_file(path) else { return Ok(None) };
    let mut bytes = [0; CONTROL_BYTES];
    match File::open(&control).and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(control.display(), error).context("look which server this is")),
    }
    let [identifier, version] = [&bytes[..8], &bytes[8..]].map(<[u8]>::to_vec);
    let identifier = identifier.try_into().map_or(0, u64::from_ne_bytes);
    let version = version.try_into().map_or(0, u32::from_ne_bytes);
    // 1300 for version 13, 1800 for 18.
    if identifier == 0 || !(900..=99_999).contains(&version) {
        let message = format!("`{}` is no control file of PostgreSQL", control.display());
        return Err(Error::new(ErrorKind::Corrupt, codes::POSTGRES_SETUP, message)
            .with_hint("look whether the data directory was restored as a whole"));
    }
    Ok(Some(identifier))
}

/// The system identifier that a segment says; `None` when the file does not begin as one.
pub fn of_segment(path: &Path) -> Result<Option<u64>> {
    let mut bytes = Vec::with_capacity(SegmentHeader::BYTES);
    let read = |bytes: &mut Vec<u8>| File::open(path)?.take(SegmentHeader::BYTES as u64).read_to_end(bytes);
    read(&mut bytes).map_err(|error| Error::io(path.display(), error))?;
    Ok(SegmentHeader::parse(&bytes).map(|header| header.system_identifier))
}

/// The error of who can't know which server it is.
pub(super) fn unknown(path: &Path) -> Error {
    let message = format!("nothing says which server `{}` belongs to", path.display());
    Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message).with_hint(
        "run it in the data directory, as PostgreSQL does, or give `--system-identifier` (`pg_controldata` prints it)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_the_one_of_the_data_directory_around_pg_wal() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let path = data.join("pg_wal/RECOVERYXLOG");
        assert_eq!(of_data_directory(&path).unwrap(), None);
        std::fs::create_dir(data.join("global")).unwrap();
        let control = |bytes: &[u8]| std::fs::write(data.join("global/pg_control"), bytes).unwrap();
        control(&[&77u64.to_ne_bytes()[..], &1300u32.to_ne_bytes(), &[9; 50]].concat());
        assert_eq!(of_data_directory(&path).unwrap(), Some(77));
        assert_eq!(of_data_directory(&data.join("elsewhere/RECOVERYXLOG")).unwrap(), None);
        for wrong in [&[0; 50][..], &[7; 50]] {
            control(wrong);
            assert_eq!(of_data_directory(&path).unwrap_err().code(), codes::POSTGRES_SETUP);
        }
        control(b"short");
        assert!(of_data_directory(&path).is_err());
        assert_eq!(control_file(Path::new("pg_wal/x")), Some(PathBuf::from("./global/pg_control")));
        assert_eq!(control_file(Path::new("x")), None);
    }

    #[test]
    fn a_segment_says_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, retoma_testkit::wal::segment("000000010000000000000007", 77, 1)).unwrap();
        assert_eq!(of_segment(&path).unwrap(), Some(77));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(of_segment(&path).unwrap(), None);
    }
}
