//! SFTP version 3 as bytes (draft-ietf-secsh-filexfer-02, and OpenSSH's `PROTOCOL` for its extensions).
//!
//! A packet is its length (4 bytes, big-endian), its type (1 byte), the number of the request (4 bytes) and fields.
//! Answers come from another machine: every length in them is checked against what is there before anything is taken,
//! and nothing is set aside by a number that the other side names.
//!
//! Not done here: the order of packets, and which answer fits which request.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The longest packet that is accepted, in bytes after its length. OpenSSH sends up to 256 KiB.
pub(super) const MAX_PACKET_BYTES: usize = 256 * 1024;
/// The longest handle that a server may give (section 3 of the draft), in bytes.
const MAX_HANDLE_BYTES: usize = 256;
/// The version that we speak.
pub(super) const VERSION: u32 = 3;

/// Extensions of OpenSSH.
pub(super) const FSYNC: &str = "fsync@openssh.com";
pub(super) const HARD_LINK: &str = "hardlink@openssh.com";
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";
pub(super) const STATVFS: &str = "statvfs@openssh.com";

/// For [`Request::Open`]: open for reading.
pub(super) const READ: u32 = 0x01;
/// For [`Request::Open`]: make a new file for writing; fails when the name is taken.
pub(super) const CREATE_NEW: u32 = 0x02 | 0x08 | 0x20;

/// What we ask for. Paths are bytes, as the server's file system has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Init,
    Open { path: Bytes, flags: u32, mode: u32 },
    Close { handle: Bytes },
    Read { handle: Bytes, offset: u64, length: u32 },
    Write { handle: Bytes, offset: u64, data: Bytes },
    LinkStatus { path: Bytes },
    Status { path: Bytes },
    FileStatus { handle: Bytes },
    OpenFolder { path: Bytes },
    ReadFolder { handle: Bytes },
    Remove { path: Bytes },
    MakeFolder { path: Bytes, mode: u32 },
    Fsync { handle: Bytes },
    HardLink { from: Bytes, to: Bytes },
    PosixRename { from: Bytes, to: Bytes },
    Statvfs { path: Bytes },
}

/// `SSH_FILEXFER_ATTR_PERMISSIONS`, the only attribute that we send.
const ATTR_PERMISSIONS: u32 = 0x04;

impl Request {
    /// The packet of this request with the number `id`: what comes first, and the data behind it, which is not copied.
    pub(super) fn encode(&self, id: u32) -> (Bytes, Bytes) {
        let mut body = BytesMut::with_capacity(128);
        let mut data = Bytes::new();
        self.fields(id, &mut body, &mut data);
        let mut packet = BytesMut::with_capacity(body.len() + 4);
        packet.put_u32(length_of(body.len() + data.len()));
        packet.extend_from_slice(&body);
        (packet.freeze(), data)
    }

    fn fields(&self, id: u32, body: &mut BytesMut, rest: &mut Bytes) {
        let mut start = |kind: u8, texts: &[&[u8]]| {
            body.put_u8(kind);
            body.put_u32(id);
            for text in texts {
                put_text(body, text);
            }
        };
        match self {
            Self::Init => {
                body.put_u8(1);
                body.put_u32(VERSION);
            }
            Self::Open { path, flags, mode } => {
                start(3, &[path]);
                body.put_u32(*flags);
                put_mode(body, *mode);
            }
            Self::Close { handle } => start(4, &[handle]),
            Self::Read { handle, offset, length } => {
                start(5, &[handle]);
                body.put_u64(*offset);
                body.put_u32(*length);
            }
            Self::Write { handle, offset, data } => {
                start(6, &[handle]);
                body.put_u64(*offset);
                body.put_u32(length_of(data.len()));
                *rest = data.clone();
            }
            Self::LinkStatus { path } => start(7, &[path]),
            Self::FileStatus { handle } => start(8, &[handle]),
            Self::OpenFolder { path } => start(11, &[path]),
            Self::ReadFolder { handle } => start(12, &[handle]),
            Self::Remove { path } => start(13, &[path]),
            Self::MakeFolder { path, mode } => {
                start(14, &[path]);
                put_mode(body, *mode);
            }
            Self::Status { path } => start(17, &[path]),
            Self::Fsync { handle } => start(200, &[FSYNC.as_bytes(), handle]),
            Self::HardLink { from, to } => start(200, &[HARD_LINK.as_bytes(), from, to]),
            Self::PosixRename { from, to } => start(200, &[POSIX_RENAME.as_bytes(), from, to]),
            Self::Statvfs { path } => start(200, &[STATVFS.as_bytes(), path]),
        }
    }
}

/// What we send is far below 4 GiB: pieces of [`super::files::PIECE_BYTES`], and names.
fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn put_text(body: &mut BytesMut, text: &[u8]) {
    body.put_u32(length_of(text.len()));
    body.extend_from_slice(text);
}

fn put_mode(body: &mut BytesMut, mode: u32) {
    body.put_u32(ATTR_PERMISSIONS);
    body.put_u32(mode);
}

