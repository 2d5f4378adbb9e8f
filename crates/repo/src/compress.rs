//! zstd, with bounds: nothing is expanded beyond what the caller says it may be.

use crate::format::malformed;
use crate::threads;
use retoma_core::{Error, Result, units::counted};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The level for everything: on files as services keep them (models, logs, tables) it packs tighter than level 3 in
/// half of the time, because the chunks are about 1 MiB and the higher level's larger tables do not pay off there. The
/// numbers are in `docs/benchmarks.md`.
pub const LEVEL: i32 = 1;

/// Bytes of each of the samples by which [`worthwhile`] decides.
const SAMPLE_BYTES: usize = 4096;
/// Bytes that [`hash_expanded`] expands at a time.
const STREAM_BYTES: usize = 128 << 10;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn failed(error: std::io::Error) -> Error {
    Error::io("zstd", error)
}

/// Runs `work` with this thread's compressor; a context holds about 1 MiB and is reused.
fn with_compressor<T>(
    work: impl FnOnce(&mut zstd::bulk::Compressor<'static>) -> std::io::Result<T>,
) -> Result<T> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(LEVEL).map_err(failed)?),
        };
        work(compressor).map_err(failed)
    })
}

/// Appends `data`, compressed, to `output`.
///
/// # Errors
/// `Exhausted` or `Internal` from zstd; there is no other.
pub fn append(data: &[u8], output: &mut Vec<u8>) -> Result<()> {
    output.reserve(bound(data.len()));
    // Behind what is there, into memory that nobody has to zero first.
    let mut rest = Cursor::new(std::mem::take(output));
    rest.set_position(rest.get_ref().len() as u64);
    let packed = with_compressor(|compressor| compressor.compress_to_buffer(data, &mut rest));
    *output = rest.into_inner();
    packed.map(drop)
}

/// Appends `data` as several frames, one for each `frame_bytes` of it, packed by up to `threads` threads. Frames behind one another expand to
/// what is behind one another, for any reader (RFC 8878, section 3); each says its length.
///
/// # Errors
/// As [`append`].
pub fn append_frames(data: &[u8], frame_bytes: usize, threads: usize, output: &mut Vec<u8>) -> Result<()> {
    // Nothing is a frame too.
    let parts = if data.is_empty() { vec![data] } else { data.chunks(frame_bytes.max(1)).collect() };
    if threads < 2 || parts.len() < 2 {
        return parts.into_iter().try_for_each(|part| append(part, output));
    }
    let parts: Vec<(&[u8], Mutex<Vec<u8>>)> =
        parts.into_iter().map(|part| (part, Mutex::default())).collect();
    threads::for_each("pack", threads, &parts, |(part, packed)| {
        append(part, &mut packed.lock().unwrap_or_else(PoisonError::into_inner))
    })?;
    for (_, packed) in parts {
        output.extend_from_slice(&packed.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(())
}

/// A frame: where it lies, and where what it expands to does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// In what is packed.
    pub packed: Range<usize>,
    /// In what is not.
    pub plain: Range<usize>,
}

/// The frames of `data`, when each says its length and all together are at most `limit`; otherwise `None`. What they say is not yet so:
/// [`decompress_into`] sees that.
pub fn frames(data: &[u8], limit: usize) -> Option<Vec<Frame>> {
    let (mut frames, mut packed, mut plain) = (Vec::new(), 0, 0usize);
    while packed < data.len() {
        let rest = &data[packed..];
        let packed_bytes =
            zstd::zstd_safe::find_frame_compressed_size(rest).ok().filter(|bytes| *bytes > 0)?;
        let frame = rest.get(..packed_bytes)?;
        let length = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten()?;
        let end = plain.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= limit)?;
        frames.push(Frame { packed: packed..packed + packed_bytes, plain: plain..end });
        (packed, plain) = (packed + packed_bytes, end);
    }
    Some(frames)
}

/// The most bytes that [`append_frames`] adds for so many.
pub fn bound_frames(bytes: usize, frame_bytes: usize) -> usize {
    let (whole, rest) = (bytes / frame_bytes.max(1), bytes % frame_bytes.max(1));
    whole * bound(frame_bytes) + bound(rest)
}

/// The most bytes that [`append`] adds for so many.
pub fn bound(bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(bytes)
}

