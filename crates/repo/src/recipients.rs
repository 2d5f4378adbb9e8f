//! The lane `recipients/`: for each key file whose password nobody types, how that password is had. `docs/keys.md`.
//!
//! The key file is what opens, so it is the commit: a recipient without its key file is nothing, and is written first and removed
//! last. A key file without a recipient is one whose password somebody knows.

use crate::crypto;
use crate::format::key::Origin;
use crate::format::recipient::{LIMIT_BYTES, Recipient, Sealed, ShareSet, Wrapping};
use crate::id::{KeyId, RecipientId};
use crate::repository::{Folder, Repository, list_ids};
use crate::store::{BlockingStore, PutMode};
use bytes::Bytes;
use retoma_core::share::SetId;
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use zeroize::Zeroizing;

/// More are not read: the keys that are tried are fewer.
const MOST: usize = 200;

/// What the lane holds. It is read without a key, so whoever may write the store could have written it.
#[derive(Debug, Default)]
pub struct Known {
    /// What could be read.
    pub recipients: Vec<(RecipientId, Recipient)>,
    /// What could not; the others count nevertheless.
    pub damaged: Vec<Error>,
}

impl Known {
    /// How the password of this key is wrapped.
    pub fn of(&self, key: KeyId) -> Option<&Wrapping> {
        self.recipients.iter().find(|(_, it)| it.key == key).map(|(_, it)| &it.wrapping)
    }

    /// Everything about keys that are split.
    pub fn share_sets(&self) -> impl Iterator<Item = &ShareSet> {
        self.recipients.iter().filter_map(|(_, it)| match &it.wrapping {
            Wrapping::Shares(set) => Some(set),
            _ => None,
        })
    }

    /// What is known of this set.
    pub fn share_set(&self, set: SetId) -> Option<&ShareSet> {
        self.share_sets().find(|known| known.set == set)
    }

    /// What transit engines sealed.
    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.recipients.iter().filter_map(|(_, it)| match &it.wrapping {
            Wrapping::Transit(sealed) => Some(sealed),
            _ => None,
        })
    }
}

/// A new random password of 256 bits, as 64 hexadecimal digits.
///
/// # Errors
/// The system has no random numbers.
pub fn new_password() -> Result<Secret<String>> {
    let mut random = Zeroizing::new([0; 32]);
    crypto::random(&mut *random)?;
    Ok(Secret::new(crate::id::hex(&random)))
}

/// Reads the lane, without a key.
///
/// # Errors
/// What the store says when it lists or reads; what is damaged is in the answer.
pub fn read(store: &BlockingStore) -> Result<Known> {
    let mut known = Known::default();
    for (id, meta) in list_ids(store, Folder::Recipients)?.into_iter().take(MOST) {
        match load(store, RecipientId(id), meta.size_bytes) {
            Ok(recipient) => known.recipients.push((RecipientId(id), recipient)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                known.damaged.push(error);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    known.recipients.sort_by_key(|(id, it)| (it.created, *id));
    Ok(known)
}

/// Reads one object of the lane.
///
/// # Errors
/// `NotFound`; `Corrupt` and `Unsupported` as [`Recipient::from_json`]; what the store says.
pub fn read_one(store: &BlockingStore, id: RecipientId) -> Result<Recipient> {
    let meta = store.head(&Folder::Recipients.key(&id.to_hex())?)?;
    load(store, id, meta.size_bytes)
}

fn load(store: &BlockingStore, id: RecipientId, size_bytes: u64) -> Result<Recipient> {
    let load = || {
        if size_bytes > LIMIT_BYTES {
            return Err(crate::format::malformed(format!("{size_bytes} bytes are too many for a recipient")));
        }
        let json = store.get(&Folder::Recipients.key(&id.to_hex())?)?;
        if RecipientId::of(&json) != id {
            return Err(Error::new(
                ErrorKind::Corrupt,
                codes::HASH_MISMATCH,
                "the contents do not fit the name",
            ));
        }
        Recipient::from_json(&json)
    };
    load().with_context(|| format!("read recipients/{id}"))
}

/// Adds a key file that opens `repository` with `password`, one of [`new_password`]'s, and what tells how that password is had. The recipient is durable
/// before the key file: killed in between, there is a recipient of nothing.
///
/// # Errors
/// `Exhausted` with `R0219` for one key too many; what the store says.
pub fn add(repository: &Repository, password: &Secret<String>, wrapping: Wrapping) -> Result<KeyId> {
    let (key, file) = repository.new_key(password, Origin::Random)?;
    let json = Recipient { key, created: crate::host::now(), wrapping }.to_json()?;
    let id = RecipientId::of(&json);
    let name = Folder::Recipients.key(&id.to_hex())?;
    repository.store().put(&name, Bytes::from(json), PutMode::Create).context("write a recipient")?;
    repository.save_key(key, file)?;
    Ok(key)
}

/// Removes what tells about `key`, whose file must be gone.
///
/// # Errors
/// What the store says.
pub(crate) fn forget(store: &BlockingStore, key: KeyId) -> Result<()> {
    for (id, recipient) in read(store)?.recipients {
        if recipient.key == key {
            store.delete(&Folder::Recipients.key(&id.to_hex())?).context("remove a recipient")?;
        }
    }
    Ok(())
}
