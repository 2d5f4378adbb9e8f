//! The model file and the checked copy of it in memory.
//!
//! A file `NAME.f32` is a header of [`MODEL_HEADER_BYTES`] bytes and then little-endian float32 weights:
//! magic `MARABET\0`, format (u32, 1), version of the model (u32), features (u32), heads (u32), eight zero bytes. Each
//! head is one logistic regression: a weight for each feature, then the bias. Beside it stands `NAME.f32.sha256` in
//! the format of `sha256sum`, so that `sha256sum -c` in the folder checks all models.
//!
//! Invariant: a [`Model`] in memory came from bytes whose SHA-256 was the one of the sidecar.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use crate::files::FileState;
use crate::random::Random;

/// Length of a model file's header, in bytes.
pub const MODEL_HEADER_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"MARABET\0";
const FORMAT: u32 = 1;
/// A larger file is refused before it is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A table of logistic regressions over the same features.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    version: u32,
    features: usize,
    /// `heads × (features + 1)` finite numbers.
    weights: Vec<f32>,
}

impl Model {
    /// A model from its weights, head by head, each with its bias last. `weights` must be a positive multiple of
    /// `features + 1` and finite.
    pub fn new(version: u32, features: u32, weights: Vec<f32>) -> Result<Self> {
        let features = features as usize;
        if features == 0 || weights.is_empty() || !weights.len().is_multiple_of(features + 1) {
            return Err(damaged(format!("{} weights don't fit {features} features", weights.len())));
        }
        if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(damaged(format!("weight {index} is not a finite number")));
        }
        Ok(Self { version, features, weights })
    }

    /// The version of the model, as its trainer numbered it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How many features a prediction takes.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many logistic regressions the table holds.
    pub fn heads(&self) -> usize {
        self.weights.len() / (self.features + 1)
    }

    /// The content of the model's file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MODEL_HEADER_BYTES + self.weights.len() * 4);
        bytes.extend_from_slice(MAGIC);
        for number in [FORMAT, self.version, word(self.features), word(self.heads()), 0, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend(self.weights.iter().flat_map(|weight| weight.to_le_bytes()));
        bytes
    }

    /// Reads a model file's content; never trusts it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((header, body)) = bytes.split_at_checked(MODEL_HEADER_BYTES) else {
            return Err(damaged(format!("the file has {} bytes, less than its header", bytes.len())));
        };
        let word_at = |index: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&header[8 + index * 4..12 + index * 4]);
            u32::from_le_bytes(word)
        };
        if &header[..8] != MAGIC || word_at(4) != 0 || word_at(5) != 0 {
            return Err(damaged("the file is not a model".to_owned()));
        }
        if word_at(0) != FORMAT {
            return Err(damaged(format!("format {} is unknown", word_at(0))));
        }
        let (features, heads) = (word_at(2), word_at(3));
        let expected = (u64::from(features) + 1).checked_mul(u64::from(heads)).and_then(|n| n.checked_mul(4));
        if expected != Some(body.len() as u64) {
            return Err(damaged(format!("{} bytes of weights don't fit {features} × {heads}", body.len())));
        }
        let (weights, _) = body.as_chunks();
        Self::new(word_at(1), features, weights.iter().map(|weight| f32::from_le_bytes(*weight)).collect())
    }

    /// The probability, 0 to 1, that the model gives for `features`; `None` when there are too few or too many.
    pub fn score(&self, features: &[f32]) -> Option<f64> {
        if features.len() != self.features {
            return None;
        }
        let width = self.features + 1;
        let head = self.head_for(features) * width;
        let (weights, bias) = self.weights[head..head + width].split_at(self.features);
        let products =
            weights.iter().zip(features).map(|(weight, feature)| f64::from(*weight) * f64::from(*feature));
        let logit = products.sum::<f64>() + f64::from(bias[0]);
        Some(1.0 / (1.0 + (-logit).exp()))
    }

    /// Which head is asked: by a hash of the features, as a hashed table of segments would.
    fn head_for(&self, features: &[f32]) -> usize {
        let hash =
            features.iter().fold(0, |hash, feature| Random::new(hash ^ u64::from(feature.to_bits())).next());
        usize::try_from(hash % self.heads() as u64).unwrap_or(0)
    }
}