/// Whether compressing `data` is worth the time, now and at each restore: of three samples, from its start, middle and end, one shrinks by a
/// tenth or more.
pub fn worthwhile(data: &[u8]) -> bool {
    if data.len() < 4 * SAMPLE_BYTES {
        return true;
    }
    let mut buffer = [0; SAMPLE_BYTES + 512];
    [0, data.len() / 2, data.len() - SAMPLE_BYTES].into_iter().any(|start| {
        let sample = &data[start..start + SAMPLE_BYTES];
        let length = with_compressor(|compressor| compressor.compress_to_buffer(sample, &mut buffer));
        length.is_ok_and(|length| length < SAMPLE_BYTES - SAMPLE_BYTES / 10)
    })
}

/// Expands `data` to exactly `length` bytes.
///
/// # Errors
/// `Corrupt` when it is not zstd or gives another length.
pub fn decompress(data: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    decompress_into(data, length, &mut output)?;
    Ok(output)
}

/// Expands `data` to exactly `length` bytes in `output`, whose old contents go and whose memory is used again.
///
/// # Errors
/// `Corrupt` when it is not zstd or gives another length; then `output` is empty.
pub fn decompress_into(data: &[u8], length: usize, output: &mut Vec<u8>) -> Result<()> {
    output.clear();
    decompress_behind(data, length, output)
}

/// Expands `data` to exactly `length` bytes behind what is in `output`.
///
/// # Errors
/// `Corrupt` when it is not zstd or gives another length; then `output` is as it was.
pub fn decompress_behind(data: &[u8], length: usize, output: &mut Vec<u8>) -> Result<()> {
    check_possible(data, length)?;
    let start = output.len();
    // Not `resize`: zstd writes every byte that is used, so zeroing them first would be work for nothing.
    output.reserve_exact(length);
    let mut rest = Cursor::new(std::mem::take(output));
    rest.set_position(start as u64);
    let written = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
        };
        decompressor
            .decompress_to_buffer(data, &mut rest)
            .map_err(|error| malformed(format!("zstd: {error}")))
    });
    *output = rest.into_inner();
    if written.as_ref().is_ok_and(|written| *written == length) {
        return Ok(());
    }
    output.truncate(start);
    let written = written?;
    Err(malformed(format!("zstd: {} where {length} were announced", counted(written, "byte", "bytes"))))
}

/// The SHA-256 of what `data` expands to, which is exactly `length` bytes and never in memory as a whole.
///
/// # Errors
/// `Corrupt` when it is not zstd or gives another length.
pub fn hash_expanded(data: &[u8], length: usize) -> Result<[u8; 32]> {
    check_possible(data, length)?;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(failed)?;
    let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0; STREAM_BYTES], 0usize);
    loop {
        let count = decoder.read(&mut buffer).map_err(|error| malformed(format!("zstd: {error}")))?;
        total = total.saturating_add(count);
        if total > length || (count == 0 && total < length) {
            return Err(malformed(format!("zstd: not the {length} bytes that were announced")));
        }
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..count]);
    }
}

/// A frame of n bytes expands to at most 2 MiB for every 3 bytes (a block of repeats): whoever claims more lies, and is
/// not given the memory.
fn check_possible(data: &[u8], length: usize) -> Result<()> {
    if length > data.len().saturating_mul(700_000).max(1 << 16) {
        return Err(malformed(format!("{} cannot expand to {length}", counted(data.len(), "byte", "bytes"))));
    }
    Ok(())
}

