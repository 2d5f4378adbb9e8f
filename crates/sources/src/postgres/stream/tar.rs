//! Headers of tar archives, as PostgreSQL writes them: `ustar` with files, directories and symbolic links, paths of at most 99
//! bytes, and numbers beyond the octal ones in base 256 (`tarCreateHeader` in the server's `src/port/tar.c`).
//!
//! Anything else is refused: what comes from a server may be hostile, and a path that leads out of its folder, or an extension
//! that renames the next entry, has no place in a backup.

const BAD: &str = "a malformed number in a tar archive";
/// Headers and the padding of contents come in blocks of so many bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The path within the archive: relative, without `.`, `..` and empty parts.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// The lower twelve bits of `st_mode`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a file; otherwise 0.
    pub(super) size_bytes: u64,
    /// Seconds since 1970.
    pub(super) modified_seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// With where it leads.
    Link(Vec<u8>),
}

/// Reads a header; `None` for the zeros that end an archive.
///
/// # Errors
/// What is wrong with it.
pub(super) fn header(block: &[u8; BLOCK_BYTES]) -> Result<Option<Entry>, &'static str> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if &block[257..262] != b"ustar" {
        return Err("no header of a tar archive");
    }
    if number(&block[148..156]) != Some(checksum(block)) {
        return Err("a header of a tar archive without its checksum");
    }
    let kind = match block[156] {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Folder,
        b'2' => Kind::Link(text(&block[157..257]).to_vec()),
        _ => return Err("an entry of an unknown kind in a tar archive"),
    };
    if !text(&block[345..500]).is_empty() {
        return Err("a path in two parts in a tar archive");
    }
    let name = text(&block[..100]);
    // Directories end with a slash, and links to them too.
    let name = if kind == Kind::File { name } else { name.strip_suffix(b"/").unwrap_or(name) };
    // As the server writes `./pg_wal/archive_status`.
    let name = name.strip_prefix(b"./").unwrap_or(name);
    if !name.split(|byte| *byte == b'/').all(is_name) {
        return Err("a path in a tar archive that leads out of it");
    }
    let field = |from: usize, to: usize| number(&block[from..to]).ok_or(BAD);
    let small = |from: usize, to: usize| u32::try_from(field(from, to)?).map_err(|_| BAD);
    let size_bytes = field(124, 136)?;
    if kind != Kind::File && size_bytes != 0 {
        return Err("contents of what is no file in a tar archive");
    }
    Ok(Some(Entry {
        path: name.to_vec(),
        mode: u32::try_from(field(100, 108)? & 0o7777).map_err(|_| BAD)?,
        uid: small(108, 116)?,
        gid: small(116, 124)?,
        size_bytes,
        modified_seconds: i64::try_from(field(136, 148)?).map_err(|_| BAD)?,
        kind,
    }))
}

/// The zeros behind contents of `size_bytes`.
pub(super) fn padding_bytes(size_bytes: u64) -> usize {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    // Below a block.
    usize::try_from((BLOCK - size_bytes % BLOCK) % BLOCK).unwrap_or(0)
}

fn is_name(part: &[u8]) -> bool {
    !matches!(part, b"" | b"." | b"..")
}

/// A text, up to its zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of a header's bytes, its own field taken for spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let own = 148..156;
    block.iter().enumerate().map(|(at, byte)| u64::from(if own.contains(&at) { b' ' } else { *byte })).sum()
}

/// A number: octal digits, or in base 256 behind a byte of `0x80`. `None` for what is none or has more than 64 bits.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest
            .iter()
            .try_fold(0u64, |sum, byte| sum.checked_mul(256).map(|sum| sum | u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = (*byte as char).to_digit(8)?;
        sum.checked_mul(8).map(|sum| sum | u64::from(digit))
    })
}

#[cfg(test)]
pub(super) mod tests;
