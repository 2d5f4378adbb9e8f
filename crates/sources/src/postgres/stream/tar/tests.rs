use super::*;
use proptest::prelude::*;

/// A header as the server's `tarCreateHeader` writes it.
pub(in crate::postgres::stream) fn written(entry: &Entry) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut name = entry.path.clone();
    let flag = match &entry.kind {
        Kind::File => b'0',
        Kind::Folder => b'5',
        Kind::Link(target) => {
            block[157..157 + target.len()].copy_from_slice(target);
            b'2'
        }
    };
    if entry.kind != Kind::File {
        name.push(b'/');
    }
    block[..name.len()].copy_from_slice(&name);
    put(&mut block[100..108], u64::from(entry.mode));
    put(&mut block[108..116], u64::from(entry.uid));
    put(&mut block[116..124], u64::from(entry.gid));
    put(&mut block[124..136], entry.size_bytes);
    put(&mut block[136..148], u64::try_from(entry.modified_seconds).unwrap());
    block[156] = flag;
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    block[265..273].copy_from_slice(b"postgres");
    block[297..305].copy_from_slice(b"postgres");
    seal(&mut block);
    block
}

fn put(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let octal = format!("{number:0digits$o} ");
    if octal.len() == field.len() {
        field.copy_from_slice(octal.as_bytes());
        return;
    }
    field[0] = 0x80;
    let bytes = number.to_be_bytes();
    let from = field.len().saturating_sub(bytes.len()).max(1);
    let count = field.len() - from;
    field[from..].copy_from_slice(&bytes[bytes.len() - count..]);
}

fn seal(block: &mut [u8; BLOCK_BYTES]) {
    let sum = checksum(block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn file(path: &str) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind: Kind::File,
        mode: 0o600,
        uid: 104,
        gid: 111,
        size_bytes: 8192,
        modified_seconds: 1_700_000_000,
    }
}

/// What `change` makes of a good header, with its checksum put right.
fn changed(change: impl FnOnce(&mut [u8; BLOCK_BYTES])) -> Result<Option<Entry>, &'static str> {
    let mut block = written(&file("base/5/16384"));
    change(&mut block);
    seal(&mut block);
    header(&block)
}

#[test]
fn files_folders_and_links_are_read_as_they_were_written() {
    let folder = Entry { kind: Kind::Folder, size_bytes: 0, mode: 0o700, ..file("base/5") };
    let link = Entry { kind: Kind::Link(b"/srv/fast".to_vec()), size_bytes: 0, ..file("pg_tblspc/16400") };
    // Beyond 8 GiB, and a user of a large number: in base 256.
    let large = Entry { size_bytes: 9 << 30, uid: 4_000_000_000, ..file("base/5/1") };
    for entry in [file("PG_VERSION"), folder, link, large] {
        assert_eq!(header(&written(&entry)), Ok(Some(entry)));
    }
    let dotted = header(&written(&file("./pg_wal/archive_status"))).unwrap().unwrap();
    assert_eq!(dotted.path, b"pg_wal/archive_status");
    assert_eq!(header(&[0; BLOCK_BYTES]), Ok(None));
    assert_eq!([0, 1, 511, 512, 513].map(padding_bytes), [0, 511, 1, 0, 511]);
}

#[test]
fn what_leads_out_or_renames_or_is_no_header_is_refused() {
    for path in
        ["", "/etc/passwd", "..", "../x", "base/../../x", "base//1", "./", "././base", ".//base", "base/."]
    {
        assert!(header(&written(&file(path))).is_err(), "{path:?}");
    }
    // Long names, extended headers, hard links, devices, sparse files.
    for kind in *b"LKxg1346S7" {
        assert!(changed(|block| block[156] = kind).is_err(), "{}", kind as char);
    }
    assert!(changed(|block| block[345] = b'x').is_err(), "a prefix");
    assert!(changed(|block| block[156] = b'5').is_err(), "a folder with contents");
    assert!(changed(|block| block[257] = b'x').is_err(), "no magic");
    for bytes in [*b"0000000000 8", *b"            ", *b"-00000000001", *b"00000000x000"] {
        assert!(changed(|block| block[124..136].copy_from_slice(&bytes)).is_err(), "{bytes:?}");
    }
    let beyond = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(changed(|block| block[124..136].copy_from_slice(&beyond)).is_err());
}

proptest! {
    #[test]
    fn any_block_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES), sealed: bool) {
        let mut block: [u8; BLOCK_BYTES] = bytes.try_into().unwrap();
        block[257..262].copy_from_slice(b"ustar");
        if sealed {
            seal(&mut block);
        }
        if let Ok(Some(entry)) = header(&block) {
            prop_assert!(entry.path.split(|byte| *byte == b'/').all(is_name));
        }
    }

    #[test]
    fn no_byte_of_a_header_can_be_changed(at in 0..BLOCK_BYTES, byte: u8) {
        let good = file("base/5/16384");
        let mut block = written(&good);
        prop_assume!(block[at] != byte);
        block[at] = byte;
        // Spaces and zeros around the checksum's own digits mean nothing.
        prop_assert!(header(&block).is_err() || (148..156).contains(&at));
    }

    #[test]
    fn sizes_of_all_lengths_come_back(size_bytes: u64) {
        let entry = Entry { size_bytes, ..file("x") };
        prop_assert_eq!(header(&written(&entry)), Ok(Some(entry)));
    }
}