/// Expands `data` of unknown length, at most `limit` bytes.
///
/// # Errors
/// `Corrupt` when it is not zstd or longer.
pub fn decompress_unknown(data: &[u8], limit: usize) -> Result<Vec<u8>> {
    let bad = |error: std::io::Error| malformed(format!("zstd: {error}"));
    // What we packed says its length; others need not, and may lie.
    if let Some(length) = frames(data, limit).and_then(|frames| Some(frames.last()?.plain.end))
        && let Ok(output) = decompress(data, length)
    {
        return Ok(output);
    }
    let mut output = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(failed)?;
    let limit_bytes = u64::try_from(limit).unwrap_or(u64::MAX);
    decoder.take(limit_bytes.saturating_add(1)).read_to_end(&mut output).map_err(bad)?;
    if output.len() > limit {
        return Err(malformed(format!("zstd: more than {limit} bytes")));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn what_is_compressed_expands(data: Vec<u8>) {
            let mut packed = vec![9];
            append(&data, &mut packed).unwrap();
            prop_assert_eq!(packed[0], 9);
            prop_assert_eq!(&decompress(&packed[1..], data.len()).unwrap(), &data);
            prop_assert_eq!(&decompress_unknown(&packed[1..], data.len()).unwrap(), &data);
            prop_assert_eq!(hash_expanded(&packed[1..], data.len()).unwrap(), crate::id::BlobId::of(&data).0);
            prop_assert!(decompress(&packed[1..], data.len() + 1).is_err());
            prop_assert!(hash_expanded(&packed[1..], data.len() + 1).is_err());
            if let Some(less) = data.len().checked_sub(1) {
                prop_assert!(decompress(&packed[1..], less).is_err());
                prop_assert!(hash_expanded(&packed[1..], less).is_err());
                prop_assert!(decompress_unknown(&packed[1..], less).is_err());
            }
        }

        #[test]
        fn frames_expand_to_what_is_behind_one_another(data: Vec<u8>, frame_bytes in 1usize..40, threads in 1usize..4) {
            let mut packed = Vec::new();
            append_frames(&data, frame_bytes, threads, &mut packed).unwrap();
            prop_assert!(packed.len() <= bound_frames(data.len(), frame_bytes));
            prop_assert_eq!(&decompress_unknown(&packed, data.len()).unwrap(), &data);
            let found = frames(&packed, data.len()).unwrap();
            prop_assert_eq!(found.len(), data.len().div_ceil(frame_bytes).max(1));
            for Frame { packed: at, plain } in found {
                prop_assert_eq!(&decompress(&packed[at], plain.len()).unwrap(), &data[plain]);
            }
            if let Some(less) = data.len().checked_sub(1) {
                prop_assert_eq!(frames(&packed, less), None);
                prop_assert!(decompress_unknown(&packed, less).is_err());
                prop_assert_eq!(frames(&packed[..packed.len() - 1], data.len()), None);
            }
        }

        #[test]
        fn other_bytes_never_panic(data: Vec<u8>, length in 0usize..100_000) {
            decompress(&data, length).ok();
            hash_expanded(&data, length).ok();
            decompress_unknown(&data, 100_000).ok();
            frames(&data, length);
        }
    }

    #[test]
    fn an_absurd_length_is_not_allocated() {
        assert!(decompress(b"\x28\xb5\x2f\xfd", usize::MAX / 2).is_err());
    }

    #[test]
    fn noise_is_not_worth_it_and_text_is() {
        assert!(!worthwhile(&noise(1 << 20)));
        assert!(worthwhile("line of a log\n".repeat(10_000).as_bytes()));
    }

    /// Of so many different bytes each needs log2(symbols) of eight bits.
    #[test]
    fn a_tenth_is_worth_it_and_less_is_not() {
        let of = |symbols: u16| -> Vec<u8> {
            let pairs = noise(1 << 17);
            pairs
                .as_chunks()
                .0
                .iter()
                .map(|pair| (u16::from_le_bytes(*pair) % symbols).to_le_bytes()[0])
                .collect()
        };
        assert!(!worthwhile(&of(168)), "7.6 % less");
        assert!(worthwhile(&of(100)), "16.9 % less");
    }

    #[test]
    fn a_reused_buffer_keeps_nothing_of_what_was_in_it() {
        let (mut packed, mut output) = (Vec::new(), b"a longer text from before".to_vec());
        append(b"short", &mut packed).unwrap();
        decompress_into(&packed, 5, &mut output).unwrap();
        assert_eq!(output, b"short");
        let mut behind = b"what stays, ".to_vec();
        decompress_behind(&packed, 5, &mut behind).unwrap();
        assert_eq!(behind, b"what stays, short");
        assert!(decompress_behind(&packed, 4, &mut behind).is_err());
        assert_eq!(behind, b"what stays, short");
        assert!(decompress_into(&packed, 6, &mut output).is_err());
        assert!(output.is_empty());
    }

    #[test]
    fn the_longest_run_still_expands() {
        let zeros = vec![0; 64 << 20];
        let mut packed = Vec::new();
        append(&zeros, &mut packed).unwrap();
        assert_eq!(decompress(&packed, zeros.len()).unwrap(), zeros);
    }
}