/// What the server says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    pub(super) size_bytes: Option<u64>,
    /// Type and mode, as `st_mode`.
    pub(super) mode: Option<u32>,
    /// Seconds since 1970 of the last change.
    pub(super) modified_seconds: Option<u32>,
}

impl Attributes {
    pub(super) fn is_file(&self) -> bool {
        self.has_type(0o100_000)
    }

    pub(super) fn is_folder(&self) -> bool {
        self.has_type(0o040_000)
    }

    pub(super) fn is_link(&self) -> bool {
        self.has_type(0o120_000)
    }

    fn has_type(&self, expected: u32) -> bool {
        self.mode.is_some_and(|mode| mode & 0o170_000 == expected)
    }
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Bytes,
    pub(super) attributes: Attributes,
}

/// What the file system of the server has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free_bytes: u64,
    /// Whether no further file can be made.
    pub(super) is_out_of_files: bool,
    pub(super) is_read_only: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The server's version and the names of its extensions, in answer to [`Request::Init`].
    Version {
        version: u32,
        extensions: Vec<Bytes>,
    },
    Status {
        code: u32,
        message: Bytes,
    },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Entry>),
    Attributes(Attributes),
    /// The answer of an extension; only [`Request::Statvfs`] has one.
    Extended(Bytes),
}

/// What came is not what the draft says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Answer {
    /// Reads a packet (without its length); gives the number of the request that it answers, 0 for `Version`.
    pub(super) fn decode(packet: Bytes) -> Result<(u32, Self), Malformed> {
        let mut fields = Fields(packet);
        let kind = fields.byte()?;
        if kind == 2 {
            return Ok((0, version(fields)?));
        }
        let id = fields.u32()?;
        let answer = match kind {
            101 => Self::Status {
                code: fields.u32()?,
                // Version 3 has a message and its language; some servers leave both out.
                message: if fields.0.is_empty() { Bytes::new() } else { fields.text()? },
            },
            102 => Self::Handle(handle(&mut fields)?),
            103 => Self::Data(fields.text()?),
            104 => Self::Names(names(&mut fields)?),
            105 => Self::Attributes(attributes(&mut fields)?),
            201 => Self::Extended(fields.0),
            _ => return Err(Malformed("it is of a type that version 3 does not have")),
        };
        Ok((id, answer))
    }
}

fn version(mut fields: Fields) -> Result<Answer, Malformed> {
    let version = fields.u32()?;
    let mut extensions = Vec::new();
    while !fields.0.is_empty() {
        extensions.push(fields.text()?);
        fields.text()?;
    }
    Ok(Answer::Version { version, extensions })
}

fn handle(fields: &mut Fields) -> Result<Bytes, Malformed> {
    let handle = fields.text()?;
    if handle.len() > MAX_HANDLE_BYTES {
        return Err(Malformed("a handle is longer than 256 bytes"));
    }
    Ok(handle)
}

fn names(fields: &mut Fields) -> Result<Vec<Entry>, Malformed> {
    let count = fields.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = fields.text()?;
        // The line of `ls -l`, for people.
        fields.text()?;
        entries.push(Entry { name, attributes: attributes(fields)? });
    }
    Ok(entries)
}

fn attributes(fields: &mut Fields) -> Result<Attributes, Malformed> {
    let flags = fields.u32()?;
    if flags & !0x8000_000f != 0 {
        return Err(Malformed("it has attributes that version 3 does not have"));
    }
    let mut found = Attributes::default();
    if flags & 0x01 != 0 {
        found.size_bytes = Some(fields.u64()?);
    }
    if flags & 0x02 != 0 {
        fields.u64()?;
    }
    if flags & ATTR_PERMISSIONS != 0 {
        found.mode = Some(fields.u32()?);
    }
    if flags & 0x08 != 0 {
        fields.u32()?;
        found.modified_seconds = Some(fields.u32()?);
    }
    if flags & 0x8000_0000 != 0 {
        for _ in 0..fields.u32()? {
            fields.text()?;
            fields.text()?;
        }
    }
    Ok(found)
}

/// Reads the answer to [`Request::Statvfs`].
pub(super) fn room(answer: Bytes) -> Result<Room, Malformed> {
    let mut fields = Fields(answer);
    let mut numbers = [0; 11];
    for number in &mut numbers {
        *number = fields.u64()?;
    }
    let [_, fragment_bytes, _, _, available, files, _, available_files, _, flags, _] = numbers;
    Ok(Room {
        free_bytes: available.saturating_mul(fragment_bytes),
        // Some file systems do not count files, and say 0 of 0.
        is_out_of_files: files > 0 && available_files == 0,
        is_read_only: flags & 1 != 0,
    })
}

/// The rest of a packet.
struct Fields(Bytes);

impl Fields {
    const SHORT: Malformed = Malformed("it ends in the middle of a field");

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Self::SHORT)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Self::SHORT)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Self::SHORT)
    }

    fn text(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Self::SHORT)?;
        if length > self.0.len() {
            return Err(Self::SHORT);
        }
        Ok(self.0.split_to(length))
    }
}

#[cfg(test)]
pub(super) mod tests;
