//! Encoders against a reader of their own and decoders against a writer of their own, both in the words of the draft.

use super::*;
use proptest::prelude::*;

/// The other side's reading of a request.
fn read(packet: &[u8]) -> (u32, Request) {
    let mut all = Bytes::copy_from_slice(packet);
    assert_eq!(all.get_u32() as usize, all.len(), "the length is that of what follows");
    let mut fields = Fields(all);
    let kind = fields.byte().unwrap();
    let id = fields.u32().unwrap();
    let request = match kind {
        1 => {
            assert_eq!(id, 3);
            return (0, Request::Init);
        }
        3 => {
            let (path, flags) = (fields.text().unwrap(), fields.u32().unwrap());
            Request::Open { path, flags, mode: attributes(&mut fields).unwrap().mode.unwrap() }
        }
        4 => Request::Close { handle: fields.text().unwrap() },
        5 => {
            let (handle, offset) = (fields.text().unwrap(), fields.u64().unwrap());
            Request::Read { handle, offset, length: fields.u32().unwrap() }
        }
        6 => {
            let (handle, offset) = (fields.text().unwrap(), fields.u64().unwrap());
            Request::Write { handle, offset, data: fields.text().unwrap() }
        }
        7 => Request::LinkStatus { path: fields.text().unwrap() },
        8 => Request::FileStatus { handle: fields.text().unwrap() },
        11 => Request::OpenFolder { path: fields.text().unwrap() },
        12 => Request::ReadFolder { handle: fields.text().unwrap() },
        13 => Request::Remove { path: fields.text().unwrap() },
        14 => {
            let path = fields.text().unwrap();
            Request::MakeFolder { path, mode: attributes(&mut fields).unwrap().mode.unwrap() }
        }
        17 => Request::Status { path: fields.text().unwrap() },
        200 => match (&fields.text().unwrap()[..], fields.text().unwrap()) {
            (b"fsync@openssh.com", handle) => Request::Fsync { handle },
            (b"hardlink@openssh.com", from) => Request::HardLink { from, to: fields.text().unwrap() },
            (b"posix-rename@openssh.com", from) => Request::PosixRename { from, to: fields.text().unwrap() },
            (b"statvfs@openssh.com", path) => Request::Statvfs { path },
            other => panic!("{other:?}"),
        },
        other => panic!("type {other}"),
    };
    assert!(fields.0.is_empty(), "nothing follows");
    (id, request)
}

/// The other side's writing of an answer.
pub(in crate::store::sftp) fn written(id: u32, answer: &Answer) -> Bytes {
    let mut body = BytesMut::new();
    let start = |body: &mut BytesMut, kind: u8| {
        body.put_u8(kind);
        body.put_u32(id);
    };
    match answer {
        Answer::Version { version, extensions } => {
            body.put_u8(2);
            body.put_u32(*version);
            for extension in extensions {
                put_text(&mut body, extension);
                put_text(&mut body, b"1");
            }
        }
        Answer::Status { code, message } => {
            start(&mut body, 101);
            body.put_u32(*code);
            put_text(&mut body, message);
            put_text(&mut body, b"en");
        }
        Answer::Handle(handle) => {
            start(&mut body, 102);
            put_text(&mut body, handle);
        }
        Answer::Data(data) => {
            start(&mut body, 103);
            put_text(&mut body, data);
        }
        Answer::Names(entries) => {
            start(&mut body, 104);
            body.put_u32(length_of(entries.len()));
            for entry in entries {
                put_text(&mut body, &entry.name);
                put_text(&mut body, b"-rw------- 1 u g 1 Jan 1 00:00 name");
                put_attributes(&mut body, &entry.attributes);
            }
        }
        Answer::Attributes(attributes) => {
            start(&mut body, 105);
            put_attributes(&mut body, attributes);
        }
        Answer::Extended(bytes) => {
            start(&mut body, 201);
            body.extend_from_slice(bytes);
        }
    }
    body.freeze()
}