/// A count that [`Model::new`] or [`Model::decode`] got as a `u32`, or a quotient of it.
fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The path of the checksum of the model at `path`.
pub(crate) fn sidecar_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// The line that the sidecar of a model file named `name` with this content holds.
pub(crate) fn sidecar_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", hex(&Sha256::digest(bytes)))
}

/// The model that is served: kept in memory, read again when its file changed.
#[derive(Debug)]
pub(crate) struct ModelSlot {
    path: PathBuf,
    features: usize,
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    /// What model and sidecar were when they were last read; `None` before the first time.
    seen: Option<[Option<FileState>; 2]>,
    /// The last model that was right.
    model: Option<Arc<Model>>,
    /// What is wrong with the files as they were when seen.
    problem: Option<String>,
}

impl ModelSlot {
    /// A slot for the file at `path`, which must be a model of `features` features. Reads nothing yet.
    pub(crate) fn new(path: PathBuf, features: u32) -> Self {
        Self { path, features: features as usize, state: Mutex::default() }
    }

    /// The model to predict with: the last one that was right, also when its file has been damaged since.
    pub(crate) fn model(&self) -> Result<Arc<Model>> {
        self.look(|state| match &state.model {
            Some(model) => Ok(Arc::clone(model)),
            None => Err(self.problem(state)),
        })
    }

    /// The model, if its file is right as it is now. Costs two `stat` calls as long as nothing changed.
    pub(crate) fn check(&self) -> Result<Arc<Model>> {
        self.look(|state| match (&state.model, &state.problem) {
            (Some(model), None) => Ok(Arc::clone(model)),
            _ => Err(self.problem(state)),
        })
    }

    fn look<T>(&self, then: impl FnOnce(&SlotState) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: a write meanwhile changes it, and we read again next time.
        let now = [FileState::at(&self.path), FileState::at(&sidecar_of(&self.path))];
        if state.seen != Some(now) {
            match read_checked(&self.path, self.features) {
                Ok(model) => (state.model, state.problem) = (Some(Arc::new(model)), None),
                Err(error) => state.problem = Some(error.to_string()),
            }
            state.seen = Some(now);
        }
        then(&state)
    }

    fn problem(&self, state: &SlotState) -> Error {
        let reason = state.problem.clone().unwrap_or_else(|| "not read yet".to_owned());
        damaged(format!("`{}`: {reason}", self.path.display()))
            .with_hint("restore the model and its checksum")
    }
}

/// Reads a model, compares its checksum with the sidecar's and its features with what the service expects.
fn read_checked(path: &Path, features: usize) -> Result<Model> {
    let expected = read_sidecar(&sidecar_of(path))?;
    let bytes = read_bounded(path)?;
    let found = hex(&Sha256::digest(&bytes));
    if found != expected {
        return Err(damaged(format!("its SHA-256 is {found}, the checksum file says {expected}")));
    }
    let model = Model::decode(&bytes)?;
    if model.features() != features {
        return Err(damaged(format!("it takes {} features, the service {features}", model.features())));
    }
    Ok(model)
}

/// Checks every model in `folder` against its sidecar, without keeping any; at least one must be there.
pub(crate) fn check_folder(folder: &Path) -> Result<()> {
    let io = |error| Error::io(folder.display(), error);
    let mut models = 0_u32;
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "f32") {
            models += 1;
            let expected = read_sidecar(&sidecar_of(&path))?;
            if hex(&Sha256::digest(read_bounded(&path)?)) != expected {
                return Err(damaged(format!("`{}`: its SHA-256 is not the checksum file's", path.display())));
            }
        }
    }
    if models == 0 { Err(damaged(format!("`{}`: no model is there", folder.display()))) } else { Ok(()) }
}

fn read_sidecar(path: &Path) -> Result<String> {
    let text =
        fs::read(path).map_err(|error| damaged(format!("checksum file `{}`: {error}", path.display())))?;
    let sum = text.get(..64).unwrap_or_default();
    if sum.len() == 64 && sum.iter().all(u8::is_ascii_hexdigit) {
        return Ok(String::from_utf8_lossy(sum).to_ascii_lowercase());
    }
    Err(damaged(format!("checksum file `{}` does not start with a SHA-256", path.display())))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let io = |error: std::io::Error| damaged(error.to_string());
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > MAX_FILE_BYTES {
        return Err(damaged(format!(
            "{size} bytes are more than the {MAX_FILE_BYTES} that a model may have"
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, codes::SAMPLE_MODEL, message)
}

#[cfg(test)]
mod tests;
