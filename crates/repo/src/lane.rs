//! Sealing of our own lanes: the objects beside the ones that restic knows (`evidence/`, `wal/`).
//!
//! A plaintext of more than 4 MiB is packed as several frames of zstd, behind one another.
//!
//! A sealed object is `1 (version) ‖ nonce (12) ‖ AES-256-GCM(zstd(plaintext)) ‖ tag (16)`. The key is the master key's
//! subkey `lane/<folder>/1`. The associated data are the version byte and the object's whole name, so that an object
//! that was copied to another name does not open. Nonces are random: NIST SP 800-38D, 8.3, allows 2³² objects under one
//! key, which a lane that gets one object every 250 ms reaches after 34 years.
//!
//! Names and sizes of objects are not hidden. Sealing says that a holder of the repository's key wrote an object, not
//! which one, and not that no object was taken away.

use crate::compress::{self, Frame};
use crate::crypto::{self, MasterKey};
use crate::format::malformed;
use crate::memory;
use crate::store::Key;
use crate::threads;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::cell::RefCell;
use zeroize::Zeroize as _;

/// The first byte of every object.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Where the ciphertext starts.
const HEADER_BYTES: usize = 1 + NONCE_BYTES;
/// What is longer than this is several frames of zstd, so that all cores pack and expand it. Level 1 looks back less far.
const FRAME_BYTES: usize = 4 << 20;

/// An object that was opened, still packed.
#[derive(Debug)]
pub struct Opened {
    packed: Vec<u8>,
    /// None where it was sealed by somebody who did not say lengths.
    frames: Option<Vec<Frame>>,
    limit_bytes: usize,
}

impl Opened {
    /// The plaintext.
    ///
    /// # Errors
    /// `Corrupt` with `R0205` when it cannot be expanded within the lane's limit.
    pub fn into_plaintext(self) -> Result<Vec<u8>> {
        compress::decompress_unknown(&self.packed, self.limit_bytes)
    }

    /// The length of the plaintext, in bytes; `None` where only expanding tells.
    pub fn length_bytes(&self) -> Option<usize> {
        self.frames.as_ref().map(|frames| frames.last().map_or(0, |last| last.plain.end))
    }

    /// Gives `take` the first part of the plaintext, then the others, on up to `threads` threads: each with its offset. Never all in memory,
    /// where lengths are known.
    ///
    /// # Errors
    /// As [`Opened::into_plaintext`]; what `take` says, after which no further part is begun.
    pub fn in_parts(self, threads: usize, take: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        let Some(frames) = &self.frames else { return take(0, &self.into_plaintext()?) };
        let part = |frame: &Frame| {
            PART.with_borrow_mut(|part| {
                compress::decompress_into(&self.packed[frame.packed.clone()], frame.plain.len(), part)?;
                take(frame.plain.start, part)
            })
        };
        let Some((first, others)) = frames.split_first() else { return take(0, &[]) };
        part(first)?;
        threads::for_each("expand", threads, others, part)
    }
}

