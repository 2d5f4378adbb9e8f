//! Reads just enough of a 64-bit little-endian ELF file to tell a static program from a dynamic one.
//!
//! A static program has no `PT_INTERP` (no loader is asked for) and no `DT_NEEDED` (no library either); a static
//! position-independent one still has a dynamic section, so that `PT_DYNAMIC` alone says nothing.

use crate::sh::Result;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;

/// What a program asks of the system that starts it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Linkage {
    /// The loader's path.
    pub(super) interpreter: Option<String>,
    /// How many shared libraries it names.
    pub(super) needed: usize,
}

/// Reads the program headers.
pub(super) fn linkage(file: &[u8]) -> Result<Linkage> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("this is not a 64-bit little-endian ELF file".to_owned());
    }
    let table = number::<8>(file, 0x20)?;
    let entry_bytes = number::<2>(file, 0x36)?;
    let entries = number::<2>(file, 0x38)?;
    let mut linkage = Linkage { interpreter: None, needed: 0 };
    for index in 0..entries {
        let header = offset(table.checked_add(index * entry_bytes))?;
        let start = number::<8>(file, offset(header.checked_add(8).map(|at| at as u64))?)?;
        let length = number::<8>(file, offset(header.checked_add(32).map(|at| at as u64))?)?;
        let kind = number::<4>(file, header)?;
        if kind == u64::from(PT_INTERP) {
            let text = part(file, start, length)?;
            linkage.interpreter = Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        } else if kind == u64::from(PT_DYNAMIC) {
            linkage.needed = part(file, start, length)?
                .chunks_exact(16)
                .map(|entry| number::<8>(entry, 0).unwrap_or(DT_NULL))
                .take_while(|tag| *tag != DT_NULL)
                .filter(|tag| *tag == DT_NEEDED)
                .count();
        }
    }
    Ok(linkage)
}

fn offset(value: Option<u64>) -> Result<usize> {
    value.and_then(|value| usize::try_from(value).ok()).ok_or_else(cut)
}

fn part(file: &[u8], start: u64, length: u64) -> Result<&[u8]> {
    let end = offset(start.checked_add(length))?;
    file.get(offset(Some(start))?..end).ok_or_else(cut)
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(file: &[u8], at: usize) -> Result<u64> {
    let end = at.checked_add(N).ok_or_else(cut)?;
    let bytes = file.get(at..end).ok_or_else(cut)?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn cut() -> String {
    "the ELF file is cut or damaged".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header of `kind` that points to `contents`.
    fn file(kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut file = vec![0_u8; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 64;
        file[0x36] = 56;
        file[0x38] = 1;
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file[64 + 8] = 120;
        file[64 + 32..64 + 40].copy_from_slice(&(contents.len() as u64).to_le_bytes());
        file.extend_from_slice(contents);
        file
    }

    #[test]
    fn a_loader_is_seen() {
        let found = linkage(&file(PT_INTERP, b"/lib64/ld.so\0")).unwrap();
        assert_eq!(found, Linkage { interpreter: Some("/lib64/ld.so".into()), needed: 0 });
    }

    #[test]
    fn libraries_are_counted_up_to_the_end_mark() {
        let entries: Vec<u8> = [DT_NEEDED, 7, 5, 7, DT_NEEDED, 9, DT_NULL, 0, DT_NEEDED, 1]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        assert_eq!(linkage(&file(PT_DYNAMIC, &entries)).unwrap().needed, 2);
    }

    #[test]
    fn a_static_program_asks_for_nothing() {
        assert_eq!(linkage(&file(1, b"code")).unwrap(), Linkage { interpreter: None, needed: 0 });
    }

    #[test]
    fn every_cut_is_an_error_or_the_same_answer_and_never_a_panic() {
        let whole = file(PT_INTERP, b"/lib64/ld.so\0");
        for length in 0..whole.len() {
            assert!(linkage(&whole[..length]).is_err(), "cut at {length}");
        }
        let mut hostile = whole;
        hostile[64 + 32..64 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(linkage(&hostile).is_err());
    }
}
