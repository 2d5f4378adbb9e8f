//! The seeded models: four files of normally distributed weights, with a checksum beside each.

use std::path::Path;

use retoma_core::Result;

use super::{FEATURES, MODEL_VERSION, SeedOptions, SeedPart, SeedProgress, Steps};
use crate::files::write_atomic;
use crate::model::{MODEL_HEADER_BYTES, Model, sidecar_line, sidecar_of};
use crate::random::Random;

/// The model that the seeded configuration serves.
pub(super) const SERVED: &str = "match-winner.f32";
const NAMES: [&str; 4] = [SERVED, "total-goals.f32", "both-score.f32", "odds-movement.f32"];

/// Writes the models into `folder`; gives their size in bytes.
pub(super) fn write(
    folder: &Path,
    options: &SeedOptions,
    progress: &(dyn Fn(SeedProgress) + Sync),
) -> Result<u64> {
    let width = FEATURES as usize + 1;
    let each = usize::try_from(options.model_bytes).unwrap_or(usize::MAX) / NAMES.len();
    let heads = (each.saturating_sub(MODEL_HEADER_BYTES) / (4 * width)).max(1);
    let mut steps = Steps::new(progress, SeedPart::Models, options.model_bytes);
    let mut written = 0;
    for (number, name) in (0..).zip(NAMES) {
        let mut random = Random::part(options.seed, 100 + number);
        // As training leaves them: small, around zero.
        let weights = (0..heads * width).map(|_| random.normal() * 0.25).collect();
        let bytes = Model::new(MODEL_VERSION, FEATURES, weights)?.encode();
        let path = folder.join(name);
        write_atomic(&path, &bytes)?;
        write_atomic(&sidecar_of(&path), sidecar_line(name, &bytes).as_bytes())?;
        written += bytes.len() as u64;
        steps.at(written);
    }
    Ok(written)
}
