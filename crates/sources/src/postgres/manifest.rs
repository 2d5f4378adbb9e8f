//! `backup_manifest`: the list of a backup's files as `pg_verifybackup` reads it.
//!
//! Source: PostgreSQL's documentation, "Backup Manifest Format"; the order of bytes in a checksum is that of
//! `pg_checksum_final` on a little-endian machine.

use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was changed.
    pub modified: Timestamp,
    /// CRC-32C of its contents.
    pub crc: u32,
}

/// Everything that a manifest tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupManifest {
    /// The files, by their paths within the data directory.
    pub files: BTreeMap<Vec<u8>, ManifestFile>,
    /// Timeline, first and last location of the WAL that the backup needs.
    pub wal: Option<(u32, String, String)>,
    /// The server's system identifier, for servers from version 17 on, whose manifests name it.
    pub system_identifier: Option<u64>,
}

impl BackupManifest {
    /// The manifest's bytes.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = match self.system_identifier {
            None => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned(),
            Some(id) => {
                format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {id},\n")
            }
        };
        text.push_str("\"Files\": [");
        for (at, (path, file)) in self.files.iter().enumerate() {
            let name = match std::str::from_utf8(path) {
                Ok(path) => format!("\"Path\": {}", quoted(path)?),
                Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path)),
            };
            text.push_str(&format!(
                "{}\n{{ {name}, \"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"CRC32C\", \
                 \"Checksum\": \"{}\" }}",
                if at == 0 { "" } else { "," },
                file.size_bytes,
                file.modified.strftime("%Y-%m-%d %H:%M:%S GMT"),
                hex(&file.crc.to_le_bytes()),
            ));
        }
        text.push_str("\n],\n\"WAL-Ranges\": [\n");
        if let Some((timeline, start, end)) = &self.wal {
            text.push_str(&format!(
                "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}\n"
            ));
        }
        text.push_str("],\n");
        text.push_str(&last_line(text.as_bytes()));
        Ok(text.into_bytes())
    }

    /// Reads a manifest, ours or `pg_basebackup`'s, and checks its own checksum. Files with another checksum than CRC-32C
    /// are left out.
    ///
    /// # Errors
    /// `Corrupt` for what is no manifest or was changed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let malformed = |what: String| Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, what);
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| malformed(format!("`backup_manifest` cannot be read: {error}")))?;
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let end = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // The last line is under no checksum: it has to be exactly the one that belongs to the others.
        if bytes[end..] != *last_line(&bytes[..end]).as_bytes() {
            return Err(malformed("`backup_manifest` does not have its own checksum".to_owned()));
        }
        let mut files = BTreeMap::new();
        for file in raw.files.into_iter().filter(|file| file.algorithm == "CRC32C") {
            let fields = || {
                let path = match (&file.path, &file.encoded_path) {
                    (Some(path), None) => path.clone().into_bytes(),
                    (None, Some(encoded)) => unhex(encoded)?,
                    _ => return None,
                };
                let crc = u32::from_le_bytes(unhex(&file.checksum)?.try_into().ok()?);
                let modified =
                    jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S GMT", &file.modified).ok()?;
                let modified = modified.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
                Some((path, ManifestFile { size_bytes: file.size_bytes, modified, crc }))
            };
            let (path, file) =
                fields().ok_or_else(|| malformed("`backup_manifest` has a malformed file".to_owned()))?;
            files.insert(path, file);
        }
        let wal = raw.wal.into_iter().next().map(|range| (range.timeline, range.start, range.end));
        Ok(Self { files, wal, system_identifier: raw.system_identifier })
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal: Vec<RawRange>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size_bytes: u64,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Checksum-Algorithm", default)]
    algorithm: String,
    #[serde(rename = "Checksum", default)]
    checksum: String,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

/// The line that ends a manifest, from what stands before it.
fn last_line(above: &[u8]) -> String {
    format!("\"Manifest-Checksum\": \"{}\"}}\n", hex(&Sha256::digest(above)))
}

fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|error| Error::internal("a path is no JSON").with_source(error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(files: Vec<(Vec<u8>, u64, i64, u32)>, system_identifier: Option<u64>) -> BackupManifest {
        let files = files.into_iter().map(|(path, size_bytes, second, crc)| {
            (path, ManifestFile { size_bytes, modified: Timestamp::from_second(second).unwrap(), crc })
        });
        let wal = Some((7, "0/2000028".to_owned(), "0/2000100".to_owned()));
        BackupManifest { files: files.collect(), wal, system_identifier }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::vec((any::<Vec<u8>>(), any::<u64>(), 0..4_000_000_000i64, any::<u32>()), 0..8),
            id: Option<u64>,
        ) {
            let manifest = manifest(files, id);
            prop_assert_eq!(BackupManifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap(), manifest);
        }

        #[test]
        fn no_byte_can_be_changed(at: prop::sample::Index, byte: u8) {
            let manifest = manifest(vec![(b"base/5/16384".to_vec(), 8192, 1_700_000_000, 0xDEAD_BEEF)], None);
            let mut bytes = manifest.to_bytes().unwrap();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert!(BackupManifest::from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn the_text_is_as_postgres_writes_it() {
        let files = vec![
            (b"backup_label".to_vec(), 227, 1_700_000_000, 0x0403_0201),
            (b"odd \xff".to_vec(), 0, 0, 0),
        ];
        let text = String::from_utf8(manifest(files, None).to_bytes().unwrap()).unwrap();
        insta::assert_snapshot!(text);
    }
}