thread_local! {
    /// For a frame that is expanded, used again for each.
    static PART: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Seals and opens the objects of one lane. Cheap to keep; does no I/O.
#[derive(Clone)]
pub struct Lane {
    cipher: Aes256Gcm,
    folder: String,
    limit_bytes: usize,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Lane {
    /// The lane of the objects below `folder`. No plaintext may be larger than `limit_bytes`, sealed or opened.
    pub fn new(key: &MasterKey, folder: &str, limit_bytes: usize) -> Self {
        let mut subkey = key.subkey(&format!("lane/{folder}/1"));
        let cipher = Aes256Gcm::new(&subkey.into());
        subkey.zeroize();
        Self { cipher, folder: folder.to_owned(), limit_bytes }
    }

    /// As [`Lane::seal_on`], on this thread.
    ///
    /// # Errors
    /// As [`Lane::seal_on`].
    pub fn seal(&self, name: &Key, plaintext: &[u8]) -> Result<Vec<u8>> {
        self.seal_on(1, name, plaintext)
    }

    /// Compresses, on up to `threads` threads, and seals `plaintext` for the object `name`.
    ///
    /// # Errors
    /// `Exhausted` with `R0205` when it is larger than the lane allows; `Unavailable` without random numbers.
    pub fn seal_on(&self, threads: usize, name: &Key, plaintext: &[u8]) -> Result<Vec<u8>> {
        if plaintext.len() > self.limit_bytes {
            let message = format!("`{name}` would hold more than {} bytes", self.limit_bytes);
            return Err(Error::new(ErrorKind::Exhausted, codes::MALFORMED, message));
        }
        let mut nonce = [0; NONCE_BYTES];
        crypto::random(&mut nonce)?;
        // Compressed, sealed and sent in one buffer.
        let room = HEADER_BYTES + compress::bound_frames(plaintext.len(), FRAME_BYTES) + TAG_BYTES;
        let mut sealed = memory::buffer(room);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        compress::append_frames(plaintext, FRAME_BYTES, threads, &mut sealed)?;
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                &associated(name),
                (&mut sealed[HEADER_BYTES..]).into(),
            )
            .map_err(|_| Error::internal(format!("`{name}` is too long for AES-GCM")))?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`Lane::seal`] made for the same `name`.
    ///
    /// # Errors
    /// `Unsupported` with `R0206` for a newer version; `Corrupt` with `R0203` when it was changed, moved or sealed with
    /// another key, with `R0205` when its contents cannot be expanded within the lane's limit.
    pub fn open(&self, name: &Key, sealed: &[u8]) -> Result<Vec<u8>> {
        self.open_packed(name, sealed.to_vec())?
            .into_plaintext()
            .map_err(|error| malformed(format!("`{name}`: {}", error.message())))
    }

    /// As [`Lane::open`], in the memory of what is sealed, and not yet expanded.
    ///
    /// # Errors
    /// As [`Lane::open`], but for the contents.
    pub fn open_packed(&self, name: &Key, mut sealed: Vec<u8>) -> Result<Opened> {
        match sealed.first() {
            Some(&VERSION) if sealed.len() >= HEADER_BYTES + TAG_BYTES => {}
            Some(&version) if version > VERSION => {
                let message = format!("`{name}` has version {version}; this program knows {VERSION}");
                return Err(Error::new(ErrorKind::Unsupported, codes::VERSION_TOO_NEW, message)
                    .with_hint("use a newer version of Retoma; if there is none, the object is damaged"));
            }
            _ => return Err(not_authentic(name)),
        }
        let (mut nonce, mut tag) = ([0; NONCE_BYTES], [0; TAG_BYTES]);
        tag.copy_from_slice(&sealed.split_off(sealed.len() - TAG_BYTES));
        nonce.copy_from_slice(&sealed[1..HEADER_BYTES]);
        sealed.drain(..HEADER_BYTES);
        self.cipher
            .decrypt_inout_detached(
                &Nonce::from(nonce),
                &associated(name),
                sealed.as_mut_slice().into(),
                &Tag::from(tag),
            )
            .map_err(|_| not_authentic(name))?;
        let frames = compress::frames(&sealed, self.limit_bytes);
        Ok(Opened { packed: sealed, frames, limit_bytes: self.limit_bytes })
    }
}

fn associated(name: &Key) -> Vec<u8> {
    [&[VERSION], name.as_str().as_bytes()].concat()
}

fn not_authentic(name: &Key) -> Error {
    let message = format!("`{name}` was changed, moved, cut or sealed with another key");
    let mut parts = name.as_str().split('/');
    let hint = match (parts.next(), parts.next()) {
        (Some("wal"), Some(component)) => format!(
            "run `retoma wal check --component {component}`: it names what cannot be recovered; then make a new `retoma backup {component}`"
        ),
        (Some("evidence"), _) => "run `retoma evidence list`: it names every damaged record".to_owned(),
        _ => "put this file back from another copy of the repository".to_owned(),
    };
    Error::new(ErrorKind::Corrupt, codes::NOT_AUTHENTIC, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT_BYTES: usize = 1 << 20;

    fn lane(folder: &str) -> Lane {
        Lane::new(&MasterKey::from_bytes(&[7; 64]), folder, LIMIT_BYTES)
    }

    fn name(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    proptest! {
        #[test]
        fn sealed_objects_open(plaintext: Vec<u8>) {
            let sealed = lane("wal").seal(&name("wal/a"), &plaintext).unwrap();
            prop_assert_eq!(lane("wal").open(&name("wal/a"), &sealed).unwrap(), plaintext);
        }

        #[test]
        fn every_flipped_bit_and_every_cut_is_found(plaintext in prop::collection::vec(any::<u8>(), 0..40)) {
            let lane = lane("wal");
            let sealed = lane.seal(&name("wal/a"), &plaintext).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let code = lane.open(&name("wal/a"), &damaged).unwrap_err().code();
                prop_assert!(code == codes::NOT_AUTHENTIC || (bit < 8 && code == codes::VERSION_TOO_NEW));
            }
            for length in 0..sealed.len() {
                let code = lane.open(&name("wal/a"), &sealed[..length]).unwrap_err().code();
                prop_assert_eq!(code, codes::NOT_AUTHENTIC);
            }
        }

        #[test]
        fn other_bytes_never_open(bytes: Vec<u8>) {
            prop_assert!(lane("wal").open(&name("wal/a"), &bytes).is_err());
        }
    }

    #[test]
    fn an_object_opens_only_at_its_name_in_its_lane_with_its_key() {
        let sealed = lane("wal").seal(&name("wal/a"), b"x").unwrap();
        let other_key = Lane::new(&MasterKey::from_bytes(&[8; 64]), "wal", LIMIT_BYTES);
        for result in [
            lane("wal").open(&name("wal/b"), &sealed),
            lane("evidence").open(&name("wal/a"), &sealed),
            other_key.open(&name("wal/a"), &sealed),
        ] {
            assert_eq!(result.unwrap_err().code(), codes::NOT_AUTHENTIC);
        }
    }

    #[test]
    fn what_is_longer_than_a_frame_comes_in_parts_the_first_one_first() {
        let lane = Lane::new(&MasterKey::from_bytes(&[7; 64]), "wal", 4 * FRAME_BYTES);
        let plaintext: Vec<u8> = (0..3 * FRAME_BYTES + 5).map(|at| (at / 1000 % 251) as u8).collect();
        for threads in [1, 3] {
            let sealed = lane.seal_on(threads, &name("wal/a"), &plaintext).unwrap();
            assert_eq!(lane.open(&name("wal/a"), &sealed).unwrap(), plaintext);
            let opened = lane.open_packed(&name("wal/a"), sealed).unwrap();
            assert_eq!(opened.length_bytes(), Some(plaintext.len()));
            let parts = std::sync::Mutex::new(Vec::new());
            let take = |at: usize, part: &[u8]| {
                assert_eq!(part, &plaintext[at..at + part.len()]);
                parts.lock().unwrap().push((at, part.len()));
                Ok(())
            };
            opened.in_parts(threads, &take).unwrap();
            let mut parts = parts.into_inner().unwrap();
            assert_eq!(parts[0], (0, FRAME_BYTES));
            parts.sort_unstable();
            assert_eq!(
                parts.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
                [0, 1, 2, 3].map(|n| n * FRAME_BYTES)
            );
        }
        let sealed = lane.seal(&name("wal/a"), &plaintext).unwrap();
        let refused = lane
            .open_packed(&name("wal/a"), sealed)
            .unwrap()
            .in_parts(1, &|_, _| Err(Error::internal("full")));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Internal);
    }

    /// Lengths that nobody said, as other programs may seal: all at once then.
    #[test]
    fn without_lengths_there_is_one_part() {
        let packed = zstd::stream::encode_all(&b"a plaintext"[..], 1).unwrap();
        let opened = Opened { frames: compress::frames(&packed, 100), packed, limit_bytes: 100 };
        assert_eq!(opened.length_bytes(), None);
        let seen = std::sync::Mutex::new(Vec::new());
        opened
            .in_parts(2, &|at, part| {
                seen.lock().unwrap().push((at, part.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen.into_inner().unwrap(), [(0, b"a plaintext".to_vec())]);
    }

    #[test]
    fn nonces_differ() {
        let seal = || lane("wal").seal(&name("wal/a"), b"x").unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn the_limit_holds_for_both_ways() {
        let big = vec![0; LIMIT_BYTES + 1];
        assert_eq!(lane("wal").seal(&name("wal/a"), &big).unwrap_err().kind(), ErrorKind::Exhausted);
        let generous = Lane::new(&MasterKey::from_bytes(&[7; 64]), "wal", LIMIT_BYTES + 1);
        let sealed = generous.seal(&name("wal/a"), &big).unwrap();
        assert_eq!(lane("wal").open(&name("wal/a"), &sealed).unwrap_err().code(), codes::MALFORMED);
    }

    /// Sealed with Python's `cryptography` (HKDF, AES-GCM) and the `zstd` program, after the description above.
    #[test]
    fn the_format_stays_the_same() {
        let hex = "01000102030405060708090a0bc96103c8c311e5eaec439afdf9239428bb8f7dce78a4b79be0\
            bb2331298295c71c4d57d80eb0732a039a1fb0d99a901dbf5c114b6d82";
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let sealed: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        assert_eq!(
            lane("evidence").open(&name("evidence/ana/1"), &sealed).unwrap(),
            b"the format stays the same"
        );
    }
}