/// With owner and an extended attribute, which we pass over.
fn put_attributes(body: &mut BytesMut, attributes: &Attributes) {
    let flag = |is_there: bool, bit: u32| if is_there { bit } else { 0 };
    body.put_u32(
        0x8000_0002
            | flag(attributes.size_bytes.is_some(), 1)
            | flag(attributes.mode.is_some(), 4)
            | flag(attributes.modified_seconds.is_some(), 8),
    );
    attributes.size_bytes.iter().for_each(|size| body.put_u64(*size));
    body.put_u64(0x03e8_0000_03e8);
    attributes.mode.iter().for_each(|mode| body.put_u32(*mode));
    attributes.modified_seconds.iter().for_each(|seconds| {
        body.put_u32(7);
        body.put_u32(*seconds);
    });
    body.put_u32(1);
    put_text(body, b"name@example.com");
    put_text(body, b"value");
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn requests() -> impl Strategy<Value = Request> {
    (0..16, some_bytes(), some_bytes(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(which, one, two, offset, number, mode)| match which {
            0 => Request::Init,
            1 => Request::Open { path: one, flags: number, mode },
            2 => Request::Close { handle: one },
            3 => Request::Read { handle: one, offset, length: number },
            4 => Request::Write { handle: one, offset, data: two },
            5 => Request::LinkStatus { path: one },
            6 => Request::Status { path: one },
            7 => Request::FileStatus { handle: one },
            8 => Request::OpenFolder { path: one },
            9 => Request::ReadFolder { handle: one },
            10 => Request::Remove { path: one },
            11 => Request::MakeFolder { path: one, mode },
            12 => Request::Fsync { handle: one },
            13 => Request::HardLink { from: one, to: two },
            14 => Request::PosixRename { from: one, to: two },
            _ => Request::Statvfs { path: one },
        },
    )
}

fn some_attributes() -> impl Strategy<Value = Attributes> {
    (any::<Option<u64>>(), any::<Option<u32>>(), any::<Option<u32>>())
        .prop_map(|(size_bytes, mode, modified_seconds)| Attributes { size_bytes, mode, modified_seconds })
}

fn answers() -> impl Strategy<Value = Answer> {
    let entry = (some_bytes(), some_attributes()).prop_map(|(name, attributes)| Entry { name, attributes });
    prop_oneof![
        (any::<u32>(), prop::collection::vec(some_bytes(), 0..4))
            .prop_map(|(version, extensions)| Answer::Version { version, extensions }),
        (any::<u32>(), some_bytes()).prop_map(|(code, message)| Answer::Status { code, message }),
        some_bytes().prop_map(Answer::Handle),
        some_bytes().prop_map(Answer::Data),
        prop::collection::vec(entry, 0..5).prop_map(Answer::Names),
        some_attributes().prop_map(Answer::Attributes),
        some_bytes().prop_map(Answer::Extended),
    ]
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_meant(id: u32, request in requests()) {
        let (first, rest) = request.encode(id);
        let (read_id, read_request) = read(&[first, rest].concat());
        prop_assert_eq!(read_id, if request == Request::Init { 0 } else { id });
        prop_assert_eq!(read_request, request);
    }

    #[test]
    fn an_answer_is_read_as_it_was_meant(id: u32, answer in answers()) {
        let (read_id, read_answer) = Answer::decode(written(id, &answer)).unwrap();
        prop_assert_eq!(read_id, if matches!(answer, Answer::Version { .. }) { 0 } else { id });
        prop_assert_eq!(read_answer, answer);
    }

    #[test]
    fn an_answer_that_was_cut_is_refused(answer in answers(), part in 0.0..1.0_f64) {
        let whole = written(1, &answer);
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        let length = (whole.len() as f64 * part) as usize;
        let cut = Answer::decode(whole.slice(..length));
        // What has no length of its own, and lists that end with the packet, may be shorter and still be whole.
        let may_be = matches!(answer, Answer::Extended(_) | Answer::Version { .. } | Answer::Status { .. });
        prop_assert!(may_be || cut.is_err(), "{cut:?}");
    }

    /// Bytes that a hostile server might send: never a panic, never more memory than was sent.
    #[test]
    fn any_bytes_are_read_or_refused(mut packet in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..9) {
        if let Some(first) = packet.first_mut() {
            *first = [1, 2, 101, 102, 103, 104, 105, 201, 255][kind];
        }
        let sent = packet.len();
        if let Ok((_, Answer::Names(entries))) = Answer::decode(packet.into()) {
            prop_assert!(entries.len() * 12 <= sent);
        }
    }

    #[test]
    fn one_changed_byte_is_no_panic(answer in answers(), at: prop::sample::Index, to: u8) {
        let mut packet = written(1, &answer).to_vec();
        let at = at.index(packet.len());
        packet[at] = to;
        if let Ok((_, Answer::Extended(bytes))) = Answer::decode(packet.into()) {
            room(bytes).ok();
        }
    }
}

#[test]
fn lengths_beyond_the_packet_are_refused_before_anything_is_taken() {
    for packet in [
        &[103, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0][..],
        &[104, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[105, 0, 0, 0, 1, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[102, 0, 0, 0, 1, 0, 0, 0, 2, 1],
    ] {
        assert_eq!(Answer::decode(Bytes::copy_from_slice(packet)), Err(Fields::SHORT), "{packet:?}");
    }
    let long = written(1, &Answer::Handle(vec![0; 257].into()));
    assert!(Answer::decode(long).is_err());
}

#[test]
fn a_status_without_a_message_is_understood() {
    let answer = Answer::decode(Bytes::from_static(&[101, 0, 0, 0, 9, 0, 0, 0, 4]));
    assert_eq!(answer, Ok((9, Answer::Status { code: 4, message: Bytes::new() })));
}

#[test]
fn room_is_what_the_file_system_says() {
    let numbers = |available: u64, files: u64, flags: u64| {
        let mut bytes = BytesMut::new();
        for number in [4096, 512, 100, 50, available, files, 9, 0, 7, flags, 255] {
            bytes.put_u64(number);
        }
        room(bytes.freeze()).unwrap()
    };
    assert_eq!(numbers(3, 9, 1), Room { free_bytes: 1536, is_out_of_files: true, is_read_only: true });
    assert_eq!(
        numbers(u64::MAX, 0, 2),
        Room { free_bytes: u64::MAX, is_out_of_files: false, is_read_only: false }
    );
    assert_eq!(room(Bytes::from_static(&[0; 87])), Err(Fields::SHORT));
}
